"""Curves, confusion matrices and mistakes of an evaluation as PNG pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from dfd_edge.report.figures import COLOURS, FAKE_COLOUR, REAL_COLOUR
from dfd_edge.report.pictures import PICTURE_PX
from dfd_edge.sinks.files import written_whole
from dfd_training.evaluation.evaluate import Mistake
from dfd_training.evaluation.levels import (
    CLASSES,
    SINGLE_FACES,
    Confusion,
    Curves,
    Level,
    histogram_of,
)
from dfd_training.evaluation.statistics import Estimate

#: Numbers of points from here on stand below them.
_NEAR_THE_TITLE = 0.9
#: Characters of a file name that fit above two crops.
_NAME_LINE = 44
_STYLES = ("-", "--", ":", "-.")
_ROW_TITLES = {"REAL": "real, the highest P(fake) first", "FAKE": "fake, the lowest P(fake) first"}


@contextmanager
def drawn(
    path: Path, rows: int, columns: int, *, size: tuple[float, float], sharey: bool = False
) -> Iterator[Any]:
    """Gives axes [rows, columns] to draw on; writes the picture, whole, when the block ends.

    Args:
        path: The PNG file.
        rows: Rows of axes.
        columns: Columns of axes.
        size: Width and height of the picture in inches.
        sharey: Whether all axes share their vertical scale.
    """
    figure, axes = plt.subplots(
        rows, columns, figsize=size, sharey=sharey, squeeze=False, layout="constrained"
    )
    try:
        yield axes
        with written_whole(path) as partial:
            figure.savefig(partial, dpi=110)
    finally:
        plt.close(figure)


def draw_intervals(
    axes: Any,  # noqa: ANN401 - matplotlib is untyped
    points: Sequence[tuple[float, Estimate]],
    *,
    label: str,
    colour: str,
    marker: str = "o",
) -> None:
    """Draws estimates along the horizontal axis, each at a height, with their intervals."""
    values = np.array([figure.value for _, figure in points])
    ends = np.array([(figure.low, figure.high) for _, figure in points]).reshape(-1, 2).T
    axes.errorbar(
        values,
        [height for height, _ in points],
        xerr=np.nan_to_num(np.maximum([values - ends[0], ends[1] - values], 0.0)),
        fmt=marker,
        markersize=4,
        capsize=2,
        color=colour,
        label=label,
    )


def draw_confusions(matrices: Sequence[Confusion], path: Path) -> None:
    """Draws confusion matrices side by side: counts, tinted by their share of the row."""
    across = min(2, len(matrices))
    down = -(-len(matrices) // across)
    with drawn(path, down, across, size=(5.6 * across, 2.6 * down)) as axes:
        for place in axes.flat[len(matrices) :]:
            place.axis("off")
        for place, matrix in zip(axes.flat, matrices, strict=False):
            place.imshow(matrix.shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
            place.set_xticks(range(len(matrix.columns)), matrix.columns)
            place.set_yticks(range(2), [f"{name}" for name in CLASSES])
            place.set(title=matrix.title, xlabel="called", ylabel="is")
            for row in range(2):
                for column in range(len(matrix.columns)):
                    share = matrix.shares[row, column]
                    text = f"{matrix.counts[row, column]}\n{100 * share:.0f} %"
                    ink = "white" if share > 0.5 else "black"
                    place.text(column, row, text, ha="center", va="center", color=ink)


def draw_roc(curves: Sequence[Curves], path: Path) -> None:
    """Draws true over false positive rate."""
    with drawn(path, 1, 1, size=(5.5, 5.0)) as axes:
        for number, c in enumerate(curves):
            x, y = c.roc["false_positive_rate"], c.roc["true_positive_rate"]
            axes[0, 0].plot(x, y, label=f"{c.level.name} ({c.level.counts})", **_look(number))
        axes[0, 0].plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        _square(axes[0, 0], "reals called fake", "fakes called fake", "ROC")


def draw_precision_recall(curves: Sequence[Curves], path: Path) -> None:
    """Draws precision over recall of the fakes, with the share of fakes, which chance reaches."""
    with drawn(path, 1, 1, size=(5.5, 5.0)) as axes:
        for number, c in enumerate(curves):
            x, y = c.precision_recall["recall"], c.precision_recall["precision"]
            look = _look(number)
            axes[0, 0].plot(x, y, label=f"{c.level.name} ({c.level.counts})", **look)
            axes[0, 0].axhline(c.level.labels.mean(), color=look["color"], linewidth=0.8, alpha=0.5)
        _square(axes[0, 0], "recall", "precision", "Precision and recall of the fakes")


def draw_reliability(curves: Sequence[Curves], path: Path) -> None:
    """Draws the share of fakes over the mean P(fake), bin by bin, with the rows in each bin."""
    with drawn(path, 1, 1, size=(5.5, 5.0)) as axes:
        for number, c in enumerate(curves):
            bins = [b for b in c.reliability if b.n]
            x, y = [b.mean_p for b in bins], [b.fake_share for b in bins]
            axes[0, 0].plot(x, y, marker="o", label=c.level.name, **_look(number))
            if number == 0:
                for b in bins:
                    axes[0, 0].annotate(
                        f"{b.n}",
                        (b.mean_p, b.fake_share),
                        textcoords="offset points",
                        xytext=(5, -11 if b.fake_share > _NEAR_THE_TITLE else 5),
                        fontsize=8,
                    )
        axes[0, 0].plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        title = f"Reliability (numbers: n of {curves[0].level.name})"
        _square(axes[0, 0], "mean P(fake) of a bin", "share of fakes in it", title)


def draw_histograms(levels: Sequence[Level], thresholds: dict[str, float], path: Path) -> None:
    """Draws histograms of the scores of reals and of fakes, level by level."""
    with drawn(path, 1, len(levels), size=(4.6 * len(levels), 3.4)) as axes:
        for place, level in zip(axes[0], levels, strict=True):
            bins = histogram_of(level)
            width = (bins["high"] - bins["low"]) * 0.42
            for name, colour, side in (("real", REAL_COLOUR, 0.3), ("fake", FAKE_COLOUR, 0.7)):
                total = int(bins[name].sum())
                if total:
                    centre = bins["low"] + (bins["high"] - bins["low"]) * side
                    hatch = "//" if name == "fake" else None
                    label = f"{name} (n = {total})"
                    share = bins[name] / total
                    place.bar(centre, share, width, color=colour, hatch=hatch, label=label)
            # The thresholds are set for whole files.
            for name, at in () if level.name == SINGLE_FACES else thresholds.items():
                colour = FAKE_COLOUR if name == "fake" else REAL_COLOUR
                place.axvline(at, color=colour, linestyle="--" if name == "fake" else ":")
            place.set(title=level.name, xlabel="P(fake)", ylabel="share of the class", xlim=(0, 1))
            place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)


def draw_history(history: pd.DataFrame, panels: dict[str, dict[str, str]], path: Path) -> None:
    """Draws the columns of a fit's history over the epochs, a panel for each quantity."""
    with drawn(path, 1, len(panels), size=(4.6 * len(panels), 3.4)) as axes:
        for place, (title, columns) in zip(axes[0], panels.items(), strict=True):
            for number, (column, name) in enumerate(columns.items()):
                place.plot(
                    history["epoch"] + 1, history[column], marker=".", label=name, **_look(number)
                )
            place.set(xlabel="epoch", title=title)
            place.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            place.grid(alpha=0.3)
            place.legend(frameon=False)


