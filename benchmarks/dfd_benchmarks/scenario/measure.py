"""MLPerf's scenarios over the frame model, the sequence model and the whole pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dfd_benchmarks.results.schema import Figure, Result, RunInfo
from dfd_benchmarks.scenario.loadgen import (
    RULES_DURATION_S,
    Load,
    Loaded,
    Work,
    put_under_load,
)
from dfd_benchmarks.streams.footage import SAMPLE
from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.inference.session import Session
from dfd_edge.sources.frames import Image, Sampler
from dfd_edge.sources.video import VideoFile

Workload = Literal["frame", "sequence", "pipeline"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The part of the runtime that is put under load.

    Attributes:
        what: The frame model on crops in memory, one step of the sequence model with its state
            carried, or a decoded frame from face detection to its scores.
        clip: A video for the pipeline; the sample where None.
        model: A bundle; the shipped one where None.
        provider, precision, threads: As in `Session.open`.
    """

    what: Workload
    clip: Path | None = None
    model: Path | None = None
    provider: str = "auto"
    precision: str = "auto"
    threads: int = 1


class FrameWork:
    """Crops in memory through the frame model: noise, which costs what faces cost."""

    def __init__(self, subject: Subject, load: Load) -> None:
        self._session, self.ran = _open(subject)
        size = self._session.bundle.manifest.frame.input_size
        rng = np.random.default_rng(0)
        self._crops = rng.integers(0, 256, (load.samples, size, size, 3), np.uint8)

    def run(self, samples: list[int], worker: int) -> None:
        """One call of the frame model."""
        del worker
        self._session.run_frame(self._crops[samples])


class SequenceWork:
    """One step of the sequence model; every worker's sequences carry their states on."""

    def __init__(self, subject: Subject, load: Load) -> None:
        self._session, self.ran = _open(subject)
        width = self._session.bundle.manifest.frame.feature_width
        rng = np.random.default_rng(0)
        self._features = rng.normal(size=(load.samples, 1, width)).astype(np.float32)
        most = max(load.batch, load.streams)
        self._states = [self._session.initial_state(most) for _ in range(load.workers)]

    def run(self, samples: list[int], worker: int) -> None:
        """One call of the sequence model."""
        count = len(samples)
        outputs = self._session.run_sequence(
            self._features[samples], np.ones(count, np.int32), self._states[worker][:count]
        )
        self._states[worker][:count] = outputs.next_state


class PipelineWork:
    """Decoded frames of a clip, judged: faces found, cut out, and both models run.

    Each place in a call of each worker is a stream of its own, with its tracker and states. The
    frames come in LoadGen's order, at the bundle's rate.
    """

    def __init__(self, subject: Subject, load: Load) -> None:
        self._detector = Detector.load(
            subject.model,
            provider=subject.provider,
            precision=subject.precision,
            threads=subject.threads,
        )
        self.ran = RunInfo.of(self._detector, precision=subject.precision, threads=subject.threads)
        self._rate_hz = self._detector.bundle.manifest.sequence.rate_hz
        clip = subject.clip or SAMPLE
        self._images: list[Image] = []
        with VideoFile(str(clip)) as video:
            for frame in video.frames(Sampler(self._rate_hz)):
                if len(self._images) == load.samples:
                    break
                self._images.append(frame.image)
        if not self._images:
            raise SourceError(clip, "no frame could be decoded", "give another clip")
        places = min(load.batch, load.streams) if load.scenario == "multi-stream" else 1
        self._streams = [
            [self._detector.stream() for _ in range(places)] for _ in range(load.workers)
        ]
        self._times_s = [0.0] * load.workers

    def run(self, samples: list[int], worker: int) -> None:
        """Judges frames."""
        streams = self._streams[worker]
        for number, sample in enumerate(samples):
            stream = streams[number % len(streams)]
            self._times_s[worker] += 1.0 / self._rate_hz
            image = self._images[sample % len(self._images)]
            stream.score([stream.observe(image, self._times_s[worker])])


_WORK: dict[str, Callable[[Subject, Load], Work]] = {
    "frame": FrameWork,
    "sequence": SequenceWork,
    "pipeline": PipelineWork,
}


def make_work(subject: Subject, load: Load) -> Work:
    """Loads the work of a subject."""
    return _WORK[subject.what](subject, load)


def measure_scenario(
    subject: Subject,
    load: Load,
    logs: Path,
    *,
    on_poll: Callable[[float], object] = lambda elapsed_s: None,
) -> Result:
    """Runs one scenario with LoadGen.

    Args:
        subject: The part that is put under load.
        load: How.
        logs: An empty folder for LoadGen's own logs.
        on_poll: Called a few times a second with the seconds of testing so far.

    Raises:
        UsageError: There is no sample clip here, and none was named.
        SourceError, BundleError, ProviderError: The clip, the bundle or the provider fails.
        DfdError: The work failed under load.
    """
    if subject.what == "pipeline" and subject.clip is None and not SAMPLE.is_file():
        raise UsageError("the sample clips are not installed; name a clip with --clip")
    make = functools.partial(make_work, subject, load)
    loaded = put_under_load(make, load, logs, on_poll=on_poll)
    return _result(subject, load, loaded)


def label_of(duration_s: float) -> str:
    """Returns the label that a run of this length may bear."""
    if duration_s < RULES_DURATION_S:
        return "short run: not a result by MLPerf's rules"
    return "run with MLPerf's load generator; not an official MLPerf result, reviewed by nobody"


def _result(subject: Subject, load: Load, loaded: Loaded) -> Result:
    tests = loaded.tests
    unit = "sample" if load.scenario == "offline" else "query"
    plural = "samples" if load.scenario == "offline" else "queries"
    figures = [
        Figure(
            "rate",
            f"{plural} a second",
            "1/s",
            "neither" if load.scenario == "server" else "higher",
            tuple(test.rate_hz for test in tests),
        )
    ]
    if load.scenario != "offline":
        for percentile in tests[0].latency_ms:
            text = f"{float(percentile):g}"
            figures.append(
                Figure(
                    f"latency.p{text}",
                    f"latency of a {unit}, p{text}",
                    "ms",
                    "lower",
                    tuple(test.latency_ms[percentile] for test in tests),
                    load.bound_ms if percentile == "99.00" else None,
                )
            )
    figures += [
        Figure("load_time", "loading", "s", "lower", (loaded.load_s,)),
        Figure("warm_up_time", "warm-up", "s", "neither", (loaded.warm_up_s,)),
    ]
    return Result(
        benchmark=f"scenario {load.scenario}",
        arguments={
            "what": subject.what,
            "clip": None if subject.clip is None else str(subject.clip),
            "model": None if subject.model is None else str(subject.model),
            **{key: value for key, value in asdict(load).items() if key != "scenario"},
        },
        ran=loaded.ran,
        figures=figures,
        details={
            "label": label_of(load.duration_s),
            "loadgen": tests[0].version,
            "target_qps": loaded.target_qps,
            "tests": [
                {"valid": t.valid, "reasons": list(t.reasons), "queries": t.queries} for t in tests
            ],
        },
    )


def _open(subject: Subject) -> tuple[Session, RunInfo]:
    session = Session.open(
        Bundle.load(subject.model),
        provider=subject.provider,
        precision=subject.precision,
        threads=subject.threads,
    )
    return session, RunInfo.of(session, precision=subject.precision, threads=subject.threads)
