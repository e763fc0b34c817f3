"""Foreign models themselves as oracles: graphs must give their probabilities.

The parity gate compares graphs with the rebuilt Keras models; this compares them with what was
rebuilt, as their notebooks call it: scaled pixels in, padded clips with a mask in, a probability
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_export.foreign.frame import ForeignFrame, FrameSettings, scale_as_keras
from dfd_export.foreign.keras_graph import Classes, ClassifierHead, HeadForm, inputs_of
from dfd_export.foreign.sequence import ForeignSequence
from dfd_export.gate.comparison import Comparison, compare
from dfd_export.gate.crops import random_crops
from dfd_export.gate.oracle import Oracle

_CLIPS = 4
_FREE_STEPS = 20
"""Length of the clips for models that take any."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ForeignModels:
    """The foreign models that a bundle is made of.

    Attributes:
        frame: The CNN; None where `dfd-train` made the frame model.
        answers: How it is called.
        sequence: The sequence model; None where there is none that was foreign.
        classes: The order of the classes of both.
    """

    frame: ForeignFrame | None = None
    answers: FrameSettings | None = None
    sequence: ForeignSequence | None = None
    classes: Classes = Classes.REAL_FAKE


def compare_foreign(
    foreign: ForeignModels,
    crops: NDArray[np.uint8],
    frame_session: Any,  # noqa: ANN401
    sequence_session: Any,  # noqa: ANN401
) -> Iterator[Comparison]:
    """Compares graphs with the foreign models that they were made of.

    Args:
        foreign: The models; without any there is nothing to compare.
        crops: uint8 [n, S, S, 3], RGB: real crops.
        frame_session: onnxruntime's session of the frame graph.
        sequence_session: onnxruntime's session of the sequence graph.
    """
    rng = np.random.default_rng(0)
    crops = np.concatenate([crops, random_crops(rng, len(crops), crops.shape[1])])
    if foreign.frame is not None and foreign.answers is not None:
        yield _compare_frame(foreign.frame, foreign.answers, frame_session, crops)
    if foreign.sequence is not None:
        pool = frame_session.run(["features"], {"image": crops})[0]
        yield _compare_sequence(foreign.sequence, foreign.classes, sequence_session, pool, rng)


def _compare_frame(
    foreign: ForeignFrame,
    answers: FrameSettings,
    session: Any,  # noqa: ANN401
    crops: NDArray[np.uint8],
) -> Comparison:
    model, head = foreign.model, foreign.head
    pixels = keras.Input((answers.size, answers.size, 3), name="pixels")
    output = _call(model, [pixels])
    name = "features" if head is None else "probability"
    wanted = output if head is None else _probability(output, head, answers.classes)
    oracle = Oracle(keras.Model({"pixels": pixels}, {name: wanted}))
    expected = oracle({"pixels": scale_as_keras(crops, answers.scaling, bgr=answers.bgr)})[name]
    if head is None:
        (found,) = session.run(["features"], {"image": crops})
    else:
        found = _sigmoid(session.run(["fake_logit"], {"image": crops})[0])
    return compare("frame", "published model", name, found, expected)


def _compare_sequence(
    foreign: ForeignSequence,
    classes: Classes,
    session: Any,  # noqa: ANN401
    pool: Array,
    rng: np.random.Generator,
) -> Comparison:
    """Clips of every length, each as its notebook pads it, against the graph's logit there.

    A model whose padding moves its states is compared on whole clips only.
    """
    steps = foreign.steps or _FREE_STEPS
    clips = pool[rng.integers(0, len(pool), (_CLIPS, steps))]
    clips = (clips * rng.uniform(0.5, 1.5, clips.shape)).astype(np.float32)
    lengths = [steps] if foreign.reads_padding else list(range(1, steps + 1))
    oracle = Oracle(_as_called(foreign, classes, steps), compiled=True)
    expected = oracle(_padded(clips, lengths, foreign.padding))["probability"]
    state = next(value.shape for value in session.get_inputs() if value.name == "state")
    inputs = {
        "features": clips,
        "lengths": np.full(_CLIPS, steps, np.int32),
        "state": np.zeros((_CLIPS, state[1]), np.float32),
    }
    logits = session.run(["fake_logit"], inputs)[0]
    found = _sigmoid(logits[:, [n - 1 for n in lengths]]).reshape(-1)
    case = f"published model, clips of {lengths[0]} to {lengths[-1]} steps"
    return compare("sequence", case, "probability", found, expected)


def _padded(clips: Array, lengths: list[int], padding: float) -> dict[str, Array | NDArray[Any]]:
    """Every clip cut off after each length: `features` [n, T, F] and `mask` [n, T]."""
    steps = np.arange(clips.shape[1])
    mask = np.stack([steps < n for n in lengths])
    features = np.where(mask[None, :, :, None], clips[:, None], np.float32(padding))
    return {
        "features": features.reshape(-1, *clips.shape[1:]).astype(np.float32),
        "mask": np.tile(mask, (len(clips), 1)),
    }


def _as_called(foreign: ForeignSequence, classes: Classes, steps: int) -> keras.Model:
    """The published model with named inputs and P(fake) out."""
    features = keras.Input((steps, foreign.feature_width), name="features")
    mask = keras.Input((steps,), dtype="bool", name="mask")
    given = {id(foreign.features): features}
    if foreign.mask is not None:
        given[id(foreign.mask)] = keras.ops.cast(mask, foreign.mask.dtype)
    inputs = [given[id(tensor)] for tensor in foreign.model.inputs]
    output = _call(foreign.model, inputs)
    probability = _probability(output, foreign.head, classes)
    return keras.Model({"features": features, "mask": mask}, {"probability": probability})


def _call(model: keras.Model, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
    """Returns the one output of a model for inputs in the order of its own."""
    packed = keras.tree.pack_sequence_as(inputs_of(model), inputs)
    return keras.tree.flatten(model(packed, training=False))[0]


def _probability(
    output: keras.KerasTensor, head: ClassifierHead, classes: Classes
) -> keras.KerasTensor:
    """P(fake) [B] of a model's own output, [B, 1] or [B, 2]."""
    fake = 1 if classes is Classes.REAL_FAKE else 0
    rows = keras.ops.reshape(output, (-1, head.dense.units))
    match head.form:
        case HeadForm.SOFTMAX:
            return rows[:, fake]
        case HeadForm.LOGITS:
            return keras.ops.softmax(rows, axis=-1)[:, fake]
        case HeadForm.SIGMOID:
            probability = rows[:, 0]
        case HeadForm.LOGIT:
            probability = keras.ops.sigmoid(rows[:, 0])
    return probability if fake else 1.0 - probability


def _sigmoid(logits: Array) -> Array:
    # Without an overflow where a model is saturated.
    return np.asarray(np.exp(-np.logaddexp(0, -logits.astype(np.float64))), np.float32)
