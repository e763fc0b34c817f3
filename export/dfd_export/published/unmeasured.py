"""Decision and card of a model of which nothing is known but its file."""

from __future__ import annotations

from collections.abc import Sequence

from dfd_edge.bundle.manifest import Calibrator, CardInfo, DecisionSpec, PersonScore, Threshold

NOT_MEASURED = (
    "Nothing was calibrated and nothing was measured: a probability is what the published model "
    "itself gives, and `fake` starts at one half, as published. How often it is wrong is not known."
)


def unmeasured_decision(person_score: PersonScore) -> DecisionSpec:
    """Probabilities as the model gives them, and one half between real and fake.

    Args:
        person_score: Which logits a person's score is the mean of.
    """
    half = Threshold(probability=0.5, target_rate=1.0, rate=0.0, n=0, upper_bound=1.0)
    return DecisionSpec(
        person_score=person_score,
        calibrators={name: Calibrator(1.0, 0.0) for name in ("frame", "step", "person")},
        thresholds={"real": half, "fake": half},
    )


def unmeasured_card(sources: Sequence[str], facts: Sequence[str]) -> CardInfo:
    """A card that says so.

    Args:
        sources: The model files, a phrase each.
        facts: What was told or found about the models and limits their use, a sentence each.
    """
    return CardInfo(
        training_data=f"Not known here. Taken over from {' and '.join(sources)}.",
        protocol=f"Converted from published files and compared with them. {NOT_MEASURED}",
        metrics={},
        licence="Not known here: the terms of the published model apply.",
        limits=[NOT_MEASURED, *facts],
    )
