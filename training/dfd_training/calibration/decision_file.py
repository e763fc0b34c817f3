"""`decision.json`, and the decision where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping

from dfd_edge.bundle.manifest import Calibrator, DecisionSpec, PersonScore, Threshold
from dfd_edge.inference.names import PRECISIONS
from dfd_edge.schema import SchemaError, check, dump_json, from_plain, parse_json


def uncalibrated(person_score: PersonScore) -> DecisionSpec:
    """Returns probabilities as the models give them, with one half between real and fake.

    Its thresholds rest on no group of footage (`n` is 0), which marks it.

    Args:
        person_score: The logits from which a person's score is computed.
    """
    half = Threshold(probability=0.5, target_rate=1.0, rate=0.0, n=0, upper_bound=1.0)
    return DecisionSpec(
        person_score=person_score,
        calibrators={name: Calibrator(1.0, 0.0) for name in ("frame", "step", "person")},
        thresholds={"real": half, "fake": half},
    )


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
