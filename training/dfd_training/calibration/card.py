"""The text of a model's card: training data, protocol and limits."""

from __future__ import annotations

from dfd_edge.bundle.manifest import CardInfo, Metric
from dfd_training.augment.synthesis import ForgeryKind
from dfd_training.calibration.thresholds import (
    FALSE_POSITIVE_TARGET,
    MISS_TARGET,
    UNSURE_TARGET,
)
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore

_LIMITS = (
    "It judges faces only: a forged voice, text or background passes unseen, and so does a "
    "clip whose only forged person is too small, blurred, dark or turned away to be judged.",
    "It learnt from face swaps of one live tool, from synthesised blends and from what small "
    "networks painted. Swaps by other tools, reenacted or wholly generated heads, and edits of "
    "the mouth alone are found less often, or not at all.",
    "Strong compression, low resolution, beauty filters and screen recordings hide the traces "
    "that it looks for and can also look like them.",
    "Its figures rest on a few dozen validation clips; the intervals are wide, and people, "
    "cameras and codecs unlike those of the training data may fare worse.",
    "No test by age, skin tone or gender was made: the validation data are too few for it.",
    "A verdict is evidence to weigh, not proof: do not act against a person on it alone.",
)


def make_card(
    store: CropStore, metrics: dict[str, Metric], *, licence: str, protocol: str = ""
) -> CardInfo:
    """Describes a model that was trained on a store.

    Args:
        store: The crops that it was trained on.
        metrics: Figures on the training's own folds.
        licence: Terms of the model files.
        protocol: Further sentences on how the model was fitted.
    """
    rows = training_rows(store)
    files = rows.drop_duplicates("shard")
    kinds = files["source"] + ": " + files["label"].str.lower()
    listed = "; ".join(f"{kind} {count}" for kind, count in kinds.value_counts(sort=False).items())
    shares = ", ".join(f"{share:.0%}" for share in FOLD_SHARES)
    return CardInfo(
        training_data=(
            f"{len(rows)} face crops from {len(files)} photographs and clips ({listed} files). "
            "Fakes beyond the true ones were forged from the real footage while training: "
            f"{', '.join(kind.value for kind in ForgeryKind)}{_made(store)}."
        ),
        protocol=(
            "Real and fake crops were drawn one to one inside every source and went through the "
            f"same degradations. Groups of footage were dealt into folds of {shares}; the frame "
            "model and the sequence model that ship were fitted without the first fold, which "
            "chose the sequence model's best weights. Calibrators and thresholds of each "
            "precision rest on what its own graphs say of the folds that they never saw, groups "
            "of footage weighing alike, clips as they are as much as degraded ones (codecs, JPEG, "
            "scaling, blur, noise): "
            f"`fake` starts where {FALSE_POSITIVE_TARGET:.0%} of the real clips would be called "
            f"so, `real` where {MISS_TARGET:.0%} of the true fakes would, or more where it takes "
            f"that to call no more than {UNSURE_TARGET:.0%} of the real clips unsure. "
            "Rows marked val were judged once, through the runtime. Intervals are 95 % bootstrap "
            f"intervals over groups. {protocol}".rstrip()
        ),
        metrics=metrics,
        licence=licence,
        limits=list(_LIMITS),
    )


def _made(store: CropStore) -> str:
    """Lists the fakes that trained networks generated, where the store has some."""
    if store.made.empty:
        return ""
    counts = store.made["generator"].value_counts()
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"; and made by trained networks ({listed} crops)"
