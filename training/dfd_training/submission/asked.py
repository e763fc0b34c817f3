"""Which files a submission is asked for."""

from __future__ import annotations

from pathlib import Path

from dfd_edge.errors import UsageError
from dfd_training.data.readers.dfdc import read_sample, sample_of, videos_in
from dfd_training.data.table import read_rows


def submission_files(source: Path, sample: Path | None = None) -> list[tuple[str, Path]]:
    """Name and path of each file of a submission, in its order.

    Args:
        source: a folder of videos, or a table, whose labels are not looked at.
        sample: a submission file that names the files and their order; by default
            sample_submission.csv in the folder or beside it, else all videos, sorted. A
            file that it names but that is not there stays in the list: it cannot be judged.

    Raises:
        UsageError: There is no file, a sample that is none, or two files of one name.
    """
    if source.is_file():
        rows = read_rows(source, unlabelled=True)
        files = [(Path(path).name, source.parent / path) for path in rows["path"]]
    else:
        files = [(name, source / name) for name in videos_in(source)]
        sample = sample or sample_of(source)
    by_name = dict(files)
    if len(by_name) < len(files):
        names = [name for name, _ in files]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{source}: {twice!r} is the name of two files: a submission names one")
    if sample is not None:
        names = read_sample(sample)
        if by_name and not set(names) & set(by_name):
            raise UsageError(f"{sample}: names none of the {len(by_name)} videos of {source}")
        return [(name, by_name.get(name, source / name)) for name in names]
    if not files:
        raise UsageError(f"{source}: no video in this folder")
    return files
