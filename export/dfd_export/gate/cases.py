"""Cases of the gate.

Frame graphs get random and real crops, alone, together and mixed; sequence graphs get whole clips,
clips in pieces and clips with padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import frame_contract
from dfd_edge.bundle.manifest import FrameSpec
from dfd_export.gate.comparison import Comparison, Expected, Scale, check_distinct, compare
from dfd_export.gate.crops import random_crops
from dfd_export.gate.oracle import OUTPUT, Oracle, off_by_rounding
from dfd_training.models.sequence import SignalProbes


@dataclass(frozen=True, slots=True, eq=False)
class FrameCases:
    """Crops in batches, and what the Keras model says of them.

    Attributes:
        crops: uint8 [n, S, S, 3].
        wanted: By output, one row a crop.
        rows: By case, the crops in it.
    """

    crops: NDArray[np.uint8]
    wanted: dict[str, Expected]
    rows: dict[str, NDArray[Any]]

    @classmethod
    def make(
        cls,
        model: keras.Model,
        spec: FrameSpec,
        crops: NDArray[np.uint8],
        batches: Sequence[int],
        rng: np.random.Generator,
    ) -> FrameCases:
        """Runs the model on random and real crops, once for all batches.

        Args:
            model: The Keras frame model.
            spec: Its contract.
            crops: uint8 [n, S, S, 3], RGB: real ones.
            batches: Numbers of crops, a case each.
            rng: Draws the random ones.

        Raises:
            CollapsedModel: Its logit hardly varies.
        """
        most = max(batches)
        real = crops[np.resize(rng.permutation(len(crops)), most)]
        both = np.concatenate([random_crops(rng, most, spec.input_size), real])
        answers = Oracle(model)(both.astype(np.float32))
        wanted = {name: answers[name] for name in frame_contract(spec)[1]}
        check_distinct(model.name, wanted["fake_logit"], f"{len(both)} random and real crops")
        rows = {}
        for n in batches:
            picked = rng.permutation(most)[:n]
            rows[f"random crops, batch {n}"] = picked
            rows[f"real crops, batch {n}"] = most + picked
            if n > 1:
                in_turn = np.where(np.arange(n) % 2, picked, most + picked)
                rows[f"random and real crops, batch {n}"] = in_turn
        return cls(both, wanted, rows)

    def compare(self, session: Any) -> list[Comparison]:  # noqa: ANN401
        """Runs a frame graph's onnxruntime session on each case."""
        names = list(self.wanted)
        comparisons = []
        for case, rows in self.rows.items():
            found = session.run(names, {"image": self.crops[rows]})
            comparisons += [
                compare("frame", case, name, value, self.wanted[name].take(rows))
                for name, value in zip(names, found, strict=True)
            ]
        return comparisons


PADDING = 1e6
"""Value of the padding: a graph that read any of it would be far off."""

