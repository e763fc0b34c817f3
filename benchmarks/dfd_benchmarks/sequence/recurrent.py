"""The native sequence graph against the graph that tf2onnx makes of the same Keras model.

tf2onnx turns a GRU into `Loop`, a subgraph of some thirty nodes a step, and keeps no state, so
that a live stream would have to compute its last steps anew at each one. Both graphs run on one
thread in one process, turn by turn, so that other work on the machine meets both.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_benchmarks.results.report import figure_lines
from dfd_benchmarks.results.schema import Figure, Result
from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import FrameSpec, VariantSpec
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.errors import DfdError, UsageError
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session

BATCHES = (1, 8)
TIMES = (1, 20, 64)
BARS = {(1, 1): 2.0, (1, 64): 6.0}
"""By batch and time, how many times faster the native graph has to be."""
WINDOW = 20
"""Steps that are computed anew at each one where no state is carried."""
TOLERANCE = 1e-4
"""Allowed difference of two logits, both graphs being float32."""

_STEPS_A_TURN = 400
_MIN_CALLS = 10
_WARM_UP = 3

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Sessions of both graphs of one model.

    Attributes:
        native: `features`, `lengths`, `state` and any signals to `fake_logit` and `next_state`.
        loop: `features`, `mask` and any signals to `fake_logit`.
        width: Features of a step.
        state_width: Numbers in the state.
        signal_width: Signals of a step, 0 for a head that takes none.
        loops: `Loop` operators in tf2onnx's graph.
    """

    native: Any
    loop: Any
    width: int
    state_width: int
    signal_width: int
    loops: int

    @classmethod
    def build(cls, head: str, width: int, *, seed: int = 0) -> Pair:
        """Exports a head with random weights both ways.

        Raises:
            UsageError: The head is unknown, or Keras runs on another backend than TensorFlow.
        """
        import keras  # noqa: PLC0415 - brings TensorFlow

        from dfd_export.graphs.sequence_graph import (  # noqa: PLC0415
            describe_sequence_model,
            export_loop_graph,
            export_sequence_graph,
        )
        from dfd_training.models import build_sequence_model  # noqa: PLC0415

        keras.utils.set_random_seed(seed)
        model = build_sequence_model(feature_width=width, head=head)
        rng = np.random.default_rng(seed)
        for variable in model.weights:
            if not variable.path.endswith("kernel"):
                low = 0.5 if variable.path.endswith(("variance", "gamma", "scale")) else -0.3
                variable.assign(rng.uniform(low, low + 0.6, variable.shape))
        spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
        frame = FrameSpec(1, 1.0, width, None, {"fp32": VariantSpec("frame.onnx")})
        native = export_sequence_graph(model, frame, spec, metadata={}).SerializeToString()
        loop = export_loop_graph(model).SerializeToString()
        return cls(
            native=open_session(native, Provider.CPU, threads=1, name="the native graph"),
            loop=open_session(loop, Provider.CPU, threads=1, name="tf2onnx's graph"),
            width=width,
            state_width=spec.state_width,
            signal_width=0 if spec.signals is None else spec.signals.width,
            loops=read_onnx(loop).operators.get("Loop", 0),
        )

    def run_native(self, inputs: Arrays) -> list[NDArray[np.float32]]:
        """Logits and next state of one call."""
        outputs: list[NDArray[np.float32]] = self.native.run(["fake_logit", "next_state"], inputs)
        return outputs

    def run_loop(self, inputs: Arrays) -> NDArray[np.float32]:
        """Logits of one call."""
        outputs: list[NDArray[np.float32]] = self.loop.run(["fake_logit"], inputs)
        return outputs[0]

    def inputs(
        self, features: NDArray[np.float32], lengths: NDArray[np.int32]
    ) -> tuple[Arrays, Arrays]:
        """Returns the inputs of both graphs for features [B, T, F], from the beginning."""
        state = np.zeros((len(features), self.state_width), np.float32)
        mask = np.arange(features.shape[1]) < lengths[:, None]
        steps = {"features": features, **self.signals(*features.shape[:2])}
        return {**steps, "lengths": lengths, "state": state}, {**steps, "mask": mask}

    def signals(self, batch: int, steps: int) -> Arrays:
        """Returns the inputs that a head on signals takes besides: measured, and all of them 0."""
        if not self.signal_width:
            return {}
        return {
            "signals": np.zeros((batch, steps, self.signal_width), np.float32),
            "measured": np.ones((batch, steps), np.float32),
        }

    def difference(self, features: NDArray[np.float32]) -> float:
        """Largest difference of two logits, the sequences full and of every length.

        Raises:
            DfdError: It is more than rounding explains.
        """
        batch, steps = features.shape[:2]
        full = np.full(batch, steps, np.int32)
        mixed = np.linspace(1, steps, batch).astype(np.int32)
        largest = 0.0
        for lengths in (full, mixed):
            native, loop = self.inputs(features, lengths)
            difference = np.abs(self.run_native(native)[0] - self.run_loop(loop))[loop["mask"]]
            largest = max(largest, float(difference.max()))
        if not largest <= TOLERANCE:
            raise DfdError(
                f"batch {batch}, time {steps}: the logits of the two graphs differ by "
                f"{largest:.3g} (allowed: {TOLERANCE:g}): nothing was measured: report it as a "
                "fault of the exporter"
            )
        return largest


