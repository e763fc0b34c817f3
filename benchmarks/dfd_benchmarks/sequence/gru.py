"""The sequence graph as it runs live: one step at a time, its state carried.

A recurrent head is worth having on the edge if a step costs next to nothing beside the frame
model, and costs the same however long the stream has run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_benchmarks.results.report import figure_lines
from dfd_benchmarks.results.schema import Figure, Result, RunInfo
from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.inference.session import Session

CHUNK = 64
"""Steps of the one call that is held against as many single steps."""
MIN_STEPS = 100
STEP_BAR = 0.01
"""A step may cost this share of a crop through the frame graph."""
FLAT_BAR = 1.1
"""The last steps may cost this many times as much as the first: what is left is noise."""
_FRAMES = 20
_WARM_UP = 20


def measure_gru(
    *,
    model: Path | None = None,
    steps: int = 10_000,
    precision: str = "auto",
    runs: int = 5,
    on_run: Callable[[], object] = lambda: None,
) -> Result:
    """Measures the sequence graph step by step beside the frame graph, `runs` times.

    The frame graph sees noise and the sequence graph the features that come of it: what they
    compute does not depend on what they see.

    Args:
        model: A bundle; the shipped one by default.
        steps: Steps of a run, `MIN_STEPS` or more.
        precision: Variant of the frame graph.
        runs: How often everything is measured.
        on_run: Called after each run.

    Returns:
        Elapsed times on one thread, run by run; `difference` in the details is the largest
        between the logits of `CHUNK` steps in one call and one by one.

    Raises:
        UsageError: `steps` or `runs` is too small.
        BundleError, ProviderError: The bundle or the runtime cannot be used.
    """
    if steps < MIN_STEPS:
        raise UsageError(f"steps is {steps}; give {MIN_STEPS} or more")
    if runs < 1:
        raise UsageError(f"runs is {runs}; give 1 or more")
    session = Session.open(Bundle.load(model), provider="cpu", precision=precision)
    size = session.bundle.manifest.frame.input_size
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (CHUNK, size, size, 3), np.uint8)
    features = session.run_frame(crops).features
    step_us, frame_ms, flatness, chunk_us = [], [], [], []
    for _ in range(runs):
        durations = _time_steps(session, features, steps)
        tenth = steps // 10
        step_us.append(float(np.median(durations)) * 1e6)
        flatness.append(float(np.median(durations[-tenth:]) / np.median(durations[:tenth])))
        frame_ms.append(float(np.median(_time_frames(session, crops))) * 1e3)
        chunk_us.append(float(np.median(_time_chunks(session, features))) * 1e6 / CHUNK)
        on_run()
    over_frame = [step / (frame * 1e3) for step, frame in zip(step_us, frame_ms, strict=True)]
    gain = [step / chunk for step, chunk in zip(step_us, chunk_us, strict=True)]
    return Result(
        benchmark="gru",
        arguments={"steps": steps, "precision": precision},
        ran=RunInfo.of(session, precision=precision),
        figures=[
            Figure("step", "one step, its state carried", "us", "lower", tuple(step_us)),
            Figure("frame", "one crop, frame graph", "ms", "lower", tuple(frame_ms)),
            Figure("step_over_frame", "step over crop", "x", "lower", tuple(over_frame), STEP_BAR),
            Figure(
                "last_over_first",
                "last tenth of the steps over the first",
                "x",
                "lower",
                tuple(flatness),
                FLAT_BAR,
            ),
            Figure("chunk_step", f"a step of {CHUNK} in one call", "us", "lower", tuple(chunk_us)),
            Figure("chunk_gain", "single step over that", "x", "neither", tuple(gain)),
        ],
        details={"difference": _difference(session, features)},
    )


def gru_lines(result: Result) -> Iterator[str]:
    """Yields how far one call and single steps differ, then the figures."""
    yield (
        f"{result.arguments['steps']} steps; one call of {CHUNK} and single steps differ by "
        f"{result.details['difference']:.1e} at most"
    )
    yield from figure_lines(result)


def _time_steps(session: Session, features: NDArray[np.float32], steps: int) -> NDArray[np.float64]:
    """Elapsed seconds of each of `steps` steps of one track, [steps]."""
    one = np.ones(1, np.int32)
    inputs = [features[row : row + 1, None, :] for row in range(len(features))]
    state = session.initial_state(1)
    for step in range(_WARM_UP):
        session.run_sequence(inputs[step % len(inputs)], one, state)
    durations = np.empty(steps)
    for step in range(steps):
        started_s = time.perf_counter()
        state = session.run_sequence(inputs[step % len(inputs)], one, state).next_state
        durations[step] = time.perf_counter() - started_s
    return durations


def _time_frames(session: Session, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    durations = np.empty(_FRAMES)
    session.run_frame(crops[:1])
    for number in range(_FRAMES):
        crop = crops[number % len(crops)][None]
        started_s = time.perf_counter()
        session.run_frame(crop)
        durations[number] = time.perf_counter() - started_s
    return durations


def _time_chunks(session: Session, features: NDArray[np.float32]) -> NDArray[np.float64]:
    length = np.array([CHUNK], np.int32)
    state = session.initial_state(1)
    session.run_sequence(features[None], length, state)
    durations = np.empty(_FRAMES)
    for number in range(_FRAMES):
        started_s = time.perf_counter()
        session.run_sequence(features[None], length, state)
        durations[number] = time.perf_counter() - started_s
    return durations


def _difference(session: Session, features: NDArray[np.float32]) -> float:
    start = session.initial_state(1)
    whole = session.run_sequence(features[None], np.array([CHUNK], np.int32), start)
    one = np.ones(1, np.int32)
    state = start
    logits = []
    for row in range(CHUNK):
        outputs = session.run_sequence(features[row : row + 1, None, :], one, state)
        state = outputs.next_state
        logits.append(float(outputs.fake_logit[0, 0]))
    return float(np.abs(whole.fake_logit[0] - np.array(logits, np.float32)).max())
