"""A foreign sequence model in the standard form: a logit after every step, states carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from dfd_edge.errors import UsageError
from dfd_export.foreign import refusals
from dfd_export.foreign.keras_graph import (
    Call,
    Classes,
    ClassifierHead,
    Weights,
    backwards,
    find_head,
    inputs_of,
    replay,
    unique_name,
)
from dfd_export.foreign.loading import load
from dfd_export.foreign.model_file import ModelFile
from dfd_export.graphs.sequence_layers.graph import is_known
from dfd_training.models import EvidenceHead
from dfd_training.models.sequence import RunningMean

_NORMS = (layers.BatchNormalization, layers.LayerNormalization)
_TAKES = "takes {}, not features [B, T, F], alone or with a mask [B, T]"


@dataclass(frozen=True, slots=True, eq=False)
class ForeignSequence:
    """A foreign sequence model, and what its file says of it.

    Attributes:
        file: The file.
        model: The model as it was published.
        features: Its input of features, [B, T, F].
        mask: Its input of the mask, [B, T]; None where it has none.
        chain: Its layers from the features to the verdict, that of the verdict left out.
        ending: Its verdict.
        padding: The value of the features of padded steps.
        reads_padding: Names of recurrent layers that no mask reaches: in the published model, what
            stands behind the end of a short clip moves their states.
    """

    file: ModelFile
    model: keras.Model
    features: keras.KerasTensor
    mask: keras.KerasTensor | None
    chain: tuple[Any, ...]
    head: ClassifierHead
    padding: float
    reads_padding: tuple[str, ...]

    @property
    def steps(self) -> int | None:
        """The number of steps that the published model takes; None where it takes any."""
        steps = self.features.shape[1]
        return None if steps is None else int(steps)

    @property
    def feature_width(self) -> int:
        """F."""
        return int(self.features.shape[2])


def open_sequence(file: ModelFile) -> ForeignSequence:
    """Loads a foreign sequence model and analyses it.

    Raises:
        UsageError: It cannot be loaded, or is no recurrent model of features with a verdict at
            the end; the message names the layer.
    """
    model = load(file)
    features, mask = _inputs(file, model)
    if len(model.outputs) != 1:
        raise UsageError(f"{file.path}: has {len(model.outputs)} outputs, not one verdict")
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype), inputs_of(model)
    )
    output = replay(model, inputs)
    head = find_head(file.path, output, loss=file.loss)
    if head is None:
        raise UsageError(
            f"{file.path}: ends in {list(output.shape)}, not in a verdict: give the whole model, "
            "with the sigmoid or softmax at its end"
        )
    calls = list(backwards(head.features))[::-1]
    padding = 0.0
    if calls and isinstance(calls[0].layer, layers.Masking):
        padding = float(calls.pop(0).layer.mask_value)
    chain = [call for call in calls if not (call.kind == "Flatten" and _is_row(call.inputs[0]))]
    _check_chain(file, chain)
    return ForeignSequence(
        file=file,
        model=model,
        features=features,
        mask=mask,
        chain=tuple(_inner(call.layer) for call in chain),
        head=head,
        padding=padding,
        reads_padding=tuple(
            call.layer.name for call in chain if _is_recurrent(call) and not _is_masked(call)
        ),
    )


def build_sequence(found: ForeignSequence, classes: Classes) -> keras.Model:
    """Builds the standard sequence model, with the published model's weights.

    Returns:
        A model from a dict of `features` [B, T, F] and `mask` [B, T] to logits [B, T]: what the
        published model's logit is for the clip up to each step.
    """
    features = keras.Input((None, found.feature_width), dtype="float32", name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = features
    names: set[str] = {"features", "mask", "logit"}
    for layer in found.chain:
        again = _of_every_step(layer, unique_name(layer.name, names))
        takes_mask = isinstance(again, (layers.RNN, layers.BatchNormalization))
        try:
            x = again(x, mask=mask) if takes_mask else again(x)
            again.set_weights(layer.get_weights())
        except (ValueError, TypeError) as error:
            kind, reason = type(layer).__name__, " ".join(str(error).split())[:200]
            problem = f"cannot be applied to every step ({reason})"
            raise refusals.refuse(found.file.path, layer.name, kind, problem) from error
    logit = layers.Dense(1, name="logit")
    logits = keras.ops.squeeze(logit(x), axis=-1)
    logit.set_weights(list(found.head.weights(classes)))
    return keras.Model({"features": features, "mask": mask}, logits, name="published_sequence")


def _of_every_step(layer: Any, name: str) -> Any:  # noqa: ANN401
    config = {**layer.get_config(), "name": name}
    if isinstance(layer, layers.RNN):
        config |= {"return_sequences": True, "unroll": False, "zero_output_for_mask": False}
    if isinstance(layer, _NORMS):
        config["axis"] = -1
    return type(layer).from_config(config)


def _inputs(
    file: ModelFile, model: keras.Model
) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
    shapes = " and ".join(str(list(tensor.shape)) for tensor in model.inputs)
    features = [tensor for tensor in model.inputs if len(tensor.shape) == 3]
    masks = [tensor for tensor in model.inputs if len(tensor.shape) == 2]
    if any(len(tensor.shape) == 5 for tensor in model.inputs):
        raise refusals.of_clips(file.path, model)
    if len(features) != 1 or len(masks) > 1 or len(model.inputs) != len(features) + len(masks):
        raise UsageError(f"{file.path}: {_TAKES.format(shapes)}: save a model of these")
    if features[0].shape[2] is None:
        raise UsageError(f"{file.path}: {_TAKES.format(shapes)}: F has to be known")
    if any(tensor.shape[0] is not None for tensor in model.inputs):
        raise UsageError(
            f"{file.path}: {_TAKES.format(shapes)}: it takes batches of one size; build it without "
            "batch_size and stateful"
        )
    return features[0], masks[0] if masks else None


def _check_chain(file: ModelFile, chain: list[Call]) -> None:
    recurrent = [call for call in chain if _is_recurrent(call)]
    problems = [(call, _problem(call)) for call in chain]
    problems += [(call, _recurrent_problem(call, last=recurrent[-1])) for call in recurrent]
    for call, problem in problems:
        if problem is not None:
            raise refusals.refuse(file.path, call.layer.name, call.kind, problem)
    if not recurrent:
        raise UsageError(f"{file.path}: has no recurrent layer: give a model of GRU or LSTM layers")


def _problem(call: Call) -> str | None:
    layer = _inner(call.layer)
    if call.kind in refusals.OVER_TIME:
        return refusals.OVER_TIME[call.kind]
    if isinstance(layer, layers.Masking):
        return "masks what another layer made: put it before all others, or give a mask"
    if not is_known(type(layer)) or (layer is not call.layer and isinstance(layer, layers.RNN)):
        return "cannot be taken over: build the model of GRU, LSTM, Dense and such layers"
    if isinstance(layer, _NORMS):
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        channels = all(axis in (-1, len(call.output.shape) - 1) for axis in axes)
        return None if channels else f"works on axis {axes}, not on the channels: use axis=-1"
    return None


def _recurrent_problem(call: Call, *, last: Call) -> str | None:
    layer, is_last = call.layer, call is last
    problems = {
        "takes or gives states of its own: let the recurrent layers follow each other": (
            layer.return_state or "initial_state" in call.arguments
        ),
        "keeps states between batches: build it with stateful=False": layer.stateful,
        "gives all steps, and what follows mixes them: use return_sequences=False": (
            is_last and layer.return_sequences
        ),
        "gives zeros for every clip that is padded: use zero_output_for_mask=False": (
            is_last and layer.zero_output_for_mask
        ),
        "gives its last step only, but a recurrent layer follows: use return_sequences=True": (
            not is_last and not layer.return_sequences
        ),
    }
    return next((text for text, holds in problems.items() if holds), None)


def _inner(layer: Any) -> Any:  # noqa: ANN401
    """Returns the layer inside a `TimeDistributed`; every other layer as it is."""
    return layer.layer if isinstance(layer, layers.TimeDistributed) else layer


def _is_row(tensor: keras.KerasTensor) -> bool:
    return len(tensor.shape) == 2


def _is_recurrent(call: Call) -> bool:
    return isinstance(call.layer, layers.RNN)


def _is_masked(call: Call) -> bool:
    """Returns whether Keras hands this layer a mask, as an argument or with its input."""
    given = call.arguments.get("mask")
    return given is not None or getattr(call.inputs[0], "_keras_mask", None) is not None


def mean_model(kernel: Weights, bias: Weights) -> keras.Model:
    """Builds it of the weights of the CNN's verdict.

    Args:
        kernel: [F, 1].
        bias: [1].

    Returns:
        A model from a dict of `features` [B, T, F] and `mask` [B, T] to logits [B, T].
    """
    features = keras.Input((None, len(kernel)), dtype="float32", name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    logit = keras.layers.Dense(1, name="logit")
    mean = RunningMean(name="mean")(logit(features), mask=mask)
    logit.set_weights([kernel, bias])
    logits = keras.ops.squeeze(mean, axis=-1)
    return keras.Model({"features": features, "mask": mask}, logits, name="sequence_mean")


def verdict_weights(frame_model: keras.Model) -> tuple[Weights, Weights]:
    """Kernel [F, 1] and bias [1] of a frame model's logit, as `dfd-train` fits it.

    Raises:
        UsageError: The model ends otherwise.
    """
    for layer in frame_model.layers:
        if isinstance(layer, EvidenceHead):
            kernel, bias = (keras.ops.convert_to_numpy(v) for v in (layer.kernel, layer.bias))
            return kernel, bias
    raise UsageError(
        f"frame model {frame_model.name}: has no evidence head whose logits could be averaged: "
        "give a SEQUENCE"
    )
