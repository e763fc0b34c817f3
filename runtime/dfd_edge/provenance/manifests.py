"""C2PA manifests of a file, read and verified by c2pa-python, as records of bounded size.

Nothing is ever fetched: neither a manifest that is kept elsewhere, nor the state of a certificate.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dfd_edge.provenance.record import Action, Ingredient, Manifest, SourceType
from dfd_edge.provenance.source_types import action_meaning, source_type
from dfd_edge.provenance.validation import UNTRUSTED, Codes, signature_of, unreadable_signature
from dfd_edge.sinks.text import cleaned

if TYPE_CHECKING:
    from c2pa import Context, Reader

    from dfd_edge.provenance.trust import TrustList

MOST_ACTIONS = 500
MOST_INGREDIENTS = 500
DEEPEST = 16
_MOST_SOURCE_TYPES = 50
#: A sidecar above this size is not read.
_MOST_SIDECAR_BYTES = 32 << 20
_LONGEST_TITLE = 200

#: Purposes of a certificate (extended key usage) that allow the signing of media: claim signing of
#: C2PA, protection of e-mail, signing of documents (C2PA specification 2.2, section 14.5.1).
_PURPOSES = "1.3.6.1.4.1.62558.2.1\n1.3.6.1.5.5.7.3.4\n1.3.6.1.5.5.7.3.36\n"
#: Name of the signers' list for the parser, which reports on which list it found a signer's
#: authority; a signer that is listed itself it finds on a list without a name.
_SIGNERS = "signers"
_KEPT_ELSEWHERE = re.compile(r"must fetch remote manifests from url (.+)", re.DOTALL)
#: Assertions of metadata that can carry a digital source type beside those of the actions.
_METADATA = ("c2pa.metadata", "cawg.metadata", "stds.iptc")

Json = dict[str, Any]


class UnreadableManifest(Exception):
    """A file or its manifest cannot be parsed; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Found:
    """The manifest that a file carries, or names.

    Attributes:
        manifest: The active manifest, verified; None without one.
        remote: Address of a manifest that is kept elsewhere, and was not fetched.
    """

    manifest: Manifest | None = None
    remote: str | None = None


def sidecar_of(path: Path) -> Path | None:
    """Returns the sidecar of a file, if there is one: `clip.mp4.c2pa`, else `clip.c2pa`."""
    for candidate in (path.with_name(f"{path.name}.c2pa"), path.with_suffix(".c2pa")):
        if candidate != path and candidate.is_file():
            return candidate
    return None


def read_manifest(path: Path, trust: TrustList) -> Found:
    """Reads and verifies the active manifest of a file.

    The manifest inside the file counts; only without one is a sidecar looked for (`sidecar_of`).

    Args:
        path: A video or picture. A container that C2PA has no rule for carries no manifest.
        trust: Certificates of the authorities whose signers are trusted.

    Raises:
        ModuleNotFoundError: The extra `provenance` is not installed.
        OSError: The file cannot be read.
        UnreadableManifest: The file or its manifest is damaged, or not as C2PA defines it.
    """
    with path.open("rb") as file:
        found = _read(path, file, None, trust)
        if found.manifest is not None or (sidecar := sidecar_of(path)) is None:
            return found
        if sidecar.stat().st_size > _MOST_SIDECAR_BYTES:
            raise UnreadableManifest(f"the sidecar {sidecar.name} is larger than 32 MB")
        file.seek(0)
        return _read(path, file, sidecar.read_bytes(), trust)


