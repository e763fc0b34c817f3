"""Timestamps made whole: monotonic seconds from whatever a container says."""

from __future__ import annotations

#: A step back larger than this is a broken or restarted clock, not reordering.
MAX_STEP_BACK_S = 0.5


class Timeline:
    """Turns the presentation times of decoded frames into seconds that never run backwards.

    Where a time is missing or repeats, the frame follows its predecessor by one frame interval.
    Where the clock jumps back (joined recordings, a wrapped counter), time goes on from there.

    Args:
        frame_rate: Nominal frames per second, for frames without a usable time.
        start_s: The source's own start; the first frame's time where it is None.
    """

    def __init__(self, frame_rate: float, start_s: float | None = None) -> None:
        self._interval_s = 1.0 / frame_rate
        self._offset_s = None if start_s is None else -start_s
        self._last_s: float | None = None

    def place(self, pts_s: float | None) -> float:
        """Returns the time of the next frame in seconds from the start, given its own or None."""
        last_s = self._last_s
        if pts_s is None:
            time_s = 0.0 if last_s is None else last_s + self._interval_s
        else:
            if self._offset_s is None:
                self._offset_s = -pts_s
            time_s = pts_s + self._offset_s
            if last_s is None:
                time_s = max(time_s, 0.0)
            elif time_s < last_s - MAX_STEP_BACK_S:
                follows_s = last_s + self._interval_s
                self._offset_s += follows_s - time_s
                time_s = follows_s
            elif time_s <= last_s:
                time_s = last_s + self._interval_s
        self._last_s = time_s
        return time_s
