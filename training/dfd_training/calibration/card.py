"""The text of a model's card: training data, protocol and limits."""

from __future__ import annotations

from dfd_edge.bundle.manifest import CardInfo, Metric
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
    "Fakes by methods that the training data lack are found less often than its figures say, or "
    "not at all; edits of the mouth alone are among the hardest.",
    "Strong compression, low resolution, beauty filters and screen recordings hide the traces "
    "that it looks for and can also look like them.",
    "Its figures rest on few clips of each kind; the intervals are wide, and people, cameras and "
    "codecs unlike those of the training data may fare worse.",
    "No test by age, skin tone or gender was made: the data are too few for it.",
    "A verdict is evidence to weigh, not proof: do not act against a person on it alone.",
)

_OF_A_FOLD = (
    "the frame model and the sequence model that ship were fitted without the first fold, which "
    "chose the sequence model's best weights."
)
_OF_ALL = (
    "the frame model that ships was fitted on the rows marked train and val, its probes on signals "
    "on all clips marked train. Models like them were fitted without each fold; the figures are "
    "those of these models, each on files that it had not seen."
)


def make_card(
    store: CropStore,
    metrics: dict[str, Metric],
    *,
    licence: str,
    protocol: str = "",
    whole: bool = False,
    cameras: bool = False,
) -> CardInfo:
    """Describes a model that was trained on a store.

    Args:
        store: The crops that it was trained on.
        metrics: Figures on the training's own folds.
        licence: Terms of the model files.
        protocol: Further sentences on how the model was fitted.
        whole: Whether the frame model that ships was fitted on the rows of all folds and of val,
            and not on those of all folds but the first.
        cameras: Whether recordings by webcams and phones weighed as much as all others when
            thresholds were set.
    """
    rows = training_rows(store, with_validation=whole)
    files = rows.drop_duplicates("shard")
    kinds = files["source"] + ": " + files["label"].str.lower()
    listed = "; ".join(f"{kind} {count}" for kind, count in kinds.value_counts(sort=False).items())
    weights = "groups of footage weighing alike"
    if cameras:
        weights += " (for thresholds, recordings by webcams and phones as much as all others)"
    shares = ", ".join(f"{share:.0%}" for share in FOLD_SHARES)
    return CardInfo(
        training_data=(
            f"{len(rows)} face crops from {len(files)} photographs and clips ({listed} files). "
            "Fakes beyond the true ones were forged from the real footage while training"
            f"{_made(store)}."
        ),
        protocol=(
            "Real and fake crops were drawn one to one and went through the same degradations. "
            f"Groups of footage were dealt into folds of {shares}; "
            f"{_OF_ALL if whole else _OF_A_FOLD} Calibrators and thresholds of each precision rest "
            f"on what its own graphs say of the folds that they never saw, {weights}, clips as "
            "they are as much as degraded ones (codecs, JPEG, scaling, blur, noise): "
            f"`fake` starts where {FALSE_POSITIVE_TARGET:.0%} of the real clips would be called "
            f"so, `real` where {MISS_TARGET:.0%} of the true fakes would, or more where it takes "
            f"that to call no more than {UNSURE_TARGET:.0%} of the real clips unsure. "
            f"Rows marked {'train' if whole else 'val'} were judged once, through the runtime. "
            f"Intervals are 95 % bootstrap intervals over groups. {protocol}".rstrip()
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
