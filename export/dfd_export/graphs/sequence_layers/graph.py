"""The graph of a sequence model under construction, and the registry of the layers' converters.

Linear maps of each step wait in `Affine` and are combined before they are written, so that batch
norms cost nothing.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """x @ kernel + bias over the last axis.

    Attributes:
        name: The layer that it comes from, for the names of its constants.
        kernel: [in, out]; or [C], a factor for each channel.
        bias: [out].
    """

    name: str
    kernel: Array
    bias: Array

    @classmethod
    def of(cls, layer: keras.layers.BatchNormalization) -> Affine:
        """The map that a batch norm is in inference."""
        scale = 1.0 / np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
        if layer.scale:
            scale = scale * as_array(layer.gamma)
        shift = -as_array(layer.moving_mean) * scale
        return cls(layer.name, scale, shift + as_array(layer.beta) if layer.center else shift)

    @property
    def per_channel(self) -> bool:
        """Whether no channel goes into another."""
        return self.kernel.ndim == 1

    def after(self, first: Affine | None) -> Affine:
        """This map, which is per channel, applied to the result of `first`."""
        if first is None:
            return self
        return Affine(first.name, first.kernel * self.kernel, first.bias * self.kernel + self.bias)

    def into(self, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Kernel [C, out] and bias [out] that do this map's work first; it is per channel."""
        return kernel * self.kernel[:, None], bias + self.bias @ kernel