Array = NDArray[Any]
Inputs = dict[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class _Clips:
    """Clips, and what should come of them.

    Attributes:
        inputs: By name, float32 [batch, time, ...]: `features` and, where the model takes them,
            `signals` and `measured`.
        lengths: int32 [batch].
        logits: float32 [batch, time]; beyond a clip's length without meaning.
        states: float32 [batch, S].
    """

    inputs: Inputs
    lengths: Array
    logits: Expected
    states: Expected

    def take(self, n: int) -> _Clips:
        """The first n."""
        some = slice(n)
        return _Clips(
            _part(self.inputs, some),
            self.lengths[some],
            self.logits.take(some),
            self.states.take(some),
        )


def compare_sequence(
    model: keras.Model,
    session: Any,  # noqa: ANN401
    pool: Array,
    *,
    batches: Sequence[int],
    times: Sequence[int],
    rng: np.random.Generator,
) -> list[Comparison]:
    """Compares a sequence graph with its Keras model.

    Keras shows no states. Those of a clip that runs alone and whole are what must come of it in
    a batch, in pieces and with padding; that they are the right ones shows in the logits.

    Args:
        model: The Keras sequence model.
        session: The graph's onnxruntime session.
        pool: float32 [n, F], features of crops.
        batches: Numbers of clips, a case each.
        times: Numbers of steps, a case each.
        rng: Draws clips and lengths.

    Raises:
        CollapsedModel: The model's logit hardly varies.
    """
    oracle, most, longest = Oracle(model, compiled=True), max(batches), max(times)
    full = np.full(most, longest, np.int32)
    answer = _ask(oracle, _draw(model, pool, most, longest, rng), full)
    check_distinct(model.name, answer, f"{most} clips of {longest} steps")
    comparisons = []
    for steps in times:
        inputs = _draw(model, pool, most, steps, rng)
        moved = inputs | {
            name: off_by_rounding(inputs[name], rng) for name in inputs if name != "measured"
        }
        full = np.full(most, steps, np.int32)
        mixed = rng.integers(1, steps + 1, most).astype(np.int32)
        # One call for both: where Keras walks from step to step, steps are what it costs.
        twice = {name: np.concatenate([array, array]) for name, array in inputs.items()}
        both = twice, np.concatenate([full, mixed])
        logits = Expected(_ask(oracle, *both).values, answer.scale)
        whole, short = (
            _Clips(inputs, lengths, some, _states_alone(session, inputs, moved, lengths))
            for lengths, some in (
                (full, logits.take(slice(most))),
                (mixed, logits.take(slice(most, None))),
            )
        )
        for n in batches:
            case = f"batch {n}, time {steps}"
            comparisons += _compare_whole(session, case, whole.take(n))
            comparisons += _compare_padded(session, f"{case}, padded", short.take(n))
    return comparisons


def _draw(
    model: keras.Model, pool: Array, batch: int, steps: int, rng: np.random.Generator
) -> Inputs:
    """Features in random order and varied, so that no two steps are alike: [batch, steps, F].

    Signals lie round the means that the model takes off them, up to beyond the spread at which it
    clips; one step in three is not measured.
    """
    rows = pool[rng.integers(0, len(pool), (batch, steps))]
    inputs = {"features": (rows * rng.uniform(0.5, 1.5, rows.shape)).astype(np.float32)}
    for layer in model._flatten_layers():
        if isinstance(layer, SignalProbes):
            mean, scale = (keras.ops.convert_to_numpy(v) for v in (layer.mean, layer.scale))
            spreads = rng.normal(0.0, 2.0, (batch, steps, len(mean)))
            inputs["signals"] = (mean + scale * spreads).astype(np.float32)
            inputs["measured"] = (rng.random((batch, steps)) < 2 / 3).astype(np.float32)
    return inputs


def _part(inputs: Inputs, *rows: slice) -> Inputs:
    """The same part of each input."""
    return {name: array[rows] for name, array in inputs.items()}


def _set_padding(inputs: Inputs, lengths: Array, value: float) -> Inputs:
    """The inputs with a number in the padding; flags get 1 or 0."""
    real = np.arange(inputs["features"].shape[1])[None] < lengths[:, None]
    padded = {
        name: np.where(real[:, :, None], array, np.float32(value))
        for name, array in inputs.items()
        if name != "measured"
    }
    if "measured" in inputs:
        padded["measured"] = np.where(real, inputs["measured"], np.float32(bool(value)))
    return padded


def _ask(oracle: Oracle, inputs: Inputs, lengths: Array) -> Expected:
    mask = np.arange(inputs["features"].shape[1])[None] < lengths[:, None]
    return oracle({**_set_padding(inputs, lengths, 0.0), "mask": mask})[OUTPUT]


def _states_alone(session: Any, inputs: Inputs, moved: Inputs, lengths: Array) -> Expected:  # noqa: ANN401
    """The state after each clip alone; `moved` are the inputs off by a rounding error."""
    states, others = (
        np.concatenate(
            [
                _run(session, _part(clips, slice(row, row + 1), slice(n)), np.array([n]))[1]
                for row, n in enumerate(lengths)
            ]
        )
        for clips in (inputs, moved)
    )
    return Expected(states, Scale.of(states, others))


def _compare_whole(session: Any, case: str, clips: _Clips) -> list[Comparison]:  # noqa: ANN401
    """In one call, and in single steps and then larger pieces with the state carried."""
    logits, state = _run(session, clips.inputs, clips.lengths)
    carried, parts, done = None, [], 0
    batch, steps = clips.inputs["features"].shape[:2]
    while done < steps:
        count = min(1 if done < 3 else 8, steps - done)
        piece = _part(clips.inputs, slice(None), slice(done, done + count))
        part, carried = _run(session, piece, np.full(batch, count), carried)
        parts.append(part)
        done += count
    chunked, joined = f"{case}, chunked", np.concatenate(parts, axis=1)
    return [
        compare("sequence", case, "fake_logit", logits, clips.logits),
        compare("sequence", case, "next_state", state, clips.states),
        compare("sequence", chunked, "fake_logit", joined, clips.logits),
        compare("sequence", chunked, "next_state", np.asarray(carried), clips.states),
    ]


def _compare_padded(session: Any, case: str, clips: _Clips) -> list[Comparison]:  # noqa: ANN401
    """Mixed lengths with huge numbers in the padding."""
    real = np.arange(clips.inputs["features"].shape[1])[None] < clips.lengths[:, None]
    padded = _set_padding(clips.inputs, clips.lengths, PADDING)
    logits, state = _run(session, padded, clips.lengths)
    wanted = Expected(np.where(real, clips.logits.values, 0.0), clips.logits.scale)
    return [
        compare("sequence", case, "fake_logit", np.where(real, logits, 0.0), wanted),
        compare("sequence", case, "next_state", state, clips.states),
    ]


def _run(
    session: Any,  # noqa: ANN401
    inputs: Inputs,
    lengths: Array,
    state: Array | None = None,
) -> tuple[Array, Array]:
    """Logits and next states; without a state the clips begin."""
    if state is None:
        width = next(value.shape[1] for value in session.get_inputs() if value.name == "state")
        state = np.zeros((len(inputs["features"]), width), np.float32)
    fed = {name: np.ascontiguousarray(array, np.float32) for name, array in inputs.items()}
    fed |= {"lengths": lengths.astype(np.int32), "state": state}
    logits, next_state = session.run(["fake_logit", "next_state"], fed)
    return logits, next_state
