"""From the validation codes of the C2PA specification to a signature that holds or does not.

Source of the codes: C2PA Technical Specification 2.2, section 15.2, "Returning validation results".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dfd_edge.provenance.record import Signature
from dfd_edge.text import cleaned

#: The signer is not on the trust list, which alone breaks nothing.
UNTRUSTED = "signingCredential.untrusted"
#: The signer is on a trust list.
TRUSTED = "signingCredential.trusted"

_BYTES = "the file was changed after signing: its bytes are not those that were signed"
_OTHER_FILE = "the sidecar was signed for another file, or the file was changed after signing"
_RECORD = "the signed record was changed after signing: statements in it are not those signed"
_SIGNATURE = "the signature does not fit the signed record"
_OUTSIDE_VALIDITY = "claimSignature.outsideValidity"
_VALIDITY = (
    "the certificate was not valid at the time of signing, or no trusted time stamp shows that it "
    "was"
)
_PURPOSE = "the certificate is damaged, or not one for signing media"
_REVOKED = "the certificate was revoked by its issuer"
_NOT_LISTED = "the signer is not on the trust list, so anyone can have signed in this name"
_LEFT_OUT = "the signer left parts of the file out of the signed bytes; these may have changed"

#: Words by code, the gravest first. A code that ends in a dot stands for all that begin with it.
_WORDS = (
    ("assertion.dataHash.mismatch", _BYTES),
    ("assertion.bmffHash.mismatch", _BYTES),
    ("assertion.boxesHash.mismatch", _BYTES),
    ("assertion.boxesHash.unknownBox", _BYTES),
    ("assertion.collectionHash.mismatch", _BYTES),
    ("assertion.collectionHash.incorrectFileCount", _BYTES),
    ("assertion.multiAssetHash.mismatch", _BYTES),
    ("claim.hardBindings.missing", "the signed record does not say to which file it belongs"),
    ("assertion.hashedURI.mismatch", _RECORD),
    ("assertion.missing", "the signed record lacks statements that were signed"),
    ("assertion.undeclared", "the signed record has statements that were not signed"),
    ("assertion.inaccessible", "the signed record has statements that are kept elsewhere"),
    ("manifest.inaccessible", "the signed record is kept elsewhere"),
    ("claimSignature.missing", "the signed record has no signature"),
    (_OUTSIDE_VALIDITY, _VALIDITY),
    ("claimSignature.", _SIGNATURE),
    ("signingCredential.ocsp.revoked", _REVOKED),
    ("signingCredential.expired", _VALIDITY),
    ("signingCredential.invalid", _PURPOSE),
    ("algorithm.", "the signature uses a method that is not allowed, or is not known"),
)
_LEFT_OUT_CODES = tuple(
    f"assertion.{kind}.additionalExclusionsPresent" for kind in ("dataHash", "boxesHash")
)
_BYTES_MATCH = tuple(
    f"assertion.{kind}.match"
    for kind in ("dataHash", "bmffHash", "boxesHash", "collectionHash", "multiAssetHash")
)
#: A certificate with one of these is not to be trusted, whatever list it is on.
_NO_TRUST = {
    UNTRUSTED,
    _OUTSIDE_VALIDITY,
    "signingCredential.expired",
    "signingCredential.invalid",
    "signingCredential.ocsp.revoked",
}
#: A manifest with one of these is not the one that was signed: its statements count for nothing.
_UNSIGNED = ("ingredient.", "claimSignature.", "claim.", "assertion.hashedURI.", "manifest.")


@dataclass(frozen=True, slots=True)
class Codes:
    """Validation codes of one manifest.

    Attributes:
        success, informational, failure: Codes of each kind, as the file's parser reports them.
    """

    success: frozenset[str] = frozenset()
    informational: frozenset[str] = frozenset()
    failure: frozenset[str] = frozenset()

    @staticmethod
    def of(results: Any) -> Codes:  # noqa: ANN401 - JSON of the parser
        """Reads the three lists of a JSON object; whatever is not a code is passed over."""
        if not isinstance(results, dict):
            return Codes()
        return Codes(*(frozenset(_codes(results.get(kind))) for kind in Codes.__slots__))

    def __or__(self, other: Codes) -> Codes:
        """Returns the codes of both."""
        return Codes(
            self.success | other.success,
            self.informational | other.informational,
            self.failure | other.failure,
        )

    @property
    def is_broken(self) -> bool:
        """Whether anything does not hold, but for a signer who is not on the trust list."""
        return bool(self.failure - {UNTRUSTED})

    @property
    def is_signed(self) -> bool:
        """Whether the statements of the manifest are those that were signed."""
        return not any(code.startswith(_UNSIGNED) for code in self.failure)

    def is_trusted_after(self, recorded: Codes) -> bool:
        """Whether the signer is on the trust list.

        Args:
            recorded: Codes that a stranger noted before: of them, these here have only the news.
        """
        if (self.failure | recorded.failure) & (_NO_TRUST - {UNTRUSTED}):
            return False
        return self._holds_after(recorded, TRUSTED, UNTRUSTED)

    def is_time_trusted_after(self, recorded: Codes) -> bool:
        """Whether a trusted authority vouches for the time of signing; `recorded` as above."""
        return self._holds_after(recorded, "timeStamp.trusted", "timeStamp.untrusted")

    def _holds_after(self, recorded: Codes, code: str, contrary: str) -> bool:
        denied = self.failure | self.informational
        if contrary in denied:
            return False
        noted = recorded.failure | recorded.informational
        return code in self.success or (code in recorded.success and contrary not in noted)


def signature_of(
    codes: Codes,
    *,
    signer: str | None,
    issuer: str | None,
    signed_at: str | None,
    trust_list: str,
    is_sidecar: bool = False,
) -> Signature:
    """Puts the signature of a manifest together from its validation codes."""
    failure = codes.failure
    broken = any(code.startswith("claimSignature.") for code in failure - {_OUTSIDE_VALIDITY})
    words = {code: _word(code) for code in [*failure, *codes.informational]}
    mismatch = _BYTES in words.values()
    match = not codes.success.isdisjoint(_BYTES_MATCH)
    reported = [*sorted(failure, key=_gravity), *sorted(codes.informational & {*_LEFT_OUT_CODES})]
    problems = [words[code] for code in reported]
    if is_sidecar:
        problems = [_OTHER_FILE if problem == _BYTES else problem for problem in problems]
    return Signature(
        signer=signer,
        issuer=issuer,
        signed_at=signed_at,
        time_stamped=signed_at is not None and "timeStamp.trusted" in codes.success,
        holds="claimSignature.validated" in codes.success and not broken,
        bytes_match=False if mismatch else True if match else None,
        trusted=TRUSTED in codes.success and not failure & _NO_TRUST,
        trust_list=trust_list,
        problems=tuple(dict.fromkeys(problems)),
        codes=tuple(reported),
    )


def codes_by_manifest(results: Iterable[tuple[Any, str]]) -> dict[str, Codes]:
    """Collects the codes on each manifest.

    Args:
        results: JSON of the parser, nested in any way, whose objects have a `code`, and an `url`
            that holds the label of the manifest; each with the label of those without one.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for value, owner in results:
        for kind, status in _statuses(value, "failure"):
            found[_label(status) or owner][kind].add(cleaned(status["code"], 100))
    return {
        label: Codes(**{kind: frozenset(codes) for kind, codes in kinds.items()})
        for label, kinds in found.items()
    }


