"""The gate: an exported graph must say what its Keras model says, or nothing is written.

First names, element types and axes, then shapes, then values, each with an error of its own.
The largest difference of every output in every case goes into a report beside the graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from dfd_edge.bundle import check_graph, frame_contract, sequence_contract
from dfd_edge.errors import BundleError, DfdError
from dfd_edge.manifest import FrameSpec, SequenceSpec
from dfd_edge.providers import Provider, open_session
from dfd_edge.schema import dump_json

LOGIT_TOLERANCE = 1e-4
MAP_TOLERANCE = 1e-3
"""For features and evidence, which are sums over fewer places than a logit is."""

BATCHES = (1, 3, 8)
TIMES = (1, 2, 7, 20, 64)
PADDING = 1e6
"""What stands in the padding: were any of it read, the result would be far off."""

_TOLERANCES = {
    "fake_logit": LOGIT_TOLERANCE,
    "next_state": LOGIT_TOLERANCE,
    "features": MAP_TOLERANCE,
    "evidence": MAP_TOLERANCE,
}

Array = NDArray[Any]


class ParityError(DfdError):
    """The exported graph differs from its Keras model. The message lists every difference."""


class ContractMismatch(ParityError):
    """Inputs, outputs, element types or axes are not those of the contract."""


class ShapeMismatch(ParityError):
    """An output has another shape than the Keras model's."""


class ValueMismatch(ParityError):
    """An output's values differ by more than the tolerance."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output in one case.

    Attributes:
        graph: "frame" or "sequence".
        case: What was put in.
        output: Name of the output.
        shape: Its shape.
        max_difference: Largest absolute difference.
        where: Index of that difference.
        tolerance: What is allowed.
    """

    graph: str
    case: str
    output: str
    shape: list[int]
    max_difference: float
    where: list[int]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Tells whether the difference is within the tolerance; a NaN never is."""
        return self.max_difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.graph}, {self.case}: {self.output} {self.shape} differs by "
            f"{self.max_difference:.3g} at {self.where} (allowed: {self.tolerance:g})"
        )


@dataclass(frozen=True, slots=True)
class ParityReport:
    """All comparisons of a bundle's graphs, in the order in which they were made."""

    comparisons: list[Comparison]

    def to_json(self) -> str:
        """Writes it as JSON, for the bundle."""
        return dump_json(self)

    def table(self) -> str:
        """One line for each output of each graph: cases, worst case, largest difference."""
        lines = [
            f"{'graph':<9} {'output':<11} {'cases':>5} {'largest':>9} {'allowed':>9}  worst case"
        ]
        for key in dict.fromkeys((c.graph, c.output) for c in self.comparisons):
            group = [c for c in self.comparisons if (c.graph, c.output) == key]
            worst = max(group, key=lambda c: c.max_difference)
            lines.append(
                f"{worst.graph:<9} {worst.output:<11} {len(group):>5} "
                f"{worst.max_difference:>9.2g} {worst.tolerance:>9.0e}  {worst.case}"
            )
        return "\n".join(lines)


def check_parity(
    frame_model: keras.Model,
    sequence_model: keras.Model,
    frame_graph: onnx.ModelProto,
    sequence_graph: onnx.ModelProto,
    *,
    frame: FrameSpec,
    sequence: SequenceSpec,
    crops: NDArray[np.uint8],
    seed: int = 0,
) -> ParityReport:
    """Compares both graphs with their Keras models.

    Args:
        frame_model: The Keras frame model.
        sequence_model: The Keras sequence model.
        frame_graph: What was exported from the one.
        sequence_graph: What was exported from the other.
        frame: Contract of the frame graph.
        sequence: Contract of the sequence graph.
        crops: uint8 [n, S, S, 3], RGB; real crops, compared beside random ones.
        seed: Of the random inputs.

    Raises:
        ContractMismatch: Names, element types or axes differ.
        ShapeMismatch: A shape differs.
        ValueMismatch: A value differs by more than is allowed.
    """
    rng = np.random.default_rng(seed)
    comparisons = _compare_frame(frame_model, frame_graph, frame, crops, rng)
    pool = _Keras(frame_model).frame(crops)["features"]
    session = _open(sequence_graph, "sequence", *sequence_contract(frame, sequence))
    comparisons += _compare_sequence(sequence_model, session, _feature_source(pool, rng), rng)
    if failed := [c for c in comparisons if not c.passed]:
        raise ValueMismatch(
            f"{len(failed)} of {len(comparisons)} comparisons failed, nothing was written: "
            + "; ".join(str(c) for c in failed[:5])
        )
    return ParityReport(comparisons)


@dataclass(frozen=True, slots=True)
class _Keras:
    """A Keras model as a function from arrays to arrays."""

    model: keras.Model

    def frame(self, crops: NDArray[np.uint8]) -> dict[str, Array]:
        outputs = self.model(crops.astype(np.float32), training=False)
        return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}

    def sequence(self, features: Array, lengths: Array) -> Array:
        mask = np.arange(features.shape[1])[None] < lengths[:, None]
        clean = np.where(mask[:, :, None], features, 0.0).astype(np.float32)
        logits = self.model({"features": clean, "mask": mask}, training=False)
        return np.asarray(keras.ops.convert_to_numpy(logits))


