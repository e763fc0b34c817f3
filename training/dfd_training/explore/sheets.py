"""Contact sheets of an exploration: selection, drawings and captions of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import pandas as pd

from dfd_training.explore.detectors import DETECTORS, Pass
from dfd_training.explore.drawing import contact_sheet, draw_boxes, from_bytes, jpeg, png
from dfd_training.explore.search import FACE_PX, PICTURE_PX, STRIP_PX, Detections, stratified

FACES_SHOWN = 24
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
    """

    path: str
    label: str
    jpeg: bytes
    words: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures in rows.

    Attributes:
        name: Name of its file, without suffix.
        rows: The pictures.
        size: Side in pixels of the square that each is fitted into.
    """

    name: str
    rows: tuple[tuple[Picture, ...], ...]
    size: int

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, row after row."""
        return [picture for row in self.rows for picture in row]

    def png(self) -> bytes:
        """Returns the sheet as one PNG picture, with labels and captions."""
        columns = max(len(row) for row in self.rows)
        images, words = [], []
        for picture in self.pictures:
            images.append(from_bytes(picture.jpeg))
            words.append(f"{picture.label} {picture.words or PurePath(picture.path).name}")
        if len(self.rows) == 1:
            columns = 6
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
        name = f"faces_{str(label).lower()}"
        sheets[str(label)] = Sheet(name, (pictures,), FACE_PX)
    return sheets


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
            rows = tuple(_compared(shown[path], labels[path]) for path in paths)
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
    pictures = []
    for path in chosen:
        file = by_path[path]
        image = draw_boxes(from_bytes(file.picture), file.frames[file.shown], _faces_only())
        words = f"none by {', '.join(_short(name) for name in blind[path])}"
        pictures.append(Picture(path, labels[path], jpeg(image), words))
    return Sheet("no_face_found", (tuple(pictures),), PICTURE_PX)


def _faces_only() -> list[Pass]:
    return [item for passes in DETECTORS.values() for item in passes]


def _short(detector: str) -> str:
    return detector.partition(" (")[0]


def _numbers(file: Detections) -> list[int]:
    """Counts the faces of each detector in the shown frame."""
    return [faces[file.shown] for name in DETECTORS if (faces := file.faces(name))]


def _compared(file: Detections, label: str) -> tuple[Picture, ...]:
    found = file.frames[file.shown]
    pictures = []
    for name, passes in _DRAWN.items():
        faces = file.faces(name)
        if not faces:
            continue
        image = draw_boxes(from_bytes(file.picture), found, passes)
        number = faces[file.shown]
        words = f"{_short(name)}: {number} {'face' if number == 1 else 'faces'}"
        pictures.append(Picture(file.path, label, jpeg(image), words))
    return tuple(pictures)
