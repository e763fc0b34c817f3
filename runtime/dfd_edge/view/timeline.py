"""Timeline under a frame: P(fake) of each person over the last seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.judging.results import FrameResult, Label
from dfd_edge.sources.frames import Image
from dfd_edge.view.drawing import (
    COLOURS,
    Area,
    darken,
    ink_on,
    text_width,
    write,
)

TIMELINE_S = 20.0
_SHARE = 0.16
_LEAST_UNITS = 34
_LIGHT = 0.3
_APART_S = 1.0
"""Longest gap that a line bridges."""
_MOST_CURVES = 8
_RATE_WINDOW_S = 4.0
_DASHES = ((1, 0), (5, 3), (1, 2), (14, 4))
"""Lengths of dashes and of gaps, in thicknesses of the curve; (1, 0) is solid."""
_LINES = (Label.FAKE, Label.REAL)
"""Labels whose thresholds are drawn."""


@dataclass(frozen=True, slots=True)
class _Point:
    time_s: float
    p_fake: float
    label: Label


@dataclass(frozen=True, slots=True)
class _Plot:
    """Coordinates of the timeline; `area` holds the curves."""

    area: Area
    now_s: float
    pad: int
    thresholds: tuple[float, float]

    def xs(self, times_s: Sequence[float]) -> NDArray[np.float64]:
        """Returns the columns of these times."""
        wide = self.area.right - 1 - self.area.left
        return self.area.right - 1 - (self.now_s - np.asarray(times_s)) / TIMELINE_S * wide

    def ys(self, scores: Sequence[float]) -> NDArray[np.float64]:
        """Returns the rows of these scores: real, unsure and fake take a third each."""
        fake, real = self.thresholds
        shares = np.interp(scores, (0.0, real, fake, 1.0), (0.0, 1 / 3, 2 / 3, 1.0))
        tall = self.area.bottom - self.area.top - 2 * self.pad
        return np.asarray(self.area.bottom - self.pad - shares * tall)


def judging_rate(times_s: Iterable[float], now_s: float) -> float | None:
    """Returns the frames judged per second over the last seconds.

    Args:
        times_s: Times at which frames were judged, newest first.
        now_s: The present, in the same clock.

    Returns:
        The rate; 0 where nothing was judged lately, None while it is unknown.
    """
    newest_s = oldest_s = None
    steps = -1
    for time_s in times_s:
        if newest_s is None:
            newest_s = time_s
        if time_s < now_s - _RATE_WINDOW_S:
            break
        oldest_s = time_s
        steps += 1
    if newest_s is None:
        return None
    if oldest_s is None:
        return 0.0
    if steps < 1:
        return None
    mean_s = (newest_s - oldest_s) / steps
    late_s = now_s - newest_s
    # A late frame counts before it arrives, so that the rate falls while judging hangs.
    span_s = now_s - oldest_s if late_s > 2.0 * mean_s else newest_s - oldest_s
    return steps / span_s if span_s > 0.0 else None


def timeline_area(canvas: Image, unit: float) -> Area:
    """Returns the area of the timeline: a strip at the lower edge of a frame."""
    height, width = canvas.shape[:2]
    strip = min(height, max(round(height * _SHARE), round(_LEAST_UNITS * unit)))
    return Area(0, height - strip, width, height)


def draw_timeline(
    canvas: Image,
    now_s: float,
    history: Sequence[FrameResult],
    thresholds: tuple[float, float],
    unit: float,
) -> None:
    """Draws the last `TIMELINE_S` seconds in place: a curve for each person.

    The colour of a curve is that of the person's label at the time. With several people, each
    curve ends in the person's number and has its own dashes. `real`, `unsure` and `fake` take a
    third of the height each.

    Args:
        canvas: uint8 [height, width, 3], BGR.
        now_s: Time at the right edge.
        history: Results up to then, oldest first.
        thresholds: P(fake) from which the label is `fake`, and up to which it is `real`.
        unit: Pixels of a drawing unit.
    """
    area = timeline_area(canvas, unit)
    darken(canvas, area, _LIGHT)
    curves = _curves(history, now_s)
    gutter = 0
    if len(curves) > 1:
        gutter = max(text_width(f"#{track}", _small(unit)) for track in curves) + round(8 * unit)
    plot = _Plot(
        Area(area.left, area.top, area.right - gutter, area.bottom),
        now_s,
        round(3 * unit),
        thresholds,
    )
    for y, label in zip(plot.ys(thresholds).round().astype(int).tolist(), _LINES, strict=True):
        cv2.line(canvas, (0, y), (plot.area.right, y), COLOURS[label], max(1, round(0.8 * unit)))
    for number, points in enumerate(curves.values()):
        _draw_curve(canvas, plot, points, _DASHES[number % len(_DASHES)], unit)
    _draw_words(canvas, plot, unit)
    if gutter:
        _draw_numbers(canvas, plot, curves, unit)


def _curves(history: Sequence[FrameResult], now_s: float) -> dict[int, list[_Point]]:
    """Returns scores by track; of too many people, those seen last and the most suspicious."""
    curves: dict[int, list[_Point]] = {}
    for result in history:
        if not 0.0 <= now_s - result.time_s <= TIMELINE_S:
            continue
        for person in result.people:
            if person.p_fake is not None:
                point = _Point(result.time_s, person.p_fake, person.label)
                curves.setdefault(person.track, []).append(point)
    wanted = sorted(curves, key=lambda track: (curves[track][-1].time_s, curves[track][-1].p_fake))
    return {track: curves[track] for track in sorted(wanted[-_MOST_CURVES:])}


def _draw_curve(
    canvas: Image, plot: _Plot, points: list[_Point], dash: tuple[int, int], unit: float
) -> None:
    thickness = max(2, round(2 * unit))
    run: list[_Point] = []
    for point in [*points, None]:
        joined = (
            point is not None
            and bool(run)
            and point.label is run[-1].label
            and point.time_s - run[-1].time_s <= _APART_S
        )
        if run and not joined:
            # The line to another label has the colour of the new one.
            _draw_run(canvas, plot, run, dash, thickness)
            near = point is not None and point.time_s - run[-1].time_s <= _APART_S
            run = run[-1:] if near else []
            if point is not None and near:
                run = [_Point(run[-1].time_s, run[-1].p_fake, point.label)]
        if point is not None:
            run.append(point)


def _draw_run(
    canvas: Image, plot: _Plot, run: list[_Point], dash: tuple[int, int], thickness: int
) -> None:
    """Draws consecutive points with one label."""
    colour = COLOURS[run[-1].label]
    xs = plot.xs([point.time_s for point in run])
    ys = plot.ys([point.p_fake for point in run])
    line = np.rint(np.stack([xs, ys], axis=1)).astype(np.int32)
    if len(run) == 1:
        cv2.circle(canvas, line[0].tolist(), thickness, colour, -1, cv2.LINE_AA)
    elif not dash[1]:
        cv2.polylines(canvas, [line], False, colour, thickness, cv2.LINE_AA)
    else:
        # Dashes are fixed in the clock of the source, so they move with the curve.
        origin = float(plot.xs([0.0])[0])
        pieces = _dashed(xs, ys, line, [length * thickness for length in dash], origin)
        cv2.polylines(canvas, pieces, False, colour, thickness, cv2.LINE_AA)


def _dashed(
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    line: NDArray[np.int32],
    dash: list[int],
    origin: float,
) -> list[NDArray[np.int32]]:
    """Cuts a curve into dashes.

    Args:
        xs: Columns of the curve, from left to right.
        ys: Its rows.
        line: The curve in whole pixels, [n, 2].
        dash: Lengths of a dash and of a gap, in pixels.
        origin: Column at which a dash begins.
    """
    period = sum(dash)
    first = xs[0] - (xs[0] - origin) % period
    starts = np.arange(first, xs[-1], period)
    lefts = np.maximum(starts, xs[0])
    rights = np.minimum(starts + dash[0], xs[-1])
    lefts, rights = lefts[lefts < rights], rights[lefts < rights]
    ends = np.stack([lefts, np.interp(lefts, xs, ys), rights, np.interp(rights, xs, ys)], axis=1)
    ends = np.rint(ends).astype(np.int32)
    begin = np.searchsorted(xs, lefts, "right")
    end = np.searchsorted(xs, rights, "left")
    return [
        np.concatenate([piece[None, :2], line[i:j], piece[None, 2:]])
        for piece, i, j in zip(ends, begin.tolist(), end.tolist(), strict=True)
    ]


def _draw_words(canvas: Image, plot: _Plot, unit: float) -> None:
    """Writes the names of the thresholds and of the axis."""
    small, left, tall = _small(unit), round(4 * unit), round(8 * unit)
    fake, real = plot.ys(plot.thresholds).round().astype(int).tolist()
    write(canvas, f"fake {plot.thresholds[0]:.2f}", (left, fake - round(2 * unit)), small)
    write(canvas, f"real {plot.thresholds[1]:.2f}", (left, real + tall + round(2 * unit)), small)
    said = f"P(fake), last {TIMELINE_S:.0f} s"
    if real - fake >= tall + round(2 * unit) and text_width(said, small) < plot.area.right // 2:
        write(canvas, said, (left, (fake + real + tall) // 2), small)


def _draw_numbers(canvas: Image, plot: _Plot, curves: dict[int, list[_Point]], unit: float) -> None:
    """Writes each person's number at the end of the curve, moved apart where they overlap."""
    small = _small(unit)
    tall = round(10 * unit)
    room = max(1, (plot.area.bottom - plot.area.top) // tall)
    newest = [(points[-1], track) for track, points in curves.items()]
    shown = [
        (point, track) for point, track in newest if plot.now_s - point.time_s <= 2.0 * _APART_S
    ]
    shown = sorted(shown, key=lambda entry: -entry[0].p_fake)[:room]
    ends = plot.ys([point.p_fake for point, _ in shown]).tolist()
    ys = _spread(ends, tall, plot.area.top, plot.area.bottom)
    left = plot.area.right + round(4 * unit)
    for (point, track), end, y in zip(shown, ends, ys, strict=True):
        colour = COLOURS[point.label]
        text = f"#{track}"
        top = round(y - tall / 2)
        right = left + text_width(text, small) + round(2 * unit)
        cv2.rectangle(canvas, (left - round(unit), top), (right, top + tall - 2), colour, -1)
        cv2.line(
            canvas, (plot.area.right - 1, round(end)), (left, round(y)), colour, 1, cv2.LINE_AA
        )
        write(canvas, text, (left, top + tall - 1 - round(2.5 * unit)), small, ink_on(colour))


def _spread(wanted: list[float], apart: float, top: float, bottom: float) -> list[float]:
    """Returns rows for labels, from the top, at least `apart` from each other and inside."""
    placed: list[float] = []
    for y in wanted:
        least = placed[-1] + apart if placed else top + apart / 2
        placed.append(max(y, least))
    over = placed[-1] + apart / 2 - bottom if placed else 0.0
    for number in range(len(placed) - 1, -1, -1):
        if over <= 0.0:
            break
        placed[number] -= over
        if number:
            over = placed[number - 1] + apart - placed[number]
    return placed


def _small(unit: float) -> float:
    return 0.8 * unit
