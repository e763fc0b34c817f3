"""The page of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_edge.report.pictures import data_uri
from dfd_training.evaluation import Evaluation, Report
from dfd_training.metrics import auc, calibration_error
from dfd_training.report import METRIC_NAMES, VERDICTS, to_json
from dfd_training.results.charts import (
    histogram_chart,
    history_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
)
from dfd_training.results.classification import ClassificationReport, Confusion
from dfd_training.results.fits import Fit, history_panels
from dfd_training.results.levels import SINGLE_FACES, Curves, Level
from dfd_training.results.mistakes import Mistake
from dfd_training.results.pages import Chart, write_html

_HINTS = {
    "REAL": ("Real, taken for fake", "The real files with the highest P(fake), and the crop of "
             "each that looked most fake."),
    "FAKE": ("Fake, taken for real", "The fakes with the lowest P(fake), and the crop of each that "
             "looked least fake."),
}  # fmt: skip
_FACT_NAMES = {
    "bundle": "Bundle",
    "bundle_hash": "Its hash",
    "precision": "Precision",
    "provider": "Ran on",
    "table": "Table",
    "split": "Rows",
}


@dataclass(frozen=True)
class Found:
    """All that was computed of an evaluation beside its report."""

    levels: list[Level]
    curves: list[Curves]
    verdicts: list[Confusion]
    plain: list[Confusion]
    classification: list[ClassificationReport]
    mistakes: Sequence[Mistake]
    fit: Fit | None


def write_evaluation_page(
    evaluation: Evaluation, report: Report, facts: dict[str, Any], found: Found, path: Path
) -> None:
    """Write all of an evaluation as one HTML file that loads nothing.

    Args:
        evaluation: the files and frames.
        report: its figures.
        facts: which bundle judged which rows, how.
        found: curves, matrices, mistakes and the fit.
        path: of the page.
    """
    charts = _charts(found, facts.get("thresholds", {}))
    training = _training(found.fit)
    files = evaluation.files
    write_html(
        "evaluation.html",
        path,
        [*charts, *training],
        {
            "title": f"{facts.get('bundle', 'a bundle')} on rows marked {facts.get('split', '?')}",
            "summary": _summary(evaluation, report),
            "report": report,
            "files": len(files),
            "names": METRIC_NAMES,
            "labels": VERDICTS,
            "thresholds": facts.get("thresholds"),
            "verdicts": found.verdicts,
            "plain": found.plain,
            "classification": found.classification,
            "charts": charts,
            "training": training,
            "fit_words": _fit_words(found.fit),
            "mistakes": _mistake_rows(found.mistakes),
            "facts": {n: facts[key] for key, n in _FACT_NAMES.items() if facts.get(key)},
            "records": to_json(report, facts),
        },
    )


def _summary(evaluation: Evaluation, report: Report) -> str:
    files = evaluation.files
    parts = [
        f"{int((files['kind'] == kind).sum())} {kind}s"
        for kind in ("clip", "photograph")
        if (files["kind"] == kind).any()
    ]
    text = f"{' and '.join(parts) or 'No file'} judged"
    if report.errors:
        text += f", {len(report.errors)} files could not be"
    for section in report.sections:
        if section.title.startswith(("clips", "photographs")) and "runtime" in section.rows:
            figure = section.rows["runtime"]["auc"]
            return f"{text}. AUC, {section.title}: {figure} (n = {figure.n})."
    return f"{text}."


def _charts(found: Found, thresholds: dict[str, float]) -> list[Chart]:
    charts = []
    if found.curves:
        areas = "; ".join(
            f"{c.level.name}: AUC {auc(c.level.labels, c.level.scores):.3f} ({c.level.counts})"
            for c in found.curves
        )
        errors = "; ".join(
            f"{c.level.name}: {calibration_error(c.level.labels, c.level.scores):.3f}"
            for c in found.curves
        )
        chance = ", ".join(f"{c.level.name} {c.level.labels.mean():.2f}" for c in found.curves)
        charts = [
            Chart("roc", "ROC", f"{areas}. Dotted: chance.", "roc.csv", roc_chart(found.curves)),
            Chart(
                "precision-recall",
                "Precision and recall of the fakes",
                f"Chance reaches the share of fakes: {chance}.",
                "precision_recall.csv",
                precision_recall_chart(found.curves),
            ),
            Chart(
                "reliability",
                "Reliability",
                f"Expected calibration error over ten bins, {errors}. On the dotted line P(fake) "
                "is the share of fakes; larger marks have more rows.",
                "reliability.csv",
                reliability_chart(found.curves),
            ),
        ]
    for number, level in enumerate(found.levels):
        # The thresholds are set for whole files.
        limits = thresholds if level.name != SINGLE_FACES else {}
        lines = " Dashed: from there on fake; dotted: up to there real." if limits else ""
        charts.append(
            Chart(
                f"histogram-{number}",
                f"Scores of {level.name}",
                f"Where reals and fakes lie; {level.counts}.{lines}",
                "histograms.csv",
                histogram_chart(level, limits),
            )
        )
    return charts


def _training(fit: Fit | None) -> list[Chart]:
    if fit is None or fit.history is None:
        return []
    return [
        Chart(
            f"history-{number}",
            title[0].upper() + title[1:],
            f"On the {' and the '.join(columns.values())}, over {len(fit.history)} epochs.",
            "training_history.csv",
            history_chart(fit.history, columns, title),
        )
        for number, (title, columns) in enumerate(history_panels(fit.history).items())
    ]


def _fit_words(fit: Fit | None) -> str:
    if fit is None:
        return ""
    minutes = "" if fit.seconds is None else f" in {fit.seconds / 60.0:.0f} minutes"
    best = "" if fit.best_auc is None else f" The best AUC on it was {fit.best_auc:.3f}."
    return (
        f"{fit.name or 'The frame model'}: {fit.epochs} epochs{minutes}. The held-out fold lies "
        f"inside the rows marked train.{best}"
    )


def _mistake_rows(
    mistakes: Sequence[Mistake],
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    found = []
    for label, (title, hint) in _HINTS.items():
        rows = [
            {
                "mistake": mistake,
                "plain": data_uri(mistake.crop.plain) if mistake.crop else None,
                "evidence": data_uri(mistake.crop.evidence)
                if mistake.crop and mistake.crop.evidence
                else None,
            }
            for mistake in mistakes
            if mistake.label == label
        ]
        if rows:
            found.append((title, hint, rows))
    return found
