"""How far the probabilities of an evaluation can be believed, and what each score adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dfd_training.evaluation import Evaluation
from dfd_training.metrics import CALIBRATION_BINS, Estimate, Labels, Scores, calibration_error
from dfd_training.metrics import estimate as interval_of
from dfd_training.quality.bootstrap import GroupDraws

_LEVELS = {"crop": ("frames", "p_frame"), "step": ("frames", "p_step"), "clip": ("files", "p_fake")}


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows whose P(fake) lies in one bin.

    Attributes:
        low: lower edge of the bin.
        high: upper edge.
        n: rows in it.
        groups: groups that they come from.
        mean_p: mean P(fake); NaN where the bin is empty.
        fake_share: share of them that are fakes; NaN where the bin is empty.
    """

    low: float
    high: float
    n: int
    groups: int
    mean_p: float
    fake_share: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How probabilities of one level fit what happened.

    Attributes:
        level: crop, step or clip.
        error: expected calibration error, with an interval over groups.
        bins: from 0 to 1.
    """

    level: str
    error: Estimate
    bins: list[ReliabilityBin]


@dataclass(frozen=True, slots=True)
class Comparison:
    """AUC of one score of a clip against another's, on the same clips.

    Attributes:
        case: which fakes against which reals.
        what: such as "GRU - CNN".
        auc: of the first.
        base: of the second.
        difference: paired, with an interval over groups.
    """

    case: str
    what: str
    auc: Estimate
    base: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Files of one source and one label, and what they were called.

    Attributes:
        source: its name.
        label: REAL or FAKE.
        kind: clip or photograph.
        n: files.
        called: files by verdict.
        mean_p: mean P(fake) of those that have one.
    """

    source: str
    label: str
    kind: str
    n: int
    called: dict[str, int]
    mean_p: float


def reliability(evaluation: Evaluation, *, draws: int = 1000) -> list[Reliability]:
    """Reliability of the clips' probabilities at every level that has fakes and reals.

    The error is that of Guo et al. (ICML 2017) over ten bins. Few clips in a bin make it large
    by chance alone: read it with its interval and the bins' n.
    """
    clips = evaluation.files[evaluation.files["kind"] == "clip"]
    frames = evaluation.frames.merge(clips[["path", "label", "group"]], on="path")
    tables = {"files": clips, "frames": frames}
    found: list[Reliability] = []
    for level, (table, column) in _LEVELS.items():
        rows = tables[table][tables[table][column].notna()]
        labels, p = _labels(rows), rows[column].to_numpy(np.float64)
        if not 0 < labels.sum() < len(labels):
            continue
        groups = rows["group"].to_numpy(str)
        count = draws if len(rows) < 2000 else max(100, draws // 5)
        error = interval_of(calibration_error, labels, p, groups, draws=count)
        found.append(Reliability(level, error, reliability_bins(labels, p, rows["group"])))
    return found


def reliability_bins(labels: Labels, p: Scores, groups: pd.Series[str]) -> list[ReliabilityBin]:
    """Ten bins of P(fake): how many rows each has, and how many of them are fakes."""
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    member = np.clip((p * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    bins: list[ReliabilityBin] = []
    for number in range(CALIBRATION_BINS):
        inside = member == number
        filled = bool(inside.any())
        bins.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                n=int(inside.sum()),
                groups=int(groups[inside].nunique()),
                mean_p=float(p[inside].mean()) if filled else float("nan"),
                fake_share=float(labels[inside].mean()) if filled else float("nan"),
            )
        )
    return bins


def compare_scores(evaluation: Evaluation, *, draws: int = 1000) -> list[Comparison]:
    """The GRU against the mean of the CNN's logits, clip by clip."""
    return [
        _compare(case, "GRU - CNN, mean", rows, rows["gru"], rows["cnn"], draws=draws)
        for case, rows in clip_cases(evaluation.files).items()
    ]


def compare_evaluations(
    first: Evaluation, base: Evaluation, what: str, *, draws: int = 1000
) -> list[Comparison]:
    """Two evaluations on the clips that both judged; `what` names them, such as "int8 - fp32"."""
    other = base.files.set_index("path")["p_fake"]
    return [
        _compare(case, what, rows, rows["p_fake"], rows["path"].map(other), draws=draws)
        for case, rows in clip_cases(first.files).items()
    ]


def clip_cases(files: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The clips of an evaluation, all of them, and the fakes with their originals."""
    clips = files[files["kind"] == "clip"]
    fakes = clips[clips["label"] == "FAKE"]
    own = clips[(clips["label"] == "FAKE") | clips["path"].isin(set(fakes["original"]))]
    return {"against all real clips": clips, "against own originals": own}


def _compare(
    case: str,
    what: str,
    rows: pd.DataFrame,
    scores: pd.Series[float],
    base: pd.Series[float],
    *,
    draws: int,
) -> Comparison:
    known = scores.notna() & base.notna()
    samples = GroupDraws.of(rows.loc[known, "group"].to_numpy(str), draws=draws)
    labels = _labels(rows[known])
    first, second = (np.asarray(column[known], np.float64) for column in (scores, base))
    return Comparison(
        case,
        what,
        samples.auc(labels, first),
        samples.auc(labels, second),
        samples.auc_difference(labels, first, second),
    )


def by_source(evaluation: Evaluation) -> list[SourceRow]:
    """Verdicts by source, kind and label."""
    rows: list[SourceRow] = []
    for (source, kind, label), part in evaluation.files.groupby(["source", "kind", "label"]):
        called = {str(name): int(count) for name, count in part["verdict"].value_counts().items()}
        mean = float(part["p_fake"].mean())
        rows.append(SourceRow(str(source), str(label), str(kind), len(part), called, mean))
    return rows


def _labels(rows: pd.DataFrame) -> Labels:
    return np.asarray(rows["label"] == "FAKE", np.int64)
