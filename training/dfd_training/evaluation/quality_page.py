"""The page on quality: text by hand, tables and chart from the files of the measuring commands."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from dfd_edge.bundle.manifest import CardInfo
from dfd_edge.errors import UsageError
from dfd_edge.judging.results import Label
from dfd_edge.sinks.files import written_whole
from dfd_training.evaluation.crops.leaks import Check, checks_to_text
from dfd_training.evaluation.evaluate import Evaluation, Report, summarise
from dfd_training.evaluation.levels import Reliability, labels_of, reliability
from dfd_training.evaluation.report import (
    markdown,
    read_card,
    read_evaluation,
    read_figures,
)
from dfd_training.evaluation.robustness import CorruptionFigures
from dfd_training.evaluation.robustness_report import draw_robustness, robustness_to_text
from dfd_training.evaluation.statistics import Estimate, GroupBootstrap, rate_upper_bound

_CALLS = (
    ("clip", "REAL", Label.FAKE),
    ("clip", "REAL", Label.UNSURE),
    ("clip", "REAL", Label.REAL),
    ("clip", "FAKE", Label.FAKE),
    ("clip", "FAKE", Label.UNSURE),
    ("clip", "FAKE", Label.REAL),
    ("photograph", "REAL", Label.FAKE),
)

T = TypeVar("T")
_FOLDS = "training folds"
CHART = Path("images", "quality_ladder.png")
_SLOT = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Measured:
    """Results of the measuring commands in a folder; None where a command has not run.

    Attributes:
        folder: Folder with `evaluation/`, `crossfit/`, `ladder/`, `card.json` and
            `doctor.json`.
        evaluation: Evaluation of the files, with its report.
        families: The table of `crossfit`, as Markdown.
        card: The card that `calibrate` wrote.
        ladder: Figures of `ladder`.
        doctor: Checks of `doctor-data`.
    """

    folder: Path
    evaluation: tuple[Evaluation, Report] | None
    families: str | None
    card: CardInfo | None
    ladder: list[CorruptionFigures] | None
    doctor: list[Check] | None

    @classmethod
    def read(cls, folder: Path, *, draws: int = 1000) -> Measured:
        """Reads a folder.

        Raises:
            UsageError: It does not exist, or a file in it is not from these commands.
        """
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder: run the measuring commands first")
        families, card = folder / "crossfit" / "families.md", folder / "card.json"
        return cls(
            folder,
            _evaluated(folder / "evaluation", draws),
            families.read_text("utf-8") if families.is_file() else None,
            read_card(card) if card.is_file() else None,
            _read(folder / "ladder" / "ladder.json", "rungs", list[CorruptionFigures]),
            _read(folder / "doctor.json", "checks", list[Check]),
        )


def write_page(
    page: Path, now: Measured, before: Measured | None, *, draws: int = 1000
) -> dict[str, str]:
    """Puts tables and chart into a page, between `<!-- table: NAME -->` and `<!-- end -->`.

    Args:
        page: A Markdown file; everything outside the marks stays as it is.
        now: Results of the bundle that the page is about.
        before: Results of an earlier bundle.
        draws: Bootstrap samples.

    Returns:
        The reason for each table that was left as it was, by name.

    Raises:
        UsageError: The page is missing, has no marks, or names an unknown table.
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
    with written_whole(page) as partial:
        partial.write_text(filled, "utf-8")
    return left


class _Missing(Exception):
    """A table cannot be filled in: a command has not run."""