def _compare_frame(
    model: keras.Model,
    graph: onnx.ModelProto,
    spec: FrameSpec,
    crops: NDArray[np.uint8],
    rng: np.random.Generator,
) -> list[Comparison]:
    contract = frame_contract(spec)
    session = _open(graph, "frame", *contract)
    comparisons = []
    for batch in BATCHES:
        shape = (batch, spec.input_size, spec.input_size, 3)
        cases = {
            f"random crops, batch {batch}": rng.integers(0, 256, shape).astype(np.uint8),
            f"real crops, batch {batch}": crops[rng.integers(0, len(crops), batch)],
        }
        for case, image in cases.items():
            wanted = _Keras(model).frame(image)
            names = list(contract[1])
            found = session.run(names, {"image": image})
            comparisons += [
                _compare("frame", case, name, value, wanted[name])
                for name, value in zip(names, found, strict=True)
            ]
    return comparisons


def _compare_sequence(
    model: keras.Model,
    session: Any,  # noqa: ANN401
    features_of: Callable[[int, int], Array],
    rng: np.random.Generator,
) -> list[Comparison]:
    keras_model = _Keras(model)
    comparisons = []
    for steps in TIMES:
        # Keras walks step by step and is slow: one batch, of which the smaller ones are parts.
        features = features_of(max(BATCHES), steps)
        full = np.full(max(BATCHES), steps, np.int32)
        mixed = rng.integers(1, steps + 1, max(BATCHES)).astype(np.int32)
        wanted = keras_model.sequence(features, full)
        wanted_padded = keras_model.sequence(features, mixed)
        for n in BATCHES:
            case = f"batch {n}, time {steps}"
            logits, state = _run(session, features[:n], full[:n], _zero_state(session, n))
            comparisons.append(_compare("sequence", case, "fake_logit", logits, wanted[:n]))
            comparisons += _compare_chunked(
                session, f"{case}, chunked", features[:n], logits, state
            )
            comparisons += _compare_padded(
                session, f"{case}, padded", features[:n], mixed[:n], wanted_padded[:n]
            )
    return comparisons


def _compare_chunked(
    session: Any,  # noqa: ANN401
    case: str,
    features: Array,
    logits: Array,
    state: Array,
) -> list[Comparison]:
    """Single steps, then a larger piece, with the state carried: the same as the whole."""
    batch, steps = features.shape[:2]
    carried = np.zeros_like(state)
    parts = []
    start = 0
    while start < steps:
        count = min(1 if start < 3 else 8, steps - start)
        piece = features[:, start : start + count]
        part, carried = _run(session, piece, np.full(batch, count, np.int32), carried)
        parts.append(part)
        start += count
    return [
        _compare("sequence", case, "fake_logit", np.concatenate(parts, axis=1), logits),
        _compare("sequence", case, "next_state", carried, state),
    ]


def _compare_padded(
    session: Any,  # noqa: ANN401
    case: str,
    features: Array,
    lengths: Array,
    wanted: Array,
) -> list[Comparison]:
    """Mixed lengths with huge numbers in the padding: the same as Keras, and as each alone."""
    batch, steps = features.shape[:2]
    real = np.arange(steps)[None] < lengths[:, None]
    padded = np.where(real[:, :, None], features, PADDING).astype(np.float32)
    logits, state = _run(session, padded, lengths, _zero_state(session, batch))
    alone = [
        _run(session, features[i : i + 1, :n], lengths[i : i + 1], _zero_state(session, 1))[1]
        for i, n in enumerate(lengths)
    ]
    found = np.where(real, logits, 0.0)
    return [
        _compare("sequence", case, "fake_logit", found, np.where(real, wanted, 0.0)),
        _compare("sequence", case, "next_state", state, np.concatenate(alone)),
    ]


def _feature_source(pool: Array, rng: np.random.Generator) -> Callable[[int, int], Array]:
    """Features of the real crops, in random order and varied, so that no two steps are alike."""

    def make(batch: int, steps: int) -> Array:
        rows = pool[rng.integers(0, len(pool), (batch, steps))]
        return (rows * rng.uniform(0.5, 1.5, rows.shape)).astype(np.float32)

    return make


def _open(graph: onnx.ModelProto, name: str, inputs: Any, outputs: Any) -> Any:  # noqa: ANN401
    data = graph.SerializeToString()
    try:
        check_graph(Path(f"{name}.onnx"), data, inputs, outputs)
        return open_session(data, Provider.CPU, threads=1, name=f"{name}.onnx")
    except BundleError as error:
        raise ContractMismatch(str(error)) from error


def _zero_state(session: Any, batch: int) -> Array:  # noqa: ANN401
    width = next(value.shape[1] for value in session.get_inputs() if value.name == "state")
    return np.zeros((batch, width), np.float32)


def _run(session: Any, features: Array, lengths: Array, state: Array) -> tuple[Array, Array]:  # noqa: ANN401
    inputs = {"features": np.ascontiguousarray(features), "lengths": lengths, "state": state}
    logits, next_state = session.run(["fake_logit", "next_state"], inputs)
    return logits, next_state


def _compare(graph: str, case: str, output: str, found: Array, wanted: Array) -> Comparison:
    if found.shape != wanted.shape:
        raise ShapeMismatch(
            f"{graph}, {case}: {output} has shape {list(found.shape)}, but the Keras model gives "
            f"{list(wanted.shape)}; nothing was written"
        )
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    # A NaN is the largest of all differences, and no JSON number.
    difference = np.where(np.isfinite(difference), difference, np.finfo(np.float64).max)
    where = np.unravel_index(int(difference.argmax()), difference.shape)
    return Comparison(
        graph=graph,
        case=case,
        output=output,
        shape=list(found.shape),
        max_difference=float(difference[where]),
        where=[int(index) for index in where],
        tolerance=_TOLERANCES[output],
    )