def measure_recurrent(
    *,
    head: str = "gru",
    width: int | None = None,
    runs: int = 5,
    on_run: Callable[[], object] = lambda: None,
) -> Result:
    """Compares both graphs of a head, once their outputs agree.

    Args:
        head: Name in the registry of heads. Its weights are random: they change no duration.
        width: Features of a step; by default those of the shipped bundle.
        runs: How often everything is measured.
        on_run: Called after each run.

    Returns:
        Medians of elapsed microseconds, run by run: by batch and time, each graph called after the
        other; and a live step with the state carried beside one that computes the last `WINDOW`
        steps anew. A live step finds cold caches, as it does in a stream, where it follows much
        other work. Details: `loops`, the `Loop` operators of tf2onnx's graph; `difference`, the
        largest of two logits of full and padded sequences, by batch and time.

    Raises:
        UsageError: `runs` or `width` is below 1, or the head is unknown.
        DfdError: The graphs differ.
    """
    if runs < 1:
        raise UsageError(f"runs is {runs}; give 1 or more")
    if width is None:
        width = Bundle.load().manifest.frame.feature_width
    pair = Pair.build(head, width)
    rng = np.random.default_rng(0)
    features = {
        (batch, steps): rng.normal(size=(batch, steps, width)).astype(np.float32)
        for batch in BATCHES
        for steps in TIMES
    }
    differences = {shape: pair.difference(values) for shape, values in features.items()}
    costs: dict[tuple[int, int], list[list[float]]] = {shape: [] for shape in features}
    live: list[list[float]] = []
    stream = rng.normal(size=(1, _STEPS_A_TURN + WINDOW, width)).astype(np.float32)
    for _ in range(runs):
        for shape, values in features.items():
            costs[shape].append(_call_costs(pair, values))
        live.append(_live_costs(pair, stream))
        on_run()
    figures = [
        figure
        for shape in features
        for figure in _shape_figures(shape, costs[shape], looped=pair.loops > 0)
    ]
    return Result(
        benchmark="recurrent",
        arguments={"head": head, "width": width},
        ran=None,
        figures=[*figures, *_live_figures(live)],
        details={
            "loops": pair.loops,
            "threads": 1,
            "difference": {_name(shape): value for shape, value in differences.items()},
        },
    )


def recurrent_lines(result: Result) -> Iterator[str]:
    """Yields which graphs were compared, then the figures."""
    loops, differences = result.details["loops"], result.details["difference"]
    yield (
        f"head {result.arguments['head']}, {result.arguments['width']} features; tf2onnx's graph "
        f"has {loops} Loop; one thread; logits differ by {max(differences.values()):.1e} at most"
    )
    yield from figure_lines(result)


