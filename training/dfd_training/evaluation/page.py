"""The page of an evaluation, with its pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfd_edge.report.figures import Chart
from dfd_edge.report.html import data_uri, write_page
from dfd_edge.sinks.files import written_whole
from dfd_training.data.table import FAKE, LABELS
from dfd_training.evaluation.charts import (
    histogram_chart,
    history_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
)
from dfd_training.evaluation.evaluate import Evaluation, Mistake, Report, worst_files
from dfd_training.evaluation.levels import (
    SINGLE_FACES,
    ClassificationReport,
    Confusion,
    Curves,
    Level,
    classification_reports,
    confusion_table,
    curves_of,
    histogram_of,
    levels_of,
    plain_confusions,
    report_table,
    verdict_confusions,
)
from dfd_training.evaluation.pictures import (
    draw_confusions,
    draw_histograms,
    draw_history,
    draw_mistakes,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from dfd_training.evaluation.report import VERDICTS, to_json
from dfd_training.evaluation.runs import Fit, history_panels
from dfd_training.evaluation.statistics import METRICS, auc, calibration_error

_HINTS = {
    "REAL": "The highest P(fake) first; of each file the crop that looked most fake.",
    "FAKE": "The lowest P(fake) first; of each file the crop that looked least fake.",
}

_FACT_NAMES = {
    "bundle": "Bundle",
    "bundle_hash": "Its hash",
    "precision": "Precision",
    "provider": "Ran on",
    "table": "Table",
    "split": "Rows",
}

PAGE = "evaluation.html"
_TEMPLATE = Path(__file__).with_name(PAGE)

_TABLES = (
    "classification_report.csv",
    "confusion.csv",
    "roc.csv",
    "precision_recall.csv",
    "histograms.csv",
    "reliability.csv",
    "training_history.csv",
    "mistakes.csv",
)

_PICTURES = (
    "confusion.png",
    "roc.png",
    "precision_recall.png",
    "reliability.png",
    "histograms.png",
    "training_curves.png",
    "mistakes.png",
)


@dataclass(frozen=True)
class Results:
    """Results of an evaluation beside its report."""

    levels: list[Level]
    curves: list[Curves]
    verdicts: list[Confusion]
    plain: list[Confusion]
    classification: list[ClassificationReport]
    mistakes: Sequence[Mistake]
    fit: Fit | None


def write_results(
    evaluation: Evaluation,
    report: Report,
    out: Path,
    facts: dict[str, Any],
    *,
    mistakes: Sequence[Mistake] = (),
    fit: Fit | None = None,
    draws: int = 1000,
) -> list[str]:
    """Writes the page, pictures (PNG) and tables (CSV) of an evaluation into its folder.

    Files of an earlier evaluation that this one does not have are removed.

    Args:
        evaluation: The files and frames.
        report: Its figures.
        out: The folder.
        facts: Bundle, variant and rows of the evaluation; `thresholds` by label, if known.
        mistakes: From `worst_mistakes`.
        fit: Fit of the frame model, for its training curves.
        draws: Bootstrap samples.

    Returns:
        The names of the files.
    """
    out.mkdir(parents=True, exist_ok=True)
    levels = levels_of(evaluation)
    found = Results(
        levels=levels,
        curves=[curves_of(level) for level in levels if level.two_classes],
        verdicts=verdict_confusions(evaluation),
        plain=plain_confusions(evaluation),
        classification=classification_reports(evaluation, draws=draws),
        mistakes=mistakes,
        fit=fit,
    )
    tables = _tables(found)
    for name, table in tables.items():
        with written_whole(out / name) as partial:
            table.to_csv(partial, index=False)
    pictures = _draw(found, facts.get("thresholds", {}), out)
    write_evaluation_page(evaluation, report, facts, found, out / PAGE)
    written = [PAGE, *pictures, *tables]
    for name in (*_PICTURES, *_TABLES):
        if name not in written:
            (out / name).unlink(missing_ok=True)
    return written


def _tables(found: Results) -> dict[str, pd.DataFrame]:
    curves, fit = found.curves, found.fit
    tables = {
        "classification_report.csv": report_table(found.classification),
        "confusion.csv": confusion_table([*found.verdicts, *found.plain]),
        "roc.csv": _of_levels([(c.level, c.roc) for c in curves]),
        "precision_recall.csv": _of_levels([(c.level, c.precision_recall) for c in curves]),
        "histograms.csv": _of_levels([(level, histogram_of(level)) for level in found.levels]),
        "reliability.csv": _of_levels([(c.level, _bins(c)) for c in curves]),
        "training_history.csv": pd.DataFrame()
        if fit is None or fit.history is None
        else fit.history,
        "mistakes.csv": _mistakes(found.mistakes),
    }
    return {name: table for name, table in tables.items() if len(table)}


def _draw(found: Results, thresholds: dict[str, float], out: Path) -> list[str]:
    drawn = ["confusion.png"]
    draw_confusions([*found.verdicts, *found.plain], out / "confusion.png")
    if found.curves:
        draw_roc(found.curves, out / "roc.png")
        draw_precision_recall(found.curves, out / "precision_recall.png")
        draw_reliability(found.curves, out / "reliability.png")
        drawn += ["roc.png", "precision_recall.png", "reliability.png"]
    if found.levels:
        draw_histograms(found.levels, thresholds, out / "histograms.png")
        drawn.append("histograms.png")
    history = None if found.fit is None else found.fit.history
    if history is not None and (panels := history_panels(history)):
        draw_history(history, panels, out / "training_curves.png")
        drawn.append("training_curves.png")
    if found.mistakes:
        draw_mistakes(found.mistakes, out / "mistakes.png")
        drawn.append("mistakes.png")
    return drawn


def _of_levels(parts: list[tuple[Level, pd.DataFrame]]) -> pd.DataFrame:
    """Joins the tables of levels, with the level's name in a column of its own."""
    named = [table.assign(level=level.name) for level, table in parts]
    if not named:
        return pd.DataFrame()
    joined = pd.concat(named, ignore_index=True)
    return joined[["level", *(name for name in joined if name != "level")]]


