"""The tables of the page on quality, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from dfd_edge.judging.results import Label
from dfd_training.evaluation import Evaluation, Report
from dfd_training.metrics import rate_upper_bound
from dfd_training.quality.calibration import Comparison, Reliability, SourceRow
from dfd_training.quality.conditions import Condition
from dfd_training.quality.files import signed
from dfd_training.quality.ladder import RungFigures
from dfd_training.quality.score_report import ScoreReport

_CALLS = (
    ("clip", "REAL", Label.FAKE),
    ("clip", "REAL", Label.UNSURE),
    ("clip", "REAL", Label.REAL),
    ("clip", "FAKE", Label.FAKE),
    ("clip", "FAKE", Label.UNSURE),
    ("clip", "FAKE", Label.REAL),
    ("photograph", "REAL", Label.FAKE),
)
_CALLED = (Label.REAL.value, Label.UNSURE.value, Label.FAKE.value, Label.NO_FACE.value)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def overview_table(
    now: Evaluation, report: Report, before: tuple[Evaluation, Report] | None
) -> str:
    """The key figures of a bundle, and of an earlier one beside them."""
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
        if section.title.startswith("clips") and "runtime" in section.rows:
            area = section.rows["runtime"]["auc"]
            figures[f"AUC, {section.title} (n = {area.n}, {area.groups} groups)"] = str(area)
    if report.pairs:
        figures["fakes that score above their own original"] = (
            f"{report.pairs_won} of {report.pairs}"
        )
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


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """AUCs of two scores on the same clips, and their paired difference."""
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
                signed(item.difference),
            )
            for item in comparisons
        ),
    )


def reliability_table(levels: Sequence[Reliability]) -> str:
    """The calibration error of each level, and the bins of all levels side by side."""
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


def source_table(rows: Sequence[SourceRow]) -> str:
    """Verdicts by source."""
    return markdown(
        ("source", "files", "n", *_CALLED, "mean P(fake)"),
        (
            (
                row.source,
                f"{row.label.lower()} {row.kind}s",
                str(row.n),
                *(str(row.called.get(name, 0)) for name in _CALLED),
                _share(row.mean_p),
            )
            for row in rows
        ),
    )


def baseline_table(report: ScoreReport) -> str:
    """AUC of each model under each condition, and its difference to the first, paired."""
    tables: list[str] = []
    apart = {(d.case, d.where, d.what.split(" - ")[0]): d.auc for d in report.models}
    for case in dict.fromkeys(row.case for row in report.rows):
        rows = [row for row in report.rows if row.case == case]
        cells = []
        for row in sorted(rows, key=lambda r: list(Condition).index(Condition(r.condition))):
            difference = apart.get((case, row.condition, row.model))
            pairs = f"{row.pairs_won} of {row.pairs}" if row.pairs else ""
            cells.append(
                (
                    row.condition,
                    row.model,
                    str(row.auc),
                    signed(difference) if difference else "",
                    pairs,
                    _share(row.reals_at_90),
                )
            )
        head = ("crops", "model", "AUC", "difference, paired", "pairs won", "reals at 90 %")
        first = rows[0]
        title = f"{case} ({first.fakes} fakes, {first.reals} reals, {first.auc.groups} groups):"
        tables.append(f"{title[0].upper()}{title[1:]}\n\n{markdown(head, cells)}")
    return "\n\n".join(tables)


def ladder_change_table(now: Sequence[RungFigures], before: Sequence[RungFigures]) -> str:
    """AUC and real clips called fake, rung by rung, of an earlier bundle and of this one."""
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
