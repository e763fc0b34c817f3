"""Fitting the signals head, in closed form: the frame model's own logit, and probes on signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.evaluation.statistics import auc
from dfd_training.fitting.record import write_record
from dfd_training.models import (
    SIGNALS_HEAD,
    build_sequence_model,
    load_sequence_model,
    read_logit_layer,
    save_model,
    takes_signals,
    with_crop_scale,
)
from dfd_training.sequence.fit import SEQUENCE_NAME, SequenceFit, check_folds
from dfd_training.sequence.out_of_fold import digest_of, score_sequences, write_out_of_fold
from dfd_training.sequence.probes import FEWEST_STEPS, PROBE_SHARE, FamilyProbes
from dfd_training.sequence.sequences import ClipSequence
from dfd_training.sequence.windows import FitSequenceOptions

_MOST_ERROR = 1e-2
"""Largest difference of a logit from the linear map of the features, in logits."""


@dataclass(frozen=True, eq=False)
class _SignalsFit:
    """Probes, and how they go together with the picture.

    Attributes:
        probes: The probes.
        weight: Factor of their score beside the picture's logit.
        absent: Score of a step that was not measured.
    """

    probes: FamilyProbes
    weight: float
    absent: float

    @classmethod
    def of(cls, clips: Sequence[ClipSequence]) -> _SignalsFit:
        """Fits on the mean of each clip's measured signals.

        Raises:
            UsageError: There are too few clips with signals.
        """
        used = [clip for clip in clips if _is_used(clip)]
        means = [clip.signals[clip.measured].mean(axis=0) for clip in used]
        signals = np.array(means, np.float64).reshape(len(used), clips[0].signals.shape[1])
        fake = np.array([clip.fake for clip in used], np.bool_)
        probes = FamilyProbes.fit(
            signals,
            [clip.family for clip in used],
            [clip.generator for clip in used],
            [clip.group for clip in used],
            fake,
        )
        scores = probes.score(signals)
        pictures = np.array([clip.frame_logit.mean() for clip in used], np.float64)
        return cls(
            probes=probes,
            weight=float(PROBE_SHARE * pictures.std() / scores.std()),
            absent=float(0.5 * scores[fake].mean() + 0.5 * scores[~fake].mean()),
        )

    def model(self, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> keras.Model:
        """Builds the head for a frame model's logit layer, kernel [F, 1] and bias [1]."""
        width, count = self.probes.kernel.shape
        model = build_sequence_model(
            feature_width=len(kernel), head=SIGNALS_HEAD, signal_width=width, probes=count
        )
        model.get_layer("logit").set_weights([kernel, bias])
        layer = model.get_layer("probes")
        layer.mean.assign(self.probes.mean)
        layer.scale.assign(self.probes.scale)
        layer.kernel.assign(self.probes.kernel)
        layer.bias.assign(self.probes.bias)
        layer.absent.assign(np.full(count, self.absent, np.float32))
        model.get_layer("vote").weight.assign([self.weight])
        return model


