"""The record of a file's provenance: signed manifests, unsigned marks and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from dfd_edge.schema import check, to_plain

Record = dict[str, Any]


class Outcome(Enum):
    """The conclusion from a file's manifests and metadata.

    Never a reason to call a file `real`: each describes what the file says, not what it shows.
    """

    #: Signed by a trusted certificate as a camera's capture; signature and bytes hold.
    CAPTURE = "signed_capture"
    #: Signed, holds, and says that AI generated or edited it, in part or as a whole.
    AI = "signed_ai"
    #: Signed and holds, but says neither; or a capture whose signer is not on the trust list.
    OTHER = "signed_other"
    #: Signed, but signature, bytes or certificate do not hold.
    BROKEN = "signed_broken"
    #: No signed manifest, but metadata carry a known mark of a generator or swap tool.
    MARKS = "unsigned_marks"
    #: Nothing that says where the file comes from, which is the usual case.
    NOTHING = "nothing"
    #: The file or its manifest could not be read within the limits.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SourceType:
    """A digital source type of the IPTC vocabulary.

    Attributes:
        code: Last part of its address, such as `trainedAlgorithmicMedia`.
        meaning: The meaning in plain words.
        kind: `capture`, `ai`, `ai_part` (a composite with AI's work), `other`, or `unknown` for a
            code that the vocabulary lacks.
    """

    code: str
    meaning: str
    kind: str

    def __post_init__(self) -> None:
        kinds = ("capture", "ai", "ai_part", "other", "unknown")
        check(self.kind in kinds, f"kind: {self.kind!r} is none of {', '.join(kinds)}")


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature over a manifest.

    Attributes:
        signer: Organisation, else name, of the signing certificate; None where unreadable.
        issuer: Organisation, else name, that issued it.
        signed_at: Time of signing, ISO 8601 in UTC; None where none is stated.
        time_stamped: Whether a time stamp authority vouches for `signed_at`.
        holds: Whether the signature verifies over the claim.
        bytes_match: Whether the file's bytes are those that were signed; None where unknown.
        trusted: Whether the certificate leads to the trust list.
        trust_list: Name and date of that list.
        problems: Everything that does not hold, in plain words, the gravest first.
        codes: Validation codes of the C2PA specification behind `problems`.
    """

    signer: str | None
    issuer: str | None
    signed_at: str | None
    time_stamped: bool
    holds: bool
    bytes_match: bool | None
    trusted: bool
    trust_list: str
    problems: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """An action that a manifest names.

    Attributes:
        name: Name in the C2PA vocabulary, such as `c2pa.created`.
        meaning: The same in plain words.
        when: Time, ISO 8601; None where none is stated.
        software: Program that acted; None where none is stated.
        source_type: Digital source type of what the action brought in; None where none is stated.
    """

    name: str
    meaning: str
    when: str | None = None
    software: str | None = None
    source_type: SourceType | None = None


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A file that went into this one.

    Attributes:
        title: Its title; None where none is stated.
        format: Its media type; None where none is stated.
        relationship: `parentOf`, `componentOf` or `inputTo`.
        state: `signed`, `broken` or `unsigned`: its own manifest, as this file carries it.
        signer: Signer of that manifest; None where it has none.
        claim_generator: Program that wrote that manifest; None where it has none.
        source_types: Digital source types that that manifest names.
        ingredients: Its own ingredients.
        trusted: Whether the certificate that signed that manifest leads to the trust list; else
            anyone can have signed in the name of `signer`.
    """

    title: str | None
    format: str | None
    relationship: str
    state: str
    signer: str | None = None
    claim_generator: str | None = None
    source_types: tuple[SourceType, ...] = ()
    ingredients: tuple[Ingredient, ...] = ()
    trusted: bool = False

    def __post_init__(self) -> None:
        states = ("signed", "broken", "unsigned")
        check(self.state in states, f"state: {self.state!r} is none of {', '.join(states)}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The active manifest of a file.

    Attributes:
        where: `embedded` or `sidecar`.
        claim_generator: Program that wrote it, with its version; None where none is stated.
        title: Title that it gives the file; None where none is stated.
        signature: The signature over it.
        actions: Actions in order.
        source_types: Digital source types of all actions and of signed metadata, each once, those
            that the vocabulary lacks last.
        ingredients: Files that went into this one, as a tree.
        cut: Whether actions, source types that the vocabulary lacks, or ingredients were left out
            for their number or depth.
    """

    where: str
    claim_generator: str | None
    title: str | None
    signature: Signature
    actions: tuple[Action, ...] = ()
    source_types: tuple[SourceType, ...] = ()
    ingredients: tuple[Ingredient, ...] = ()
    cut: bool = False

    def __post_init__(self) -> None:
        places = ("embedded", "sidecar")
        check(self.where in places, f"where: {self.where!r} is none of {', '.join(places)}")


@dataclass(frozen=True, slots=True)
class Mark:
    """A statement of plain metadata: unsigned, so that anyone can have written it.

    Attributes:
        field: Where it was found, such as `exif.Make`, `png.parameters`, `container.encoder`.
        value: The value, without control characters, cut to 200 characters.
        meaning: The meaning in plain words; None where the value says it all.
        generator: Name of the generator or swap tool whose known mark this is, else None.
        source_type: Digital source type that it states, else None.
    """

    field: str
    value: str
    meaning: str | None = None
    generator: str | None = None
    source_type: SourceType | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Statements of a file on its own origin.

    Attributes:
        outcome: The conclusion.
        summary: The conclusion in one or two sentences for a lay reader.
        manifest: Its active C2PA manifest; None without one.
        remote: Address of a manifest that is kept elsewhere, which is named and never fetched.
        marks: Statements of plain metadata, known marks of generators first.
        error: Why the manifest or the metadata could not be read whole; None where they could.
    """

    outcome: Outcome
    summary: str
    manifest: Manifest | None = None
    remote: str | None = None
    marks: tuple[Mark, ...] = ()
    error: str | None = None

    def to_record(self) -> Record:
        """Returns the JSON object of this provenance."""
        record: Record = to_plain(self)
        return record
