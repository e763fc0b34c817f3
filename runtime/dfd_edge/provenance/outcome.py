"""The conclusion from a file's manifest and metadata, in words for a lay reader."""

from __future__ import annotations

from collections.abc import Iterator

from dfd_edge.provenance.record import (
    Ingredient,
    Manifest,
    Mark,
    Outcome,
    Provenance,
    Signature,
    SourceType,
)
from dfd_edge.provenance.validation import is_harmless

_AI = ("ai", "ai_part")
#: Actions by which a file begins.
_ORIGIN = ("c2pa.created", "c2pa.captured")
#: Actions that change the form of a file, or where it is kept, and not what can be seen in it.
_FORMAL = frozenset(
    f"c2pa.{name}"
    for name in (
        *("converted", "copied", "managed", "opened", "published", "repackaged", "saved"),
        *("transcoded", "version_updated", "watermarked", "watermarked.bound"),
        "watermarked.unbound",
    )
)

_NOTHING = (
    "This file does not say where it comes from. That is the usual case, and says nothing for or "
    "against it."
)
_ANYONE = "The signer is not on the trust list, so anyone can have signed in this name."


def conclude(
    manifest: Manifest | None,
    remote: str | None = None,
    marks: tuple[Mark, ...] = (),
    error: str | None = None,
) -> Provenance:
    """Draws the conclusion.

    A manifest that does not hold wins over all; next comes AI that any record names; a camera's
    capture needs a trusted signer besides.

    Args:
        manifest: The active manifest of the file; None without one.
        remote: Address of a manifest that is kept elsewhere.
        marks: Statements of plain metadata.
        error: Why manifest or metadata could not be read whole.
    """
    marks = tuple(sorted(marks, key=lambda mark: not _names_generator(mark)))
    if manifest is not None:
        outcome, summary = _manifest_conclusion(manifest)
        if outcome is not Outcome.AI and marks and _names_generator(marks[0]):
            summary += f" {_marks_summary(marks[0])}"
    elif marks and _names_generator(marks[0]):
        outcome, summary = Outcome.MARKS, _marks_summary(marks[0])
    elif error is not None:
        outcome = Outcome.ERROR
        summary = f"The file could not be searched for its origin: {error}. This says nothing."
    else:
        outcome, summary = Outcome.NOTHING, _NOTHING
    if remote is not None and manifest is None:
        summary += f" It names a signed record kept at {remote}, which was not fetched."
    return Provenance(outcome, summary, manifest, remote, marks, error)


def _manifest_conclusion(manifest: Manifest) -> tuple[Outcome, str]:
    signature = manifest.signature
    way = "by" if signature.trusted else "in the name of"
    by = f"Signed {way} {signature.signer or 'an unnamed signer'}{_when(signature)}"
    trust = "" if signature.trusted else f" {_ANYONE}"
    if problem := _break(signature):
        claimed = f" of {signature.signer}" if signature.signer else ""
        return Outcome.BROKEN, (
            f"This file carries a signed record{claimed} that does not hold: {problem}. Nothing in "
            "that record can be relied on."
        )
    statement = _ai_statement(manifest)
    if statement is not None:
        return Outcome.AI, f"{by}, and unchanged since: the record says that {statement}.{trust}"
    origin, doubt = _camera(manifest), _doubt(manifest)
    if origin is None:
        read = ", as far as it was read: it is too long to be read whole" if manifest.cut else ""
        claim = (
            f"The record names neither a camera nor AI as its origin{read}."
            f"{_origin_of_parent(manifest)}"
        )
        return Outcome.OTHER, f"{by}, and unchanged since. {claim}{trust}"
    edited = any(action.name not in {*_ORIGIN, *_FORMAL} for action in manifest.actions)
    edits = " and edited afterwards" if edited else ""
    claim = f"{by}, and unchanged since: the record says that it was {origin.meaning}{edits}."
    if doubt is not None or not signature.trusted:
        return Outcome.OTHER, f"{claim}{doubt or ''}{trust}"
    return Outcome.CAPTURE, f"{claim} It does not say whether the scene was staged."


def _break(signature: Signature) -> str | None:
    """Returns the gravest thing that does not hold; None where all does."""
    codes = [code for code in signature.codes if not is_harmless(code)]
    if codes and signature.problems:
        return signature.problems[0]
    if not signature.holds:
        return "the signature does not fit the signed record"
    if not signature.bytes_match:
        return "it does not show that it belongs to this file"
    return None


def _ai_statement(manifest: Manifest) -> str | None:
    """Returns the record's gravest statement about AI as a clause; None without one."""
    own = [kind for kind in _AI for found in manifest.source_types if found.kind == kind]
    below = [found.kind for found in _types_of(manifest.ingredients)]
    if own and own[0] == "ai":
        return "AI generated it"
    if own:
        return "AI edited it, or generated parts of it"
    if "ai" in below:
        return "something that AI generated went into it"
    if "ai_part" in below:
        return "something that AI edited, or generated in part, went into it"
    return None


def _camera(manifest: Manifest) -> SourceType | None:
    """Returns the source type of a camera, if the record says that the file began with one."""
    origin = next((action for action in manifest.actions if action.name in _ORIGIN), None)
    if origin is None or origin.source_type is None or origin.source_type.kind != "capture":
        return None
    return origin.source_type


def _doubt(manifest: Manifest) -> str | None:
    """Returns why it is not known whether AI went into the file; None where it is."""
    nodes = tuple(_nodes(manifest.ingredients))
    if any(node.state == "broken" for node in nodes):
        return " But another file went into it whose own record does not hold."
    if manifest.cut:
        return " But the record is too long to be read whole."
    if any(node.state == "unsigned" for node in nodes):
        return " But another file went into it that has no signed record of its own."
    if not all(node.trusted for node in nodes):
        return " But another file went into it whose own record anyone can have signed."
    return None


def _origin_of_parent(manifest: Manifest) -> str:
    for node in manifest.ingredients:
        if node.relationship != "parentOf":
            continue
        if node.state == "broken":
            return " The record of the file that it comes from does not hold."
        captured = next((found for found in node.source_types if found.kind == "capture"), None)
        if captured is not None and node.state == "signed":
            signer = node.signer or "an unnamed signer"
            if node.trusted:
                return f" It comes from a file that {signer} signed as {captured.meaning}."
            return (
                f" It comes from a file that was signed as {captured.meaning} in the name of "
                f"{signer}, which anyone can have done."
            )
    return ""


def _types_of(ingredients: tuple[Ingredient, ...]) -> Iterator[SourceType]:
    for node in _nodes(ingredients):
        yield from node.source_types


def _nodes(ingredients: tuple[Ingredient, ...]) -> Iterator[Ingredient]:
    for node in ingredients:
        yield node
        yield from _nodes(node.ingredients)


def _when(signature: Signature) -> str:
    if signature.signed_at is None or not signature.time_stamped:
        return ""
    return f" on {signature.signed_at[:10]}"


def _names_generator(mark: Mark) -> bool:
    stated = mark.source_type
    return mark.generator is not None or (stated is not None and stated.kind in _AI)


def _marks_summary(mark: Mark) -> str:
    if mark.generator is not None:
        claim = f"Its metadata carry a mark of {mark.generator}"
    else:
        meaning = "" if mark.source_type is None else mark.source_type.meaning
        claim = f"Its metadata say: {meaning}"
    return f"{claim}. That is unsigned: anyone can write such a mark, or remove it."