def fit_signals_head(
    sequences: Sequence[ClipSequence],
    out: Path,
    *,
    frames: Sequence[Path],
    crop_scale: float,
    shipped: Path | None = None,
    options: FitSequenceOptions | None = None,
) -> SequenceFit:
    """Fits the signals head of each fold, and the one that ships.

    The picture's logit is that of the frame model, whose logit layer the head takes. The probes are
    fitted on the mean signals of real clips and true fakes. Their weight makes their score's
    spread half that of the frame logits of the same clips. A step that was not measured adds the
    mean of what reals and fakes add, at even weight.

    Out-of-fold logits come from heads whose probes were fitted on the other folds. The head that
    ships is fitted on the clips of all folds, unlike the other heads: its probes have so few
    numbers that no epoch has to be chosen on a fold left out.

    Writes `sequence.keras`, `out_of_fold.npz`, `headK.keras`, `settings.toml` and `run.json` into
    `out`, as `fit_sequence` does.

    Args:
        sequences: Sequences of all folds, of fp32. Those without measured signals are scored, but
            not fitted on; nor are synthesised fakes, which belong to no family.
        out: The run's folder.
        frames: The frame model of each fold, which gave the features; a `.keras` file or a bundle.
        crop_scale: Side of the crops behind the features, over the size of the face.
        shipped: The frame model that the head ships with; by default that of fold 0.
        options: Options of the fit, for the record.

    Raises:
        UsageError: A fold lacks real or fake sequences, too few clips have signals, or a frame
            model's logit is no linear map of its features.
    """
    options = options or FitSequenceOptions(head=SIGNALS_HEAD)
    held = {
        fold: [i for i, sequence in enumerate(sequences) if sequence.fold == fold]
        for fold in sorted({sequence.fold for sequence in sequences})
    }
    check_folds(sequences, held)
    out.mkdir(parents=True, exist_ok=True)
    logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(sequences)
    heads: dict[int, keras.Model] = {}
    fold_auc: dict[int, float] = {}
    for fold, rows in held.items():
        part = [sequences[i] for i in rows]
        kernel, bias = read_logit_layer(frames[fold])
        _check_linear(frames[fold], part, kernel, bias)
        fit = _SignalsFit.of([sequence for sequence in sequences if sequence.fold != fold])
        heads[fold] = with_crop_scale(fit.model(kernel, bias), crop_scale)
        for i, steps in zip(rows, score_sequences(heads[fold], part), strict=True):
            logits[i] = steps
        labels = np.array([sequence.fake for sequence in part], np.int64)
        fold_auc[fold] = auc(labels, np.array([logits[i].mean() for i in rows], np.float64))
    whole = _SignalsFit.of(sequences)
    ships = whole.model(*read_logit_layer(shipped or frames[0]))
    save_model(with_crop_scale(ships, crop_scale), out / SEQUENCE_NAME)
    write_out_of_fold(out, sequences, logits, heads)
    data = {
        "sequences": len(sequences),
        "with_signals": sum(_is_used(sequence) for sequence in sequences),
        "sha256": digest_of(sequences),
        "crop_scale": crop_scale,
        "families": list(whole.probes.families),
        "weight": whole.weight,
        "absent": whole.absent,
    }
    write_record(out, {"fit": options}, data=data, fold_auc=fold_auc)
    return SequenceFit(out / SEQUENCE_NAME, fold_auc)


def ships_another_frame_model(folder: Path) -> bool:
    """Returns whether the head that ships is for a frame model of no fold (`shipped` of a fit).

    Args:
        folder: The folder that `fit_signals_head` or `fit_sequence` wrote.
    """
    model = load_sequence_model(folder / SEQUENCE_NAME)
    if not takes_signals(model):
        return False
    first = load_sequence_model(folder / "head0.keras")
    weights = (head.get_layer("logit").get_weights()[0] for head in (model, first))
    return not np.array_equal(*weights)


def _is_used(clip: ClipSequence) -> bool:
    """Returns whether the probes are fitted on a clip: a real one or a true fake, with signals."""
    return int(clip.measured.sum()) >= FEWEST_STEPS and (not clip.fake or bool(clip.family))


def _check_linear(
    path: Path,
    sequences: Sequence[ClipSequence],
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> None:
    """Refuses a frame model that did not give these logits by its logit layer."""
    width = sequences[0].features.shape[1]
    if len(kernel) != width:
        raise UsageError(f"{path}: gives {len(kernel)} features, the sequences have {width}")
    error = max(
        float(np.abs(clip.features @ kernel[:, 0] + bias[0] - clip.frame_logit).max())
        for clip in sequences
    )
    if not error <= _MOST_ERROR:
        raise UsageError(
            f"{path}: its logits are up to {error:.3g} away from what its logit layer makes of the "
            "features: give the frame models that the features come from"
        )
