"""Packets of a recording that need not be decoded: their frames are neither due nor referred to."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av.error

from dfd_edge.sources.frames import BURST_STEP_S

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

    from dfd_edge.sources.frames import DueFrames, Foreseeable
    from dfd_edge.sources.timing import Timeline

#: FFmpeg's names of codecs whose decoders leave out a frame that no other refers to, and that put
#: one frame, which is shown, into each packet.
CODECS = frozenset(["h264", "hevc"])
#: Packets that are read ahead: more than a frame may come before those that are shown earlier.
_AHEAD = 24
#: Packets at the end that are all decoded: those of a clip cut without re-encoding may refer to
#: frames that are missing, and what FFmpeg puts there instead depends on what it decoded.
_AT_END = 8


class Skimmer:
    """Reads packets ahead and finds those whose frames will not be due.

    The decoder still decodes such a packet where other frames refer to it; where none does, it
    makes no frame, and `left_out_before` gives its time instead. So the due frames come out as they
    would have, bit by bit, and all others are still counted and timed.

    Nothing is left out before the first frame was decoded, nor ever again once the recording turns
    out not to be what its packets say: time stamps that are missing or repeat, a clock that jumps
    back, a packet that cannot be decoded.

    Args:
        packets: In the order of decoding.
        sampler: Says which frames are due; a copy of it is asked about frames to come.
        timeline: Gives the frames their times.
        time_base: Seconds of one unit of the time stamps.
        before: How many frames directly before each due one are needed too.
    """

    def __init__(
        self,
        packets: Iterator[Packet[VideoStream]],
        sampler: Foreseeable,
        timeline: Timeline,
        time_base: Fraction,
        before: int = 0,
    ) -> None:
        self._packets = packets
        self._sampler = sampler
        self._timeline = timeline
        self._time_base = time_base
        self._before = before
        self._window: deque[tuple[Packet[VideoStream], float | None]] = deque()
        self._error: av.error.FFmpegError | None = None
        self._ended = False
        self._stopped = False
        # Times in seconds of the stream's own clock.
        self._first_s: float | None = None  # of the first decoded frame
        self._coming: list[float] = []  # read, and not shown yet; rising
        self._left_out: set[float] = set()
        self._asked_s = -math.inf  # the last that the sampler was asked about
        self._order: int | None = None  # the last stamp of decoding

    def __iter__(self) -> Iterator[tuple[Packet[VideoStream], bool]]:
        """Yields each packet, and whether its frame is needed.

        Raises:
            av.error.FFmpegError: Reading failed; all that was read before has been yielded.
        """
        while True:
            while not self._ended and len(self._window) < _AHEAD:
                self._read()
            if not self._window:
                if self._error is not None:
                    raise self._error
                return
            packet, pts_s = self._window.popleft()
            needed = pts_s is None or self._is_needed(pts_s)
            if pts_s is not None and not needed:
                self._left_out.add(pts_s)
            yield packet, needed

    def stop(self) -> None:
        """Leaves nothing out from here on."""
        self._stopped = True

    def is_spare(self, pts_s: float | None) -> bool:
        """Returns whether a frame was decoded for others only; ask before `left_out_before`."""
        return pts_s in self._left_out and not self._stopped

    def left_out_before(self, pts_s: float | None) -> Iterator[float]:
        """Yields the times that were left out before a decoded frame; infinity stands for the end.

        Args:
            pts_s: The frame's own time.
        """
        if pts_s is None:
            self.stop()
            return
        if self._first_s is None:
            self._first_s = pts_s
        while self._coming and self._coming[0] <= pts_s:
            time_s = self._coming.pop(0)
            if time_s in self._left_out:
                self._left_out.remove(time_s)
                if time_s < pts_s:  # else another frame refers to it, and it was decoded
                    yield time_s

    def _read(self) -> None:
        try:
            packet = next(self._packets)
        except StopIteration:
            self._ended = True
            return
        except av.error.FFmpegError as error:
            self._ended = True
            self._error = error
            return
        pts_s = None
        # The last one is empty; what an edit list leaves out is discarded.
        if packet.size and not packet.is_discard:
            pts_s = self._check(packet.pts, packet.dts)
        self._window.append((packet, pts_s))

    def _check(self, stamp: int | None, order: int | None) -> float | None:
        """Returns the time of a packet, and stops where its stamps are not those of one film."""
        if stamp is None:
            self.stop()
            return None
        base = self._time_base
        pts_s = stamp * base.numerator / base.denominator
        at = bisect.bisect_left(self._coming, pts_s)
        if pts_s <= self._asked_s or self._coming[at : at + 1] == [pts_s]:
            self.stop()
        if order is not None:  # Matroska has none
            if self._order is not None and order < self._order:
                self.stop()
            self._order = order
        self._coming.insert(at, pts_s)
        return pts_s

    def _is_needed(self, pts_s: float) -> bool:
        if self._stopped or self._first_s is None or pts_s < self._first_s:
            return True
        # All that is shown before it was read: no frame is decoded so much earlier than shown.
        ahead = self._sampler.foresee()
        due = False
        shown = bisect.bisect_right(self._coming, pts_s)
        for time_s in self._coming[:shown]:
            due = ahead.is_due(self._timeline.foresee(time_s))
        self._asked_s = max(self._asked_s, pts_s)
        if due or (self._ended and len(self._window) <= _AT_END):
            return True
        return bool(self._before) and self._is_just_before(pts_s, shown, ahead)

    def _is_just_before(self, pts_s: float, shown: int, ahead: DueFrames) -> bool:
        """Returns whether one of the next frames is due, or not read yet.

        Args:
            pts_s: Time of the frame itself.
            shown: How many of the coming ones are shown up to it.
            ahead: A sampler that was asked about all of these.
        """
        following = self._coming[shown : shown + self._before]
        for time_s in following:
            if time_s - pts_s > BURST_STEP_S:
                return False
            self._asked_s = max(self._asked_s, time_s)
            if ahead.is_due(self._timeline.foresee(time_s)):
                return True
            pts_s = time_s
        return len(following) < self._before and not self._ended
