"""Contact sheets of an exploration: selection, drawings and captions of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import pandas as pd

from dfd_edge.report.pictures import MOST_ENLARGED
from dfd_training.explore.detectors import DETECTORS, Pass, PassResult, faces_of
from dfd_training.explore.drawing import (
    contact_sheet,
    draw_boxes,
    enlarged,
    from_bytes,
    jpeg,
    png,
)
from dfd_training.explore.search import (
    FACE_PX,
    PICTURE_PX,
    STRIP_PX,
    Detections,
    FirstFrame,
    stratified,
)

FACES_SHOWN = 24
#: The sheet of pictures as they are has so many rows and columns.
PICTURES_ACROSS = 5
#: Clips of each label whose first frames are shown whole.
FIRST_FRAMES = 4
EXAMPLES = 4
NOT_FOUND_SHOWN = 8

_DRAWN = {
    name: (*passes, Pass.EYES, Pass.SMILE) if Pass.FRONTAL in passes else passes
    for name, passes in DETECTORS.items()
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG picture with a caption.

    Attributes:
        path: Path of its file, as in the table.
        label: Label of that file.
        jpeg: The picture.
        words: The caption, or "".
        scale: Factor by which it may be enlarged.
    """

    path: str
    label: str
    jpeg: bytes
    words: str = ""
    scale: int = MOST_ENLARGED

    @property
    def name(self) -> str:
        """Name of its file."""
        return PurePath(self.path).name

    @property
    def widest(self) -> int:
        """Width in pixels to which it may be enlarged."""
        return self.scale * int(from_bytes(self.jpeg).shape[1])


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures in rows.

    Attributes:
        name: Name of its file, without suffix.
        rows: The pictures.
        size: Side in pixels of the square that each is fitted into.
        columns: Pictures in a row of the PNG, a multiple of those in the longest row if there are
            several rows; by default as many as that has.
    """

    name: str
    rows: tuple[tuple[Picture, ...], ...]
    size: int
    columns: int = 0

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, row after row."""
        return [picture for row in self.rows for picture in row]

    def png(self) -> bytes:
        """Returns the sheet as one PNG picture, with labels and captions."""
        longest = max(len(row) for row in self.rows)
        columns = self.columns or longest
        images, words = [], []
        for row in self.rows:
            blank = longest - len(row)
            images += [from_bytes(picture.jpeg) for picture in row]
            words += [f"{picture.label} {picture.words or picture.name}".strip() for picture in row]
            images += [np.full((1, 1, 3), 255, np.uint8)] * blank
            words += [""] * blank
        return png(contact_sheet(images, words, columns=columns, cell=(self.size, self.size)))


def face_sheets(
    table: pd.DataFrame, detections: Sequence[Detections], seed: int
) -> dict[str, Sheet]:
    """Returns sheets of faces, drawn evenly over data sets and sources, by label."""
    faces = {file.path: file.face for file in detections if file.face is not None}
    sheets = {}
    for label, rows in table[table["path"].isin(faces)].groupby("label"):
        chosen = stratified(rows, FACES_SHOWN, seed)
        pictures = tuple(Picture(path, str(label), faces[path]) for path in chosen)
        name = f"faces_{str(label).lower().replace(' ', '_')}"
        sheets[str(label)] = Sheet(name, (pictures,), FACE_PX, columns=6)
    return sheets


def picture_sheet(frames: Sequence[FirstFrame], labels: dict[str, str]) -> Sheet | None:
    """Returns pictures as they are, and first frames of clips, in five columns."""
    pictures = tuple(
        Picture(frame.path, labels[frame.path], frame.picture)
        for frame in frames
        if frame.picture is not None
    )
    if not pictures:
        return None
    return Sheet("pictures", (pictures,), STRIP_PX, columns=PICTURES_ACROSS)


