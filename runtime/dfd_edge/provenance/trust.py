"""The trust list: certificates of the authorities whose signers are trusted."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from dfd_edge.errors import UsageError
from dfd_edge.text import cleaned

_FOLDER = Path(__file__).parent / "trust_list"
#: Date of the lists in that folder.
_SHIPPED = "2026-09-24"
_MOST_BYTES = 4 << 20
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")


@dataclass(frozen=True, slots=True)
class TrustList:
    """Certificates of authorities that issue certificates for signing media and time stamps.

    Attributes:
        name: Name and date, for people.
        signers: Certificates of the authorities for signers, in PEM.
        time_stampers: Certificates of the authorities for time stamps, in PEM.
        allowed: Certificates that are trusted themselves, whoever issued them, in PEM.
    """

    name: str
    signers: str = field(repr=False)
    time_stampers: str = field(repr=False)
    allowed: str = field(repr=False, default="")

    @staticmethod
    @cache
    def shipped() -> TrustList:
        """Returns the official lists of C2PA that this package carries."""
        return TrustList(
            f"C2PA trust list of {_SHIPPED}",
            _certificates((_FOLDER / "C2PA-TRUST-LIST.pem").read_text("utf-8")),
            _certificates((_FOLDER / "C2PA-TSA-TRUST-LIST.pem").read_text("utf-8")),
        )

    @staticmethod
    def load(path: str | os.PathLike[str]) -> TrustList:
        """Reads a trust list that takes the place of the shipped one.

        The certificates in it are trusted as issuers of signers and of time stamps, and as signers
        themselves. The shipped authorities for time stamps stay trusted.

        Args:
            path: Certificates in PEM; text between them is passed over.

        Raises:
            UsageError: The file cannot be read, or a certificate in it.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
                changed = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        except OSError as error:
            raise _unusable(path, f"cannot be read ({error.strerror})") from None
        if len(data) > _MOST_BYTES:
            raise _unusable(path, "is larger than 4 MB")
        certificates = _certificates(data.decode("utf-8", "replace"))
        if not certificates:
            raise _unusable(path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
        _check(path, certificates)
        name = f"{cleaned(path.name)} of {changed:%Y-%m-%d}"
        # The parser takes authorities for signers as authorities for time stamps, too.
        return TrustList(name, certificates, TrustList.shipped().time_stampers, certificates)


def _certificates(text: str) -> str:
    """Returns the certificates without the text around them, in which PEM readers differ."""
    return "".join(f"{block}\n" for block in _CERTIFICATE.findall(text))


def _check(path: Path, certificates: str) -> None:
    from cryptography import x509  # noqa: PLC0415 - c2pa-python brings it

    for number, block in enumerate(_CERTIFICATE.findall(certificates), 1):
        try:
            x509.load_pem_x509_certificate(block.encode())
        except (ValueError, TypeError) as error:
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise _unusable(path, f"certificate {number} in it is damaged ({cause})") from None


def _unusable(path: Path, cause: str) -> UsageError:
    return UsageError(f"the trust list {path} {cause}; give a file of certificates in PEM")
