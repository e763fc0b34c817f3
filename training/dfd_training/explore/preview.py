"""A clip at a glance: an animated GIF, and a contact sheet with the faces boxed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sinks.files import written_whole
from dfd_edge.sources import Frame, Image, VideoFile
from dfd_edge.sources.frames import Sampler
from dfd_training.data.croppers import shrunk
from dfd_training.explore.detectors import DetectorSet, HaarOptions, Pass, PassResult
from dfd_training.explore.drawing import contact_sheet, draw_boxes, jpeg, png
from dfd_training.explore.figures import DetectorRow, detector_rows
from dfd_training.explore.page import make_folder
from dfd_training.explore.search import PICTURE_PX, Detections, is_still, spaced_frames
from dfd_training.explore.sheets import Sheet, compared
from dfd_training.explore.tables import UNLABELLED

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
        detectors: Compare all face detectors on these pictures.
        with_smile: Search for smiles too.
        haar: Parameters of the Haar cascades.

    Raises:
        UsageError: A value is out of range.
    """

    seconds: float = 6.0
    rate_hz: float = 8.0
    longest_px: int = 320
    frames: int = 12
    detectors: bool = False
    with_smile: bool = False
    haar: HaarOptions = field(default_factory=HaarOptions)

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
    """The written files.

    Attributes:
        gif: The animation; None of a photograph.
        sheet: The contact sheet; None of a photograph.
        compared: The sheet of all detectors, where it was asked for.
        frames: Number of frames on the sheets.
        with_face: Number of those with a face, by BlazeFace.
        detectors: Figures of each detector on them.
    """

    gif: Path | None
    sheet: Path | None
    compared: Path | None
    frames: int
    with_face: int
    detectors: list[DetectorRow]


def preview(path: Path, out: Path, options: PreviewOptions) -> Preview:
    """Writes `NAME.gif` and `NAME_sheet.png` of a clip, and `NAME_detectors.png` on demand.

    Args:
        path: The clip; or a photograph, of which only `NAME_detectors.png` is written.
        out: The folder for the files; created where it does not exist.
        options: Options of the preview.

    Raises:
        SourceError: The clip cannot be read.
        UsageError: It is a photograph and the detectors are not asked for, or the folder cannot be
            written to.
    """
    photograph = is_still(path)
    if photograph and not options.detectors:
        raise UsageError(
            f"{path}: a photograph, and not a clip: look at it as it is; --detectors searches it"
        )
    moving = [] if photograph else _moving(path, options)
    still = list(spaced_frames(path, options.frames, max_seconds=options.seconds))
    searcher = DetectorSet(with_smile=options.with_smile, haar=options.haar)
    found = [searcher.search(frame.image) for frame in still]
    files: dict[Path, Callable[[Path], object]] = {}
    gif_path, sheet_path = out / f"{path.stem}.gif", out / f"{path.stem}_sheet.png"
    compared_path = out / f"{path.stem}_detectors.png"
    if not photograph:
        boxed = [
            draw_boxes(shrunk(frame.image, 2 * _CELL[0]), what, [Pass.BLAZEFACE])
            for frame, what in zip(still, found, strict=True)
        ]
        sheet = png(
            contact_sheet(boxed, [_time(frame) for frame in still], columns=_COLUMNS, cell=_CELL)
        )
        files[gif_path] = lambda partial: _write_gif(moving, options.rate_hz, partial)
        files[sheet_path] = lambda partial: partial.write_bytes(sheet)
    if options.detectors:
        beside = _compared(path, still, found, timed=not photograph)
        files[compared_path] = lambda partial: partial.write_bytes(beside)
    make_folder(out)
    for file, write in files.items():
        with written_whole(file) as partial:
            write(partial)
    times = tuple(frame.time_s for frame in still)
    searched = Detections(str(path), tuple(found), times, 0, b"", None)
    return Preview(
        gif=gif_path if gif_path in files else None,
        sheet=sheet_path if sheet_path in files else None,
        compared=compared_path if compared_path in files else None,
        frames=len(still),
        with_face=sum(bool(what[Pass.BLAZEFACE].boxes) for what in found),
        detectors=detector_rows([searched], {str(path): UNLABELLED}),
    )


def _moving(path: Path, options: PreviewOptions) -> list[Image]:
    """Returns the frames of the animation."""
    moving: list[Image] = []
    with VideoFile(path, threads=1) as video:
        for frame in video.frames(Sampler(options.rate_hz)):
            if frame.time_s >= options.seconds:
                break
            moving.append(shrunk(frame.image, options.longest_px))
    if not moving:
        raise SourceError(path, "no frame could be decoded")
    return moving


def _compared(
    path: Path, still: Sequence[Frame], found: Sequence[dict[Pass, PassResult]], *, timed: bool
) -> bytes:
    """Returns the frames as a PNG picture: times in rows, detectors in columns."""
    rows = tuple(
        compared(
            str(path),
            "",
            jpeg(shrunk(frame.image, PICTURE_PX)),
            what,
            f"{_time(frame)}, " if timed else "",
        )
        for frame, what in zip(still, found, strict=True)
    )
    return Sheet("detectors", rows, PICTURE_PX).png()


def _time(frame: Frame) -> str:
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
