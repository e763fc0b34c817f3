"""Signs this program's own outputs with C2PA manifests that say where they come from.

Nothing is fetched: no time stamp authority is asked, no revocation list, no remote manifest.
"""

from __future__ import annotations

import contextlib
import io
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_edge.errors import DfdError, SourceError, UsageError
from dfd_edge.provenance.reading import read_provenance
from dfd_edge.sinks.note import CopyNote, program, short_name
from dfd_edge.text import printable

if TYPE_CHECKING:
    import c2pa
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

#: Media types of the films that a manifest can be embedded in, by suffix.
SIGNED_VIDEO = {".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime"}

_PAGE = "text/html"
_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
    "builder": {"thumbnail": {"enabled": False}},
}
#: IPTC: a representation of data by a program that people wrote.
_DATA_DRIVEN = "http://cv.iptc.org/newscodes/digitalsourcetype/dataDrivenMedia"
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_KEYS = "EC keys on P-256, P-384 or P-521, RSA keys and Ed25519 keys"
_SOURCE = "source"
_UNKNOWN_TYPE = "application/octet-stream"


def sidecar_for(page: Path) -> Path:
    """Returns the path of the file beside a page that holds its manifest: HTML has no place."""
    return page.with_name(f"{page.name}.c2pa")


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate with its key, which signs outputs.

    Attributes:
        algorithm: Algorithm of the signature in C2PA's spelling: `es256`, `es384`, `es512`,
            `ps256` or `ed25519`.
        chain: The certificate and those above it, PEM.
        key: The private key, PKCS#8 in PEM without a passphrase.
        carries: Whether signed films carry the manifest of the judged file on, for which this
            process parses it.
    """

    algorithm: str
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    carries: bool = True

    @classmethod
    def load(cls, certificate: Path, key: Path, *, carries: bool = True) -> Signer:
        """Reads a certificate and its key, and tries a signature.

        Args:
            certificate: PEM file: the signer's certificate, then those that issued it.
            key: PEM file with the private key, without a passphrase.
            carries: Whether signed films carry the manifest of the judged file on.

        Raises:
            UsageError: The extra `provenance` is missing, a file cannot be read or is no such
                thing, the key is encrypted or not that of the certificate, or the certificate is
                out of date or may not sign content.
        """
        try:
            import c2pa  # noqa: F401, PLC0415 - an extra
            from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
            from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                f"--sign needs c2pa-python, which cannot be imported ({error}): run "
                "`pip install 'dfd-edge[provenance]'`"
            ) from error
        chain = _read_chain(certificate)
        private = _read_key(key)
        _check_dates(certificate, chain[0])
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        der = serialization.Encoding.DER
        of_key = private.public_key().public_bytes(der, public)
        try:
            certified = chain[0].public_key().public_bytes(der, public)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(
                f"--sign: the key in {certificate} is damaged, or of a kind that C2PA does not "
                f"take ({error}): {_KEYS} do"
            ) from error
        if certified != of_key:
            raise UsageError(
                f"--sign: {key} is not the key of {certificate}: its public half differs from that "
                "of the first certificate there"
            )
        signer = cls(
            _algorithm(key, private),
            b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain),
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            carries,
        )
        try:
            signer.sign_page(b"trial", "trial", "trial")
        except DfdError as error:
            raise UsageError(f"--sign: {certificate} cannot sign content: {error}") from error
        return signer

    def sign_video(self, unsigned: Path, signed: Path, title: str, note: CopyNote) -> None:
        """Writes a signed copy of an annotated film, which names the judged file as its parent.

        Where the judged file carries a C2PA manifest, the copy carries that on if `carries`.

        Args:
            unsigned: The film; its suffix is one of `SIGNED_VIDEO`.
            signed: Path of the signed copy.
            title: Title in the manifest.
            note: Note on the copy; its `path` is the judged file.

        Raises:
            DfdError: It cannot be signed or written.
        """
        name, version = program()
        agent = {"name": name, "version": version}
        drawn = (
            f"boxes, tracks, scores and evidence maps drawn over every frame by {name} {version}; "
            f"sound left out; no verdict is asserted; {note.origin}"
        )
        kind = SIGNED_VIDEO[unsigned.suffix.lower()]
        actions = [
            {"action": "c2pa.opened", "parameters": {"ingredientIds": [_SOURCE]}},
            {"action": "c2pa.edited", "softwareAgent": agent, "description": drawn},
            {
                "action": "c2pa.transcoded",
                "softwareAgent": agent,
                "description": f"encoded anew as H.264 by {name} {version}",
            },
        ]
        with _as_error(), _builder(title, kind, actions) as builder:
            _add_source(builder, note, carries=self.carries)
            with unsigned.open("rb") as plain, signed.open("w+b") as out:
                builder.sign(self._native(), kind, plain, out)

    def sign_page(self, page: bytes, title: str, text: str) -> bytes:
        """Returns the C2PA manifest of a page, which belongs into a file beside it.

        Args:
            page: The HTML file's bytes.
            title: Title in the manifest.
            text: Description of the page.

        Raises:
            DfdError: It cannot be signed.
        """
        name, version = program()
        created = {
            "action": "c2pa.created",
            "softwareAgent": {"name": name, "version": version},
            "digitalSourceType": _DATA_DRIVEN,
            "description": text,
        }
        with _as_error(), _builder(title, _PAGE, [created]) as builder:
            builder.set_no_embed()
            return bytes(builder.sign(self._native(), _PAGE, io.BytesIO(page), io.BytesIO()))

    def _native(self) -> c2pa.Signer:
        import c2pa  # noqa: PLC0415 - an extra

        return c2pa.Signer.from_info(
            c2pa.C2paSignerInfo(self.algorithm, self.chain, self.key, ta_url=None)
        )


@contextlib.contextmanager
def _builder(title: str, kind: str, actions: list[dict[str, Any]]) -> Iterator[c2pa.Builder]:
    """Opens the builder of a manifest with these actions."""
    import c2pa  # noqa: PLC0415 - an extra

    name, version = program()
    definition = {
        "claim_generator_info": [{"name": name, "version": version}],
        "title": title,
        "format": kind,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
    settings = c2pa.Settings.from_dict(_SETTINGS)
    with settings, c2pa.Context(settings) as context, c2pa.Builder(definition, context) as builder:
        yield builder


def _add_source(builder: c2pa.Builder, note: CopyNote, *, carries: bool) -> None:
    """Names the judged file as the parent, with the manifest that it carries where `carries`.

    c2pa parses that manifest in this process, without limits. A file that could not be read within
    the bounds of `read_provenance` is not parsed here, and is named without a manifest.
    """
    import c2pa  # noqa: PLC0415 - an extra

    title = short_name(note.source)
    about = {"title": title, "relationship": "parentOf", "label": _SOURCE}
    kind = mimetypes.guess_type(title)[0] or _UNKNOWN_TYPE
    if carries and note.path is not None and _is_readable(note.path):
        with contextlib.suppress(c2pa.C2paError, OSError), note.path.open("rb") as file:
            builder.add_ingredient(about, kind, file)
            return
    builder.add_ingredient(about, _UNKNOWN_TYPE, io.BytesIO())


def _is_readable(path: Path) -> bool:
    """Returns whether a file's manifest, if any, can be read within bounds of time and memory."""
    try:
        found = read_provenance(path)
    except SourceError:
        return False
    return found.manifest is not None or found.error is None


