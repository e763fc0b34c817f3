"""The sequence model: from the features of a clip's steps to a logit after each of them.

A new head is one function and one entry of `HEADS`. The mean head averages what frames alone say:
the baseline that a recurrent head must beat. The attention head looks back over a window of the
last steps, never ahead. The signals head adds what is measured between consecutive frames; it has
more inputs than the others and is fitted without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION
from dfd_training.models.saving import load_keras_file


@keras.saving.register_keras_serializable("dfd_training")
class RunningMean(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Mean over the steps so far, padding left out: [B, T, C] to [B, T, C].

    Args:
        decay: A step's weight shrinks by this factor with each later step: 1 for the mean of all
            of them, 0.8 for one that reaches about 5 steps back. Below 1, time and memory grow
            with the square of the number of steps.
    """

    def __init__(self, decay: float = 1.0, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        if not 0.0 < decay <= 1.0:
            raise UsageError(f"decay is {decay}; above 0, at most 1")
        self.decay = decay
        self.supports_masking = True

    def call(
        self, x: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Averages over real steps; mask is [B, T], False on padding."""
        real = ops.ones_like(x[..., :1], dtype="bool") if mask is None else mask[..., None]
        if self.decay < 1.0:
            return self._decayed(ops.where(real, x, 0.0), ops.cast(real, x.dtype))
        total = ops.cumsum(ops.where(real, x, 0.0), axis=1)
        count = ops.cumsum(ops.cast(real, x.dtype), axis=1)
        return total / ops.maximum(count, 1.0)

    def _decayed(self, x: keras.KerasTensor, real: keras.KerasTensor) -> keras.KerasTensor:
        count = ops.cumsum(real, axis=1)
        age = count - ops.transpose(count, (0, 2, 1))  # [B, T, T], of each step at each step
        weights = ops.tril(self.decay ** ops.maximum(age, 0.0))
        return ops.matmul(weights, x) / ops.maximum(ops.matmul(weights, real), 1e-6)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "decay": self.decay}


def mean_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """Dropout, a logit of each step alone, and the mean of those so far.

    Arguments and result are those of `gru_head`.
    """
    x = layers.Dropout(dropout, name="dropout0")(features)
    x = layers.Dense(1, name="logit")(x)
    return ops.squeeze(RunningMean(name="mean")(x, mask=mask), axis=-1)


def gru_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """GRU(64), batch norm, GRU(32), batch norm, GRU(16), dropout, dense(32), dropout, one logit.

    Args:
        features: [B, T, F] float32.
        mask: [B, T] bool, True where the step is real; padding moves neither the states nor the
            batch norms' statistics.
        dropout: Share of values dropped before and after the dense layer.

    Returns:
        Logits [B, T], higher = more fake; the value after a padded step is without meaning.
    """
    return verdict(_stack(layers.GRU, (64, 32, 16), features, mask), dropout)


def gru_small_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """GRU(16), batch norm, GRU(8), then as `gru_head` with dense(8): a quarter of its weights."""
    return verdict(_stack(layers.GRU, (16, 8), features, mask), dropout, width=8)


def gru_single_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """GRU(64), then as `gru_head`."""
    return verdict(_stack(layers.GRU, (64,), features, mask), dropout)


def lstm_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """As `gru_head`, with LSTMs instead of GRUs."""
    return verdict(_stack(layers.LSTM, (64, 32, 16), features, mask), dropout)


def verdict(x: keras.KerasTensor, dropout: float, *, width: int = 32) -> keras.KerasTensor:
    """Dropout, a dense layer, dropout, and one logit of each step: [B, T, C] to [B, T]."""
    x = layers.Dropout(dropout, name="dropout0")(x)
    x = layers.Dense(width, activation="relu", name="dense")(x)
    x = layers.Dropout(dropout, name="dropout1")(x)
    x = layers.Dense(1, name="logit")(x)
    return ops.squeeze(x, axis=-1)


def _stack(
    cell: Callable[..., keras.layers.RNN],
    widths: Sequence[int],
    x: keras.KerasTensor,
    mask: keras.KerasTensor,
) -> keras.KerasTensor:
    """Stacks recurrent layers, with a batch norm between two of them."""
    kind = cell.__name__.lower()
    for index, width in enumerate(widths):
        x = cell(width, return_sequences=True, name=f"{kind}{index}")(x, mask=mask)
        if index < len(widths) - 1:
            x = layers.BatchNormalization(name=f"{kind}{index}_bn")(x, mask=mask)
    return x


_WIDTH = 64
_ATTENTION_HEADS = 4
_WINDOW = 20
"""Four seconds at 5 Hz."""

_OUT_OF_SIGHT = -1e9


@keras.saving.register_keras_serializable("dfd_training")
class WindowAttention(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Causal self-attention over a window of steps, added to what it reads.

    Step t attends to the steps t - window + 1 to t, where they exist and are real. How far
    back a step lies counts through a learnt number per head and distance (relative position
    bias: Shaw et al., NAACL 2018, in the form of Raffel et al., JMLR 2020). Time and memory grow
    with the number of steps, not with its square.

    Args:
        heads: Attention heads; they share the channels evenly.
        window: K, how many steps one attends to, itself included.
    """

    def __init__(self, heads: int = _ATTENTION_HEADS, window: int = _WINDOW, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        if heads < 1 or window < 1:
            raise UsageError(f"heads is {heads} and window {window}; each is 1 or more")
        self.heads = heads
        self.window = window
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for steps [B, T, C].

        Raises:
            UsageError: The heads cannot share the channels evenly.
        """
        width = input_shape[-1]
        assert width is not None
        if width % self.heads:
            raise UsageError(f"{width} channels cannot be shared by {self.heads} heads evenly")
        shape = (width, width)
        self.query_kernel = self.add_weight(name="query_kernel", shape=shape)
        self.query_bias = self.add_weight(name="query_bias", shape=(width,), initializer="zeros")
        # A bias of the keys would add the same to all scores of a step, and one of the values
        # would be a second one of the output.
        self.key_kernel = self.add_weight(name="key_kernel", shape=shape)
        self.value_kernel = self.add_weight(name="value_kernel", shape=shape)
        self.output_kernel = self.add_weight(name="output_kernel", shape=shape)
        self.output_bias = self.add_weight(name="output_bias", shape=(width,), initializer="zeros")
        self.relative_bias = self.add_weight(
            name="relative_bias", shape=(self.window, self.heads), initializer="zeros"
        )
        super().build(input_shape)

    def call(
        self, x: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Maps steps [B, T, C] to [B, T, C]; no step attends to one where mask [B, T] is False."""
        width = x.shape[-1]
        split = (*ops.shape(x)[:2], -1, self.heads, width // self.heads)
        query = ops.matmul(x, self.query_kernel) + self.query_bias
        key, value = ops.matmul(x, self.key_kernel), ops.matmul(x, self.value_kernel)
        real = ops.ones_like(x[..., 0], dtype="bool") if mask is None else mask
        # Of each step its window, [B, T, K, heads, C / heads], the oldest step first.
        keys = ops.reshape(self._windows(key), split)
        values = ops.reshape(self._windows(value), split)
        in_sight = self._windows(ops.cast(real, "int32")[..., None]) > 0
        query = ops.reshape(query, split) / (width // self.heads) ** 0.5
        scores = ops.sum(query * keys, axis=-1) + self.relative_bias
        weights = ops.softmax(ops.where(in_sight, scores, _OUT_OF_SIGHT), axis=2)
        seen = ops.sum(weights[..., None] * values, axis=2)
        seen = ops.reshape(seen, ops.shape(x))
        return x + ops.matmul(seen, self.output_kernel) + self.output_bias

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], **_: object
    ) -> tuple[int | None, ...]:
        """Returns the shape that went in."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "heads": self.heads, "window": self.window}

    def _windows(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the K steps up to each step, [B, T, K, C] of [B, T, C]; zeros before."""
        steps = ops.arange(ops.shape(x)[1])[:, None] + ops.arange(self.window)
        before = [[0, 0], [self.window - 1, 0], [0, 0]]
        return ops.take(ops.pad(x, before), steps, axis=1)


def attention_head(
    features: keras.KerasTensor, mask: keras.KerasTensor, dropout: float
) -> keras.KerasTensor:
    """Dense(64), attention over 20 steps, layer norm, dropout, dense(32), dropout, one logit.

    Arguments and result are those of `gru_head`. A logit knows the last 20 steps and no older.
    """
    x = layers.Dense(_WIDTH, name="project")(features)
    x = WindowAttention(name="attention")(x, mask=mask)
    return verdict(layers.LayerNormalization(name="norm")(x), dropout)


SIGNALS_HEAD = "signals"
SEQUENCE_INPUTS = frozenset({"features", "mask", "signals", "measured"})
"""Inputs of sequence models; only those with that head have the last two."""
SIGNALS_DECAY = 0.8
"""Five steps, one second at 5 Hz."""
SIGNALS_TEMPERATURE = 2.0
MOST_SPREADS = 4.0
"""A measurement counts at most this many standard deviations from its mean."""


@keras.saving.register_keras_serializable("dfd_training")
class SignalProbes(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """Linear probes on the signals of each step, put behind its picture logit.

    A signal is standardised and clipped at `MOST_SPREADS`. A step that was not measured gets the
    constant `absent` in place of its probes' scores.

    Args:
        probes: K, how many.
        version: Version of the measurements, `dfd_edge.faces.signals.SIGNALS_VERSION`.
    """

    def __init__(self, probes: int, version: int = SIGNALS_VERSION, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.probes = probes
        self.version = version
        self.supports_masking = True

    def build(
        self, picture_shape: tuple[int | None, ...], signals_shape: tuple[int | None, ...]
    ) -> None:
        """Makes the weights for picture logits [B, T, 1] and signals [B, T, S]."""
        width = signals_shape[-1]
        assert picture_shape[-1] == 1
        assert width is not None
        self.mean = self.add_weight(name="mean", shape=(width,), initializer="zeros")
        self.scale = self.add_weight(name="scale", shape=(width,), initializer="ones")
        self.kernel = self.add_weight(name="kernel", shape=(width, self.probes))
        self.bias = self.add_weight(name="bias", shape=(self.probes,), initializer="zeros")
        self.absent = self.add_weight(name="absent", shape=(self.probes,), initializer="zeros")
        self.built = True

    def call(
        self, picture: keras.KerasTensor, signals: keras.KerasTensor, measured: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Maps picture logits [B, T, 1], signals [B, T, S] and flags [B, T] to [B, T, 1 + K]."""
        spreads = ops.clip((signals - self.mean) / self.scale, -MOST_SPREADS, MOST_SPREADS)
        scores = ops.matmul(spreads, self.kernel) + self.bias
        scores = ops.where(measured[..., None] > 0.5, scores, self.absent)
        return ops.concatenate([picture, scores], axis=-1)

    def compute_output_shape(
        self, picture_shape: tuple[int | None, ...], **_: object
    ) -> tuple[int | None, ...]:
        """Returns [B, T, 1 + K]."""
        return (*picture_shape[:-1], 1 + self.probes)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "probes": self.probes, "version": self.version}


@keras.saving.register_keras_serializable("dfd_training")
class ProbeVote(layers.Layer):  # type: ignore[misc] # Keras is untyped
    """The picture logit and the vote of the probes: [B, T, 1 + K] to [B, T, 1].

    The vote is T log(mean(exp(d / T))), between the mean of the probes' scores d (T large) and
    the largest of them (T small).

    Args:
        temperature: T.
    """

    def __init__(self, temperature: float = SIGNALS_TEMPERATURE, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        if temperature <= 0:
            raise UsageError(f"temperature is {temperature}; above 0")
        self.temperature = temperature
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weight of the vote."""
        self.weight = self.add_weight(name="weight", shape=(1,), initializer="ones")
        super().build(input_shape)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Adds the weighted vote of the probes to the picture logit."""
        scores = x[..., 1:] / self.temperature
        highest = ops.max(scores, axis=-1, keepdims=True)
        mean = ops.mean(ops.exp(scores - highest), axis=-1, keepdims=True)
        return x[..., :1] + self.weight * self.temperature * (highest + ops.log(mean))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns [B, T, 1]."""
        return (*input_shape[:-1], 1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "temperature": self.temperature}


HeadLayers = Callable[[keras.KerasTensor, keras.KerasTensor, float], keras.KerasTensor]
"""From features [B, T, F], mask [B, T] (True = a real step) and dropout to logits [B, T]."""

HEADS: dict[str, HeadLayers] = {
    "gru": gru_head,
    "gru_small": gru_small_head,
    "gru_single": gru_single_head,
    "lstm": lstm_head,
    "attention": attention_head,
    "mean": mean_head,
}
"""All of them causal: a logit depends on no later step, and padding behind the end on nothing."""


def build_sequence_model(
    *,
    feature_width: int,
    head: str = "gru",
    dropout: float = 0.3,
    signal_width: int = len(NAMES),
    probes: int = 1,
) -> keras.Model:
    """Builds the sequence model.

    Args:
        feature_width: F, the width of the frame model's features.
        head: A name in `HEADS`, or `SIGNALS_HEAD`.
        dropout: Share of values dropped in training; the signals head drops none.
        signal_width: S, how many signals the signals head takes.
        probes: K, how many linear probes on them it has.

    Returns:
        A model from a dict of `features` [B, T, F] float32 and `mask` [B, T] bool (True = a real
        step, False = padding after the end) to `fake_logit` [B, T] float32, the verdict after
        each step (higher = more fake). The signals head takes `signals` [B, T, S] float32 and
        `measured` [B, T] float32 too, 1 where a step's signals were measured and 0 elsewhere.

    Raises:
        UsageError: The head is unknown or a number is out of range.
    """
    check_head(head)
    for name, number in (
        ("feature width", feature_width),
        ("signal width", signal_width),
        ("probes", probes),
    ):
        if number < 1:
            raise UsageError(f"{name} {number} is out of range; 1 or more")
    if not 0.0 <= dropout < 1.0:
        raise UsageError(f"dropout {dropout} is out of range; 0 or more and below 1")
    features = keras.Input((None, feature_width), dtype="float32", name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    if head == SIGNALS_HEAD:
        signals = keras.Input((None, signal_width), dtype="float32", name="signals")
        measured = keras.Input((None,), dtype="float32", name="measured")
        picture = layers.Dense(1, name="logit")(features)
        x = SignalProbes(probes, name="probes")(picture, signals, measured)
        x = RunningMean(SIGNALS_DECAY, name="mean")(x, mask=mask)
        logits = ops.squeeze(ProbeVote(name="vote")(x), axis=-1)
        inputs = {"features": features, "signals": signals, "measured": measured, "mask": mask}
        return keras.Model(inputs, logits, name=f"sequence_{head}")
    logits = HEADS[head](features, mask, dropout)
    return keras.Model({"features": features, "mask": mask}, logits, name=f"sequence_{head}")


def check_head(head: str) -> None:
    """Refuses a name that is no head.

    Raises:
        UsageError: It is unknown.
    """
    known = sorted((*HEADS, SIGNALS_HEAD))
    if head not in known:
        raise UsageError(f"head {head!r} is unknown; known are {', '.join(known)}")


def takes_signals(model: keras.Model) -> bool:
    """Returns whether a sequence model takes signals beside the features."""
    return any(tensor.name == "signals" for tensor in model.inputs)


def load_sequence_model(path: Path) -> keras.Model:
    """Loads what `build_sequence_model` built, trained or not.

    Raises:
        UsageError: The file is missing, is no model, or is not a sequence model.
    """
    model = load_keras_file(path)
    inputs = {tensor.name: len(tensor.shape) for tensor in model.inputs}
    plain = {"features": 3, "mask": 2}
    if inputs not in (plain, {**plain, "signals": 3, "measured": 2}):
        raise UsageError(
            f"{path}: not a sequence model (its inputs are {', '.join(inputs)}, not features, "
            "mask and for some signals, measured); give a file that `dfd-train fit sequence` wrote"
        )
    return model
