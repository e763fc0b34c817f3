"""Evaluation of a bundle through the runtime, so that the figures are the ones users get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dfd_edge import Detector, FrameResult
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.judging.decision import Decision, calibrated, pool_windows
from dfd_edge.report.pictures import CropPicture, KeptCrops
from dfd_edge.sources import SourceItem, SourceKind
from dfd_edge.sources.frames import Frame
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore
from dfd_training.data.table import LABELS
from dfd_training.evaluation.statistics import (
    METRICS,
    Estimate,
    GroupBootstrap,
    draws_for,
    rate_upper_bound,
    to_logits,
)
from dfd_training.fitting.options import Media
from dfd_training.fitting.sources import only_media


@dataclass(frozen=True)
class Evaluation:
    """Measurements of an evaluation.

    Attributes:
        files: One row for each file: the table's columns, `kind` (clip or photograph),
            `verdict`, `p_fake` (the runtime's own), `cnn` and `gru` (P(fake) from the mean of
            frame logits and of step logits), `frames`, `coverage`, `error`.
        frames: One row for each judged face: `path`, `time_s`, `track`, `p_frame`, `p_step`.
    """

    files: pd.DataFrame
    frames: pd.DataFrame

    @classmethod
    def joined(cls, parts: Sequence[Evaluation]) -> Evaluation:
        """Joins evaluations of different files."""
        return cls(
            pd.concat([part.files for part in parts], ignore_index=True),
            pd.concat([part.frames for part in parts], ignore_index=True),
        )


def rows_by_fold(
    table: pd.DataFrame, store: CropStore, bundles: int, *, photographs: int | None = None
) -> list[pd.DataFrame]:
    """Divides the rows of a table that a store holds among bundles, by their folds.

    Args:
        table: Rows marked train.
        store: A crop store of the table: it says which fold a file lies in.
        bundles: One for each fold, or a single one for all rows.
        photographs: Most photographs, drawn at random with a fixed seed; None for all.

    Raises:
        UsageError: The number of bundles is another one, or a bundle would have nothing to judge.
    """
    crops = training_rows(store)
    files = crops.drop_duplicates("path").set_index("path")
    known = table[table["path"].isin(files.index)]
    stills = known["path"].isin(only_media(crops, Media.PHOTOGRAPHS)["path"])
    if photographs is not None and stills.sum() > photographs:
        drawn = known[stills].sample(n=photographs, random_state=0).index
        known = known[~stills | known.index.isin(drawn)]
    if bundles == 1:
        return [known]
    if bundles != len(FOLD_SHARES):
        raise UsageError(f"{bundles} bundles for {len(FOLD_SHARES)} folds: give one for each")
    folds = known["path"].map(files["fold"])
    parts = [known[folds == fold] for fold in range(bundles)]
    for fold, part in enumerate(parts):
        if part.empty:
            raise UsageError(f"{store.path}: no file of fold {fold} is among the rows to judge")
    return parts


def evaluate(
    detector: Detector,
    table: pd.DataFrame,
    root: Path,
    *,
    on_file: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Judges every file of a table; pictures that it calls cropped are judged as face crops.

    Args:
        detector: A loaded bundle.
        table: The rows to judge, from `read_table`.
        root: The folder that relative paths start from.
        on_file: Called after each file.

    Raises:
        UsageError: the table has no rows.
    """
    if table.empty:
        raise UsageError("no row of the table is to be evaluated")
    files: list[dict[str, object]] = []
    frames: list[dict[str, object]] = []
    for row in table.to_dict("records"):
        facts, judged = _judge(
            detector, str(row["path"]), root, cropped=row.get("cropped") == "yes"
        )
        files.append({**{str(key): value for key, value in row.items()}, **facts})
        frames += judged
        on_file()
    columns = ["path", "time_s", "track", "p_frame", "p_step"]
    return Evaluation(pd.DataFrame(files), pd.DataFrame(frames, columns=columns))


