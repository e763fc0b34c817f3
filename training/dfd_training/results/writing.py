"""Everything that an evaluation leaves beside its figures: one page, pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dfd_edge.sinks.files import written_whole
from dfd_training.evaluation import Evaluation, Report
from dfd_training.results.classification import (
    classification_reports,
    confusion_table,
    plain_confusions,
    report_table,
    verdict_confusions,
)
from dfd_training.results.evaluation_page import Found, write_evaluation_page
from dfd_training.results.fits import Fit, history_panels
from dfd_training.results.levels import Curves, Level, curves_of, histogram_of, levels_of
from dfd_training.results.mistakes import Mistake
from dfd_training.results.pictures import (
    draw_confusions,
    draw_histograms,
    draw_history,
    draw_mistakes,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)

PAGE = "evaluation.html"


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
    """Write the page, pictures (PNG) and tables (CSV) of an evaluation into its folder.

    What an earlier evaluation left there and this one does not have is removed.

    Args:
        evaluation: the files and frames.
        report: its figures.
        out: the folder.
        facts: which bundle judged which rows, how; `thresholds` by label, where they are known.
        mistakes: from `worst_mistakes`.
        fit: of the frame model, for its training curves.
        draws: bootstrap samples.

    Returns:
        The names of the files.
    """
    out.mkdir(parents=True, exist_ok=True)
    levels = levels_of(evaluation)
    found = Found(
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


def _tables(found: Found) -> dict[str, pd.DataFrame]:
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


def _draw(found: Found, thresholds: dict[str, float], out: Path) -> list[str]:
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
    """Tables of levels one below the other, the level's name in a column of its own."""
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