def _shape_figures(
    shape: tuple[int, int], costs: list[list[float]], *, looped: bool
) -> list[Figure]:
    """Both graphs and their ratio; no bar where tf2onnx needs no loop."""
    native, loop = (tuple(values) for values in zip(*costs, strict=True))
    name, label = _name(shape), f"batch {shape[0]}, time {shape[1]}:"
    bar = BARS.get(shape) if looped else None
    return [
        Figure(f"{name}.native", f"{label} native graph", "us", "lower", native),
        Figure(f"{name}.tf2onnx", f"{label} tf2onnx's graph", "us", "lower", loop),
        Figure(f"{name}.ratio", f"{label} times faster", "x", "higher", _ratio(loop, native), bar),
    ]


def _live_figures(live: list[list[float]]) -> list[Figure]:
    carried, window, loop_window = (tuple(values) for values in zip(*live, strict=True))
    last = f"last {WINDOW} steps anew"
    return [
        Figure("live.carried", "a live step, state carried", "us", "lower", carried),
        Figure("live.window.native", f"{last}, native graph", "us", "lower", window),
        Figure("live.window.tf2onnx", f"{last}, tf2onnx's graph", "us", "lower", loop_window),
        Figure(
            "live.window.native.ratio",
            "state carried: times faster than native",
            "x",
            "higher",
            _ratio(window, carried),
        ),
        Figure(
            "live.window.tf2onnx.ratio",
            "state carried: times faster than tf2onnx's",
            "x",
            "higher",
            _ratio(loop_window, carried),
        ),
    ]


def _name(shape: tuple[int, int]) -> str:
    return f"batch_{shape[0]}.time_{shape[1]}"


def _ratio(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    return tuple(n / d for n, d in zip(numerators, denominators, strict=True))


def _call_costs(pair: Pair, features: NDArray[np.float32]) -> list[float]:
    """Median microseconds of a call of the native graph and of the other."""
    batch, steps = features.shape[:2]
    native, loop = pair.inputs(features, np.full(batch, steps, np.int32))
    calls: list[Callable[[], object]] = [
        functools.partial(pair.run_native, native),
        functools.partial(pair.run_loop, loop),
    ]
    return _medians_us(calls, max(_MIN_CALLS, _STEPS_A_TURN // steps))


def _live_costs(pair: Pair, stream: NDArray[np.float32]) -> list[float]:
    """Median microseconds of a live step: state carried, native window, tf2onnx's window."""
    one, full = np.ones(1, np.int32), np.full(1, WINDOW, np.int32)
    state = np.zeros((1, pair.state_width), np.float32)
    signals = pair.signals(1, 1)
    now = WINDOW

    def carried() -> None:
        nonlocal state, now
        step = stream[:, now : now + 1]
        state = pair.run_native({"features": step, "lengths": one, "state": state, **signals})[1]
        now = max(WINDOW, (now + 1) % stream.shape[1])

    def window(run: Callable[[Arrays], object], which: int) -> None:
        last = np.ascontiguousarray(stream[:, now - WINDOW : now])
        run(pair.inputs(last, full)[which])

    calls: list[Callable[[], object]] = [
        carried,
        functools.partial(window, pair.run_native, 0),
        functools.partial(window, pair.run_loop, 1),
    ]
    return _medians_us(calls, _STEPS_A_TURN // WINDOW)


def _medians_us(calls: list[Callable[[], object]], times: int) -> list[float]:
    """Median microseconds of each call, all of them made turn by turn."""
    durations = np.empty((_WARM_UP + times, len(calls)))
    for turn in range(_WARM_UP + times):
        for number, call in enumerate(calls):
            started_s = time.perf_counter()
            call()
            durations[turn, number] = time.perf_counter() - started_s
    return [float(value) * 1e6 for value in np.median(durations[_WARM_UP:], axis=0)]
