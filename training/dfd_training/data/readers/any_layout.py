"""One reader for any data set: a table, its metadata alone, or a folder.

`dfd-train data` has a command for each layout, with its options, and writes a table to train on.
`read_any` finds the layout by itself, accepts files without labels and rows without files, and
writes nothing: it serves for looking at data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pandas as pd

from dfd_edge.errors import UsageError
from dfd_training.data.readers import celeb_df, deepfake_faces, dfdc, faceforensics
from dfd_training.data.readers.folders import read_folders
from dfd_training.data.readers.media import (
    MEDIA_SUFFIXES,
    Imported,
    LabelNames,
    MediaRow,
    listed,
    media_below,
    subfolder,
    to_table,
)
from dfd_training.data.table import COLUMNS, check_rows, read_csv_text

LABELS_CSV = "labels.csv"

# The column that names the file, in the order of preference. "Unnamed: 0" is the index that
# pandas' `to_csv` writes, the file's name in notebooks on DFDC.
_NAME_COLUMNS = ("path", "videoname", "filename", "file", "Unnamed: 0")


class Layout(StrEnum):
    """The form in which a data set was found."""

    TABLE = "table"
    DFDC = "DFDC folder"
    DFDC_METADATA = "DFDC metadata"
    DEEPFAKE_FACES = "deepfake-faces folder"
    FACEFORENSICS = "FaceForensics++ folder"
    CELEB_DF = "Celeb-DF folder"
    CLASS_FOLDERS = "folders named for classes"
    UNLABELLED = "files without labels"


@dataclass(frozen=True)
class FoundTable:
    """A data set as a table in memory.

    Attributes:
        rows: One row a file, all `COLUMNS` as text, checked as `read_rows` does; `label` may be
            empty, and what the set leaves out is.
        raw: The columns that the set itself has, as it writes them, in the order of `rows`: for
            DFDC the file's name as `path`, then `label`, `split` and `original` of metadata.json.
        root: The folder that relative paths start from.
        layout: The form in which it was found.
        notes: Missing, superfluous and left-out files, a line each.
    """

    rows: pd.DataFrame
    raw: pd.DataFrame
    root: Path
    layout: Layout
    notes: list[str] = field(default_factory=list)


def read_any(path: Path, *, root: Path | None = None) -> FoundTable:
    """Reads a data set in whatever form it is.

    A file is a table (CSV with a column path, videoname, filename or file), the metadata.json of
    DFDC without its clips, or one video or picture. In a folder these are looked for, in this
    order: labels.csv; metadata.json in it or below (DFDC); metadata.csv beside face crops
    (deepfake-faces); the folders of FaceForensics++ and of Celeb-DF; folders named for classes.
    Otherwise its videos and pictures, and those below it, are rows without a label, in the order
    of sample_submission.csv where there is one.

    Rows of a table or of DFDC whose file is missing are kept.

    Args:
        path: The file or folder.
        root: The folder that relative paths of a table or of metadata start from; by default the
            file's own.

    Raises:
        UsageError: There is nothing at the path that can be read as a data set, or what is there
            is not what it should be.
    """
    if path.is_dir():
        if root is not None:
            raise UsageError(f"--root {root}: only a table has one, and {path} is a folder")
        return _of_folder(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _of_metadata(path, root or path.parent)
    if suffix in MEDIA_SUFFIXES:
        one = Imported([MediaRow(path, "")])
        return _of_rows(one, path.parent, path.parent, Layout.UNLABELLED, dataset="")
    return _of_csv(path, root or path.parent)


def _of_folder(folder: Path) -> FoundTable:
    metadata = folder / deepfake_faces.METADATA
    if (folder / LABELS_CSV).is_file():
        return _of_csv(folder / LABELS_CSV, folder)
    if parts := _parts(folder):
        return _of_parts(parts, folder)
    if metadata.is_file() and subfolder(folder, deepfake_faces.PICTURES) is None:
        return _of_csv(metadata, folder)
    found, layout, dataset = _public_set(folder) or _plain_files(folder)
    return _of_rows(found, folder, folder, layout, dataset=dataset)


def _public_set(folder: Path) -> tuple[Imported, Layout, str] | None:
    """Reads a public set that its folder's names give away, with its layout and name."""
    names = {name.casefold() for name in listed(folder)}
    if deepfake_faces.METADATA in names:
        found = deepfake_faces.read_deepfake_faces(folder)
        return found, Layout.DEEPFAKE_FACES, "deepfake-faces"
    if names & {faceforensics.ORIGINALS, faceforensics.FAKES}:
        return faceforensics.read_faceforensics(folder), Layout.FACEFORENSICS, "FaceForensics++"
    if names & {celeb_df.CELEBS.casefold(), celeb_df.FAKES.casefold(), celeb_df.YOUTUBE.casefold()}:
        # By footage, fewest files are left out for the published list of test clips.
        found = celeb_df.read_celeb_df(folder, by_footage=True)
        return found, Layout.CELEB_DF, "Celeb-DF"
    return None