@contextlib.contextmanager
def _as_error() -> Iterator[None]:
    """Turns errors of c2pa and the disk into the program's own."""
    import c2pa  # noqa: PLC0415 - an extra

    try:
        yield
    except c2pa.C2paError as error:
        kind, _, cause = str(error).partition(": ")
        first = (cause or kind or type(error).__name__).partition("\n")[0]
        raise DfdError(printable(first)) from error
    except OSError as error:
        raise DfdError(error.strerror or type(error).__name__) from error


def _read_chain(path: Path) -> list[Certificate]:
    from cryptography import x509  # noqa: PLC0415 - comes with c2pa-python

    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise UsageError(
            f"--sign: {path} holds no certificate: give a PEM file, the signer's certificate first"
        ) from error


def _read_key(path: Path) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    try:
        return load_pem_private_key(_read(path), password=None)
    except TypeError as error:
        raise UsageError(
            f"--sign: the key {path} is encrypted: take the passphrase off, as with "
            f"`openssl pkey -in {path} -out plain.pem`"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"--sign: {path} holds no private key: give a PEM file with a PKCS#8 key"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--sign: {path} cannot be read ({error.strerror})") from error


def _check_dates(path: Path, certificate: Certificate) -> None:
    """Refuses a certificate that is not valid today."""
    now = datetime.now(UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise UsageError(
            f"--sign: the certificate {path} expired on {end:%Y-%m-%d}: give one that is valid"
        )
    if now < start:
        raise UsageError(
            f"--sign: the certificate {path} is not valid before {start:%Y-%m-%d}: check the "
            "clock, or give another"
        )


def _algorithm(path: Path, key: PrivateKeyTypes) -> str:
    """Returns the algorithm that goes with a key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UsageError(f"--sign: the key {path} is of a kind that C2PA does not take: {_KEYS} do")
