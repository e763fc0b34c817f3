"""How far a live stream's frames are behind, and what to leave out to catch up.

Where a machine is too slow for a stream, frames pile up before the decoder: in the sender, the
network, the demuxer. They then come later and later after their time, and nothing behind the
decoder can tell. So the frame that came soonest after its time is the reference for the others.
"""

from __future__ import annotations

#: A stream that is further behind than this, for so long, is not catching up by itself.
MAX_LAG_S = 1.0
PATIENCE_S = 3.0
#: Who waits so long for a packet has emptied all buffers.
_EMPTY_WAIT_S = 0.5
#: While packets are left out, reading is quick: so many in a row that had to be waited for, each
#: for this share of the frame interval, are as new as packets get.
_EMPTY_WAITS = 3
_EMPTY_WAIT_SHARE = 0.5
#: Clocks of sender and receiver may run apart by this share.
_DRIFT = 5e-4


class Backlog:
    """Watches the packets and frames of one live connection; made for one thread.

    Args:
        frame_interval_s: Nominal seconds between two frames.

    Attributes:
        skips: Whether packets may be left out; else lags are only told.
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
        """Whether a packet is to be decoded; where not, none is up to a newer key frame.

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
        """`skipped_s`, which starts anew."""
        skipped_s, self.skipped_s = self.skipped_s, 0.0
        return skipped_s
