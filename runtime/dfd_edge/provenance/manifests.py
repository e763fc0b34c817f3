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
from dfd_edge.provenance.validation import (
    TRUSTED,
    UNTRUSTED,
    Codes,
    codes_by_manifest,
    found_on_list,
    signature_of,
    unreadable_signature,
)
from dfd_edge.text import cleaned

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
        with suppress(OSError):  # no system has files of names so long
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
            store, certificates = _dict(json.loads(reader.json())), _certificates(reader)
        listed = _listed(store, certificates)
        # The parser takes authorities for time stamps as authorities for signers, too. Where it may
        # have found a signer through one of them, the list of signers' authorities alone decides.
        unsure = listed - found_on_list(store.get("validation_results"), _SIGNERS)
        if unsure and trust.time_stampers:
            file.seek(0)
            alone = _context(replace(trust, time_stampers=""))
            with Reader(media_type, file, sidecar, context=alone) as reader:
                results = reader.get_validation_results()
            listed -= unsure - _listed({**store, "validation_results": results}, certificates)
        return Found(_manifest(store, certificates, listed, where, trust))
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


def _listed(store: Json, certificates: dict[str, Json]) -> frozenset[str]:
    """Returns the labels of the manifests whose signers are on a trust list.

    The parser reports on an ingredient only what no signer has recorded, wherever in the file: so a
    record that a signer is trusted counts only where none says the contrary.

    Args:
        store: All manifests, and the validation results of the parser.
        certificates: Issuer and validity of the signer's certificate by label of the manifest.
    """
    manifests = _dict(store.get("manifests"))
    results = _dict(store.get("validation_results"))
    entries = [
        _dict(entry)
        for manifest in manifests.values()
        for entry in _list(_dict(manifest).get("ingredients"))
    ]
    recorded = codes_by_manifest(
        (entry.get(key), str(entry.get("active_manifest")))
        for entry in entries
        for key in ("validation_results", "validation_status")
    )
    now = codes_by_manifest([(results.get("ingredientDeltas"), "")])
    listed = set()
    for label in {str(entry.get("active_manifest")) for entry in entries} & manifests.keys():
        news, before = now.get(label, Codes()), recorded.get(label, Codes())
        signed = _dict(_dict(manifests[label]).get("signature_info"))
        is_dated = "time" not in signed or news.is_time_trusted_after(before)
        if news.is_trusted_after(before) and (
            is_dated or _is_valid_now(certificates.get(label, {}))
        ):
            listed.add(label)
    if TRUSTED in Codes.of(results.get("activeManifest")).success:
        listed.add(str(store.get("active_manifest")))
    return frozenset(listed)


def _manifest(
    store: Json,
    certificates: dict[str, Json],
    listed: frozenset[str],
    where: str,
    trust: TrustList,
) -> Manifest:
    """Returns the active manifest.

    Args:
        store: All manifests, and the validation results of the parser.
        certificates: Issuer and validity of the signer's certificate by label of the manifest.
        listed: Labels of the manifests whose signers are on the trust list.
        where: `embedded` or `sidecar`.
        trust: The trust list.
    """
    manifests = _dict(store.get("manifests"))
    label = str(store.get("active_manifest"))
    active = _dict(manifests.get(label))
    results = _dict(store.get("validation_results"))
    signed = _dict(active.get("signature_info"))
    tree = Tree(manifests, _deltas(results), listed)
    actions, left_out = _actions(active)
    types, types_left_out = _source_types(active)
    ingredients = tree.ingredients_of(label)
    certificate = certificates.get(label, {})
    issuer = _dict(certificate.get("issuer"))
    signature = signature_of(
        _codes(results, certificate, is_listed=label in listed, is_stamped="time" in signed),
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
        source_types=types,
        ingredients=ingredients,
        cut=left_out or types_left_out or tree.cut,
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
    if not is_listed and TRUSTED in codes.success:
        added.add(UNTRUSTED)
    if is_stamped and "timeStamp.trusted" not in codes.success and not _is_valid_now(certificate):
        added.add("signingCredential.expired")
    return codes | Codes(failure=frozenset(added))


def _is_valid_now(certificate: Json) -> bool:
    validity = _dict(certificate.get("validity"))
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    begin, end = _time(validity.get("notBefore")), _time(validity.get("notAfter"))
    return begin is not None and end is not None and begin <= now <= end


class Tree:
    """Ingredients of a manifest store as a tree of bounded size.

    Args:
        manifests: Manifests by label.
        deltas: Codes by label of the manifest and of its ingredient assertion.
        listed: Labels of the manifests whose signers are on the trust list.

    Attributes:
        cut: Whether anything was left out, for number, depth or a circle.
    """

    def __init__(
        self,
        manifests: Json,
        deltas: dict[tuple[str, str], Codes],
        listed: frozenset[str] = frozenset(),
    ) -> None:
        self.cut = False
        self._manifests = manifests
        self._deltas = deltas
        self._listed = listed
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
            types, left_out = _source_types(manifest)
            self.cut = self.cut or left_out
        return Ingredient(
            title=_text(entry.get("title")),
            format=_text(entry.get("format"), 100),
            relationship=_text(entry.get("relationship"), 30) or "componentOf",
            state=state,
            signer=_signer(_dict(manifest.get("signature_info"))),
            claim_generator=_claim_generator(manifest),
            source_types=types,
            ingredients=self.ingredients_of(label, (*above, parent)),
            trusted=codes.is_signed and label in self._listed,
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
    for action, agents in _action_entries(manifest):
        if len(actions) == MOST_ACTIONS:
            return tuple(actions), True
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


def _action_entries(manifest: Json) -> Iterator[tuple[Json, list[Any]]]:
    """Yields all actions of a manifest, each with the programs that it may refer to."""
    for data in _assertions(manifest, "c2pa.actions"):
        agents = _list(data.get("softwareAgents"))
        for entry in _list(data.get("actions")):
            yield _dict(entry), agents


def _software(action: Json, agents: list[Any]) -> str | None:
    agent = action.get("softwareAgent")
    index = action.get("softwareAgentIndex")
    if agent is None and isinstance(index, int) and 0 <= index < len(agents):
        agent = agents[index]
    return _program(agent)


def _source_types(manifest: Json) -> tuple[tuple[SourceType, ...], bool]:
    """Returns the source types of all actions and of signed metadata, and whether some are missing.

    Each is there once, and those of the vocabulary come first: however many others a file invents,
    none of these is left out.
    """
    stated = [action.get("digitalSourceType") for action, _ in _action_entries(manifest)]
    for label in _METADATA:
        for data in _assertions(manifest, label):
            for key, value in data.items():
                if key.rpartition(":")[2] == "DigitalSourceType":
                    stated.append(value)
    codes = dict.fromkeys(value for value in stated if isinstance(value, str))
    types = sorted(dict.fromkeys(map(source_type, codes)), key=lambda one: one.kind == "unknown")
    return tuple(types[:_MOST_SOURCE_TYPES]), len(types) > _MOST_SOURCE_TYPES


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


def _certificates(reader: Reader) -> dict[str, Json]:
    """Returns issuer and validity of the certificates that signed the manifests, by label."""
    from c2pa import C2paError  # noqa: PLC0415

    with suppress(C2paError, ValueError, RecursionError):
        return {
            str(manifest.get("label")): _dict(
                _dict(manifest.get("signature")).get("certificateInfo")
            )
            for manifest in map(_dict, _list(_dict(json.loads(reader.crjson())).get("manifests")))
        }
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
