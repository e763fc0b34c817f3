"""The same frames through every engine that is installed, one frame at a time, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfd_benchmarks.peers.engines import (
    OPENERS,
    TOLERANCE,
    Crops,
    Engine,
    NotInstalled,
    Outputs,
    check_distinguishes,
    check_same,
    difference,
    runtime,
)
from dfd_benchmarks.peers.networks import Networks
from dfd_benchmarks.results.schema import Figure, Result, RunInfo
from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.inference.processor import int8_instructions
from dfd_edge.inference.session import Session

INT8_BAR = 1.8
"""How many times faster than fp32 int8 has to be on one thread, where there is VNNI."""

_VNNI = ("AMX", "AVX-512 VNNI", "AVX-VNNI")
_WARM_UP = 3
_NOT_COVERED = {"torch": "not covered: nothing here turns these models into PyTorch's"}


@dataclass(frozen=True, slots=True, eq=False)
class Peers:
    """Engines that say the same.

    Attributes:
        engines: The runtime in fp32 is the first.
        skipped: Why others are not among them, by name.
        differences: From the runtime's fp32, by name.
    """

    engines: Sequence[Engine]
    skipped: dict[str, str]
    differences: dict[str, float]


def open_peers(networks: Networks, bundle: Bundle, crops: Crops, *, threads: int) -> Peers:
    """Opens every engine that is installed and checks that it says what the runtime says.

    Raises:
        DfdError: One does not (int8 alone may differ), or the network gives nothing to check by.
    """
    reference = runtime(bundle, threads, "fp32")
    wanted = _all(reference, crops)
    check_distinguishes(wanted[0])
    engines, skipped, differences = [reference], dict(_NOT_COVERED), {}
    for opener in OPENERS:
        try:
            engine = opener(networks, bundle, threads)
        except NotInstalled as error:
            skipped[opener.__name__] = str(error)
            continue
        found = difference(_all(engine, crops), wanted)
        check_same(engine.label, found)
        differences[engine.name] = found
        engines.append(engine)
    if "int8" in bundle.manifest.frame.variants:
        engine = runtime(bundle, threads, "int8")
        differences[engine.name] = difference(_all(engine, crops), wanted)
        engines.append(engine)
    return Peers(engines, skipped, differences)


def measure_peers(
    peers: Peers,
    networks: Networks,
    bundle: Bundle,
    crops: Crops,
    *,
    clip: Path,
    threads: int,
    runs: int,
    on_run: Callable[[], object] = lambda: None,
) -> Result:
    """Times the engines: each frame goes through all of them before the next one does.

    Args:
        peers: The engines of `open_peers`.
        networks: The networks that they run.
        bundle: The same, exported.
        crops: uint8 [n, S, S, 3], RGB.
        clip: Where they come from.
        threads: As asked for.
        runs: How often all crops go through.
        on_run: Called after each run.

    Raises:
        UsageError: `runs` is below 1.
    """
    if runs < 1:
        raise UsageError(f"runs is {runs}; give 1 or more")
    costs = np.array([_run(peers.engines, crops, on_run) for _ in range(runs)])
    by_name = {
        engine.name: tuple(costs[:, column].tolist()) for column, engine in enumerate(peers.engines)
    }
    own = by_name["runtime_fp32"]
    figures = [
        Figure(f"frame.{engine.name}", f"a frame, {engine.label}", "ms", "lower", values)
        for engine, values in zip(peers.engines, by_name.values(), strict=True)
    ]
    for engine in peers.engines[1:]:
        if engine.name == "runtime_int8":
            vnni = int8_instructions() in _VNNI and threads == 1
            label, bar = "int8: times faster than fp32", INT8_BAR if vnni else None
            values = _ratio(own, by_name[engine.name])
        else:
            label, bar = f"runtime, fp32: times faster than {engine.label}", None
            values = _ratio(by_name[engine.name], own)
        figures.append(Figure(f"ratio.{engine.name}", label, "x", "higher", values, bar))
    return Result(
        benchmark="peers",
        arguments={
            "network": networks.name,
            "size": networks.size,
            "frames": len(crops),
            "threads": threads,
            "loop": False,
        },
        ran=RunInfo.of(
            Session.open(bundle, provider="cpu", precision="fp32", threads=threads),
            precision="fp32",
            threads=threads,
        ),
        figures=figures,
        details={
            "clip": clip.name,
            "weights": networks.weights,
            "engines": {
                engine.name: {
                    "version": engine.version,
                    "threads_requested": threads,
                    "threads": engine.threads or "all cores",
                    "difference": peers.differences.get(engine.name, 0.0),
                }
                for engine in peers.engines
            },
            "tolerance": TOLERANCE,
            "skipped": peers.skipped,
            "int8_instructions": int8_instructions(),
        },
    )


def _all(engine: Engine, crops: Crops) -> Outputs:
    parts = [engine.run(crops[index : index + 1]) for index in range(len(crops))]
    features, logits = zip(*parts, strict=True)
    return np.concatenate(features), np.concatenate([np.reshape(part, -1) for part in logits])


def _run(engines: Sequence[Engine], crops: Crops, on_run: Callable[[], object]) -> list[float]:
    """Median milliseconds of a frame in each engine; whose turn is first changes by frame."""
    durations = np.empty((len(engines), len(crops)))
    for frame in range(-_WARM_UP, len(crops)):
        crop = np.ascontiguousarray(crops[frame][None])
        for turn in range(len(engines)):
            which = (turn + frame) % len(engines)
            started_s = time.perf_counter()
            engines[which].run(crop)
            if frame >= 0:
                durations[which, frame] = time.perf_counter() - started_s
    on_run()
    return [float(value) * 1e3 for value in np.median(durations, axis=1)]


def _ratio(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    return tuple(n / d for n, d in zip(numerators, denominators, strict=True))
