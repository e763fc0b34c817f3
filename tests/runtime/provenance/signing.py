"""Signed files for tests: authorities, certificates, time stamps, and media of every format."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from clip_maker import plain_frames, run_ffmpeg, write_clip
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
EMAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION
TIME_STAMPING = ExtendedKeyUsageOID.TIME_STAMPING
TYPES = {
    "avif": "image/avif",
    "heic": "image/heic",
    "jpg": "image/jpeg",
    "mov": "video/quicktime",
    "mp4": "video/mp4",
    "png": "image/png",
    "webp": "image/webp",
}
CURVES = {
    "es256": ec.SECP256R1,
    "es256k": ec.SECP256K1,  # not one of C2PA's
    "es384": ec.SECP384R1,
    "es512": ec.SECP521R1,
}
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Credentials:
    """A certificate and its key, as a signer of C2PA takes them."""

    certificate: x509.Certificate
    key: Key
    algorithm: str = "es256"

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def issue(
        self,
        organisation: str | None = "Example Cameras",
        name: str = "Camera 7",
        *,
        algorithm: str = "es256",
        purposes: Sequence[x509.ObjectIdentifier] = (EMAIL,),
        start_s: float = -3600,
        end_s: float = 24 * 3600,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Credentials:
        """A certificate for signing media, or time stamps, from this authority."""
        return _issued(self, organisation, name, algorithm, purposes, (start_s, end_s), extensions)


def authority(organisation: str = "Example Root") -> Credentials:
    """An authority that signed its own certificate."""
    return _issued(None, organisation, organisation, "es256", (), (-3600, 48 * 3600), ())


def sign_and_expire(root: Credentials, use: Callable[[Credentials], None]) -> Credentials:
    """Signs with a certificate that is out of date when this returns.

    Args:
        root: Issues it.
        use: Signs with it. Is called again with one that lasts longer, where a busy machine took
            so long that the first one was out of date before.
    """
    from c2pa import C2paError

    for life_s in (1.0, 5.0, 30.0):
        brief = root.issue("Brief", end_s=life_s)
        try:
            use(brief)
            break
        except C2paError.Signature as error:
            if "not valid at time of signing" not in str(error):
                raise
    else:
        raise AssertionError("no certificate lasted until it had signed")
    while datetime.now(UTC) <= brief.certificate.not_valid_after_utc + timedelta(seconds=1):
        time.sleep(0.1)
    return brief


def _issued(issuer, organisation, name, algorithm, purposes, validity_s, extensions):
    if algorithm.startswith("ps"):
        key: Key = rsa.generate_private_key(65537, 2048)
    elif algorithm == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key(CURVES[algorithm]())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organisation is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    subject = x509.Name(attributes)
    issuer_key = key if issuer is None else issuer.key
    is_authority = issuer is None
    uses = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("encipher_only", "decipher_only"),
        ),
        False,
    )
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        **uses,
    )
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=validity_s[0]))
        .not_valid_after(now + timedelta(seconds=validity_s[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if purposes:
        critical = TIME_STAMPING in purposes
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    digest = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Credentials(builder.sign(issuer_key, digest), key, algorithm)


def write_media(folder: Path, suffix: str) -> Path:
    """A tiny unsigned file of the format; films have sound."""
    path = folder / f"plain.{suffix}"
    if path.exists():
        return path
    if suffix in ("mp4", "mov"):
        silent = write_clip(folder / f"silent.{suffix}", plain_frames(5, size=(64, 64)))
        tone = ("-f", "lavfi", "-i", "sine=frequency=440:duration=0.2")
        run_ffmpeg("-i", silent, *tone, "-c:v", "copy", "-c:a", "aac", "-shortest", path)
        return path
    from PIL import Image

    if suffix == "heic":
        heif = pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
        heif.register_heif_opener()
    Image.fromarray(plain_frames(1, size=(64, 64))[0]).save(path)
    return path


def action(name: str = "created", kind: str | None = None, **more: Any) -> dict[str, Any]:
    """An action as a manifest has it; `kind` is a code of the IPTC vocabulary."""
    entry = {"action": f"c2pa.{name}", **more}
    return entry if kind is None else {**entry, "digitalSourceType": f"{IPTC}{kind}"}


def sign(
    source: Path,
    target: Path,
    credentials: Credentials,
    *,
    actions: Sequence[dict[str, Any]] = (action("created", "digitalCapture"),),
    ingredients: Sequence[tuple[dict[str, Any], Path]] = (),
    title: str = "A clip",
    generator: str = "Example Camera",
    assertions: Sequence[dict[str, Any]] = (),
    remote: str | None = None,
    embedded: bool = True,
    stamps: str | None = None,
    is_update: bool = False,
    settings: dict[str, Any] | None = None,
) -> bytes:
    """Signs a file.

    Args:
        ingredients: Each with its description and its file; a `label` in the description is for
            actions to refer to.
        remote: Address at which the manifest is said to be kept.
        embedded: Whether the manifest is written into the file.
        stamps: Address of a server of time stamps.
        is_update: Whether the file has a manifest, which the new one adds to without any edit.
        settings: Further settings of the library.

    Returns:
        The manifest store.
    """
    from c2pa import Builder, C2paBuilderIntent, C2paSignerInfo, Context, Signer

    described: dict[str, Any] = {
        "claim_generator_info": [{"name": generator, "version": "1.2"}],
        "title": title,
        "assertions": [*assertions],
    }
    if not is_update:
        listed = {"label": "c2pa.actions.v2", "data": {"actions": list(actions)}}
        described["assertions"].insert(0, listed)
    settings = {
        "version": 1,
        "verify": {"verify_after_sign": False},
        "builder": {"thumbnail": {"enabled": False}},
        **(settings or {}),
    }
    information = C2paSignerInfo(
        credentials.algorithm, credentials.pem, credentials.key_pem, stamps
    )
    media_type = TYPES[source.suffix[1:]]
    with (
        Context.from_dict(settings) as context,
        Builder(json.dumps(described), context) as builder,
        Signer.from_info(information) as signer,
        source.open("rb") as unsigned,
        target.open("w+b") as signed,
    ):
        if is_update:
            builder.set_intent(C2paBuilderIntent.UPDATE)
        if not embedded:
            builder.set_no_embed()
        if remote is not None:
            builder.set_remote_url(remote)
        for description, path in ingredients:
            with path.open("rb") as file:
                builder.add_ingredient(json.dumps(description), TYPES[path.suffix[1:]], file)
        return bytes(builder.sign(signer, media_type, unsigned, signed))


def changed(data: bytes, position: int) -> bytes:
    """The same bytes with one bit of one byte changed."""
    return data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :]


def texts(value: object) -> Iterator[str]:
    """All texts in a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in texts(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in texts(item))


