"""Certificates for tests: an authority, and signers that it vouches for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
_PEM = serialization.Encoding.PEM


def name(text):
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem_key(key, passphrase=None):
    if passphrase is None:
        hidden = serialization.NoEncryption()
    else:
        hidden = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, hidden)


def _usage(**allowed):
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{each: allowed.get(each, False) for each in every})


def _begun(subject, issuer, key, days):
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )


@dataclass
class Authority:
    """A root certificate with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, subject="Test authority"):
        key = KEYS["es256"]()
        begun = _begun(subject, subject, key, (-1, 30))
        begun = begun.add_extension(x509.BasicConstraints(True, None), True)
        begun = begun.add_extension(_usage(key_cert_sign=True, crl_sign=True), True)
        return cls(key, begun.sign(key, hashes.SHA256()))

    @property
    def pem(self):
        return self.certificate.public_bytes(_PEM)

    def issue(self, key, subject="Test signer", days=(-1, 20)):
        """The chain of a signer, PEM."""
        begun = _begun(subject, "Test authority", key, days)
        begun = begun.add_extension(x509.BasicConstraints(False, None), True)
        begun = begun.add_extension(_usage(digital_signature=True), True)
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        begun = begun.add_extension(purpose, False).add_extension(above, False)
        return begun.sign(self.key, hashes.SHA256()).public_bytes(_PEM) + self.pem

    def write(self, folder: Path, algorithm="es256", **options):
        """Files with a certificate and its key."""
        key = KEYS[algorithm]()
        paths = folder / f"{algorithm}.cert.pem", folder / f"{algorithm}.key.pem"
        paths[0].write_bytes(self.issue(key, **options))
        paths[1].write_bytes(pem_key(key))
        return paths