def first_frame_sheet(frames: Sequence[FirstFrame], labels: dict[str, str]) -> Sheet | None:
    """Returns whole first frames of clips, each with the face in it."""
    rows = []
    for frame in frames:
        if frame.picture is None:
            continue
        row = [Picture(frame.path, labels[frame.path], frame.picture)]
        if frame.face is not None:
            row.append(Picture(frame.path, labels[frame.path], frame.face, "the face in it"))
        rows.append(tuple(row))
    return Sheet("first_frames", tuple(rows), PICTURE_PX // 2, columns=4) if rows else None


def families_sheet(
    families: Sequence[Sequence[str]], frames: dict[str, FirstFrame], labels: dict[str, str]
) -> Sheet | None:
    """Returns first frames of originals and of their fakes: a family in a row.

    Args:
        families: Paths of the original, where it is there, and of its fakes.
        frames: The first frames, by path.
        labels: Labels of the files, by path.
    """
    rows = []
    for family in families:
        shown = [(path, frames[path].picture) for path in family]
        row = [Picture(path, labels[path], jpeg) for path, jpeg in shown if jpeg is not None]
        rows += [tuple(row)] if row else []
    return Sheet("fakes_of_originals", tuple(rows), STRIP_PX) if rows else None


def family_sheet(strips: dict[str, tuple[bytes, ...]], labels: dict[str, str]) -> Sheet | None:
    """Returns frames of an original and of its fakes: files in rows, times in columns."""
    rows = [
        tuple(
            Picture(path, labels[path], frame, f"{PurePath(path).name}, {number} of {len(frames)}")
            for number, frame in enumerate(frames, start=1)
        )
        for path, frames in strips.items()
        if frames
    ]
    return Sheet("fakes_of_one_original", tuple(rows), STRIP_PX) if rows else None


def comparison_sheets(
    table: pd.DataFrame, detections: Sequence[Detections], labels: dict[str, str], seed: int
) -> dict[str, Sheet]:
    """Returns frames with the detections: frames in rows, detectors in columns.

    Returns:
        "drawn": an even random sample; "differ": other frames, with different numbers of faces
        by detector. Either may be missing.
    """
    shown = {file.path: file for file in detections if file.frames and file.picture}
    differing = [path for path, file in shown.items() if len(set(_numbers(file))) > 1]
    drawn = stratified(table[table["path"].isin(shown)], EXAMPLES, seed)
    rest = set(differing) - set(drawn)
    differ = stratified(table[table["path"].isin(rest)], EXAMPLES, seed)
    sheets = {}
    for name, paths in (("drawn", drawn), ("differ", differ)):
        if paths:
            rows = tuple(
                compared(path, labels[path], shown[path].picture, shown[path].found)
                for path in paths
            )
            sheets[name] = Sheet(f"detectors_{name}", rows, PICTURE_PX)
    return sheets


def not_found_sheet(
    table: pd.DataFrame, detections: Sequence[Detections], labels: dict[str, str], seed: int
) -> Sheet | None:
    """Returns files in which a detector found no face; those without any face first."""
    blind: dict[str, list[str]] = {}
    for file in detections:
        names = [name for name in DETECTORS if (faces := file.faces(name)) and not any(faces)]
        if names and file.picture:
            blind[file.path] = names
    by_path = {file.path: file for file in detections}
    chosen: list[str] = []
    for number in range(len(DETECTORS), 0, -1):
        some = [path for path, names in blind.items() if len(names) == number]
        left = NOT_FOUND_SHOWN - len(chosen)
        # Files on which all detectors fail leave room for those on which only some do.
        share = left if number == 1 else -(-left // 2)
        chosen += stratified(table[table["path"].isin(some)], share, seed)
    if not chosen:
        return None
    every = [item for passes in DETECTORS.values() for item in passes]
    pictures = []
    for path in chosen:
        file = by_path[path]
        words = f"none by {', '.join(_short(name) for name in blind[path])}"
        picture = Picture(path, labels[path], file.picture, words)
        pictures.append(_drawn(picture, file.found, every))
    return Sheet("no_face_found", (tuple(pictures),), PICTURE_PX, columns=4)


def _drawn(picture: Picture, found: dict[Pass, PassResult], passes: Sequence[Pass]) -> Picture:
    """Draws the detections of some passes into a picture; a small one is drawn larger."""
    image = enlarged(from_bytes(picture.jpeg), PICTURE_PX)
    return replace(picture, jpeg=jpeg(draw_boxes(image, found, passes)), scale=1)


def _short(detector: str) -> str:
    return detector.partition(" (")[0]


def _numbers(file: Detections) -> list[int]:
    """Counts the faces of each detector in the shown frame."""
    return [faces[file.shown] for name in DETECTORS if (faces := file.faces(name))]


def compared(
    path: str, label: str, picture: bytes, found: dict[Pass, PassResult], when: str = ""
) -> tuple[Picture, ...]:
    """Returns a frame once for each detector that ran, with its detections and their number.

    Args:
        path: Path of the file.
        label: Its label.
        picture: The frame as JPEG.
        found: Detections in it.
        when: Stands before each caption.
    """
    pictures = []
    for name, passes in _DRAWN.items():
        faces = faces_of(found, name)
        if faces is None:
            continue
        words = f"{when}{_short(name)}: {len(faces)} {'face' if len(faces) == 1 else 'faces'}"
        pictures.append(_drawn(Picture(path, label, picture, words), found, passes))
    return tuple(pictures)