def _read(path: Path, file: BinaryIO, sidecar: bytes | None, trust: TrustList) -> Found:
    from c2pa import C2paError, Reader  # noqa: PLC0415 - only reading provenance needs it

    where = "embedded" if sidecar is None else "sidecar"
    media_type = mimetypes.guess_type(path.name)[0] or ""
    try:
        with Reader(media_type, file, sidecar, context=_context(trust)) as reader:
            if _list_of_signer(reader) in (_SIGNERS, "", None):
                return Found(_manifest(reader, where, trust))
        # The parser takes authorities for time stamps as authorities for signers, too. Where it
        # found a signer through one of them, the list of signers' authorities alone decides.
        file.seek(0)
        alone = _context(replace(trust, time_stampers=""))
        with Reader(media_type, file, sidecar, context=alone) as reader:
            is_listed = _list_of_signer(reader) is not None
        file.seek(0)
        with Reader(media_type, file, sidecar, context=_context(trust)) as reader:
            return Found(_manifest(reader, where, trust, is_listed=is_listed))
    except C2paError as error:
        text = str(error)
        if elsewhere := _KEPT_ELSEWHERE.search(text):
            return Found(remote=cleaned(elsewhere.group(1), 500))
        if isinstance(error, (C2paError.ManifestNotFound, C2paError.NotSupported)):
            return Found()
        if isinstance(error, C2paError.Signature):
            return Found(Manifest(where, None, None, unreadable_signature(trust.name)))
        raise UnreadableManifest(_cause(text)) from None
    except (ValueError, RecursionError) as error:
        raise UnreadableManifest(_cause(f"{type(error).__name__}: {error}")) from None


def _cause(text: str) -> str:
    """Puts an error of the parser, such as `Io: failed to fill whole buffer`, into plain words."""
    kind, _, detail = cleaned(text, 300).partition(": ")
    detail = detail.partition(" in path: [")[0]  # of a circle, with every label on it
    if kind == "Io":
        return f"the file ends too early ({detail})"
    damaged = detail.removeprefix("asset could not be parsed: ")
    if damaged != detail:
        return f"the structure of the file is damaged ({damaged})"
    return f"its signed record is damaged, or not as C2PA defines it ({detail or kind})"


@lru_cache(maxsize=4)
def _context(trust: TrustList) -> Context:
    from c2pa import Context as NewContext  # noqa: PLC0415

    signers = {
        "trust_kind": "manifest",
        "trust_uri": _SIGNERS,
        "trust_anchors": trust.signers,
        "allowed_list": trust.allowed or None,
    }
    anchors = [signers]
    if trust.time_stampers:
        stampers = {"trust_kind": "tsa", "trust_uri": "time stamps"}
        anchors.append({**stampers, "trust_anchors": trust.time_stampers})
    return NewContext.from_dict(
        {
            "version": 1,
            "trust": {"anchors": anchors, "trust_config": _PURPOSES},
            "verify": {
                "verify_trust": True,
                "verify_timestamp_trust": True,
                "remote_manifest_fetch": False,
                "ocsp_fetch": False,
            },
            # Identity assertions name addresses that a parser would look up.
            "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
        }
    )


def _list_of_signer(reader: Reader) -> str | None:
    """Returns the name of the list on which the signer's authority is; None where on none."""
    results = _dict(reader.get_validation_results())
    if "signingCredential.trusted" not in Codes.of(results.get("activeManifest")).success:
        return None
    return str(results.get("trustListUri", ""))


def _manifest(reader: Reader, where: str, trust: TrustList, *, is_listed: bool = True) -> Manifest:
    store = _dict(json.loads(reader.json()))
    manifests = _dict(store.get("manifests"))
    label = str(store.get("active_manifest"))
    active = _dict(manifests.get(label))
    results = _dict(store.get("validation_results"))
    signed = _dict(active.get("signature_info"))
    tree = Tree(manifests, _deltas(results))
    actions, left_out = _actions(active)
    ingredients = tree.ingredients_of(label)
    certificate = _certificate(reader, label)
    issuer = _dict(certificate.get("issuer"))
    signature = signature_of(
        _codes(results, certificate, is_listed=is_listed, is_stamped="time" in signed),
        signer=_signer(signed),
        issuer=_text(issuer.get("O")) or _text(issuer.get("CN")),
        signed_at=_time(signed.get("time")),
        trust_list=trust.name,
        is_sidecar=where == "sidecar",
    )
    return Manifest(
        where=where,
        claim_generator=_claim_generator(active),
        title=_text(active.get("title")),
        signature=signature,
        actions=actions,
        source_types=_source_types(active, actions),
        ingredients=ingredients,
        cut=left_out or tree.cut,
    )


