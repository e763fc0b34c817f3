"""Timestamps of frames: monotonic seconds from any container, and the lag of live streams."""

from __future__ import annotations

#: A step back larger than this is a broken or restarted clock, not reordering.
MAX_STEP_BACK_S = 0.5
#: A step ahead larger than this is doubted.
MAX_STEP_AHEAD_S = 5.0
#: A recording has no pause longer than this (30 days): its clock is broken.
MAX_PAUSE_S = 30 * 86_400.0
#: Seconds beyond this (3,000 years) are no time: what counts so far does not count in seconds.
MAX_CLOCK_S = 1e11
#: Steps below this share of the frame interval are a clock that stands still.
MIN_STEP = 0.01
#: Live frames without times that come at once are so far apart, in seconds.
_TOGETHER_S = 0.001


class Timeline:
    """Turns the presentation times of decoded frames into seconds that never run backwards.

    Where a time is missing or repeats, the frame follows its predecessor by one frame interval; a
    live frame without a time has that at which it came.
    Where the clock jumps back (joined recordings, a sender that was started again), time goes on
    from there: in a recording by one interval, live by what passed on this machine's clock. A jump
    ahead by more than 5 s is taken for a pause, unless it leads beyond the end that a recording
    states or takes longer than 30 days, or a live frame came long before its time.

    Args:
        frame_rate: Nominal frames per second, for frames without a usable time.
        start_s: The source's own start; the first frame's time where it is None.
        end_s: Length that a recording states, in seconds, or None.
    """

    def __init__(
        self, frame_rate: float, start_s: float | None = None, end_s: float | None = None
    ) -> None:
        self._interval_s = 1.0 / frame_rate
        self._offset_s = None if start_s is None or not _is_time(start_s) else -start_s
        self._end_s = end_s
        self._last_s: float | None = None
        self._lead_s: float | None = None  # of time over arrival, for frames that came at once

    def place(self, pts_s: float | None, arrived_s: float | None = None) -> float:
        """Returns the time of the next frame in seconds from the start.

        Args:
            pts_s: The frame's own time in seconds, or None.
            arrived_s: When a live frame came, by this machine's clock, in seconds.
        """
        if pts_s is not None and not _is_time(pts_s):
            pts_s = None
        expected_s = None
        if arrived_s is not None and self._lead_s is not None:
            expected_s = arrived_s + self._lead_s
        time_s = self._last_s = self._place(pts_s, expected_s)
        if arrived_s is not None and (pts_s is not None or self._lead_s is None):
            lead_s = time_s - arrived_s
            # A frame may be held up on its way, never sent ahead of its time.
            self._lead_s = lead_s if self._lead_s is None else max(self._lead_s, lead_s)
        return time_s

    def foresee(self, pts_s: float) -> float:
        """Returns the time that a coming frame gets if the clock goes on as it does."""
        return pts_s + (self._offset_s or 0.0)

    def _place(self, pts_s: float | None, expected_s: float | None) -> float:
        last_s = self._last_s
        if pts_s is None and expected_s is not None and last_s is not None:
            return max(expected_s, last_s + _TOGETHER_S)
        if pts_s is None:
            return 0.0 if last_s is None else last_s + self._interval_s
        if self._offset_s is None:
            self._offset_s = -pts_s
        time_s = pts_s + self._offset_s
        if last_s is None:
            return max(time_s, 0.0)
        follows_s = last_s + self._interval_s
        if time_s < last_s - MAX_STEP_BACK_S or self._is_ahead(time_s, last_s, expected_s):
            if expected_s is not None:
                follows_s = max(follows_s, expected_s)
            self._offset_s += follows_s - time_s
            return follows_s
        return time_s if time_s - last_s > MIN_STEP * self._interval_s else follows_s

    def _is_ahead(self, time_s: float, last_s: float, expected_s: float | None) -> bool:
        if time_s - last_s <= MAX_STEP_AHEAD_S:
            return False
        latest_s = self._end_s if expected_s is None else expected_s
        if latest_s is None:
            return time_s - last_s > MAX_PAUSE_S
        return time_s > latest_s + MAX_STEP_AHEAD_S