def _judge(
    detector: Detector, path: str, root: Path, *, cropped: bool
) -> tuple[dict[str, object], list[dict[str, object]]]:
    results: list[FrameResult] = []
    try:
        item = SourceItem.of(root / path)
        kind = "photograph" if item.kind is SourceKind.IMAGE else "clip"
        verdict = detector.analyze(
            item, on_frame=results.append, cropped=cropped and kind == "photograph"
        )
    except SourceError as error:
        failed = {"kind": "unreadable", "verdict": "error", "p_fake": np.nan, "error": str(error)}
        return failed, []
    rows: list[dict[str, object]] = [
        {
            "path": path,
            "time_s": result.time_s,
            "track": person.track,
            "p_frame": person.p_frame,
            "p_step": person.p_step,
        }
        for result in results
        for person in result.people
        if person.judged and person.p_frame is not None
    ]
    min_steps = 1 if kind == "photograph" else detector.decision.spec.min_steps
    return {
        "kind": kind,
        "verdict": verdict.label.value,
        "p_fake": np.nan if verdict.p_fake is None else verdict.p_fake,
        "cnn": _pooled(results, "frame", detector.decision, min_steps),
        "gru": _pooled(results, "step", detector.decision, min_steps),
        "frames": verdict.frames,
        "coverage": verdict.coverage,
        "error": "",
    }, rows


def _pooled(results: list[FrameResult], kind: str, decision: Decision, min_steps: int) -> float:
    """Returns P(fake) of the most suspicious person: the mean logit, calibrated as one step is."""
    logits: dict[int, list[float | None]] = {}
    for person in (person for result in results for person in result.people if person.judged):
        logit = person.frame_logit if kind == "frame" else person.step_logit
        logits.setdefault(person.track, []).append(logit)
    steps = [logit for part in logits.values() for logit in part]
    known = [logit for logit in steps if logit is not None]
    if not steps or len(known) < len(steps):
        return float("nan")
    lengths = np.array([len(part) for part in logits.values()], np.int64)
    people = pool_windows(known, np.ones(len(known)), np.cumsum(lengths) - lengths, lengths)
    means = people.logit[lengths >= min_steps]
    calibrator = decision.spec.calibrators[kind]
    return float("nan") if not len(means) else calibrated(float(means.max()), calibrator)


@dataclass(frozen=True)
class Section:
    """A table of the report: one row for each score, one column for each metric."""

    title: str
    rows: dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class VerdictCount:
    """Verdicts on the files of one kind.

    Attributes:
        name: The kind.
        n: Number of files.
        counts: Files by verdict.
        called_fake_upper: One-sided 95 % upper bound of the share called fake.
    """

    name: str
    n: int
    counts: dict[str, int]
    called_fake_upper: float


@dataclass(frozen=True)
class PairCount:
    """Pairs of files of one kind.

    Attributes:
        kind: Clip or photograph.
        won: Pairs whose fake scores above its own original.
        n: Fakes whose original is among the files too.
    """

    kind: str
    won: int
    n: int


@dataclass(frozen=True)
class Report:
    """All figures of an evaluation.

    Attributes:
        sections: Figures that need fakes and reals.
        left_out: Reasons why figures are left out, for kinds of files with one class only.
        verdicts: Verdicts by kind and by source.
        pairs: Pairs of a fake and its original by kind, where there are any.
        errors: Reason for each file that could not be judged, by path.
    """

    sections: list[Section]
    left_out: list[str]
    verdicts: list[VerdictCount]
    pairs: list[PairCount]
    errors: dict[str, str]


