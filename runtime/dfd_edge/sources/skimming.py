"""Which packets of a recording need not be decoded, since nothing is made of their frames."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av.error

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

    from dfd_edge.sources.frames import Foreseeable
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
    """Reads packets ahead and tells those apart whose frames are not due.

    The decoder still decodes such a packet where other frames refer to it; where none does, it
    makes no frame, and `left_out_before` gives its time in its stead. So the frames that are
    due come out as they would have, bit by bit, and all others are still counted and timed.

    Nothing is left out before the first frame was decoded, nor ever again once the recording turns
    out not to be what its packets say: time stamps that are missing or repeat, a clock that jumps
    back, a packet that cannot be decoded.

    Args:
        packets: In the order of decoding.
        wanted: Says which frames are due; not changed.
        timeline: Gives the frames their times: a fresh one, for the skimmer alone.
        time_base: Seconds of one unit of the time stamps.
    """

    def __init__(
        self,
        packets: Iterator[Packet[VideoStream]],
        wanted: Foreseeable,
        timeline: Timeline,
        time_base: Fraction,
    ) -> None:
        self._packets = packets
        self._wanted = wanted.foresee()
        self._timeline = timeline
        self._time_base = time_base
        self._window: deque[Packet[VideoStream]] = deque()
        self._error: av.error.FFmpegError | None = None
        self._ended = False
        self._stopped = False
        self._first: int | None = None  # stamp of the first decoded frame
        self._coming: list[int] = []  # heap: stamps whose frames are not placed in time
        self._placed: int | None = None  # the last whose frame is
        self._order: int | None = None  # the last stamp of decoding
        self._due: set[int] = set()
        self._left_out: list[float] = []  # heap: seconds

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
            packet = self._window.popleft()
            yield packet, self._is_needed(packet)

    def stop(self) -> None:
        """From here on everything is needed."""
        self._stopped = True

    def started(self, stamp: int | None) -> None:
        """Says that the decoder gave its first frame; others are judged by what follows it."""
        if stamp is None:
            self.stop()
        elif self._first is None:
            self._first = stamp
            self._coming = [coming for coming in self._coming if coming >= stamp]
            heapq.heapify(self._coming)

    def left_out_before(self, pts_s: float | None) -> Iterator[float]:
        """Yields the times that were left out before a decoded frame.

        Args:
            pts_s: The frame's own time in seconds of the stream's clock, as are those that come.
        """
        if pts_s is None:
            return
        while self._left_out and self._left_out[0] < pts_s:
            yield heapq.heappop(self._left_out)
        if self._left_out and self._left_out[0] == pts_s:
            heapq.heappop(self._left_out)  # another frame refers to it: it was decoded

    def left_out(self) -> Iterator[float]:
        """Yields the times that were left out after the last decoded frame."""
        while self._left_out:
            yield heapq.heappop(self._left_out)

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
        self._window.append(packet)
        # The last one is empty; what an edit list leaves out is discarded.
        if not packet.size or packet.is_discard:
            return
        stamp = packet.pts
        if stamp is None or self._jumps_back(stamp, packet.dts):
            self.stop()
        elif self._first is None or stamp >= self._first:
            heapq.heappush(self._coming, stamp)

    def _jumps_back(self, stamp: int, order: int | None) -> bool:
        if self._placed is not None and stamp <= self._placed:
            return True
        if order is None:  # Matroska does not tell it
            return False
        last, self._order = self._order, order
        return last is not None and order < last

    def _is_needed(self, packet: Packet[VideoStream]) -> bool:
        stamp = packet.pts
        if (
            self._stopped
            or self._first is None
            or stamp is None
            or stamp < self._first
            or packet.is_discard
        ):
            return True
        # All that is shown before it was read: no frame is decoded so much earlier than shown.
        while self._coming and self._coming[0] <= stamp:
            self._place(heapq.heappop(self._coming))
        needed = stamp in self._due
        self._due.discard(stamp)
        if self._stopped or needed or (self._ended and len(self._window) <= _AT_END):
            return True
        heapq.heappush(self._left_out, self._seconds(stamp))
        return False

    def _place(self, stamp: int) -> None:
        if stamp == self._placed:
            self.stop()
        self._placed = stamp
        if self._wanted.is_due(self._timeline.place(self._seconds(stamp))):
            self._due.add(stamp)

    def _seconds(self, stamp: int) -> float:
        return float(stamp * self._time_base)
