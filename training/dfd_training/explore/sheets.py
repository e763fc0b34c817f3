"""Pictures of an exploration: which are shown, with what drawn in them and what said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import pandas as pd

from dfd_training.explore.detectors import DETECTORS, Pass
from dfd_training.explore.drawing import contact_sheet, draw_found, from_bytes, jpeg, png
from dfd_training.explore.search import FACE_PX, PICTURE_PX, STRIP_PX, Look, draw_evenly

FACES_SHOWN = 24
EXAMPLES = 4
NOT_FOUND_SHOWN = 8

_DRAWN = {
    name: (*passes, Pass.EYES, Pass.SMILE) if Pass.FRONTAL in passes else passes
    for name, passes in DETECTORS.items()
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG picture with what is said below it.

    Attributes:
        path: of the file that it is from, as in the table.
        label: of that file.
        jpeg: the picture.
        words: a few words, or "".
    """

    path: str
    label: str
    jpeg: bytes
    words: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures that belong together, in rows.

    Attributes:
        name: of its file, without suffix.
        rows: the pictures.
        size: the square that each is fitted into in the file, pixels.
    """

    name: str
    rows: tuple[tuple[Picture, ...], ...]
    size: int

    @property
    def pictures(self) -> list[Picture]:
        """All of them, row after row."""
        return [picture for row in self.rows for picture in row]

    def png(self) -> bytes:
        """The sheet as one PNG picture, labels and words below the pictures."""
        columns = max(len(row) for row in self.rows)
        images, words = [], []
        for picture in self.pictures:
            images.append(from_bytes(picture.jpeg))
            words.append(f"{picture.label} {picture.words or PurePath(picture.path).name}")
        if len(self.rows) == 1:
            columns = 6
        return png(contact_sheet(images, words, columns=columns, cell=(self.size, self.size)))


def face_sheets(table: pd.DataFrame, looks: Sequence[Look], seed: int) -> dict[str, Sheet]:
    """Faces of each label, drawn evenly over data sets and sources; by label."""
    faces = {look.path: look.face for look in looks if look.face is not None}
    sheets = {}
    for label, rows in table[table["path"].isin(faces)].groupby("label"):
        chosen = draw_evenly(rows, FACES_SHOWN, seed)
        pictures = tuple(Picture(path, str(label), faces[path]) for path in chosen)
        name = f"faces_{str(label).lower()}"
        sheets[str(label)] = Sheet(name, (pictures,), FACE_PX)
    return sheets


def family_sheet(strips: dict[str, tuple[bytes, ...]], labels: dict[str, str]) -> Sheet | None:
    """Frames of an original and of its fakes, a row a file and a column a moment."""
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
    table: pd.DataFrame, looks: Sequence[Look], labels: dict[str, str], seed: int
) -> dict[str, Sheet]:
    """Frames with what each detector found, a row a frame and a column a detector.

    Returns:
        "drawn": some drawn evenly; "differ": others on which the detectors found different
        numbers of faces. Either may be missing.
    """
    shown = {look.path: look for look in looks if look.frames and look.picture}
    differing = [path for path, look in shown.items() if len(set(_numbers(look))) > 1]
    drawn = draw_evenly(table[table["path"].isin(shown)], EXAMPLES, seed)
    rest = set(differing) - set(drawn)
    differ = draw_evenly(table[table["path"].isin(rest)], EXAMPLES, seed)
    sheets = {}
    for name, paths in (("drawn", drawn), ("differ", differ)):
        if paths:
            rows = tuple(_compared(shown[path], labels[path]) for path in paths)
            sheets[name] = Sheet(f"detectors_{name}", rows, PICTURE_PX)
    return sheets


def not_found_sheet(
    table: pd.DataFrame, looks: Sequence[Look], labels: dict[str, str], seed: int
) -> Sheet | None:
    """Files in none of whose frames some detector found a face; those without any face first."""
    blind: dict[str, list[str]] = {}
    for look in looks:
        names = [name for name in DETECTORS if (faces := look.faces(name)) and not any(faces)]
        if names and look.picture:
            blind[look.path] = names
    by_path = {look.path: look for look in looks}
    chosen: list[str] = []
    for number in range(len(DETECTORS), 0, -1):
        some = [path for path, names in blind.items() if len(names) == number]
        left = NOT_FOUND_SHOWN - len(chosen)
        # Files that every detector fails on leave room for those on which only some do.
        share = left if number == 1 else -(-left // 2)
        chosen += draw_evenly(table[table["path"].isin(some)], share, seed)
    if not chosen:
        return None
    pictures = []
    for path in chosen:
        look = by_path[path]
        image = draw_found(from_bytes(look.picture), look.frames[look.shown], _faces_only())
        words = f"none by {', '.join(_short(name) for name in blind[path])}"
        pictures.append(Picture(path, labels[path], jpeg(image), words))
    return Sheet("no_face_found", (tuple(pictures),), PICTURE_PX)


def _faces_only() -> list[Pass]:
    return [item for passes in DETECTORS.values() for item in passes]


def _short(detector: str) -> str:
    return detector.partition(" (")[0]


def _numbers(look: Look) -> list[int]:
    """How many faces each detector found in the frame that is shown."""
    return [faces[look.shown] for name in DETECTORS if (faces := look.faces(name))]


def _compared(look: Look, label: str) -> tuple[Picture, ...]:
    found = look.frames[look.shown]
    pictures = []
    for name, passes in _DRAWN.items():
        faces = look.faces(name)
        if not faces:
            continue
        image = draw_found(from_bytes(look.picture), found, passes)
        number = faces[look.shown]
        words = f"{_short(name)}: {number} {'face' if number == 1 else 'faces'}"
        pictures.append(Picture(look.path, label, jpeg(image), words))
    return tuple(pictures)
