"""The sequence graph as it runs live: one step at a time, its state carried.

A recurrent head is worth having on the edge if a step costs next to nothing beside the frame
model, and costs the same however long the stream has run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_benchmarks.timing import Spread
from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.session import Session

CHUNK = 64
"""Steps of the one call that is held against as many single steps."""
MIN_STEPS = 100
_FRAMES = 20
_WARM_UP = 20


@dataclass(frozen=True, slots=True)
class GruReport:
    """What a step of the sequence graph costs; elapsed times on one thread.

    Attributes:
        bundle: Name of the bundle.
        steps: Steps of a run, the state carried from the first to the last.
        step_us: Microseconds of a step with its state carried, the median of a run.
        frame_ms: Milliseconds of the frame graph for one crop, the median of a run.
        step_over_frame: The one over the other, run by run.
        last_over_first: Median step of the last tenth over that of the first, run by run.
        chunk_step_us: Microseconds a step when `CHUNK` steps go through one call.
        chunk_gain: `step_us / chunk_step_us`, run by run.
        difference: Largest difference between the logits of `CHUNK` steps in one call and one
            by one.
    """

    bundle: str
    steps: int
    step_us: Spread
    frame_ms: Spread
    step_over_frame: Spread
    last_over_first: Spread
    chunk_step_us: Spread
    chunk_gain: Spread
    difference: float


def measure_gru(
    *,
    model: Path | None = None,
    steps: int = 10_000,
    runs: int = 5,
    on_run: Callable[[], object] = lambda: None,
) -> GruReport:
    """Measure the sequence graph step by step beside the frame graph, `runs` times.

    The frame graph sees noise and the sequence graph the features that come of it: what they
    compute does not depend on what they see.

    Args:
        model: A bundle; the shipped one by default.
        steps: Steps of a run, `MIN_STEPS` or more.
        runs: How often everything is measured.
        on_run: Called after each run.

    Raises:
        UsageError: `steps` or `runs` is too small.
        BundleError, ProviderError: The bundle or the runtime cannot be used.
    """
    if steps < MIN_STEPS:
        raise UsageError(f"steps is {steps}; give {MIN_STEPS} or more")
    if runs < 1:
        raise UsageError(f"runs is {runs}; give 1 or more")
    session = Session.open(Bundle.load(model), provider="cpu")
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
    return GruReport(
        bundle=session.bundle.manifest.name,
        steps=steps,
        step_us=Spread.of(step_us),
        frame_ms=Spread.of(frame_ms),
        step_over_frame=Spread.of(
            [step / (frame * 1e3) for step, frame in zip(step_us, frame_ms, strict=True)]
        ),
        last_over_first=Spread.of(flatness),
        chunk_step_us=Spread.of(chunk_us),
        chunk_gain=Spread.of([step / chunk for step, chunk in zip(step_us, chunk_us, strict=True)]),
        difference=_difference(session, features),
    )


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