def found_on_list(results: Any, name: str) -> frozenset[str]:  # noqa: ANN401
    """Returns the labels of the manifests whose signers the parser found on the list of a name.

    Only its explanations name the list. Where they are worded otherwise, nothing is found.

    Args:
        results: All validation results of the parser.
        name: Name of the list, as the parser knows it.
    """
    return frozenset(
        _label(status)
        for kind, status in _statuses(results, "failure")
        if (kind, status["code"]) == ("success", TRUSTED)
        and f"[{name}]" in str(status.get("explanation"))
    )


def _label(status: dict[str, Any]) -> str:
    """Returns the label of the manifest that a status is on; empty where it names none."""
    return str(status.get("url")).partition("/c2pa/")[2].partition("/")[0]


def _statuses(value: Any, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    """Yields all statuses in a value, each with its kind."""
    if isinstance(value, list):
        for entry in value:
            yield from _statuses(entry, kind)
    elif isinstance(value, dict):
        if isinstance(value.get("code"), str):
            yield "success" if value.get("success") is True else kind, value
            return
        for key, entry in value.items():
            yield from _statuses(entry, key if key in Codes.__slots__ else kind)


def is_harmless(code: str) -> bool:
    """Whether a code leaves the signature whole: it limits what the signature says."""
    return code == UNTRUSTED or code in _LEFT_OUT_CODES


def unreadable_signature(trust_list: str) -> Signature:
    """Returns the signature of a manifest whose certificate or signature cannot be read at all."""
    return Signature(
        signer=None,
        issuer=None,
        signed_at=None,
        time_stamped=False,
        holds=False,
        bytes_match=None,
        trusted=False,
        trust_list=trust_list,
        problems=(
            "the signature or its certificate cannot be read: it is damaged, or of an unknown kind",
        ),
        codes=("signingCredential.invalid",),
    )


def _codes(entries: Any) -> Iterator[str]:  # noqa: ANN401
    if not isinstance(entries, list):
        return
    for entry in entries:
        code = entry.get("code") if isinstance(entry, dict) else None
        if isinstance(code, str):
            yield cleaned(code, 100)


def _gravity(code: str) -> tuple[int, str]:
    for number, (known, _) in enumerate(_WORDS):
        if code == known or (known.endswith(".") and code.startswith(known)):
            return number, code
    return (len(_WORDS) + 1 if code == UNTRUSTED else len(_WORDS)), code


def _word(code: str) -> str:
    if code == UNTRUSTED:
        return _NOT_LISTED
    if code in _LEFT_OUT_CODES:
        return _LEFT_OUT
    number = _gravity(code)[0]
    if number < len(_WORDS):
        return _WORDS[number][1]
    return f"the signed record does not follow the specification of C2PA ({code})"