def _is_time(seconds: float) -> bool:
    return abs(seconds) <= MAX_CLOCK_S


#: A stream that is further behind than this, for so long, is not catching up by itself.
MAX_LAG_S = 1.0
PATIENCE_S = 3.0
#: A wait this long for a packet means that all buffers are empty.
_EMPTY_WAIT_S = 0.5
#: While packets are skipped, reading is quick: this many in a row that had to be waited for, each
#: for this share of the frame interval, are the newest.
_EMPTY_WAITS = 3
_EMPTY_WAIT_SHARE = 0.5
#: Clocks of sender and receiver may run apart by this share.
_DRIFT = 5e-4


class Backlog:
    """Measures how far a live connection lags behind, and skips packets to catch up.

    Where a machine is too slow for a stream, frames pile up before the decoder: in the sender, the
    network, the demuxer. They then come later and later after their time, and nothing behind the
    decoder can notice. So the frame that came soonest after its time is the reference for others.
    For use by one thread.

    Args:
        frame_interval_s: Nominal seconds between two frames.

    Attributes:
        skips: Whether packets may be skipped; otherwise lags are only measured.
        lag_s: Seconds that the newest decoded frame had waited on its way, beyond the soonest one.
        skipped_s: Seconds of video that were left out since `take_skipped_s`.
    """

    def __init__(self, frame_interval_s: float) -> None:
        self.skips = False
        self.lag_s = 0.0
        self.skipped_s = 0.0
        self._interval_s = frame_interval_s
        self._least_s: float | None = None  # arrival after its time of the soonest frame
        self._last_s = 0.0
        self._behind_since_s: float | None = None
        self._empty = False
        self._waits = 0
        self._skip_from: tuple[float, float] | None = None  # time of the first packet, arrival

    def place(self, time_s: float, arrived_s: float) -> None:
        """Takes the next decoded frame and sets `lag_s`.

        Args:
            time_s: Its time in the stream's clock.
            arrived_s: When it came, by this machine's clock.
        """
        late_s = arrived_s - time_s
        if self._least_s is None or self._empty:
            self._least_s = late_s
        else:
            allowed_s = self._least_s + _DRIFT * (arrived_s - self._last_s)
            self._least_s = min(late_s, allowed_s)
        self._empty = False
        self._last_s = arrived_s
        self.lag_s = late_s - self._least_s
        if self.lag_s <= MAX_LAG_S:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = arrived_s

    def is_wanted(
        self, time_s: float | None, *, key: bool, waited_s: float, arrived_s: float
    ) -> bool:
        """Returns whether a packet is to be decoded; if not, none is until a newer key frame.

        Args:
            time_s: Time of the packet in the stream's clock, or None.
            key: Whether decoding can start with it.
            waited_s: Seconds that reading it took.
            arrived_s: When it came, by this machine's clock.
        """
        if waited_s >= _EMPTY_WAIT_S:
            self._empty = True
            self._behind_since_s = None
        if not self.skips or time_s is None:
            return True
        if self._skip_from is None:
            since_s = self._behind_since_s
            if since_s is None or arrived_s - since_s < PATIENCE_S:
                return True
            self._skip_from = time_s, arrived_s
            self._waits = 0
        waited = waited_s >= _EMPTY_WAIT_SHARE * self._interval_s
        self._waits = self._waits + 1 if waited else 0
        self._empty = self._empty or self._waits >= _EMPTY_WAITS
        from_s, began_s = self._skip_from
        lag_s = self.lag_s + (arrived_s - began_s) - (time_s - from_s)
        if not key or not (self._empty or lag_s <= MAX_LAG_S / 2.0):
            return False
        self.skipped_s += max(0.0, time_s - from_s)
        self._skip_from = None
        self._behind_since_s = None
        return True

    def take_skipped_s(self) -> float:
        """Returns `skipped_s` and resets it."""
        skipped_s, self.skipped_s = self.skipped_s, 0.0
        return skipped_s
