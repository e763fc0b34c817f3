"""Robustness figures as a table, as CSV and JSON, and as a chart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfd_training.evaluation.pictures import draw_intervals, drawn
from dfd_training.evaluation.report import write_json
from dfd_training.evaluation.robustness import CorruptionFigures
from dfd_training.evaluation.statistics import Estimate


def robustness_to_text(figures: Sequence[CorruptionFigures]) -> str:
    """Returns the figures as a Markdown table; intervals are 95 %, over groups."""
    lines = [
        "| rung | fakes, reals | AUC | change of AUC | pairs won | reals called fake (upper bound)"
        " | reals unsure | fakes called fake | shift of reals' logit | of fakes' |",
        "|---|---:|---|---|---:|---:|---:|---:|---|---|",
    ]
    for row in figures:
        rate = "" if math.isnan(row.kbps) else f" ({row.kbps:.0f} kbit/s)"
        called = f"{row.reals_called_fake} of {row.real_clips} ({row.reals_called_fake_upper:.2f})"
        cells = (
            f"{row.rung}{rate}",
            f"{row.fakes}, {row.reals}",
            str(row.auc),
            row.auc_change.signed(),
            f"{row.pairs_won} of {row.pairs}" if row.pairs else "-",
            called,
            f"{row.reals_unsure} of {row.real_clips}",
            f"{row.fakes_called_fake} of {row.fake_clips}",
            row.real_shift.signed(digits=2),
            row.fake_shift.signed(digits=2),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_robustness(
    figures: Sequence[CorruptionFigures], out: Path, facts: dict[str, Any]
) -> None:
    """Writes `ladder.json`, `ladder.csv`, `ladder.md` and `ladder.png` into a folder."""
    write_json(out / "ladder.json", {**facts, "rungs": list(figures)})
    pd.DataFrame([_flat(row) for row in figures]).to_csv(out / "ladder.csv", index=False)
    (out / "ladder.md").write_text(robustness_to_text(figures))
    draw_robustness(figures, out / "ladder.png")


def _flat(row: CorruptionFigures) -> dict[str, object]:
    flat: dict[str, object] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Estimate):
            flat |= {f"{field.name}_{end}": getattr(value, end) for end in ("value", "low", "high")}
        else:
            flat[field.name] = value
    return flat


def draw_robustness(
    figures: Sequence[CorruptionFigures], path: Path, *, before: Sequence[CorruptionFigures] = ()
) -> None:
    """Draws AUCs with intervals, and verdicts on the real clips, as PNG.

    Args:
        figures: Figures of the bundle.
        path: The picture.
        before: Figures of an earlier bundle, drawn in grey beside them.
    """
    names = [row.rung for row in figures]
    places = np.arange(len(names))
    path.parent.mkdir(parents=True, exist_ok=True)
    with drawn(path, 1, 2, size=(10, 0.34 * len(names) + 1.6), sharey=True) as panels:
        areas, calls = panels[0]
        if before:
            by_name = {row.rung: row for row in before}
            earlier = [(i, by_name[name]) for i, name in enumerate(names) if name in by_name]
            points = [(i + 0.2, row.auc) for i, row in earlier]
            draw_intervals(areas, points, label="before", colour="0.6")
        shift = -0.2 if before else 0.0
        label = "now" if before else "AUC, 95 % over groups"
        points = [(i + shift, row.auc) for i, row in enumerate(figures)]
        draw_intervals(areas, points, label=label, colour="C0")
        areas.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
        areas.set_yticks(places, names)
        areas.set(xlabel="clip AUC, fakes against all real clips", xlim=(0.0, 1.02))
        clips = np.array([row.real_clips for row in figures], float)
        fake = np.array([row.reals_called_fake for row in figures]) / clips
        unsure = np.array([row.reals_unsure for row in figures]) / clips
        calls.barh(places, fake, color="C3", label="called fake")
        calls.barh(places, unsure, left=fake, color="C7", alpha=0.5, label="unsure or no face")
        calls.set(xlabel=f"share of real clips (n = {int(clips.max())})", xlim=(0.0, 1.0))
        for axes in (areas, calls):
            axes.grid(axis="x", alpha=0.3)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
