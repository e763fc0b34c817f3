"""A submission file of the Deepfake Detection Challenge: `filename,label`, label = P(fake)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfd_edge import Detector
from dfd_edge.errors import SourceError, UsageError
from dfd_training.data.readers.dfdc import read_sample, sample_of, videos_in
from dfd_training.data.table import read_rows, write_table

UNDECIDED = 0.5
"""P(fake) of a video that cannot be judged: it costs least log loss when nothing is known."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of the file.

    Attributes:
        filename: Name in the submission.
        p_fake: P(fake) in [0, 1].
        reason: Reason why it could not be judged; empty where it was.
    """

    filename: str
    p_fake: float
    reason: str = ""


def submit(
    detector: Detector,
    files: Sequence[tuple[str, Path]],
    out: Path,
    *,
    on_file: Callable[[], None] = lambda: None,
) -> list[Prediction]:
    """Judges files through the runtime and writes a submission.

    Progress is saved beside `out`; an interrupted run is resumed from there when bundle and
    precision are the same. `out` itself is written whole at the end.

    Args:
        detector: A loaded bundle.
        files: Name in the submission and path of each, in the order of the submission.
        out: The CSV file.
        on_file: Called after each file.

    Returns:
        One line for each file, in the same order.

    Raises:
        UsageError: There are no files, one is named twice, or nothing can be written there.
    """
    if not files:
        raise UsageError("no file is to be judged")
    names = [name for name, _ in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{twice!r} is the name of two files: a submission names each once")
    run = json.dumps([detector.bundle.hash, detector.provider.precision])
    progress = out.with_name(f".{out.name}.progress")
    done = _read_progress(progress, run)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_progress(progress, run, done)
        stream = progress.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})") from error
    with stream:
        for name, path in files:
            if str(path.resolve()) not in done:
                judged = _judge(detector, name, path)
                done[str(path.resolve())] = judged
                stream.write(_line(str(path.resolve()), judged))
                stream.flush()
            on_file()
    lines = [_named(done[str(path.resolve())], name) for name, path in files]
    table = pd.DataFrame(
        {"filename": names, "label": [f"{line.p_fake:.6f}" for line in lines]}, dtype=str
    )
    write_table(table, out)
    progress.unlink(missing_ok=True)
    return lines


def _judge(detector: Detector, name: str, path: Path) -> Prediction:
    try:
        verdict = detector.analyze(path)
    except SourceError as error:
        return Prediction(name, UNDECIDED, str(error))
    if verdict.p_fake is None or not math.isfinite(verdict.p_fake):
        cause = verdict.reason or f"{verdict.label.value}, {verdict.frames} frames looked at"
        return Prediction(name, UNDECIDED, f"{path}: nobody could be judged ({cause})")
    return Prediction(name, min(1.0, max(0.0, verdict.p_fake)))


def _named(judged: Prediction, name: str) -> Prediction:
    return Prediction(name, judged.p_fake, judged.reason)


def _line(path: str, judged: Prediction) -> str:
    return json.dumps([path, judged.filename, judged.p_fake, judged.reason]) + "\n"


def _write_progress(progress: Path, run: str, done: dict[str, Prediction]) -> None:
    lines = [_line(path, judged) for path, judged in done.items()]
    progress.write_text(run + "\n" + "".join(lines), "utf-8")


def _read_progress(progress: Path, run: str) -> dict[str, Prediction]:
    """Reads the predictions of an interrupted run of the same model, without a truncated line."""
    if not progress.is_file():
        return {}
    head, *lines = progress.read_text("utf-8").split("\n")
    if head != run:
        return {}
    done: dict[str, Prediction] = {}
    for line in lines[:-1]:
        try:
            path, name, p_fake, reason = json.loads(line)
        except ValueError:
            continue
        # A file that could not be read may be readable now.
        if not reason:
            done[path] = Prediction(name, float(p_fake), reason)
    return done


def submission_files(source: Path, sample: Path | None = None) -> list[tuple[str, Path]]:
    """Returns name and path of each file of a submission, in its order.

    Args:
        source: A folder of videos, or a table, whose labels are ignored.
        sample: A submission file that names the files and their order; by default
            sample_submission.csv in the folder or beside it, else all videos, sorted. A
            file that it names but that is missing stays in the list: it cannot be judged.

    Raises:
        UsageError: There is no file, the sample is not valid, or two files have one name.
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
