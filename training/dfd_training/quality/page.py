"""The page on quality: words by hand, tables and chart from the files that commands left."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dfd_edge.errors import UsageError
from dfd_training.evaluation import Evaluation, Report, summarise
from dfd_training.quality.calibration import (
    Comparison,
    by_source,
    compare_evaluations,
    compare_scores,
    reliability,
)
from dfd_training.quality.doctor_report import checks_to_text
from dfd_training.quality.files import read_figures
from dfd_training.quality.findings import Check
from dfd_training.quality.ladder import RungFigures
from dfd_training.quality.ladder_report import draw_ladder, ladder_to_text
from dfd_training.quality.page_tables import (
    baseline_table,
    comparison_table,
    ladder_change_table,
    overview_table,
    reliability_table,
    source_table,
)
from dfd_training.quality.score_report import ScoreReport
from dfd_training.report import read_evaluation, to_text

T = TypeVar("T")

CHART = Path("images", "quality_ladder.png")

_SLOT = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Measured:
    """What the commands left in a folder; None where a command has not run.

    Attributes:
        folder: `evaluation/`, `evaluation-fp32/`, `ladder/`, `doctor.json` and `baselines.json`
            lie in it.
        evaluation: of `evaluate` with the variant that ships, with its report.
        fp32: the same in full precision.
        ladder: of `ladder`.
        doctor: of `doctor-data`.
        baselines: of `score`.
    """

    folder: Path
    evaluation: tuple[Evaluation, Report] | None
    fp32: tuple[Evaluation, Report] | None
    ladder: list[RungFigures] | None
    doctor: list[Check] | None
    baselines: ScoreReport | None

    @classmethod
    def read(cls, folder: Path, *, draws: int = 1000) -> Measured:
        """Read a folder.

        Raises:
            UsageError: when it does not exist, or a file in it is none of these commands'.
        """
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder: run the measuring commands first")
        return cls(
            folder,
            _evaluated(folder / "evaluation", draws),
            _evaluated(folder / "evaluation-fp32", draws),
            _read(folder / "ladder" / "ladder.json", "rungs", list[RungFigures]),
            _read(folder / "doctor.json", "checks", list[Check]),
            _read(folder / "baselines.json", "report", ScoreReport),
        )


def write_page(
    page: Path, now: Measured, before: Measured | None, *, draws: int = 1000
) -> dict[str, str]:
    """Put tables and chart into a page, between `<!-- table: NAME -->` and `<!-- end -->`.

    Args:
        page: a Markdown file; everything outside the marks stays as it is.
        now: of the bundle that the page is about.
        before: of an earlier one.
        draws: bootstrap samples.

    Returns:
        By name, the tables that were left as they were, and why.

    Raises:
        UsageError: when the page is missing, has no marks, or names a table that is unknown.
    """
    if not page.is_file():
        raise UsageError(f"{page}: no such page")
    text = page.read_text("utf-8")
    names = [match.group(2) for match in _SLOT.finditer(text)]
    tables = _tables(page, now, before, draws)
    if not names:
        raise UsageError(f"{page}: no mark such as <!-- table: overview --> … <!-- end -->")
    if unknown := sorted(set(names) - set(tables)):
        raise UsageError(f"{page}: table {unknown[0]!r} is unknown; known are {', '.join(tables)}")
    left: dict[str, str] = {}

    def fill(match: re.Match[str]) -> str:
        try:
            content = tables[match.group(2)]()
        except _Missing as missing:
            left[match.group(2)] = str(missing)
            return match.group(0)
        return f"{match.group(1)}\n{content.strip()}\n\n{match.group(4)}"

    filled = _SLOT.sub(fill, text)
    partial = page.with_name(f"{page.name}.partial")
    partial.write_text(filled, "utf-8")
    partial.replace(page)
    return left


class _Missing(Exception):
    """A table cannot be made: a command has not run."""


def _tables(
    page: Path, now: Measured, before: Measured | None, draws: int
) -> dict[str, Callable[[], str]]:
    def evaluated() -> tuple[Evaluation, Report]:
        return _there(now.evaluation, now, "evaluation/files.csv")

    def compared(first: Evaluation, base: Evaluation, what: str) -> list[Comparison]:
        return compare_evaluations(first, base, what, draws=draws)

    def variants() -> str:
        other, _ = _there(now.fp32, now, "evaluation-fp32/files.csv")
        return comparison_table(compared(evaluated()[0], other, "shipped variant - fp32"))

    def overview() -> str:
        evaluation, report = evaluated()
        earlier = None if before is None else before.evaluation
        text = overview_table(evaluation, report, earlier)
        if earlier is None:
            return text
        changes = comparison_table(compared(evaluation, earlier[0], "now - before"))
        return f"{text}\n\n{changes}"

    def ladder_chart() -> str:
        ladder = _there(now.ladder, now, "ladder/ladder.json")
        earlier = [] if before is None else before.ladder or []
        draw_ladder(ladder, page.parent / CHART, before=earlier)
        text = f"![Clip AUC and verdicts on real clips, rung by rung]({CHART.as_posix()})"
        return f"{text}\n\n{ladder_change_table(ladder, earlier)}" if earlier else text

    return {
        "overview": overview,
        "evaluation": lambda: to_text(evaluated()[1]),
        "variants": variants,
        "gru": lambda: comparison_table(compare_scores(evaluated()[0], draws=draws)),
        "sources": lambda: source_table(by_source(evaluated()[0])),
        "calibration": lambda: reliability_table(reliability(evaluated()[0], draws=draws)),
        "ladder": lambda: ladder_to_text(_there(now.ladder, now, "ladder/ladder.json")),
        "ladder-chart": ladder_chart,
        "doctor": lambda: checks_to_text(_there(now.doctor, now, "doctor.json")),
        "baselines": lambda: baseline_table(_there(now.baselines, now, "baselines.json")),
    }


def _there(value: T | None, measured: Measured, name: str) -> T:
    if value is None:
        raise _Missing(f"{measured.folder / name} is missing")
    return value


def _evaluated(folder: Path, draws: int) -> tuple[Evaluation, Report] | None:
    if not (folder / "files.csv").is_file():
        return None
    rows = read_evaluation(folder)
    return rows, summarise(rows, draws=draws)


def _read(path: Path, key: str, kind: type[T]) -> T | None:
    return read_figures(path, key, kind) if path.is_file() else None