def draw_mistakes(mistakes: Sequence[Mistake], path: Path) -> None:
    """Draws the crops of the mistakes with their evidence maps beside, reals above fakes."""
    rows = {
        label: [m for m in mistakes if m.label == label]
        for label in _ROW_TITLES
        if any(m.label == label for m in mistakes)
    }
    across = min(4, max(map(len, rows.values())))
    down = {label: -(-len(found) // across) for label, found in rows.items()}
    size = (max(5.0, 3.6 * across), sum(2.5 * lines + 0.3 for lines in down.values()))
    figure = plt.figure(figsize=size, layout="constrained")
    try:
        parts = figure.subfigures(len(rows), 1, height_ratios=list(down.values()), squeeze=False)
        for part, (label, found) in zip(parts.flat, rows.items(), strict=True):
            part.suptitle(_ROW_TITLES[label], weight="bold", x=0.01, ha="left")
            axes = part.subplots(down[label], across, squeeze=False)
            for place in axes.flat:
                place.axis("off")
            for place, mistake in zip(axes.flat, found, strict=False):
                place.imshow(_pair(mistake))
                name = "\n".join(textwrap.wrap(Path(mistake.path).name, _NAME_LINE))
                title = f"{name}\nP(fake) {mistake.p_fake:.3f}, called {mistake.verdict}"
                place.set_title(title, fontsize=8, loc="left", parse_math=False)
        with written_whole(path) as partial:
            figure.savefig(partial, dpi=110)
    finally:
        plt.close(figure)


def _pair(mistake: Mistake) -> NDArray[np.uint8]:
    """Returns the crop and the crop with its evidence map, uint8 RGB [side, 2 side, 3].

    Crops smaller than the others lie in the middle of their half.
    """
    pair = np.full((PICTURE_PX, 2 * PICTURE_PX, 3), 235, np.uint8)
    crop = mistake.crop
    found = [] if crop is None else [crop.plain, crop.evidence]
    for number, jpeg in enumerate(found):
        if jpeg is None:
            continue
        half = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
        top, left = ((PICTURE_PX - side) // 2 for side in half.shape[:2])
        left += number * PICTURE_PX
        pair[top : top + half.shape[0], left : left + half.shape[1]] = half[:, :, ::-1]
    return pair


def _look(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _STYLES[number % len(_STYLES)],
    }


def _square(axes: Any, across: str, up: str, title: str) -> None:  # noqa: ANN401 - matplotlib
    axes.set(xlabel=across, ylabel=up, title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.32), frameon=False, fontsize=8)
