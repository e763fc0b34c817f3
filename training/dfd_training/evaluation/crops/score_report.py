"""Report on the scores of frame models: AUCs, pairs won, false positives, differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dfd_training.evaluation.crops.selection import JudgedFile
from dfd_training.evaluation.degradations import Condition
from dfd_training.evaluation.statistics import (
    Estimate,
    GroupBootstrap,
    Labels,
    Scores,
    true_positive_rate_at_5,
)

FOUND_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Figures of one model under one condition on one choice of fakes and reals.

    Attributes:
        case: Which fakes against which reals.
        condition: Condition of the crops.
        model: Name of the model.
        fakes: Number of fakes.
        reals: Number of reals.
        auc: AUC of the mean logits, with an interval over groups.
        pairs_won: Fakes above their own original.
        pairs: Fakes whose original was judged too.
        found_at_5: Share of fakes above all but 5 % of the reals.
        reals_at_90: Share of reals above the threshold that finds 90 % of the fakes.
        reals_above_0: Share of reals whose mean logit is positive.
    """

    case: str
    condition: str
    model: str
    fakes: int
    reals: int
    auc: Estimate
    pairs_won: int
    pairs: int
    found_at_5: float
    reals_at_90: float
    reals_above_0: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two AUCs on the same files, paired.

    Attributes:
        case: Which fakes against which reals.
        what: Names of both, such as `b - a`.
        where: The condition or the model that is the same for both.
        auc: Difference of the AUCs, with an interval over groups.
    """

    case: str
    what: str
    where: str
    auc: Estimate


@dataclass(frozen=True)
class ScoreReport:
    """Figures of all models, and differences between models and between conditions."""

    rows: list[ScoreRow]
    models: list[Difference]
    conditions: list[Difference]


@dataclass(frozen=True)
class _Case:
    name: str
    files: list[JudgedFile]


def summarise_scores(
    files: Sequence[JudgedFile], scores: pd.DataFrame, *, draws: int = 1000
) -> ScoreReport:
    """Computes all figures from the scores of `score_files`.

    Args:
        files: The judged files.
        scores: Columns `path`, `condition`, `model`, `logit`.
        draws: Bootstrap samples.
    """
    table = scores.pivot_table(index="path", columns=["model", "condition"], values="logit")
    models = list(dict.fromkeys(scores["model"]))
    conditions = list(dict.fromkeys(scores["condition"]))
    report = ScoreReport([], [], [])
    for case in _cases(files):
        labels = np.array([int(file.fake) for file in case.files])
        samples = GroupBootstrap.of(np.array([file.group for file in case.files]), draws=draws)
        paths = [file.path for file in case.files]
        values = {
            (model, condition): table.loc[paths, (model, condition)].to_numpy(np.float64)
            for model in models
            for condition in conditions
        }
        for (model, condition), logits in values.items():
            row = _row(case, labels, logits, samples)
            report.rows.append(dataclasses.replace(row, condition=condition, model=model))
        for condition in conditions:
            base = values[models[0], condition]
            for model in models[1:]:
                figure = samples.auc_difference(labels, values[model, condition], base)
                what = f"{model} - {models[0]}"
                report.models.append(Difference(case.name, what, condition, figure))
        for model in models:
            for condition in conditions:
                if condition != Condition.CLEAN and (model, Condition.CLEAN) in values:
                    base = values[model, Condition.CLEAN]
                    figure = samples.auc_difference(labels, values[model, condition], base)
                    what = f"{condition} - {Condition.CLEAN}"
                    report.conditions.append(Difference(case.name, what, model, figure))
    return report


def _cases(files: Sequence[JudgedFile]) -> Iterator[_Case]:
    clips = [file for file in files if not file.photograph and not file.fake]
    by_path = {file.path: file for file in files if not file.fake}
    fakes: dict[str, list[JudgedFile]] = {}
    for file in files:
        if file.fake:
            kind = (
                " (generated photographs)"
                if file.photograph
                else " (generated)"
                if file.generated
                else ""
            )
            fakes.setdefault((file.generator or "fakes") + kind, []).append(file)
    true = [file for file in files if file.fake and not file.generated]
    if len({file.generator for file in true}) > 1:
        fakes = {"true fakes": true, **fakes}
    for name, part in fakes.items():
        if not part[0].photograph and clips:
            yield _Case(f"{name} against all real clips", clips + part)
        paths = dict.fromkeys(file.original for file in part if file.original in by_path)
        if paths:
            own = [file for file in part if file.original in paths]
            yield _Case(f"{name} against own originals", [by_path[p] for p in paths] + own)


def _row(case: _Case, labels: Labels, logits: Scores, samples: GroupBootstrap) -> ScoreRow:
    score = {file.path: logit for file, logit in zip(case.files, logits, strict=True)}
    pairs = [file for file in case.files if file.fake and file.original in score]
    won = sum(score[file.path] > score[file.original] for file in pairs)
    fakes, reals = np.sort(logits[labels == 1]), logits[labels == 0]
    both = len(fakes) > 0 and len(reals) > 0
    # The highest threshold that still finds 90 % of the fakes.
    threshold = fakes[int((1.0 - FOUND_SHARE) * len(fakes))] if both else math.nan
    return ScoreRow(
        case=case.name,
        condition="",
        model="",
        fakes=len(fakes),
        reals=len(reals),
        auc=samples.auc(labels, logits),
        pairs_won=int(won),
        pairs=len(pairs),
        found_at_5=true_positive_rate_at_5(labels, logits) if both else math.nan,
        reals_at_90=float(np.mean(reals >= threshold)) if both else math.nan,
        reals_above_0=float(np.mean(reals > 0.0)) if both else math.nan,
    )


def scores_to_text(report: ScoreReport) -> str:
    """Returns the report as plain text; intervals are 95 %, over groups."""
    if not report.rows:
        return "no fakes among these rows: nothing to tell apart"
    width = max([len(row.model) for row in report.rows])
    lines: list[str] = []
    head = (
        f"  {'condition':10} {'model':{width}}  AUC                    pairs won  "
        "found at 5 %  reals at 90 %  reals > 0"
    )
    for case, rows in _by_case(report.rows):
        groups = rows[0].auc.groups
        lines += [f"{case}: {rows[0].fakes} fakes, {rows[0].reals} reals, {groups} groups", head]
        for row in sorted(rows, key=lambda row: list(Condition).index(Condition(row.condition))):
            pairs = f"{row.pairs_won} of {row.pairs}" if row.pairs else "-"
            lines.append(
                f"  {row.condition:10} {row.model:{width}}  {row.auc!s:22} {pairs:>9}  "
                f"{row.found_at_5:12.3f}  {row.reals_at_90:13.3f}  {row.reals_above_0:9.3f}"
            )
        lines.append("")
    for title, part in (
        ("Difference of AUC between models, paired", report.models),
        ("Difference of AUC to clean crops, paired", report.conditions),
    ):
        if part:
            lines.append(title)
            lines += [f"  {d.case}, {d.where}: {d.what}: {d.auc.signed()}" for d in part]
            lines.append("")
    return "\n".join(lines).rstrip()


def _by_case(rows: Sequence[ScoreRow]) -> list[tuple[str, list[ScoreRow]]]:
    names = dict.fromkeys(row.case for row in rows)
    return [(name, [row for row in rows if row.case == name]) for name in names]