def as_array(variable: Any) -> Array:  # noqa: ANN401 - a Keras variable
    """A variable's value, float64: foldings round once, when they are written."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


class Layout(enum.Enum):
    """Order of the axes of a batch of steps."""

    BATCH_TIME = "[batch, time, channels]"
    TIME_BATCH = "[time, batch, channels]"
    RECURRENT = "[time, 1, batch, channels]"
    """As ONNX's GRU and LSTM give them, and as dense layers may leave them."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A layer's output for each step.

    Attributes:
        name: The tensor.
        width: Channels, once `waiting` is done.
        layout: Its axes.
        waiting: A map that the layer behind may take into its own weights.
    """

    name: str
    width: int
    layout: Layout
    waiting: Affine | None = None


_MOVES = {
    (Layout.BATCH_TIME, Layout.TIME_BATCH): ("Transpose", [1, 0, 2]),
    (Layout.TIME_BATCH, Layout.BATCH_TIME): ("Transpose", [1, 0, 2]),
    (Layout.RECURRENT, Layout.TIME_BATCH): ("Squeeze", [1]),
}
_STATE = "state_as_rows"
_NEXT_STATE = "next_state_as_rows"


@dataclass(slots=True)
class SequenceGraph:
    """Nodes and constants of a graph with the inputs `features`, `lengths` and `state`.

    Layers take their part of the state with `state` and give it back with `carry`, in the same
    order; `close` splits the one tensor and puts it together again.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    _widths: list[int] = field(default_factory=list)
    _ends: list[str] = field(default_factory=list)
    _labels: set[str] = field(default_factory=set)
    _known: set[str] = field(default_factory=set)

    @property
    def state_width(self) -> int:
        """Numbers that the layers so far carry from call to call."""
        return sum(self._widths)

    def label(self, name: str) -> str:
        """A prefix for a layer's tensors: its name, numbered where it is used again."""
        number, label = 1, name
        while label in self._labels:
            number += 1
            label = f"{name}_{number}"
        self._labels.add(label)
        return label

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401
        """Adds a node with one output; returns the output's name."""
        return self.add_many(op, inputs, [output], **attributes)[0]

    def add_many(
        self,
        op: str,
        inputs: list[str],
        outputs: list[str],
        **attributes: Any,  # noqa: ANN401
    ) -> list[str]:
        """Adds a node; returns the names of its outputs."""
        name = f"{op.lower()}_{next(name for name in outputs if name)}"
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs

    def constant(self, name: str, value: NDArray[Any] | float) -> str:
        """Stores numbers as float32."""
        array = np.asarray(value, np.float32, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def indices(self, name: str, value: NDArray[np.int64]) -> str:
        """Stores integers as int64, once under each name."""
        if name not in self._known:
            self._known.add(name)
            self.constants.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        """Stores a few integers: axes, widths, shapes."""
        name = "_".join(["integers", *(str(value) for value in values)])
        return self.indices(name, np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """Stores an integer that is no list."""
        return self.indices(f"integer_{value}", np.array(value, np.int64))

    def state(self, width: int) -> str:
        """A layer's part of the state, [1, batch, width]."""
        self._widths.append(width)
        return f"start_{len(self._widths) - 1}"

    def carry(self, name: str) -> None:
        """Hands over what becomes of a part of the state, [1, batch, width]."""
        self._ends.append(name)

    def settle(self, steps: Steps) -> Steps:
        """Writes the waiting map, if there is one."""
        waiting = steps.waiting
        if waiting is None:
            return steps
        value, label = steps.name, self.label(waiting.name)
        if waiting.per_channel:
            scale = self.constant(f"{label}_scale", waiting.kernel)
            value = self.add("Mul", [value, scale], f"{label}_mul")
        else:
            kernel = self.constant(f"{label}_kernel", waiting.kernel)
            value = self.add("MatMul", [value, kernel], f"{label}_mul")
        if waiting.bias.any():
            bias = self.constant(f"{label}_bias", waiting.bias)
            value = self.add("Add", [value, bias], f"{label}_add")
        return Steps(value, steps.width, steps.layout)

    def settle_mixing(self, steps: Steps) -> Steps:
        """Writes the waiting map, unless it is per channel and so fits into any kernel."""
        waiting = steps.waiting
        return steps if waiting is None or waiting.per_channel else self.settle(steps)

    def arrange(self, steps: Steps, layout: Layout) -> Steps:
        """Moves the axes. What waits may go on waiting."""
        if steps.layout is layout:
            return steps
        if (steps.layout, layout) not in _MOVES:
            steps = self.arrange(steps, Layout.TIME_BATCH)
        if steps.layout is layout:
            return steps
        op, axes = _MOVES[steps.layout, layout]
        name = f"{steps.name}_{'by_time' if layout is Layout.TIME_BATCH else 'by_batch'}"
        if op == "Transpose":
            self.add(op, [steps.name], name, perm=axes)
        else:
            self.add(op, [steps.name, self.integers(*axes)], name)
        return dataclasses.replace(steps, name=name, layout=layout)

    def rows_at_ends(self, value: str, offsets: list[int], output: str) -> str:
        """Gathers rows of [batch, rows, C] at each length plus each offset: [batch, n, C].

        Args:
            value: Has `length + max(offsets) + 1` rows or more.
            offsets: n of them.
            output: Name of the result.
        """
        if "row_ends" not in self._known:
            self._known.add("row_ends")
            self.add("Cast", ["lengths"], "long_lengths", to=onnx.TensorProto.INT64)
            self.add("Reshape", ["long_lengths", self.integers(-1, 1, 1)], "row_ends")
        ahead = self.indices(f"{output}_ahead", np.array(offsets, np.int64).reshape(1, -1, 1))
        rows = self.add("Add", ["row_ends", ahead], f"{output}_rows")
        return self.add("GatherND", [value, rows], output, batch_dims=1)

    def close(self, steps: Steps) -> None:
        """Writes the ends: the logit, of steps with one channel, and the state's parts as one."""
        steps = self.settle(steps)
        if steps.layout is Layout.BATCH_TIME:
            self.add("Squeeze", [steps.name, self.integers(2)], "fake_logit")
        else:
            axes = [2] if steps.layout is Layout.TIME_BATCH else [1, 3]
            self.add("Squeeze", [steps.name, self.integers(*axes)], "logit_by_time")
            self.add("Transpose", ["logit_by_time"], "fake_logit", perm=[1, 0])
        if not self._widths:
            return
        inner = self.nodes
        self.nodes = []
        rows = "start_0" if len(self._widths) == 1 else _STATE
        self.add("Unsqueeze", ["state", self.integers(0)], rows)
        if rows == _STATE:
            starts = [f"start_{index}" for index in range(len(self._widths))]
            self.add_many("Split", [_STATE, self.integers(*self._widths)], starts, axis=2)
        self.nodes += inner
        rows = self._ends[0]
        if len(self._ends) > 1:
            rows = self.add("Concat", self._ends, _NEXT_STATE, axis=2)
        self.add("Squeeze", [rows, self.integers(0)], "next_state")


Converter = Callable[[SequenceGraph, Any, Steps], Steps]
"""Writes a layer behind the steps that it reads; returns those that it gives."""

_CONVERTERS: dict[type, Converter] = {}


class Unsupported(Exception):
    """A layer cannot be written. The text goes on after its name: why, and what to do."""


def converts(*kinds: type) -> Callable[[Converter], Converter]:
    """Registers a function for layers of exactly these classes.

    A class that somebody derived from one of them may compute something else: it needs a
    function of its own.
    """

    def register(converter: Converter) -> Converter:
        for kind in kinds:
            _CONVERTERS[kind] = converter
        return converter

    return register


def is_known(kind: type) -> bool:
    """Returns whether there is a function for layers of this class."""
    return kind in _CONVERTERS


def known_kinds() -> list[str]:
    """Names of the classes that can be written."""
    return sorted(kind.__name__ for kind in _CONVERTERS)


def convert(graph: SequenceGraph, layer: Any, steps: Steps) -> Steps:  # noqa: ANN401
    """Writes a layer into the graph.

    Raises:
        Unsupported: It has an option that ONNX or a live stream cannot do.
    """
    return _CONVERTERS[type(layer)](graph, layer, steps)