def summarise(evaluation: Evaluation, *, draws: int = 1000) -> Report:
    """Computes the report of an evaluation; every figure has an interval over groups."""
    files = evaluation.files
    clips = files[files["kind"] == "clip"]
    swaps = clips[(clips["label"] == "FAKE") | clips["path"].isin(set(clips["original"]))]
    frames = evaluation.frames.merge(
        files[["path", "label", "group", "kind", "generator"]], on="path", how="left"
    )
    scores = {"runtime": "p_fake", "CNN, mean": "cnn", "sequence model": "gru"}
    photographs = files[files["kind"] == "photograph"]
    sections = [
        Section("frames of all files", _rows(frames, {"CNN": "p_frame"}, draws)),
        Section("frames of clips", _clip_frames(frames, draws)),
        Section("clips: fakes against all reals", _rows(clips, scores, draws)),
        Section("clips: fakes against their originals", _rows(swaps, scores, draws)),
    ]
    reals = clips[clips["label"] == "REAL"]
    generators = sorted(set(clips["generator"]) - {""})
    # With a single generator this would repeat the figures of all fakes.
    for generator in generators if len(generators) > 1 else []:
        part = pd.concat([reals, clips[clips["generator"] == generator]])
        sections.append(
            Section(f"clips: {generator} against all reals", _rows(part, scores, draws))
        )
    alone = _rows(photographs, {"runtime": "p_fake"}, draws)
    sections.append(Section("photographs: fakes against all reals", alone))
    pairs = [
        PairCount(kind, *pairs_won(part))
        for kind, part in (("clip", clips), ("photograph", photographs))
    ]
    errors = files[files["error"] != ""]
    return Report(
        sections=[section for section in sections if section.rows],
        left_out=_left_out(files),
        verdicts=_verdicts(files),
        pairs=[count for count in pairs if count.n],
        errors=dict(zip(errors["path"], errors["error"], strict=True)),
    )


def pairs_won(files: pd.DataFrame) -> tuple[int, int]:
    """Counts the pairs whose fake scores above its own original, and all pairs."""
    score = dict(zip(files["path"], files["p_fake"], strict=True))
    fakes = files[(files["label"] == "FAKE") & files["original"].isin(set(files["path"]))]
    won = [score[row.path] > score[row.original] for row in fakes.itertuples()]
    return int(np.sum(won)), len(won)


def _clip_frames(frames: pd.DataFrame, draws: int) -> dict[str, dict[str, Estimate]]:
    return _rows(
        frames[frames["kind"] == "clip"], {"CNN": "p_frame", "sequence model": "p_step"}, draws
    )


def _rows(
    table: pd.DataFrame, scores: dict[str, str], draws: int
) -> dict[str, dict[str, Estimate]]:
    rows: dict[str, dict[str, Estimate]] = {}
    for name, column in scores.items():
        known = table[table[column].notna()]
        labels = (known["label"] == "FAKE").to_numpy().astype(np.int64)
        if len(np.unique(labels)) < 2:
            continue
        values = known[column].to_numpy(np.float64)
        groups = known["group"].to_numpy(str)
        drawn = GroupBootstrap.of(groups, draws=draws_for(len(known), draws))
        rows[name] = {
            key: drawn.estimate(metric, labels, values) for key, metric in METRICS.items()
        }
    return rows


def _left_out(files: pd.DataFrame) -> list[str]:
    """Returns a sentence for each kind of file that has one class only."""
    found: list[str] = []
    for kind, part in files[files["kind"] != "unreadable"].groupby("kind"):
        scored = part[part["p_fake"].notna()]
        counts = [int((scored["label"] == label).sum()) for label in LABELS]
        if 0 in counts:
            found.append(
                f"{kind}s: {counts[0]} real and {counts[1]} fake ones have a score: curves and "
                "figures that need both classes are left out"
            )
    return found


def _verdicts(files: pd.DataFrame) -> list[VerdictCount]:
    parts: list[tuple[str, pd.DataFrame]] = []
    lower = files["label"].str.lower()
    for name, part in files.groupby("all " + files["kind"] + "s, " + lower):
        parts.append((str(name), part))
    for name, part in files.groupby(files["source"] + ", " + lower):
        parts.append((str(name), part))
    counts: list[VerdictCount] = []
    for name, part in parts:
        verdicts = {str(key): int(value) for key, value in part["verdict"].value_counts().items()}
        upper = rate_upper_bound(verdicts.get("fake", 0), len(part))
        counts.append(VerdictCount(name, len(part), verdicts, upper))
    return counts