def _plain_files(folder: Path) -> tuple[Imported, Layout, str]:
    dataset = folder.resolve().name
    files = list(media_below(folder))
    classes = LabelNames()
    if any(classes.label_of(part) for f in files for part in f.relative_to(folder).parts[:-1]):
        return read_folders(folder), Layout.CLASS_FOLDERS, dataset
    if dfdc.sample_of(folder) is not None:
        return dfdc.read_unlabelled(folder), Layout.UNLABELLED, dataset
    if not files:
        raise UsageError(
            f"{folder}: no {LABELS_CSV}, no {dfdc.METADATA}, and no video or picture in it or below"
        )
    return Imported([MediaRow(file, "") for file in files]), Layout.UNLABELLED, dataset


def _parts(folder: Path) -> list[Path]:
    """Returns the folder's parts of DFDC; other programs call files metadata.json too."""
    parts = dfdc.metadata_below(folder)
    if parts == [folder]:
        return parts
    return [part for part in parts if _is_dfdc(part / dfdc.METADATA)]


def _is_dfdc(path: Path) -> bool:
    try:
        dfdc.read_metadata(path)
    except UsageError:
        return False
    return True


def _of_parts(parts: list[Path], folder: Path) -> FoundTable:
    found = dfdc.read_dfdc(parts, missing_too=True)
    raws = [_raw_metadata(dfdc.read_metadata(part / dfdc.METADATA), part, folder) for part in parts]
    raw = pd.concat(raws, ignore_index=True)
    return _of_rows(found, folder, folder, Layout.DFDC, dataset="DFDC", raw=raw)


def _of_metadata(path: Path, root: Path) -> FoundTable:
    entries = dfdc.read_metadata(path)
    found = Imported(dfdc.rows_of(entries, root))
    raw = _raw_metadata(entries, root, root)
    return _of_rows(found, path, root, Layout.DFDC_METADATA, dataset="DFDC", raw=raw)


def _raw_metadata(entries: dict[str, dict[str, str]], part: Path, folder: Path) -> pd.DataFrame:
    below = part.relative_to(folder)
    cells = [
        ((below / name).as_posix(), entry["label"], entry["split"], entry["original"])
        for name, entry in sorted(entries.items())
    ]
    return pd.DataFrame(cells, columns=["path", "label", "split", "original"], dtype=str)


def _of_rows(
    found: Imported,
    name: Path,
    root: Path,
    layout: Layout,
    *,
    dataset: str,
    raw: pd.DataFrame | None = None,
) -> FoundTable:
    rows = to_table(str(name), found.rows, root, dataset)
    if raw is None:
        given = [column for column in ("label", "split", "original") if (rows[column] != "").any()]
        raw = rows[["path", *given]].copy()
    return FoundTable(rows, raw, root, layout, found.notes)


def _of_csv(path: Path, root: Path) -> FoundTable:
    raw = read_csv_text(path)
    name = next((column for column in _NAME_COLUMNS if column in raw), None)
    if name is None:
        raise UsageError(
            f"{path}: no column names the files; one of {list(_NAME_COLUMNS[:-1])} must, and there "
            f"are {list(raw)}"
        )
    rows = raw.rename(columns={name: "path"}).reindex(columns=list(COLUMNS), fill_value="")
    if path.name == dfdc.SAMPLE:
        rows["label"] = ""  # 0.5 throughout: a submission's placeholder
    rows = check_rows(str(path), rows, root, unlabelled=True)
    labelled = (rows["label"] != "").any()
    return FoundTable(rows, raw, root, Layout.TABLE if labelled else Layout.UNLABELLED)
