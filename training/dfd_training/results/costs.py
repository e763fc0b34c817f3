"""What the model of a run costs: parameters, multiply-accumulates, bytes, milliseconds a crop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.session import Session

WARM_UP = 5
ROUNDS = 101


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of the frame graph for one crop, on one thread of this machine's processor.

    Attributes:
        precision: the variant that ran.
        median_ms: over the rounds.
        low_ms: of nine rounds in ten, the fastest.
        high_ms: of nine rounds in ten, the slowest.
        ratio: median over the rounds of this run's time over the first run's.
    """

    precision: str
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float


def model_cost(model: Path) -> tuple[int, int]:
    """Parameters of a frame model and its multiply-accumulates for one crop.

    Loads Keras.

    Raises:
        UsageError: The file cannot be loaded.
    """
    from dfd_training.models import load_frame_model  # noqa: PLC0415 - loads TensorFlow
    from dfd_training.models.frame import measure  # noqa: PLC0415

    cost = measure(load_frame_model(model))
    return cost.parameters, cost.macs


def onnx_bytes(bundle: Bundle, precision: str) -> int:
    """Bytes of the frame graph of a precision and of the sequence graph."""
    manifest = bundle.manifest
    names = (manifest.frame.variants[precision].file, manifest.sequence.file)
    return sum(manifest.files[name].size for name in names)


def measure_latency(
    bundles: Mapping[str, tuple[Bundle, str]],
    *,
    rounds: int = ROUNDS,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Latency]:
    """Time the frame graphs of bundles turn by turn, so that what slows the machine slows all.

    Args:
        bundles: by run, the bundle and the precision of its frame graph.
        rounds: each of which times every graph once; as many again as `WARM_UP` go before.
        on_round: called after each.

    Raises:
        UsageError: There is no bundle.
        BundleError: A graph does not run.
    """
    if not bundles:
        raise UsageError("no run has a bundle whose latency could be measured")
    rng = np.random.default_rng(0)
    calls: list[tuple[Session, NDArray[np.uint8]]] = []
    for bundle, precision in bundles.values():
        session = Session.open(bundle, provider="cpu", precision=precision, threads=1)
        side = bundle.manifest.frame.input_size
        calls.append((session, rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)))
    taken_ms = np.empty((WARM_UP + rounds, len(calls)))
    for turn in range(WARM_UP + rounds):
        for number, (session, crop) in enumerate(calls):
            started_s = time.perf_counter()
            session.run_frame(crop)
            taken_ms[turn, number] = 1000.0 * (time.perf_counter() - started_s)
        on_round()
    kept = taken_ms[WARM_UP:]
    low, median, high = np.percentile(kept, [5.0, 50.0, 95.0], axis=0)
    ratios = np.median(kept / kept[:, :1], axis=0)
    return {
        name: Latency(
            session.provider.precision,
            float(median[number]),
            float(low[number]),
            float(high[number]),
            float(ratios[number]),
        )
        for number, (name, (session, _)) in enumerate(zip(bundles, calls, strict=True))
    }