@dataclass(frozen=True, eq=False)
class Mistake:
    """A file of which the verdict is not the label.

    Attributes:
        path: Path of the file.
        label: REAL or FAKE.
        kind: Clip or photograph.
        source: Source of the file.
        verdict: The runtime's verdict: the other label, or unsure.
        p_fake: Its score.
        crop: The judged crop with the highest score of a real file; the lowest of the person
            with the highest score of a fake. None where the file can no longer be read.
    """

    path: str
    label: str
    kind: str
    source: str
    verdict: str
    p_fake: float
    crop: CropPicture | None


def worst_files(evaluation: Evaluation, count: int) -> pd.DataFrame:
    """Returns the files that are not called what they are, by how far they are from it.

    At most `count` reals, those with the highest P(fake) first, then at most as many fakes, those
    with the lowest first.
    """
    files = evaluation.files
    scored = files[files["p_fake"].notna() & (files["verdict"] != files["label"].str.lower())]
    ranked = scored.sort_values(["p_fake", "path"], kind="stable")
    reals = ranked[ranked["label"] == "REAL"].iloc[::-1].head(count)
    fakes = ranked[ranked["label"] == "FAKE"].head(count)
    return pd.concat([reals, fakes])


def worst_mistakes(
    detector: Detector,
    evaluation: Evaluation,
    root: Path,
    *,
    count: int = 8,
    on_file: Callable[[], None] = lambda: None,
) -> list[Mistake]:
    """Judges the worst files again, to keep a crop of each.

    Args:
        detector: The evaluated bundle.
        evaluation: Scores of the files and frames.
        root: The folder that relative paths start from.
        count: Number of reals, and of fakes.
        on_file: Called after each file.
    """
    mistakes: list[Mistake] = []
    for row in worst_files(evaluation, count).to_dict("records"):
        path, label = str(row["path"]), str(row["label"])
        crop = _crop(
            detector,
            root / path,
            _deciding(evaluation, path),
            fake=label == "FAKE",
            cropped=row["kind"] == "photograph" and row.get("cropped") == "yes",
        )
        mistakes.append(
            Mistake(
                path=path,
                label=label,
                kind=str(row["kind"]),
                source=str(row["source"]),
                verdict=str(row["verdict"]),
                p_fake=float(row["p_fake"]),
                crop=crop,
            )
        )
        on_file()
    return mistakes


def _deciding(evaluation: Evaluation, path: str) -> int | None:
    """Returns the track whose crops score highest on average; None where no crop was judged."""
    rows = evaluation.frames[evaluation.frames["path"] == path]
    if rows.empty:
        return None
    logits = to_logits(rows["p_frame"].to_numpy(np.float64))
    means = rows.assign(logit=logits).groupby("track")["logit"].mean()
    return int(means.index[int(means.argmax())])


def _crop(
    detector: Detector, path: Path, track: int | None, *, fake: bool, cropped: bool
) -> CropPicture | None:
    kept = KeptCrops()

    def keep(frame: Frame, result: FrameResult | None) -> None:
        for person in result.people if result is not None else ():
            p = person.p_frame
            if not person.judged or p is None or track not in (None, person.track):
                continue
            if kept.wants(frame.time_s, p):
                kept.add(CropPicture.of(frame.image, person, frame.time_s, p))

    try:
        detector.analyze(path, on_image=keep, every_image=False, cropped=cropped)
    except SourceError:
        return None
    crops = [*kept.suspicious, *kept.ordinary]
    if not crops:
        return None
    return min(crops, key=lambda crop: crop.p_frame if fake else -crop.p_frame)