def _codes(results: Json, certificate: Json, *, is_listed: bool, is_stamped: bool) -> Codes:
    """Returns the codes of the active manifest, with two that the parser leaves out.

    It takes the time of an untrusted time stamp for the time of signing, so that whoever holds an
    expired certificate could date a signature back: without a trusted time stamp, the certificate
    has to be valid now (C2PA specification 2.2, section 15.8).

    Args:
        results: Validation results of the parser.
        certificate: Issuer and validity of the signer's certificate.
        is_listed: Whether the list of signers' authorities vouches for a signer that is trusted.
        is_stamped: Whether the signature has a time stamp.
    """
    codes = Codes.of(results.get("activeManifest"))
    added = set()
    if not is_listed:
        added.add(UNTRUSTED)
    if is_stamped and "timeStamp.trusted" not in codes.success:
        validity = _dict(certificate.get("validity"))
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        begin, end = _time(validity.get("notBefore")), _time(validity.get("notAfter"))
        if begin is None or end is None or not begin <= now <= end:
            added.add("signingCredential.expired")
    return codes | Codes(failure=frozenset(added))


class Tree:
    """Ingredients of a manifest store as a tree of bounded size.

    Args:
        manifests: Manifests by label.
        deltas: Codes by label of the manifest and of its ingredient assertion.

    Attributes:
        cut: Whether anything was left out, for number, depth or a circle.
    """

    def __init__(self, manifests: Json, deltas: dict[tuple[str, str], Codes]) -> None:
        self.cut = False
        self._manifests = manifests
        self._deltas = deltas
        self._left = MOST_INGREDIENTS

    def ingredients_of(self, label: str, above: tuple[str, ...] = ()) -> tuple[Ingredient, ...]:
        """Returns the ingredients of a manifest, with their own below them.

        Args:
            label: Label of the manifest.
            above: Labels of the manifests that it is an ingredient of.
        """
        entries = _list(_dict(self._manifests.get(label)).get("ingredients"))
        if entries and (len(above) == DEEPEST or label in above):
            self.cut = True
            return ()
        ingredients = []
        for entry in entries:
            if not self._left:
                self.cut = True
                break
            self._left -= 1
            ingredients.append(self._ingredient(_dict(entry), label, above))
        return tuple(ingredients)

    def _ingredient(self, entry: Json, parent: str, above: tuple[str, ...]) -> Ingredient:
        label = str(entry.get("active_manifest"))
        signed = label in self._manifests
        manifest = _dict(self._manifests.get(label))
        codes = self._codes(entry, parent)
        state = "broken" if codes.is_broken else "signed" if signed else "unsigned"
        types: tuple[SourceType, ...] = ()
        if signed and codes.is_signed:
            types = _source_types(manifest, _actions(manifest)[0])
        return Ingredient(
            title=_text(entry.get("title")),
            format=_text(entry.get("format"), 100),
            relationship=_text(entry.get("relationship"), 30) or "componentOf",
            state=state,
            signer=_signer(_dict(manifest.get("signature_info"))),
            claim_generator=_claim_generator(manifest),
            source_types=types,
            ingredients=self.ingredients_of(label, (*above, parent)),
        )

    def _codes(self, entry: Json, parent: str) -> Codes:
        """Returns what the signer found when the ingredient was added, and what is found now."""
        found = Codes.of(_dict(entry.get("validation_results")).get("activeManifest"))
        # The first version of the assertion has one list, of failures and of successes.
        listed = [status for status in _list(entry.get("validation_status")) if _dict(status)]
        failures = [status for status in listed if status.get("success") is not True]
        delta = self._deltas.get((parent, str(entry.get("label"))), Codes())
        return found | Codes.of({"failure": failures}) | delta


