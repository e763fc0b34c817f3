"""How often each detector finds a face, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfd_training.data.table import LABELS
from dfd_training.explore.detectors import DETECTORS, SAME_FACE, Pass, faces_of, overlap
from dfd_training.explore.looking import Look

_FACES = {passes[0]: name for name, passes in DETECTORS.items() if len(passes) == 1}


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """Figures of a pass, or of the passes of a detector together.

    Attributes:
        name: what the row is called.
        faces: whether it finds faces, and not eyes or smiles.
        frames: that were searched.
        share: of the frames in which it found something.
        share_by_label: the same among the files of each label that were searched.
        per_frame: how many it found in a frame, mean.
        alone: share of its boxes that no other detector found, or None where there is no other;
            most of those are no faces, or faces that the others miss.
        cpu_ms: median time of one thread for a frame, in milliseconds.
    """

    name: str
    faces: bool
    frames: int
    share: float
    share_by_label: dict[str, float]
    per_frame: float
    alone: float | None
    cpu_ms: float


def detector_rows(looks: Sequence[Look], labels: dict[str, str]) -> list[DetectorRow]:
    """Figures of the three detectors, then of the single Haar cascades.

    Args:
        looks: at the files that were searched.
        labels: of the files, by path.
    """
    whole = [(name, passes, True) for name, passes in DETECTORS.items()]
    single = [
        (item.value, (item,), item in {Pass.FRONTAL, Pass.PROFILE})
        for item in Pass
        if item not in _FACES
    ]
    rows = [_row(name, passes, looks, labels, faces=faces) for name, passes, faces in whole]
    rows += [_row(name, passes, looks, labels, faces=faces) for name, passes, faces in single]
    return [row for row in rows if row is not None]


def _row(
    name: str,
    passes: tuple[Pass, ...],
    looks: Sequence[Look],
    labels: dict[str, str],
    *,
    faces: bool,
) -> DetectorRow | None:
    counts: list[int] = []
    times: list[float] = []
    by_label: dict[str, list[bool]] = {label: [] for label in LABELS}
    for look in looks:
        for found in look.frames:
            if passes[0] not in found:
                continue
            number = sum(len(found[item].boxes) for item in passes)
            counts.append(number)
            times.append(sum(found[item].cpu_ms for item in passes))
            by_label[labels[look.path]].append(number > 0)
    if not counts:
        return None
    return DetectorRow(
        name=name,
        faces=faces,
        frames=len(counts),
        share=float(np.mean(np.array(counts) > 0)),
        share_by_label={key: float(np.mean(hits)) for key, hits in by_label.items() if hits},
        per_frame=float(np.mean(counts)),
        alone=_alone(name, looks) if name in DETECTORS else None,
        cpu_ms=float(np.median(times)),
    )


def _alone(detector: str, looks: Sequence[Look]) -> float | None:
    """Share of a detector's faces that overlap with none of another detector."""
    total = lonely = 0
    for look in looks:
        for found in look.frames:
            mine = faces_of(found, detector) or []
            others = [faces_of(found, other) for other in DETECTORS if other != detector]
            known = [box for boxes in others if boxes is not None for box in boxes]
            total += len(mine)
            lonely += sum(all(overlap(box, b) <= SAME_FACE for b in known) for box in mine)
    return lonely / total if total else None
