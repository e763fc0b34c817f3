"""Data of the templates for the statements of a file on its own origin, apart from the verdict.

The view is built from the JSON object of a `Provenance`, so that records of any age can be shown
without importing what reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from dfd_edge.judging.results import Record
from dfd_edge.report.figures import shortened
from dfd_edge.report.words import Badge

BADGES = {
    "signed_capture": Badge("Signed camera capture", "◆", "origin"),
    "signed_ai": Badge("Signed, says AI took part", "◆", "origin"),
    "signed_other": Badge("Signed", "◆", "origin"),
    "signed_broken": Badge("Signature broken", "!", "origin broken"),
    "unsigned_marks": Badge("Unsigned marks", "◇", "origin"),
    "nothing": Badge("No origin stated", "□", "origin"),
    "error": Badge("Could not be read", "✕", "origin"),
}
"""Badges by outcome: none has the colour of a verdict, since none says `real` or `fake`."""
ALWAYS = (
    "This is what the file says of itself. It stands beside the verdict, and changes neither that "
    "nor the score."
)
"""Shown with every outcome."""
_SIGNED = (
    "The signature shows that {signer} signed these bytes. Signed does not mean true: it "
    "vouches for the file, not for what can be seen in it."
)
_UNTRUSTED = (
    "The signature shows that nobody has changed the file since it was signed. Since the signer is "
    "not on the trust list, it does not show who that was. Signed does not mean true: it vouches "
    "for the file, not for what can be seen in it."
)
_CAPTURE = "A camera signs a picture of a screen as well."
_MEANINGS = {
    "signed_broken": (
        "A broken signature does not make the file a forgery: programs that save or convert a "
        "signed file break its signature too."
    ),
    "unsigned_marks": "A mark that nobody has signed is a hint to follow up, not proof.",
    "nothing": ("Few cameras and programs write such statements, and many platforms remove them."),
    "error": "That speaks neither for nor against the file.",
}
_RELATIONSHIPS = {
    "parentOf": "the file that became this one",
    "componentOf": "placed in this one",
    "inputTo": "input of what generated or changed this one",
}
_STATES = {
    "signed": "signed",
    "broken": "signed, but that signature does not hold",
    "unsigned": "not signed",
}
_PLACES = {"embedded": "in the file itself", "sidecar": "in a file beside it"}
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Fact:
    """A named fact; `broken` where it does not hold."""

    name: str
    value: str
    broken: bool = False


@dataclass(frozen=True, slots=True)
class StepView:
    """An action that a manifest names; `details` say when, with which program, and of what kind."""

    meaning: str
    name: str
    details: list[str]


@dataclass(frozen=True, slots=True)
class IngredientView:
    """A file that went into another.

    Attributes:
        title: Its title.
        state: Whether it is signed, by whom, and whether that holds.
        broken: Whether it does not hold.
        details: How it went in, and statements of its own manifest.
        ingredients: Files that went into it.
    """

    title: str
    state: str
    broken: bool
    details: list[str]
    ingredients: list[IngredientView]


@dataclass(frozen=True, slots=True)
class MarkView:
    """A statement of plain metadata."""

    field: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ProvenanceView:
    """Statements of a file on its own origin, in words.

    Attributes:
        badge: The outcome.
        summary: The outcome in one or two sentences.
        meaning: What it shows and what not.
        facts: Signer, time, what holds, and other parts of the manifest.
        broken: Whether the manifest or its signature does not hold.
        problems: Everything that does not hold or limits what the signature says, as clauses.
        codes: Codes of the C2PA specification behind them.
        steps: Actions in order.
        ingredients: Files that went into this one.
        files: Number of those, with all of theirs.
        marks: Statements of plain metadata.
        remote: Address of a manifest that was not fetched, or None.
        error: Why not everything could be read; None where it could, or the summary says it.
        cut: Whether the manifest has more actions or ingredients.
    """

    badge: Badge
    summary: str
    meaning: str
    facts: list[Fact]
    broken: bool
    problems: list[str]
    codes: list[str]
    steps: list[StepView]
    ingredients: list[IngredientView]
    files: int
    marks: list[MarkView]
    remote: str | None
    error: str | None
    cut: bool

    @classmethod
    def of(cls, record: Record | None) -> ProvenanceView | None:
        """Returns the view of the JSON object of a `Provenance`; None where there is none."""
        if record is None:
            return None
        manifest = record["manifest"] or {}
        signature = manifest.get("signature", {})
        ingredients = [_ingredient(one) for one in manifest.get("ingredients", ())]
        return cls(
            badge=BADGES[record["outcome"]],
            summary=record["summary"],
            meaning=f"{ALWAYS} {_meaning(record['outcome'], signature)}",
            facts=_facts(manifest) if manifest else [],
            broken=record["outcome"] == "signed_broken",
            problems=list(signature.get("problems", ())),
            codes=list(signature.get("codes", ())),
            steps=[_step(action) for action in manifest.get("actions", ())],
            ingredients=ingredients,
            files=_count(ingredients),
            marks=[_mark(mark) for mark in record["marks"]],
            remote=record["remote"],
            error=None if record["outcome"] == "error" else record["error"],
            cut=manifest.get("cut", False),
        )


def _meaning(outcome: str, signature: Record) -> str:
    if outcome in _MEANINGS:
        return _MEANINGS[outcome]
    if not signature["trusted"]:
        return _UNTRUSTED
    signer = shortened(signature["signer"] or "the holder of the certificate")
    said = _SIGNED.format(signer=signer)
    return f"{said} {_CAPTURE}" if outcome == "signed_capture" else said


def _facts(manifest: Record) -> list[Fact]:
    """Returns the facts on signer, signature and manifest."""
    signature = manifest["signature"]
    bytes_match = {
        True: "those that were signed",
        False: "not those that were signed",
        None: "could not be compared with those that were signed",
    }[signature["bytes_match"]]
    trust_list = signature["trust_list"]
    proven = signature["trusted"] and signature["holds"]
    facts = [
        Fact(
            "Signed by" if proven else "Signed in the name of",
            _text(signature["signer"]) or "no name could be read",
        ),
        Fact("Certificate issued by", _text(signature["issuer"]) or "no name could be read"),
        Fact("Signed at", _signed_at(signature)),
        Fact(
            "Signature",
            "fits the signed record" if signature["holds"] else "does not fit the signed record",
            broken=not signature["holds"],
        ),
        Fact("Bytes of the file", bytes_match, broken=signature["bytes_match"] is False),
        Fact(
            "Certificate",
            f"on the trust list ({trust_list})"
            if signature["trusted"]
            else f"not on the trust list ({trust_list}): the name of the signer is only claimed",
        ),
    ]
    if manifest["source_types"]:
        facts.append(Fact("Kinds of origin", _kinds(manifest["source_types"])))
    optional = {"Written with": manifest["claim_generator"], "Title": manifest["title"]}
    facts += [Fact(name, _text(value)) for name, value in optional.items() if value]
    facts.append(Fact("Signed record (C2PA)", _PLACES[manifest["where"]]))
    return facts


def _signed_at(signature: Record) -> str:
    if signature["signed_at"] is None:
        return "no time is stated"
    time = _time(signature["signed_at"])
    if signature["time_stamped"]:
        return f"{time}, confirmed by a time stamp authority"
    return f"{time}, as the signer says: no time stamp authority confirms it"


def _step(action: Record) -> StepView:
    details = []
    if action["when"]:
        details.append(_time(action["when"]))
    if action["software"]:
        details.append(f"with {_text(action['software'])}")
    if action["source_type"]:
        details.append(_kinds([action["source_type"]]))
    return StepView(_text(action["meaning"]), _text(action["name"]), details)


def _ingredient(record: Record) -> IngredientView:
    signer, program = record["signer"], record["claim_generator"]
    relationship = record["relationship"]
    state = _STATES[record["state"]]
    if signer:
        proven = record["state"] == "signed" and record.get("trusted", False)
        state += f" ({'signer:' if proven else 'in the name of'} {_text(signer)})"
    details = [_RELATIONSHIPS.get(relationship, _text(relationship))]
    if record["state"] == "signed" and record.get("trusted") is False:
        details.append("the signer is not on the trust list, so anyone can have signed it")
    if program:
        details.append(f"written with {_text(program)}")
    if record["source_types"]:
        details.append(_kinds(record["source_types"]))
    if record["format"]:
        details.append(_text(record["format"]))
    return IngredientView(
        title=_text(record["title"]) or "without a title",
        state=state,
        broken=record["state"] == "broken",
        details=details,
        ingredients=[_ingredient(one) for one in record["ingredients"]],
    )


def _count(ingredients: Iterable[IngredientView]) -> int:
    return sum(1 + _count(one.ingredients) for one in ingredients)


def _mark(record: Record) -> MarkView:
    generator, source_type = record["generator"], record["source_type"]
    parts = [f"known mark of {_text(generator)}"] if generator else []
    parts += [_text(record["meaning"])] if record["meaning"] else []
    parts += [_kinds([source_type])] if source_type else []
    return MarkView(_text(record["field"]), _text(record["value"]), "; ".join(parts))


def _kinds(source_types: Iterable[Record]) -> str:
    """Returns digital source types with their meanings."""
    return "; ".join(f"{_text(one['meaning'])} ({_text(one['code'])})" for one in source_types)


def _text(value: str | None) -> str:
    return shortened(value or "", _LONGEST)


def _time(text: str) -> str:
    """Returns a time of ISO 8601 for readers; in UTC where it names its zone, else as it is."""
    try:
        time = datetime.fromisoformat(text)
        return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if time.tzinfo else _text(text)
    except (ValueError, OverflowError):
        return _text(text)
