"""Provider, precision, batch and threads, tried against each other on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_benchmarks.results.report import figure_lines
from dfd_benchmarks.results.schema import Figure, Result
from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.faces.onnx_model import FACE_MODELS_DIR
from dfd_edge.inference.installation import quiet_onnxruntime
from dfd_edge.inference.machine_settings import MachineSettings
from dfd_edge.inference.processor import usable_cores
from dfd_edge.inference.providers import probe_providers
from dfd_edge.inference.session import Session

#: A larger batch, more threads or a coarser precision have to gain more than this.
WORTH = 1.05
#: From the finest; a coarser one is recommended only where it gains.
_FINENESS = ("fp32", "fp16", "int8")
_SEED = 0


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The combinations that are tried.

    Attributes:
        models: Bundles; None is the shipped one.
        providers: Names, or none for all that run here.
        precisions: Variants, or none for all that a bundle carries.
        batches: Crops in a call of the frame graph.
        threads: Threads inside an operator, or none for 1 and as many as there are cores.
        slice_s: Seconds that a combination is measured in each run.
        runs: Measurements of each.
    """

    models: tuple[Path | None, ...] = (None,)
    providers: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    threads: tuple[int, ...] = ()
    slice_s: float = 0.3
    runs: int = 5


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """One bundle on one provider, in one precision, with so many threads."""

    name: str
    provider: str
    precision: str
    threads: int
    detector: Detector
    session: Session
    batches: tuple[int, ...]
    crops: NDArray[np.uint8]

    @property
    def size(self) -> int:
        return int(self.crops.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class SweepReport:
    """Figures and recommendation of a sweep.

    Attributes:
        result: The figures.
        settings: The recommended settings for this machine.
        choice: The recommended combination, by name in the figures.
    """

    result: Result
    settings: MachineSettings
    choice: str

    def lines(self) -> Iterator[str]:
        """The figures as a table, then knees and recommendation."""
        yield from figure_lines(self.result)
        for name, knee in self.result.details["knees"].items():
            yield f"{name}: the largest batch that still gains more than 5 % is {knee}"
        for fault in self.result.details["left_out"]:
            yield f"left out: {fault}"
        settings = self.settings
        yield (
            f"recommended: --provider {settings.provider} --precision {settings.precision} "
            f"--threads {settings.threads} ({self.choice})"
        )


def measure_sweep(
    clip: Path, options: SweepOptions, *, on_run: Callable[[], object] = lambda: None
) -> SweepReport:
    """Measures every combination in each run, so that other work on the machine meets all alike.

    Args:
        clip: A video file with a face in it, judged from file to verdict.
        options: The combinations.
        on_run: Called after each run.

    Raises:
        UsageError: A value is out of range, or a bundle lacks a precision.
        ProviderError: A named provider does not run.
        SourceError: The clip cannot be read, or shows no frame to judge.
    """
    candidates, left_out = _candidates(options)
    rates: dict[str, list[float]] = {}
    latencies: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for turn in range(-1, options.runs):  # the first warms up
        for candidate in candidates:
            for batch in candidate.batches:
                rate, latency_ms = _time_frame(candidate, batch, options.slice_s)
                if turn >= 0:
                    key = f"{candidate.name}.b{batch}"
                    rates.setdefault(key, []).append(rate)
                    latencies.setdefault(key, []).append(latency_ms)
            reached = _time_whole(candidate, clip)
            if turn >= 0:
                whole[candidate.name].append(reached)
        if turn >= 0:
            on_run()
    figures = []
    for candidate in candidates:
        for batch in candidate.batches:
            key, words = f"{candidate.name}.b{batch}", f"{candidate.name}, batch {batch}"
            figures += [
                Figure(f"{key}.rate", f"{words}, crops", "1/s", "higher", tuple(rates[key])),
                Figure(f"{key}.latency", f"{words}, a call", "ms", "lower", tuple(latencies[key])),
            ]
        figures.append(
            Figure(
                f"{candidate.name}.whole",
                f"{candidate.name}, file to verdict, judged frames",
                "1/s",
                "higher",
                tuple(whole[candidate.name]),
            )
        )
    medians = {figure.name: figure.spread.median for figure in figures}
    knees = {
        candidate.name: knee(
            {batch: medians[f"{candidate.name}.b{batch}.rate"] for batch in candidate.batches}
        )
        for candidate in candidates
    }
    best = recommended(candidates, {c.name: medians[f"{c.name}.whole"] for c in candidates})
    result = Result(
        benchmark="sweep",
        arguments={
            "clip": str(clip),
            "models": [str(model or "shipped") for model in options.models],
            "batches": list(options.batches),
            "slice_s": options.slice_s,
            "runs": options.runs,
        },
        ran=None,
        figures=figures,
        details={
            "knees": knees,
            "left_out": left_out,
            "recommended": best.name,
            "combinations": [_described(candidate) for candidate in candidates],
            "spinning": False,
        },
    )
    settings = MachineSettings.made_here(
        provider=best.provider, precision=best.precision, threads=best.threads
    )
    return SweepReport(result, settings, best.name)


def knee(rates: dict[int, float]) -> int:
    """The largest batch that is more than 5 % quicker than every smaller one.

    Args:
        rates: Crops a second, by batch.
    """
    chosen = min(rates)
    for batch in sorted(rates):
        if rates[batch] > WORTH * rates[chosen]:
            chosen = batch
    return chosen


def recommended(candidates: Sequence[_Candidate], reached: dict[str, float]) -> _Candidate:
    """The quickest from file to verdict; of those within 5 %, the fewest threads, the finest.

    Args:
        candidates: The combinations. Bundles of other sizes have other scores: only the first
            bundle's are chosen from.
        reached: Judged frames a second, by name.
    """
    first = [c for c in candidates if c.detector.bundle.hash == candidates[0].detector.bundle.hash]
    most = max(reached[candidate.name] for candidate in first)
    near = [candidate for candidate in first if reached[candidate.name] * WORTH >= most]
    return min(near, key=lambda c: (c.threads, _FINENESS.index(c.precision), -reached[c.name]))


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a list; none where it is `auto`."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return () if names == ("auto",) else names


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """The whole numbers in a list, sorted; none where it is `auto`.

    Raises:
        UsageError: One is none, or below 1.
    """
    numbers = set()
    for name in parse_names(text):
        if not name.isdecimal() or int(name) < 1:
            raise UsageError(f"{option}: {name!r} is no number of 1 or more; give as in 1,2,4")
        numbers.add(int(name))
    return tuple(sorted(numbers))


def _candidates(options: SweepOptions) -> tuple[list[_Candidate], list[str]]:
    """Everything that is tried, loaded; and what was left out, with the cause."""
    quiet_onnxruntime()
    left_out: list[str] = []
    providers = options.providers
    if not providers:
        probes = probe_providers(FACE_MODELS_DIR / "blazeface_full_range.onnx")
        providers = tuple(probe.provider for probe in probes if probe.works)
        left_out += [f"{probe.provider}: {probe.detail}" for probe in probes if not probe.works]
    threads = options.threads or tuple(sorted({1, max(1, int(usable_cores()))}))
    rng = np.random.default_rng(_SEED)
    found = []
    for model in options.models:
        variants = Bundle.load(model).manifest.frame.variants
        for provider in providers:
            for precision in options.precisions or tuple(variants):
                for count in threads:
                    found.append(
                        _load(model, provider, precision, threads=count, options=options, rng=rng)
                    )
    return found, left_out


def _load(
    model: Path | None,
    provider: str,
    precision: str,
    *,
    threads: int,
    options: SweepOptions,
    rng: np.random.Generator,
) -> _Candidate:
    detector = Detector.load(model, provider=provider, precision=precision, threads=threads)
    session = Session.open(detector.bundle, provider=provider, precision=precision, threads=threads)
    batches = options.batches
    if session.parallel:  # on a CPU the session would cut a large batch into several
        session = replace(session, max_batch=max(batches))
    else:
        batches = tuple(b for b in batches if b <= session.max_batch) or (session.max_batch,)
    size = detector.bundle.manifest.frame.input_size
    crops = rng.integers(0, 256, (max(batches), size, size, 3), np.uint8)
    manifest = detector.bundle.manifest
    prefix = f"{manifest.name}_{size}." if len(options.models) > 1 else ""
    name = f"{prefix}{provider}.{precision}.t{threads}"
    return _Candidate(name, provider, precision, threads, detector, session, batches, crops)


def _time_frame(candidate: _Candidate, batch: int, slice_s: float) -> tuple[float, float]:
    """Crops a second over a slice of time, and the median call in milliseconds."""
    crops = candidate.crops[:batch]
    calls: list[float] = []
    end_s = time.perf_counter() + slice_s
    while not calls or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        candidate.session.run_frame(crops)
        calls.append(time.perf_counter() - start_s)
    return batch * len(calls) / sum(calls), float(np.median(calls)) * 1e3


def _time_whole(candidate: _Candidate, clip: Path) -> float:
    """Judged frames a second from file to verdict."""
    start_s = time.perf_counter()
    verdict = candidate.detector.analyze(clip)
    if not verdict.frames:
        raise SourceError(clip, "no frame in it to judge", "give a clip with a face in it")
    return verdict.frames / (time.perf_counter() - start_s)


def _described(candidate: _Candidate) -> dict[str, Any]:
    report = candidate.session.provider
    return {
        "name": candidate.name,
        "bundle": candidate.detector.bundle.manifest.name,
        "bundle_hash": candidate.detector.bundle.hash,
        "input_size": candidate.size,
        "requested_provider": candidate.provider,
        "provider": report.actual,
        "precision": report.precision,
        "threads": candidate.threads,
    }