def _deltas(results: Json) -> dict[tuple[str, str], Codes]:
    """Returns the codes of ingredients that differ from those which their signers found."""
    deltas: dict[tuple[str, str], Codes] = {}
    for entry in _list(results.get("ingredientDeltas")):
        address = str(_dict(entry).get("ingredientAssertionURI"))
        parts = address.partition("jumbf=")[2].strip("/").split("/")
        if len(parts) == 4:  # c2pa, label of the manifest, c2pa.assertions, label of the assertion
            key = parts[1], parts[3]
            codes = Codes.of(_dict(entry).get("validationDeltas"))
            deltas[key] = deltas.get(key, Codes()) | codes
    return deltas


def _actions(manifest: Json) -> tuple[tuple[Action, ...], bool]:
    """Returns the actions of a manifest in order, and whether some were left out."""
    actions: list[Action] = []
    for data in _assertions(manifest, "c2pa.actions"):
        agents = _list(data.get("softwareAgents"))
        for entry in _list(data.get("actions")):
            if len(actions) == MOST_ACTIONS:
                return tuple(actions), True
            action = _dict(entry)
            name = _text(action.get("action"), 100) or "unknown"
            stated = action.get("digitalSourceType")
            actions.append(
                Action(
                    name=name,
                    meaning=action_meaning(name),
                    when=_time(action.get("when")),
                    software=_software(action, agents),
                    source_type=source_type(stated) if isinstance(stated, str) else None,
                )
            )
    return tuple(actions), False


def _software(action: Json, agents: list[Any]) -> str | None:
    agent = action.get("softwareAgent")
    index = action.get("softwareAgentIndex")
    if agent is None and isinstance(index, int) and 0 <= index < len(agents):
        agent = agents[index]
    return _program(agent)


def _source_types(manifest: Json, actions: tuple[Action, ...]) -> tuple[SourceType, ...]:
    """Returns the source types of the actions and of signed metadata, without repetition."""
    types = [action.source_type for action in actions if action.source_type is not None]
    for label in _METADATA:
        for data in _assertions(manifest, label):
            for key, value in data.items():
                if key.rpartition(":")[2] == "DigitalSourceType" and isinstance(value, str):
                    types.append(source_type(value))
    return tuple(dict.fromkeys(types))[:_MOST_SOURCE_TYPES]


def _assertions(manifest: Json, label: str) -> Iterator[Json]:
    for assertion in map(_dict, _list(manifest.get("assertions"))):
        if str(assertion.get("label")).startswith(label):
            yield _dict(assertion.get("data"))


def _claim_generator(manifest: Json) -> str | None:
    for entry in _list(manifest.get("claim_generator_info")):
        if program := _program(entry):
            return program
    return _program(manifest.get("claim_generator"))


def _program(agent: Any) -> str | None:  # noqa: ANN401
    """Returns name and version of a program, which are an object or, in older files, a string."""
    if not isinstance(agent, dict):
        return _text(agent)
    parts = [_text(agent.get(key), 100) for key in ("name", "version")]
    return " ".join(part for part in parts if part) or None


def _signer(signed: Json) -> str | None:
    return _text(signed.get("issuer")) or _text(signed.get("common_name"))


def _certificate(reader: Reader, label: str) -> Json:
    """Returns issuer and validity of the certificate that signed a manifest."""
    from c2pa import C2paError  # noqa: PLC0415

    with suppress(C2paError, ValueError, RecursionError):
        for manifest in map(_dict, _list(_dict(json.loads(reader.crjson())).get("manifests"))):
            if manifest.get("label") == label:
                return _dict(_dict(manifest.get("signature")).get("certificateInfo"))
    return {}


def _time(value: Any) -> str | None:  # noqa: ANN401
    """Returns a time in ISO 8601, in UTC where its zone is known; None where it is not a time."""
    try:
        time = datetime.fromisoformat(value)
        utc = time if time.tzinfo is None else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return utc.isoformat(timespec="seconds").replace("+00:00", "Z")


def _text(value: Any, limit: int = _LONGEST_TITLE) -> str | None:  # noqa: ANN401
    return cleaned(value, limit) or None if isinstance(value, str) else None


def _dict(value: Any) -> Json:  # noqa: ANN401
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else []
