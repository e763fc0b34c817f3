"""The columns of a provenance in tables: CSV and archives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfd_edge.text import json_line

if TYPE_CHECKING:  # tables without provenance load none of it
    from dfd_edge.provenance.record import Provenance, SourceType


@dataclass(frozen=True, slots=True)
class ProvenanceColumns:
    """The columns of a provenance in tables.

    Attributes:
        outcome: Value of the outcome.
        signer: Organisation, else name, of the certificate that signed; None without a signature.
        trusted: Whether that certificate leads to the trust list; None without a signature.
        signed_at: Time of signing, ISO 8601; None where none is stated.
        claim_generator: Program that wrote the manifest; None where none is stated.
        source_types: Codes of the digital source types, signed or not, each once.
        generators: Generators and swap tools whose known marks are in the metadata, each once.
        error: Why it could not be read whole; None where it could.
        record: The whole provenance as JSON, with the chain of actions and ingredients.
    """

    outcome: str
    signer: str | None
    trusted: bool | None
    signed_at: str | None
    claim_generator: str | None
    source_types: tuple[str, ...]
    generators: tuple[str, ...]
    error: str | None
    record: str

    @classmethod
    def of(cls, provenance: Provenance) -> ProvenanceColumns:
        """Returns the columns of a provenance."""
        manifest = provenance.manifest
        signature = None if manifest is None else manifest.signature
        types: list[SourceType] = [] if manifest is None else list(manifest.source_types)
        types += [mark.source_type for mark in provenance.marks if mark.source_type is not None]
        return cls(
            outcome=provenance.outcome.value,
            signer=None if signature is None else signature.signer,
            trusted=None if signature is None else signature.trusted,
            signed_at=None if signature is None else signature.signed_at,
            claim_generator=None if manifest is None else manifest.claim_generator,
            source_types=tuple(dict.fromkeys(kind.code for kind in types)),
            generators=tuple(dict.fromkeys(m.generator for m in provenance.marks if m.generator)),
            error=provenance.error,
            record=json_line(provenance.to_record()),
        )
