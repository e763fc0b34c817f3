"""A clip at a glance: an animated GIF, and a contact sheet with the faces boxed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sinks.files import written_whole
from dfd_edge.sources import Frame, Image, VideoFile
from dfd_edge.sources.frames import Sampler
from dfd_training.explore.detectors import DetectorSet, Pass
from dfd_training.explore.drawing import contact_sheet, draw_boxes, png, shrunk
from dfd_training.explore.page import make_folder
from dfd_training.explore.search import is_still, spaced_frames

_COLUMNS = 4
_CELL = (240, 180)
_COLOURS = 128


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """Options of a preview.

    Attributes:
        seconds: Shown length, from the start of the clip.
        rate_hz: Frames per second of the GIF.
        longest_px: Longer side of the GIF.
        frames: Pictures on the contact sheet.

    Raises:
        UsageError: A value is out of range.
    """

    seconds: float = 6.0
    rate_hz: float = 8.0
    longest_px: int = 320
    frames: int = 12

    def __post_init__(self) -> None:
        ranges = {
            "seconds": (0.1, 60.0),
            "rate_hz": (0.5, 25.0),
            "longest_px": (32, 1280),
            "frames": (1, 64),
        }
        names = {"rate_hz": "--rate", "longest_px": "--size"}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                option = names.get(name, f"--{name}")
                raise UsageError(f"{option} {value:g}: give a number from {least:g} to {most:g}")


@dataclass(frozen=True, slots=True)
class Preview:
    """The written files, and how many of the sheet's frames show a face."""

    gif: Path
    sheet: Path
    frames: int
    with_face: int


def preview(path: Path, out: Path, options: PreviewOptions) -> Preview:
    """Writes `NAME.gif` and `NAME_sheet.png` of a clip.

    Args:
        path: The clip.
        out: The folder for both files; created where it does not exist.
        options: Options of the preview.

    Raises:
        SourceError: The clip cannot be read.
        UsageError: It is a photograph, or the folder cannot be written to.
    """
    if is_still(path):
        raise UsageError(f"{path}: a photograph, and not a clip: look at it as it is")
    moving: list[Image] = []
    with VideoFile(path, threads=1) as video:
        for frame in video.frames(Sampler(options.rate_hz)):
            if frame.time_s >= options.seconds:
                break
            moving.append(shrunk(frame.image, options.longest_px))
    if not moving:
        raise SourceError(path, "no frame could be decoded")
    still = list(spaced_frames(path, options.frames, max_seconds=options.seconds))
    searcher = DetectorSet()
    found = [searcher.search(frame.image) for frame in still]
    boxed = [
        draw_boxes(shrunk(frame.image, 2 * _CELL[0]), what, [Pass.BLAZEFACE])
        for frame, what in zip(still, found, strict=True)
    ]
    words = [_words(frame) for frame in still]
    sheet = contact_sheet(boxed, words, columns=_COLUMNS, cell=_CELL)
    make_folder(out)
    gif_path, sheet_path = out / f"{path.stem}.gif", out / f"{path.stem}_sheet.png"
    with written_whole(gif_path) as partial:
        _write_gif(moving, options.rate_hz, partial)
    with written_whole(sheet_path) as partial:
        partial.write_bytes(png(sheet))
    with_face = sum(bool(what[Pass.BLAZEFACE].boxes) for what in found)
    return Preview(gif_path, sheet_path, len(still), with_face)


def _words(frame: Frame) -> str:
    return f"{frame.time_s:.1f} s"


def _write_gif(images: list[Image], rate_hz: float, path: Path) -> None:
    frames = [
        PilImage.fromarray(np.ascontiguousarray(image[:, :, ::-1])).quantize(_COLOURS)
        for image in images
    ]
    # GIF stores times in hundredths of a second.
    step_ms = max(20, 10 * round(100 / rate_hz))
    frames[0].save(
        path, format="GIF", save_all=True, append_images=frames[1:], duration=step_ms, loop=0
    )
