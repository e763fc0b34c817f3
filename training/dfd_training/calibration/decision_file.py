"""`decision.json`: a decision for fp32 and for each further precision that was measured."""

from __future__ import annotations

from collections.abc import Mapping

from dfd_edge.bundle.manifest import DecisionSpec
from dfd_edge.inference.names import PRECISIONS
from dfd_edge.schema import SchemaError, check, dump_json, from_plain, parse_json


def decisions_to_json(decisions: Mapping[str, DecisionSpec]) -> str:
    """Returns decisions by precision as JSON."""
    return dump_json(dict(decisions))


def decisions_from_json(text: str) -> dict[str, DecisionSpec]:
    """Reads decisions by precision; a single decision is that of fp32.

    Raises:
        SchemaError: The text violates the schema, names an unknown precision, or has none for
            fp32.
    """
    value = parse_json(text)
    if not isinstance(value, dict) or not set(value) & set(PRECISIONS):
        return {"fp32": from_plain(DecisionSpec, value)}
    for name in value:
        if name not in PRECISIONS:
            raise SchemaError(f"{name!r:.40} is no precision; known are {', '.join(PRECISIONS)}")
    check("fp32" in value, "has no decision for fp32")
    return {name: from_plain(DecisionSpec, entry, name) for name, entry in value.items()}
