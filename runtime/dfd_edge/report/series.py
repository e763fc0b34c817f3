"""Scores over time, under a bound on how many are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAX_POINTS = 4000
"""Of one person; at 5 steps a second that is a little more than 13 minutes, unthinned."""


class Point(NamedTuple):
    """One person in one sampled frame.

    Attributes:
        time_s: Seconds since the start of the source.
        p_fake: Score over the last seconds, None before the first judged step.
        p_frame: Score of this frame alone, None where the face was not judged.
        p_step: Score of the sequence model after this step, or None.
        reason: Why the face was not judged, else None.
    """

    time_s: float
    p_fake: float | None
    p_frame: float | None
    p_step: float | None
    reason: str | None


class Series:
    """Points in the order of their times, evenly thinned to at most `limit` of them.

    Args:
        limit: When so many are kept, every second one is dropped, and of those to come only
            every second, fourth, ... is taken.
    """

    def __init__(self, limit: int = MAX_POINTS) -> None:
        self.every = 1
        self._limit = limit
        self._taken = 0
        self._points: list[Point] = []

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point: Point) -> None:
        """Takes the next point."""
        if self._taken % self.every == 0:
            self._points.append(point)
        self._taken += 1
        if len(self._points) >= self._limit:
            del self._points[1::2]
            self.every *= 2
