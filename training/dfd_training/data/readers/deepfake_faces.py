"""The layout of deepfake-faces: metadata.csv beside a folder of face crops, one a clip of DFDC."""

from __future__ import annotations

from pathlib import Path

from dfd_edge.errors import UsageError
from dfd_edge.sources.containers import IMAGE_SUFFIXES
from dfd_training.data.readers.media import Imported, LabelNames, MediaRow, media_in, subfolder
from dfd_training.data.table import FAKE, REAL, read_csv_text

METADATA = "metadata.csv"
PICTURES = "faces_224"


def read_deepfake_faces(
    folder: Path, *, pictures: str = PICTURES, names: LabelNames | None = None
) -> Imported:
    """Reads metadata.csv (videoname, label, original) and the pictures of the same stem.

    An original without a picture keeps the clip's name that metadata.csv gives it.

    Args:
        folder: Holds metadata.csv and the folder of pictures.
        pictures: Name of that folder.
        names: Names of the classes in the column label; by default REAL and FAKE.

    Raises:
        UsageError: Something is missing, a clip is named twice, or a label is unknown.
    """
    names = names or LabelNames.exactly()
    path = folder / METADATA
    table = read_csv_text(path)
    if missing := [name for name in ("videoname", "label") if name not in table]:
        raise UsageError(f"{path}: columns {missing} are missing; there are {list(table)}")
    place = subfolder(folder, pictures)
    if place is None:
        raise UsageError(f"{folder}: no folder {pictures!r} with the pictures; give --pictures")
    files = [name for name in media_in(place) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    file_of = {Path(name).stem: name for name in files}
    originals = table["original"] if "original" in table else [""] * len(table)
    stems: set[str] = set()
    result = Imported()
    absent: list[str] = []
    lost: list[str] = []
    for line, (video, value, original) in enumerate(
        zip(table["videoname"], table["label"], originals, strict=True), start=2
    ):
        where = f"{path}, row {line} ({video})"
        label = names.read(where, value)
        stem, made_from = Path(video).stem, Path(original).stem
        if not stem or stem in stems:
            raise UsageError(f"{where}: {'named twice' if stem else 'names no clip'}")
        stems.add(stem)
        if label == REAL and made_from:
            raise UsageError(f"{where}: is REAL and has an original, {original!r}")
        if stem not in file_of:
            absent.append(video)
            continue
        if made_from and made_from not in file_of:
            lost.append(original)
        result.rows.append(
            MediaRow(
                place / file_of[stem],
                label,
                original=place / file_of.get(made_from, original) if made_from else None,
                generator="DFDC" if label == FAKE else "",
                keys=(made_from or stem,),
                source="DFDC faces",
                cropped=True,
            )
        )
    result.note(f"in {METADATA}, but without a picture", absent)
    result.note(f"pictures without a row in {METADATA}", sorted(set(file_of) - stems))
    result.note("originals of fakes without a picture", sorted(set(lost)))
    return result
