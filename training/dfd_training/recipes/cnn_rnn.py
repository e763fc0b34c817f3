"""The published CNN-RNN recipe: a frozen ImageNet CNN over whole frames, and GRUs behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from dfd_edge.bundle.manifest import CardInfo, DecisionSpec, Metric, PersonScore
from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole
from dfd_training.calibration.calibrate import NoDecisionError, calibrate
from dfd_training.calibration.decision_file import decisions_to_json, uncalibrated
from dfd_training.data.folds import assign_folds
from dfd_training.data.table import is_fake
from dfd_training.evaluation.statistics import METRICS, estimate
from dfd_training.fitting.record import write_curves, write_record
from dfd_training.models import BACKBONES, save_model
from dfd_training.recipes.clip_reading import ReadClips, first_crops, read_clips
from dfd_training.recipes.networks import (
    build_frozen_cnn,
    fit_probe,
    hash_of_weights,
    head_named,
    last_logit_model,
    probe_logits,
)
from dfd_training.recipes.run import (
    CARD_NAME,
    CROPS_NAME,
    DECISION_NAME,
    FRAME_NAME,
    RESIZE,
    SEQUENCE_NAME,
    SHARES,
    CnnRnnOptions,
)
from dfd_training.sequence.feature_cache import FeatureCache
from dfd_training.sequence.sequences import ClipSequence, Treatment
from dfd_training.sequence.windows import pad

MIN_GROUPS = 3
"""With fewer groups of real or of fake clips nothing is calibrated."""

_FIGURES = ("auc", "accuracy", "log_loss")
MAX_CROPS = 16
"""Pictures kept for the exporter's comparison."""

_LIMITS = (
    "It judges the first frames of a clip alone: less than a second of most clips, and nothing of "
    "what is forged later.",
    "It looks at whole frames, in which a face may be a few pixels wide; it knows no faces.",
    "Its CNN was trained to name objects and is not fitted to forgeries. It is a baseline to "
    "compare with, not a detector to rely on.",
    "A verdict is evidence to weigh, not proof: do not act against a person on it alone.",
)


@dataclass(frozen=True, slots=True)
class RecipeDecision:
    """The decision of a recipe, with its figures.

    Attributes:
        spec: Decision of the bundle.
        metrics: Figures on the groups that it was set on; empty where there are too few.
        unmeasured: Reason why nothing was calibrated; None where it was.
    """

    spec: DecisionSpec
    metrics: dict[str, Metric]
    unmeasured: str | None = None