def _bins(curves: Curves) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "low": b.low,
                "high": b.high,
                "n": b.n,
                "groups": b.groups,
                "mean_p_fake": b.mean_p,
                "fake_share": b.fake_share,
            }
            for b in curves.reliability
        ]
    )


def _mistakes(mistakes: Sequence[Mistake]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "path": m.path,
                "label": m.label,
                "kind": m.kind,
                "source": m.source,
                "verdict": m.verdict,
                "p_fake": m.p_fake,
                "crop_time_s": None if m.crop is None else m.crop.time_s,
                "crop_p_frame": None if m.crop is None else m.crop.p_frame,
            }
            for m in mistakes
        ]
    )


def write_evaluation_page(
    evaluation: Evaluation, report: Report, facts: dict[str, Any], found: Results, path: Path
) -> None:
    """Writes an evaluation as one HTML file that loads nothing.

    Args:
        evaluation: The files and frames.
        report: Its figures.
        facts: Bundle, variant and rows of the evaluation.
        found: Curves, matrices, mistakes and the fit.
        path: The page.
    """
    charts = _charts(found, facts.get("thresholds", {}))
    training = _training(found.fit)
    files = evaluation.files
    values = {
        "title": f"{facts.get('bundle', 'a bundle')} on rows marked {facts.get('split', '?')}",
        "summary": _summary(evaluation, report),
        "report": report,
        "files": len(files),
        "names": {key: metric.name for key, metric in METRICS.items()},
        "labels": VERDICTS,
        "thresholds": facts.get("thresholds"),
        "verdicts": found.verdicts,
        "plain": found.plain,
        "classification": found.classification,
        "curves": charts,
        "training": training,
        "fit_words": _fit_words(found.fit),
        "mistakes": _mistake_rows(found.mistakes),
        "without_mistakes": _without_mistakes(evaluation),
        "facts": {n: facts[key] for key, n in _FACT_NAMES.items() if facts.get(key)},
    }
    records = to_json(report, facts)
    write_page(path, _TEMPLATE, values, records=records, charts=bool(charts or training))


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


def _charts(found: Results, thresholds: dict[str, float]) -> list[Chart]:
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
            Chart(
                "roc",
                "ROC",
                f"{areas}. Dotted: chance.",
                roc_chart(found.curves),
                file="roc.csv",
            ),
            Chart(
                "precision-recall",
                "Precision and recall of the fakes",
                f"Chance reaches the share of fakes: {chance}.",
                precision_recall_chart(found.curves),
                file="precision_recall.csv",
            ),
            Chart(
                "reliability",
                "Reliability",
                f"Expected calibration error over ten bins, {errors}. On the dotted line P(fake) "
                "is the share of fakes; larger marks have more rows.",
                reliability_chart(found.curves),
                file="reliability.csv",
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
                histogram_chart(level, limits),
                file="histograms.csv",
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
            history_chart(fit.history, columns, title),
            file="training_history.csv",
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
    groups = [(m.label, m.verdict) for m in mistakes]
    for label, verdict in sorted(set(groups), key=lambda group: (group[0] == FAKE, group[1])):
        rows = [
            {
                "mistake": mistake,
                "plain": data_uri(mistake.crop.plain) if mistake.crop else None,
                "evidence": data_uri(mistake.crop.evidence)
                if mistake.crop and mistake.crop.evidence
                else None,
            }
            for mistake in mistakes
            if (mistake.label, mistake.verdict) == (label, verdict)
        ]
        found.append((f"{label.title()}, called {verdict}", _HINTS[label], rows))
    return found


def _without_mistakes(evaluation: Evaluation) -> list[str]:
    """Returns a sentence for each class whose files with a score are all called what they are."""
    files = evaluation.files
    scored = files[files["p_fake"].notna()]
    wrong = set(worst_files(evaluation, len(files))["label"])
    counts = {label: int((scored["label"] == label).sum()) for label in LABELS}
    return [
        f"All {n} {label.lower()} files with a score are called {label.lower()}."
        for label, n in counts.items()
        if n and label not in wrong
    ]