def _tables(
    page: Path, now: Measured, before: Measured | None, draws: int
) -> dict[str, Callable[[], str]]:
    def evaluated() -> tuple[Evaluation, Report]:
        return _there(now.evaluation, now, "evaluation/files.csv")

    def compared(first: Evaluation, base: Evaluation, what: str) -> list[Comparison]:
        return compare_evaluations(first, base, what, draws=draws)

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
        draw_robustness(ladder, page.parent / CHART, before=earlier)
        text = f"![Clip AUC and verdicts on real clips, rung by rung]({CHART.as_posix()})"
        return f"{text}\n\n{ladder_change_table(ladder, earlier)}" if earlier else text

    return {
        "overview": overview,
        "families": lambda: _there(now.families, now, "crossfit/families.md"),
        "folds": lambda: fold_table(_there(now.card, now, "card.json")),
        "gru": lambda: comparison_table(compare_scores(evaluated()[0], draws=draws)),
        "calibration": lambda: reliability_table(reliability(evaluated()[0], draws=draws)),
        "ladder": lambda: robustness_to_text(_there(now.ladder, now, "ladder/ladder.json")),
        "ladder-chart": ladder_chart,
        "doctor": lambda: checks_to_text(_there(now.doctor, now, "doctor.json")),
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """AUC of one score of a clip against another's, on the same clips.

    Attributes:
        case: Which fakes against which reals.
        what: Names of both, such as "sequence model - CNN".
        auc: AUC of the first.
        base: AUC of the second.
        difference: Paired difference, with an interval over groups.
    """

    case: str
    what: str
    auc: Estimate
    base: Estimate
    difference: Estimate


def compare_scores(evaluation: Evaluation, *, draws: int = 1000) -> list[Comparison]:
    """Compares the sequence model with the mean of the CNN's logits, clip by clip."""
    return [
        _compare(case, "sequence model - CNN, mean", rows, rows["gru"], rows["cnn"], draws=draws)
        for case, rows in clip_cases(evaluation.files).items()
    ]


def compare_evaluations(
    first: Evaluation, base: Evaluation, what: str, *, draws: int = 1000
) -> list[Comparison]:
    """Compares two evaluations on the clips that both judged; `what` names them."""
    other = base.files.set_index("path")["p_fake"]
    return [
        _compare(case, what, rows, rows["p_fake"], rows["path"].map(other), draws=draws)
        for case, rows in clip_cases(first.files).items()
    ]


def clip_cases(files: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns all clips of an evaluation, and the fakes with their originals."""
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
    samples = GroupBootstrap.of(rows.loc[known, "group"].to_numpy(str), draws=draws)
    labels = labels_of(rows[known])
    first, second = (np.asarray(column[known], np.float64) for column in (scores, base))
    return Comparison(
        case,
        what,
        samples.auc(labels, first),
        samples.auc(labels, second),
        samples.auc_difference(labels, first, second),
    )


def overview_table(
    now: Evaluation, report: Report, before: tuple[Evaluation, Report] | None
) -> str:
    """Returns the key figures of a bundle, and of an earlier one beside them."""
    columns = [_key_figures(now, report)]
    head = ["figure", "this bundle"]
    if before is not None:
        columns.insert(0, _key_figures(*before))
        head.insert(1, "the one before")
    rows = [(name, *(column.get(name, "") for column in columns)) for name in columns[-1]]
    return markdown(head, rows)


def _key_figures(evaluation: Evaluation, report: Report) -> dict[str, str]:
    figures: dict[str, str] = {}
    for section in report.sections:
        if section.title.startswith("clips: fakes") and "runtime" in section.rows:
            area = section.rows["runtime"]["auc"]
            figures[f"AUC, {section.title} (n = {area.n}, {area.groups} groups)"] = str(area)
    for pairs in report.pairs:
        if pairs.kind == "clip":
            figures["fakes that score above their own original"] = f"{pairs.won} of {pairs.n}"
    files = evaluation.files
    for kind, label, called in _CALLS:
        part = files[(files["kind"] == kind) & (files["label"] == label)]
        if not len(part):
            continue
        hits = int((part["verdict"] == called.value).sum())
        wrong = called.value != label.lower() and called is not Label.UNSURE
        bound = f" (upper bound {rate_upper_bound(hits, len(part)):.3f})" if wrong else ""
        name = f"{label.lower()} {kind}s called {called.value}"
        figures[name] = f"{hits} of {len(part)}{bound}"
    return figures


def fold_table(card: CardInfo) -> str:
    """Returns what `calibrate` measured on the training's own folds, a column a precision."""
    found: dict[str, dict[str, str]] = {}
    for name, metric in card.metrics.items():
        where, precision, what = (*name.split(", ", 2), "", "")[:3]
        if where == _FOLDS and what:
            high = "" if metric.high is None else f", at most {metric.high:.3f}"
            between = high if metric.low is None else f" [{metric.low:.3f}, {metric.high:.3f}]"
            count = "" if metric.n is None else f" (n = {metric.n})"
            text = f"{metric.value:.3f}{between}{count}"
            found.setdefault(what, {})[precision] = text
    precisions = sorted({precision for row in found.values() for precision in row})
    return markdown(
        ("figure", *precisions),
        ((what, *(row.get(p, "") for p in precisions)) for what, row in found.items()),
    )


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Returns AUCs of two scores on the same clips, and their paired difference."""
    return markdown(
        ("clips", "n", "groups", "compared", "AUC", "AUC", "difference, paired"),
        (
            (
                item.case,
                str(item.auc.n),
                str(item.auc.groups),
                item.what,
                str(item.auc),
                str(item.base),
                item.difference.signed(),
            )
            for item in comparisons
        ),
    )


def reliability_table(levels: Sequence[Reliability]) -> str:
    """Returns the calibration error of each level, and the bins of all levels side by side."""
    errors = markdown(
        ("level", "n", "groups", "calibration error"),
        ((i.level, str(i.error.n), str(i.error.groups), str(i.error)) for i in levels),
    )
    head = ["P(fake)", *(f"{i.level}: n, mean P(fake), share of fakes" for i in levels)]
    rows = [
        (
            f"{bins[0].low:.1f} to {bins[0].high:.1f}",
            *(f"{b.n}, {_share(b.mean_p)}, {_share(b.fake_share)}" if b.n else "0" for b in bins),
        )
        for bins in zip(*(i.bins for i in levels), strict=True)
    ]
    return f"{errors}\n\n{markdown(head, rows)}"


def ladder_change_table(
    now: Sequence[CorruptionFigures], before: Sequence[CorruptionFigures]
) -> str:
    """Returns AUC and real clips called fake by corruption, for an earlier bundle and this one."""
    earlier = {row.rung: row for row in before}
    rows = []
    for row in now:
        old = earlier.get(row.rung)
        rows.append(
            (
                row.rung,
                "" if old is None else str(old.auc),
                str(row.auc),
                "" if old is None else f"{old.reals_called_fake} of {old.real_clips}",
                f"{row.reals_called_fake} of {row.real_clips}",
                "" if old is None else f"{old.fakes_called_fake} of {old.fake_clips}",
                f"{row.fakes_called_fake} of {row.fake_clips}",
            )
        )
    head = (
        "rung",
        "AUC before",
        "AUC now",
        "reals called fake before",
        "now",
        "fakes called fake before",
        "now",
    )
    return markdown(head, rows)


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