@contextmanager
def served(answer) -> Iterator[str]:
    """A server on the loopback address; `answer(path, body)` gives what it replies."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = answer(self.path, self.rfile.read(int(self.headers["Content-Length"] or 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def time_stamps(folder: Path, stamper: Credentials, issuer: Credentials) -> Iterator[str]:
    """A server of time stamps (RFC 3161), which `openssl ts` issues."""
    files = {"stamper": stamper.pem, "key": stamper.key_pem, "issuer": issuer.pem, "serial": b"01"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "settings").write_text(
        "[stamps]\n"
        f"serial = {folder}/serial\nsigner_cert = {folder}/stamper\nsigner_key = {folder}/key\n"
        f"certs = {folder}/issuer\nsigner_digest = sha256\ndefault_policy = 1.2.3.4.1\n"
        "digests = sha256, sha384, sha512\ness_cert_id_alg = sha256\n"
    )

    def stamped(_: str, query: bytes) -> bytes:
        (folder / "query").write_bytes(query)
        command = ["openssl", "ts", "-reply", "-section", "stamps", "-config", folder / "settings"]
        command += ["-queryfile", folder / "query", "-out", folder / "reply"]
        subprocess.run(command, check=True, capture_output=True)
        return (folder / "reply").read_bytes()

    with served(stamped) as address:
        yield address
