"""A look at one file by every detector: the work of a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from dfd_edge.errors import SourceError
from dfd_edge.faces import crop_region, extract_crop
from dfd_edge.faces.crop import CROP_SCALE
from dfd_edge.sources import Image
from dfd_training.explore.detectors import Found, Pass, Searcher, faces_of
from dfd_training.explore.drawing import jpeg, shrunk
from dfd_training.explore.reading import spread_frames

PICTURE_PX = 360
FACE_PX = 128
STRIP_PX = 176


@dataclass(frozen=True, slots=True)
class Look:
    """What the detectors saw in a file.

    Attributes:
        path: as in the table.
        frames: for each frame that was searched, what each pass found.
        times_s: their times.
        shown: which of them `picture` is.
        picture: that frame as JPEG, at most `PICTURE_PX` wide and tall; nothing is drawn in it.
        face: the largest face of BlazeFace in it as JPEG of `FACE_PX` squared, or None.
        error: why not all could be read, or "".
    """

    path: str
    frames: tuple[dict[Pass, Found], ...]
    times_s: tuple[float, ...]
    shown: int
    picture: bytes
    face: bytes | None
    error: str = ""

    def faces(self, detector: str) -> list[int]:
        """How many faces a detector found in each frame; empty where it did not run."""
        found = [faces_of(frame, detector) for frame in self.frames]
        return [len(boxes) for boxes in found if boxes is not None]


@cache
def _searcher(*, with_smile: bool) -> Searcher:
    """The detectors of this process, opened once."""
    return Searcher(with_smile=with_smile)


def look_at(path: str, *, root: Path, frames: int, with_smile: bool) -> Look:
    """Search a few frames of a file by every detector.

    Args:
        path: as in the table.
        root: the folder that relative paths start from.
        frames: of a clip, at most.
        with_smile: look for smiles too.
    """
    searcher = _searcher(with_smile=with_smile)
    found: list[dict[Pass, Found]] = []
    times_s: list[float] = []
    shown, picture, face = 0, b"", None
    error = ""
    try:
        for number, frame in enumerate(spread_frames(root / path, frames)):
            found.append(searcher.search(frame.image))
            times_s.append(frame.time_s)
            # Shown is the last one with a face up to the middle, or else the first with one.
            if number <= frames // 2 or face is None:
                cropped = _face(frame.image, found[-1])
                if cropped is not None or not picture:
                    shown, face = number, cropped
                    picture = jpeg(shrunk(frame.image, PICTURE_PX))
    except SourceError as broken:
        error = str(broken).replace(str(root / path), path, 1)
    if not found and not error:
        error = f"{path}: no frame could be decoded"
    return Look(path, tuple(found), tuple(times_s), shown, picture, face, error)


def strip_of(path: str, *, root: Path, frames: int) -> tuple[bytes, ...]:
    """A few frames spread over a file, as small JPEG pictures; fewer where it breaks off.

    Args:
        path: as in the table.
        root: the folder that relative paths start from.
        frames: of a clip, at most.
    """
    pictures: list[bytes] = []
    try:
        for frame in spread_frames(root / path, frames):
            pictures.append(jpeg(shrunk(frame.image, STRIP_PX)))
    except SourceError:
        pass
    return tuple(pictures)


def _face(image: Image, found: dict[Pass, Found]) -> bytes | None:
    """The largest face that BlazeFace found, cut out as the model would see it."""
    boxes = found[Pass.BLAZEFACE].boxes
    if not boxes:
        return None
    height, width = image.shape[:2]
    box = max(boxes, key=lambda sides: (sides[2] - sides[0]) * (sides[3] - sides[1]))
    pixels = np.array(box, np.float32) * np.array([width, height] * 2, np.float32)
    rgb = extract_crop(image, crop_region(pixels, CROP_SCALE), FACE_PX)
    return jpeg(np.ascontiguousarray(rgb[:, :, ::-1]))