@dataclass(frozen=True, slots=True)
class CnnRnnFit:
    """Results of a recipe's fit.

    Attributes:
        clips: Number of clips of each part: for fitting, early stopping, and the decision.
        computed: Number of clips whose features were not in the cache.
        photographs: Number of rows that are pictures and were left out.
        unreadable: Reason for each file that could not be read, by path.
        history: One row for each epoch.
        decision: Decision of the bundle.
    """

    clips: tuple[int, ...]
    computed: int
    photographs: int
    unreadable: dict[str, str]
    history: pd.DataFrame
    decision: RecipeDecision


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Clips of one of the three parts of `train`; arrays float32."""

    rows: pd.DataFrame
    features: list[NDArray[np.float32]]

    @property
    def fake(self) -> NDArray[np.bool_]:
        return is_fake(self.rows) if len(self.rows) else np.zeros(0, np.bool_)

    def inputs(self, frames: int) -> dict[str, NDArray[Any]]:
        """Returns features and mask, padded with zeros to `frames` steps."""
        features, mask = pad(self.features, frames)
        return {"features": features, "mask": mask}


def fit_cnn_rnn(
    table: pd.DataFrame,
    root: Path,
    out: Path,
    *,
    options: CnnRnnOptions | None = None,
    cache: Path | None = None,
    on_file: Callable[[], None] = lambda: None,
    on_epoch: Callable[[], None] = lambda: None,
) -> CnnRnnFit:
    """Fits the recipe on the clips marked train.

    The features of every clip are computed once, and kept. The groups of `train` are split into
    three parts: for fitting, for early stopping, and for the decision.
    Rows marked val or test are not opened.

    Writes `frame.keras`, `sequence.keras`, `decision.json`, `card.json`, `crops.npy` (a few
    pictures, for the exporter), `history.csv`, `curves.png`, `settings.toml` and `run.json`.

    Args:
        table: A table from `read_table`.
        root: The folder that relative paths start from.
        out: The run's folder.
        options: Options of the recipe.
        cache: Folder of features; by default `features` in `out`.
        on_file: Called after each row marked train.
        on_epoch: Called after each epoch.

    Raises:
        UsageError: The weights cannot be had, or real or fake clips are missing in a part.
    """
    options = options or CnnRnnOptions()
    head_named(options.head)  # refused before hours of features are computed
    table = table[table["split"] == "train"].reset_index(drop=True)
    if table.empty:
        raise UsageError("no row of the table is marked train")
    out.mkdir(parents=True, exist_ok=True)
    cnn = build_frozen_cnn(
        backbone=options.backbone, size=options.size, weights=options.weights, seed=options.seed
    )
    weights = hash_of_weights(cnn)
    network = f"{options.backbone} {weights} {options.size} px {RESIZE}, first {options.frames}"
    clips = read_clips(
        table,
        root,
        cnn,
        FeatureCache(cache or out / "features", network),
        frames=options.frames,
        size=options.size,
        on_file=on_file,
    )
    fitted, stopping, held = _split(clips, options.seed)
    fit_probe(cnn, fitted.features, fitted.fake)
    rnn, history = _fit_rnn(fitted, stopping, options, on_epoch)
    decision = fit_decision(
        held.rows,
        [probe_logits(cnn, part) for part in held.features],
        clip_logits(rnn, held.features, frames=options.frames),
    )
    counts = tuple(len(part.rows) for part in (fitted, stopping, held))
    rate_hz = float(np.median([clip.rate_hz for clip in clips.features]))
    save_model(cnn, out / FRAME_NAME)
    save_model(rnn, out / SEQUENCE_NAME)
    _write_text(out / DECISION_NAME, decisions_to_json({"fp32": decision.spec}))
    _write_text(out / CARD_NAME, _card(options, counts, history, decision).to_json())
    _write_crops(out / CROPS_NAME, fitted.rows["path"].tolist(), root, options.size)
    with written_whole(out / "history.csv") as partial:
        history.to_csv(partial, index=False)
    write_curves(history, out / "curves.png")
    write_record(
        out,
        {"fit": options},
        data={"clips": len(clips.rows), "rows": len(table), "weights_sha256": weights},
        recipe={"first_frames": options.frames, "rate_hz": rate_hz, "resize": RESIZE},
        parts={
            name: sorted(set(part.rows["group"]))
            for name, part in (("fitted", fitted), ("stopping", stopping), ("decision", held))
        },
    )
    return CnnRnnFit(counts, clips.computed, clips.photographs, clips.unreadable, history, decision)


def clip_logits(
    rnn: keras.Model, features: Sequence[NDArray[np.float32]], *, frames: int
) -> NDArray[np.float32]:
    """Computes the network's logit of clips: float32 [n].

    Args:
        rnn: A model from `build_rnn`.
        features: float32 [T, F] of each clip, T at most `frames`.
        frames: Steps to pad to.
    """
    if not features:
        return np.zeros(0, np.float32)
    padded, mask = pad(list(features), frames)
    logits = last_logit_model(rnn).predict_on_batch({"features": padded, "mask": mask})
    return np.asarray(logits, np.float32)[:, 0]


def _split(clips: ReadClips, seed: int) -> tuple[_Part, _Part, _Part]:
    """Splits the clips into three parts, with no group in two of them."""
    if clips.rows.empty:
        raise UsageError("none of the rows marked train is a clip that can be read")
    part_of = assign_folds(clips.rows, shares=SHARES, seed=seed).to_numpy()
    fitted, stopping, held = (
        _Part(
            clips.rows[part_of == number],
            [clips.features[i].features for i in np.flatnonzero(part_of == number)],
        )
        for number in range(len(SHARES))
    )
    for name, part in (("to fit on", fitted), ("for early stopping", stopping)):
        fakes = int(part.fake.sum())
        if fakes in (0, len(part.rows)):
            raise UsageError(
                f"the groups {name} have {len(part.rows) - fakes} real and {fakes} fake clips: "
                "both kinds are needed; add groups of clips to the table, or try another --seed"
            )
    return fitted, stopping, held


def _fit_rnn(
    fitted: _Part, stopping: _Part, options: CnnRnnOptions, on_epoch: Callable[[], None]
) -> tuple[keras.Model, pd.DataFrame]:
    """Fits the GRUs and returns those of the epoch with the lowest loss for early stopping."""
    keras.utils.set_random_seed(options.seed)
    build = head_named(options.head).build
    rnn = build(feature_width=fitted.features[0].shape[1], dropout=options.dropout)
    model = last_logit_model(rnn)
    model.compile(
        optimizer=keras.optimizers.Adam(options.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
            keras.metrics.AUC(from_logits=True, name="auc"),
        ],
        jit_compile=keras.backend.backend() == "jax",
    )
    labels = [part.fake.astype(np.float32)[:, None] for part in (fitted, stopping)]
    done = model.fit(
        fitted.inputs(options.frames),
        labels[0],
        validation_data=(stopping.inputs(options.frames), labels[1]),
        batch_size=options.batch_size,
        epochs=options.epochs,
        callbacks=[
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=options.patience, restore_best_weights=True
            ),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch()),
        ],
        verbose=0,
    )
    history = pd.DataFrame(done.history)
    history.insert(0, "epoch", range(len(history)))
    return rnn, history


def _card(
    options: CnnRnnOptions,
    counts: Sequence[int],
    history: pd.DataFrame,
    decision: RecipeDecision,
) -> CardInfo:
    best = int(history["val_loss"].to_numpy().argmin())
    backbone = BACKBONES[options.backbone]
    network = head_named(options.head).layers.format(dropout=options.dropout)
    source = {"imagenet": "ImageNet weights", "none": "random weights"}.get(
        options.weights, f"the weights of {Path(options.weights).name}"
    )
    licence = "That of the weights given."
    if options.weights == "none":
        licence = "Apache-2.0"
    elif options.weights == "imagenet" and backbone.weights is not None:
        licence = f"{backbone.weights.licence} for the CNN's weights, Apache-2.0 for the others"
    protocol = (
        f"The middle squares of the first {options.frames} frames went through a frozen "
        f"{options.backbone} ({backbone.source}) with {source}, average pooled; shorter clips were "
        f"padded and masked. {network} were "
        f"fitted with Adam on {counts[0]} clips, and the epoch with the lowest loss on "
        f"{counts[1]} clips of other groups was kept (epoch {best + 1} of {len(history)}). A "
        "single frame's logit is a logistic regression on the same features. "
    )
    if decision.unmeasured is None:
        protocol += (
            f"Calibrators and thresholds rest on {counts[2]} clips of groups that neither saw."
        )
    else:
        protocol += (
            "Nothing was calibrated: probabilities are those of the network, and `fake` starts at "
            f"one half, since {decision.unmeasured}."
        )
    figures: dict[str, Metric] = {
        "groups for early stopping, clip AUC": Metric(
            round(float(history["val_auc"][best]), 4), n=counts[1]
        ),
        **decision.metrics,
    }
    return CardInfo(
        training_data=f"{counts[0]} clips marked train, whole frames; {counts[1]} more ended the "
        f"fit, {counts[2]} set the decision.",
        protocol=protocol,
        metrics=figures,
        licence=licence,
        limits=list(_LIMITS),
    )


def _write_crops(path: Path, clips: list[str], root: Path, size: int) -> None:
    """Writes the first frames of up to `MAX_CROPS` clips, evenly spaced in the list."""
    taken = min(len(clips), MAX_CROPS)
    chosen = [clips[index * len(clips) // taken] for index in range(taken)]
    crops = [first_crops(root / clip, frames=1, size=size)[0] for clip in chosen]
    with written_whole(path) as partial:
        np.save(partial, np.concatenate(crops), allow_pickle=False)


def _write_text(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        partial.write_text(text, "utf-8")


def fit_decision(
    rows: pd.DataFrame,
    frame_logits: list[NDArray[np.float32]],
    last_logits: NDArray[np.float32],
    *,
    draws: int = 1000,
) -> RecipeDecision:
    """Sets the decision by the rules of `calibrate`, a clip's score being its last logit.

    Args:
        rows: The held-out clips: `label`, `path`, `group`, `source`.
        frame_logits: float32 [T] of each.
        last_logits: float32 [n].
        draws: Bootstrap samples for the intervals.

    Returns:
        The decision; with too few groups, or scores of the wrong order, the uncalibrated one: the
        probability of the network, with `fake` from one half.
    """
    fake = is_fake(rows) if len(rows) else np.zeros(0, np.bool_)
    groups = rows["group"].to_numpy(np.str_) if len(rows) else np.zeros(0, np.str_)
    counts = [len(set(groups[fake == kind])) for kind in (False, True)]
    if min(counts) < MIN_GROUPS:
        reason = (
            f"the held-out groups are {counts[0]} with real and {counts[1]} with fake clips, and "
            f"{MIN_GROUPS} of each are needed"
        )
        return RecipeDecision(uncalibrated(PersonScore.LAST), {}, reason)
    scores = np.asarray(expit(last_logits.astype(np.float64)))
    labels = fake.astype(np.int64)
    metrics = {
        f"held-out groups of train, clip {name}": estimate(
            METRICS[name], labels, scores, groups, draws=draws
        ).to_metric()
        for name in _FIGURES
    }
    sequences = [
        ClipSequence(
            path=str(row.path),
            group=str(row.group),
            source=str(row.source),
            fold=0,
            variant=Treatment.PLAIN,
            fake=bool(truth),
            true_fake=bool(truth),
            features=np.zeros((1, 0), np.float32),
            frame_logit=logits,
            detail=np.full(1, np.inf, np.float32),
            face_px=np.zeros(1, np.float32),
        )
        for row, truth, logits in zip(rows.itertuples(), fake, frame_logits, strict=True)
    ]
    last = [np.array([logit], np.float32) for logit in last_logits]
    try:
        found = calibrate(sequences, last, person_score=PersonScore.SEQUENCE, draws=draws).decision
    except NoDecisionError as error:
        return RecipeDecision(uncalibrated(PersonScore.LAST), metrics, str(error))
    return RecipeDecision(dataclasses.replace(found, person_score=PersonScore.LAST), metrics)
