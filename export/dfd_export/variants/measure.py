"""Changes of a variant of the frame graph against fp32, measured through the runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle.manifest import Metric, VariantChanges
from dfd_edge.errors import DfdError
from dfd_edge.faces.crop import Quality, crop_detail
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.processor import processor_name
from dfd_edge.inference.session import Session
from dfd_edge.judging.people import FaceCrop, Observation
from dfd_edge.judging.results import Label
from dfd_edge.judging.stream import Stream
from dfd_export.variants.samples import Sample
from dfd_training.evaluation.statistics import auc, change_of, estimate

_ROUNDS = 41


class VariantRefused(DfdError):
    """A variant changes more than is allowed. The message has what was measured."""


def measure_changes(fp32: Session, variant: Session, sample: Sample) -> VariantChanges:
    """Compares a variant with fp32 on the same crops.

    Args:
        fp32: The bundle's graphs, the frame graph in fp32.
        variant: The same with the variant, on the same provider.
        sample: Labelled crops.
    """
    before = fp32.run_frame(sample.crops).fake_logit.astype(np.float64)
    after = variant.run_frame(sample.crops).fake_logit.astype(np.float64)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise VariantRefused(
            f"{variant.provider.precision} is refused: its logits, or those of fp32, are not "
            "finite on some of the crops; nothing was written"
        )
    change = np.abs(after - before)
    both = np.stack([before, after], axis=1)
    difference = estimate(change_of(auc), sample.fake.astype(np.int64), both, sample.groups)
    labels_before = clip_labels(fp32, sample)
    labels_after = clip_labels(variant, sample)
    speedup, latency_ms = _time(fp32, variant, sample)
    return VariantChanges(
        data=sample.description,
        crops=len(sample),
        mean_logit=round(float(change.mean()), 4),
        max_logit=round(float(change.max()), 4),
        auc=Metric(
            round(difference.value, 5),
            _known(difference.low),
            _known(difference.high),
            difference.n,
        ),
        clips=len(labels_before),
        labels_changed=sum(labels_after[path] != label for path, label in labels_before.items()),
        speedup=speedup,
        latency_ms=latency_ms,
        provider=variant.provider.actual,
        processor=processor_name(),
        onnxruntime=load_onnxruntime().__version__,
    )


def check_changes(precision: str, changes: VariantChanges, *, max_auc_drop: float) -> None:
    """Refuses a variant whose frame AUC is lower than that of fp32 by more than is allowed.

    Raises:
        VariantRefused: It is.
    """
    if not -changes.auc.value <= max_auc_drop:
        raise VariantRefused(
            f"{precision} is refused: its frame AUC is {-changes.auc.value:.4f} lower than that of "
            f"fp32 on {changes.crops} {changes.data}, and {max_auc_drop:g} is allowed (logits "
            f"change by {changes.mean_logit:.3g} on average and {changes.max_logit:.3g} at most): "
            "calibrate on more crops, or allow more with --max-auc-drop; nothing was written"
        )


def _known(bound: float) -> float | None:
    """A bound of an interval; None where too few groups were drawn to have one."""
    return round(bound, 5) if np.isfinite(bound) else None


def describe_changes(precision: str, changes: VariantChanges) -> str:
    """Describes what a variant changes, in a sentence a figure."""
    auc, speed = changes.auc, changes.speedup
    between = "" if auc.low is None else f" [{auc.low:+.4f}, {auc.high:+.4f}]"
    return (
        f"{precision} against fp32 on {changes.crops} {changes.data}: the frame logit changes by "
        f"{changes.mean_logit:.3g} on average and {changes.max_logit:.3g} at most; frame AUC by "
        f"{auc.value:+.4f}{between}; {changes.labels_changed} of "
        f"{changes.clips} clips get another label; {speed.value:.2f} times as fast "
        f"[{speed.low:.2f}, {speed.high:.2f}], {changes.latency_ms:.1f} ms a crop on one thread of "
        f"{changes.processor} ({changes.provider})"
    )


def clip_labels(session: Session, sample: Sample) -> dict[str, Label]:
    """The runtime's verdict on each clip of a sample, by its path.

    A clip is a file with as many steps as a verdict needs; photographs are left out.
    """
    labels = {}
    for rows in _files(sample):
        if len(np.unique(sample.times_s[rows])) < session.decision.min_steps:
            continue
        path = str(sample.paths[rows[0]])
        stream = Stream(session, None, source=path)
        stream.score(list(_observations(sample, rows)))
        labels[path] = stream.verdict().label
    return labels


def _observations(sample: Sample, rows: NDArray[np.int64]) -> Iterator[Observation]:
    for time_s in np.unique(sample.times_s[rows]):
        together = rows[sample.times_s[rows] == time_s]
        yield Observation(float(time_s), tuple(_face(sample, row) for row in together))


def _face(sample: Sample, row: int) -> FaceCrop:
    nowhere, crop = np.zeros(4, np.float32), sample.crops[row]
    quality = Quality(True, detail=crop_detail(crop))
    return FaceCrop(int(sample.tracks[row]), nowhere, (0, 0, 0), crop, quality)


def _files(sample: Sample) -> Iterator[NDArray[np.int64]]:
    starts = np.flatnonzero(np.r_[True, sample.paths[1:] != sample.paths[:-1]])
    yield from np.split(np.arange(len(sample)), starts[1:])


def _time(fp32: Session, variant: Session, sample: Sample) -> tuple[Metric, float]:
    """Measures the variant's speed-up on one crop, the two in turn, and its latency."""
    ratios, latencies_ms = [], []
    for round_number in range(_ROUNDS):
        crop = sample.crops[round_number % len(sample)][None]
        before_s, after_s = (_seconds(session, crop) for session in (fp32, variant))
        ratios.append(before_s / after_s)
        latencies_ms.append(after_s * 1e3)
    low, middle, high = statistics.quantiles(ratios, n=4)
    speedup = Metric(round(middle, 3), round(low, 3), round(high, 3), _ROUNDS)
    return speedup, round(statistics.median(latencies_ms), 3)


def _seconds(session: Session, crop: NDArray[np.uint8]) -> float:
    """Shortest of two calls: the first brings the weights back into the cache."""
    durations_s = []
    for _ in range(2):
        started_s = time.perf_counter()
        session.run_frame(crop)
        durations_s.append(time.perf_counter() - started_s)
    return min(durations_s)
