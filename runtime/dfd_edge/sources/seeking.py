"""Parts of a file instead of all of it: which ones, and how they are reached by seeking.

A decoder can start at a key frame only. So each part is decoded from the key frame before it, and a
moment that may move is put right behind such a frame, where it costs a few frames and not hundreds.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import av.error

from dfd_edge.sources.frames import BURST_FRAMES, BURST_STEP_S, DueFrames, Sampler

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

#: A moment lies at least this long behind its key frame, so that the burst that ends with it holds
#: frames that were predicted, as nearly all frames of a film are.
SETTLE_S = 0.25
#: Share of its interval by which a moment may lie off the middle.
_MOVE_SHARE = 0.25
#: Up to here packets are read on to the next part: seeking would save less than it costs.
_NEAR_S = 4.0
#: Bytes of packets that are held back in the hope of a key frame behind them.
_MAX_HELD_BYTES = 1 << 25
#: First distance, in seconds, by which a seek that led too far is repeated from further back.
_STEP_BACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file that is looked at.

    Attributes:
        start_s: Where it starts, in seconds of the source.
        end_s: Where it ends.
        back_s, on_s: The start may be moved by so many seconds, back and on, to where decoding it
            costs little.
        single: Whether its first frame alone is due; otherwise frames at the sampling rate are.
    """

    start_s: float
    end_s: float
    back_s: float = 0.0
    on_s: float = 0.0
    single: bool = False

    def start_behind(self, key_s: float) -> float:
        """Returns the start where decoding begins with a key frame at this time."""
        settled_s = key_s + SETTLE_S
        near = self.start_s - self.back_s <= settled_s <= self.start_s + self.on_s
        return settled_s if near else self.start_s

    def latest_key_s(self, lead_s: float) -> float:
        """Returns the latest time of a key frame from which it is decoded.

        Args:
            lead_s: Seconds before the start whose frames are needed too.
        """
        return self.start_s + self.on_s - SETTLE_S if self.single else self.start_s - lead_s


def moments(count: int, length_s: float) -> tuple[Part, ...]:
    """Returns one moment for each of `count` equal intervals of a file: about their middles."""
    interval_s = length_s / count
    parts = []
    for number in range(count):
        middle_s, end_s = (number + 0.5) * interval_s, (number + 1) * interval_s
        back_s = _MOVE_SHARE * interval_s
        parts.append(Part(middle_s, end_s, back_s, min(back_s, SETTLE_S), single=True))
    return tuple(parts)


def passages(spans_s: Iterable[tuple[float, float]]) -> tuple[Part, ...]:
    """Returns parts for spans of seconds, in order; those that touch become one."""
    joined: list[tuple[float, float]] = []
    for start_s, end_s in sorted(spans_s):
        if joined and start_s <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end_s)
        else:
            joined.append((start_s, end_s))
    return tuple(Part(start_s, end_s) for start_s, end_s in joined)


Plan = Callable[[float], tuple[Part, ...]]
"""Returns the parts of a file by its length in seconds."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Plans so many moments, spread over a file.

    Attributes:
        count: How many; None where `spacing_s` says it.
        spacing_s: Seconds between two of them, where `count` is None.
        within_s: Only so many seconds from the start count; None for all.
    """

    count: int | None
    spacing_s: float = math.inf
    within_s: float | None = None

    def __call__(self, length_s: float) -> tuple[Part, ...]:
        """Returns the moments of a file of this length in seconds."""
        if self.within_s is not None:
            length_s = min(length_s, self.within_s)
        count = self.count
        if count is None:
            count = max(1, math.ceil(length_s / self.spacing_s))
        return moments(count, length_s)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Plans parts that are known already.

    Attributes:
        parts: In order, none overlapping.
    """

    parts: tuple[Part, ...]

    def __call__(self, length_s: float) -> tuple[Part, ...]:
        """Returns the parts, whatever the length."""
        del length_s
        return self.parts


class PartSampler:
    """Picks frames in some parts of a file, once these are placed in it.

    Until `place` is called, and where the moments would be as many as the frames that the rate
    picks, it is a `Sampler`: a source whose length is not known is sampled throughout.

    Args:
        plan: Gives the parts.
        rate_hz: Sampling rate within a part, in frames per second.
        apart: Whether people are expected to be the same from one part to the next.

    Attributes:
        rate_hz, period_s, apart: As given, and the period of the rate.
        current: The part that is looked for; None once all are done, and where there are none.
        start_s: Where that part starts: it may have been moved.
        throughout: Whether the whole source is sampled.
        planned: How many parts were placed.
    """

    def __init__(self, plan: Plan, rate_hz: float, *, apart: bool = True) -> None:
        self.apart = apart
        self.rate_hz = rate_hz
        self.period_s = 1.0 / rate_hz
        self.current: Part | None = None
        self.start_s = 0.0
        self.throughout = True
        self.planned = 0
        self._plan = plan
        self._rest: deque[Part] = deque()
        self._sampler = Sampler(rate_hz)

    def place(self, length_s: float) -> None:
        """Places the parts in a source of this length in seconds."""
        parts = self._plan(length_s)
        singles = sum(part.single for part in parts)
        self.throughout = singles > 1 and parts[1].start_s - parts[0].start_s <= self.period_s
        if not self.throughout:
            self.planned = len(parts)
            self._rest = deque(parts)
            self._go_on()

    def start_behind(self, key_s: float) -> None:
        """Moves the start of the current part to behind a key frame, where it may be there."""
        if self.current is not None:
            self.start_s = self.current.start_behind(key_s)

    def is_due(self, time_s: float) -> bool:
        """Returns whether the frame at `time_s` (seconds of the source) is due, and counts it."""
        if self.throughout:
            return self._sampler.is_due(time_s)
        while self.current is not None and time_s >= self.current.end_s:
            self._go_on()
        if self.current is None or time_s < self.start_s:
            return False
        if not self.current.single:
            return self._sampler.is_due(time_s)
        self._go_on()
        return True

    def foresee(self) -> PartSampler:
        """Returns an independent copy, to ask about frames that are still to come."""
        return copy.deepcopy(self)

    @property
    def is_done(self) -> bool:
        """Whether all parts are done."""
        return not self.throughout and self.current is None

    @property
    def parts(self) -> PartSampler:
        """Itself: it picks parts."""
        return self

    @property
    def left(self) -> int:
        """How many parts are not done."""
        return len(self._rest) + (self.current is not None)

    def _go_on(self) -> None:
        self.current = self._rest.popleft() if self._rest else None
        if self.current is not None:
            self.start_s = self.current.start_s
            self._sampler = Sampler(self.rate_hz)


@runtime_checkable
class PicksParts(DueFrames, Protocol):
    """A sampler with a `PartSampler`, by which a source seeks."""

    @property
    def parts(self) -> PartSampler | None:
        """The sampler of parts; None where all of the source is wanted."""
        ...


class Seeker:
    """Reads the packets from which the parts of a file are decoded, and leaves out the others.

    Each part is decoded from the last key frame before it. A near one is reached by reading on, a
    far one by seeking; where the container cannot seek, by reading on too. Packets that are read on
    the way are dropped as far as a key frame follows them.

    Args:
        container: The opened file.
        stream: Its stream that is judged.
        parts: The parts, placed; is asked about each decoded frame while the packets are taken.
        origin_s: Time of the source's start in the stream's clock, in seconds.
        time_base: Seconds of one unit of the time stamps.
        bursts: Whether the frames right before a due one are needed too.
        on_jump: Called before the first packet after some were left out: the decoder starts anew.
        fault: Why seeking is not to be tried, if it is not.

    Attributes:
        fault: Why it could not seek, else None.
        parts: The parts.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        parts: PartSampler,
        *,
        origin_s: float,
        time_base: Fraction,
        bursts: bool,
        on_jump: Callable[[], None],
        fault: str | None = None,
    ) -> None:
        self.fault = fault
        self._container = container
        self._stream = stream
        self.parts = parts
        self._origin_s = origin_s
        self._time_base = time_base
        self._lead_s = (BURST_FRAMES - 1) * BURST_STEP_S if bursts else 0.0
        self._on_jump = on_jump
        self._packets = container.demux(stream)
        self._pending: deque[Packet[VideoStream]] = deque()  # read, and to be taken first
        self._jumped = False
        self._read_s = 0.0  # the latest time that was read
        self._key_s = 0.0  # of the last key frame that was read
        self._group_s = 0.0  # longest time known to lie between two key frames
        self._back_s = 0.0

    def __iter__(self) -> Iterator[tuple[Packet[VideoStream], bool]]:
        """Yields the packets in the order of decoding, each with whether its frame is needed.

        Raises:
            av.error.FFmpegError: Reading failed.
        """
        while (part := self.parts.current) is not None:
            latest_s = part.latest_key_s(self._lead_s)
            if self.fault is None and latest_s - self._read_s > max(_NEAR_S, self._group_s):
                self._seek(latest_s)
            yield from self._read_to(part, latest_s)
            while self.parts.current is part and (packet := self._next()) is not None:
                yield packet, self._is_needed(packet)
            if self.parts.current is part:
                return  # the file ended before it

    def is_early(self, pts_s: float) -> bool:
        """Returns whether a decoded frame is needed for others only: it comes before the part.

        Args:
            pts_s: Its time in the stream's clock, in seconds.
        """
        return pts_s - self._origin_s < self.parts.start_s - self._lead_s

    def _read_to(self, part: Part, latest_s: float) -> Iterator[tuple[Packet[VideoStream], bool]]:
        """Yields packets from the last key frame before a part up to where the part begins.

        Args:
            part: The part.
            latest_s: The latest time of such a key frame.
        """
        held: deque[Packet[VideoStream]] = deque()
        held_bytes = 0
        key_s: float | None = None
        while (packet := self._next()) is not None:
            time_s = self._time_of(packet)
            if packet.is_keyframe and time_s is not None and time_s <= latest_s:
                self._jumped = self._jumped or bool(held)
                held.clear()
                held_bytes = 0
                key_s = time_s
            held.append(packet)
            held_bytes += packet.size
            if time_s is not None and time_s > latest_s:
                break
            if held_bytes > _MAX_HELD_BYTES:
                yield from self._released(held)
                held_bytes = 0
        if key_s is not None:
            self.parts.start_behind(key_s)
        # A due frame may come before all of these were decoded: the rest is then read first.
        while held and self.parts.current is part:
            yield from self._released(deque([held.popleft()]))
        self._pending.extendleft(reversed(held))

    def _released(
        self, held: deque[Packet[VideoStream]]
    ) -> Iterator[tuple[Packet[VideoStream], bool]]:
        if self._jumped:
            self._jumped = False
            self._on_jump()
        while held:
            packet = held.popleft()
            yield packet, self._is_needed(packet)

    def _next(self) -> Packet[VideoStream] | None:
        """Returns the next packet; None after the last one, which is empty."""
        if self._pending:
            return self._pending.popleft()
        packet = next(self._packets, None)
        if packet is None:
            return None
        time_s = self._time_of(packet)
        if time_s is not None:
            self._read_s = max(self._read_s, time_s)
            self._group_s = max(self._group_s, time_s - self._key_s)
            if packet.is_keyframe:
                self._key_s = time_s
        return packet

    def _seek(self, latest_s: float) -> None:
        """Goes to the last key frame up to a time, if the container finds one."""
        read_s, key_s = self._read_s, self._key_s
        while True:
            wanted_s = max(0.0, latest_s - self._back_s)
            try:
                found = self._land(wanted_s)
            except (av.error.FFmpegError, OSError, OverflowError) as error:
                self.fault = str(getattr(error, "strerror", None) or error).lower()
                return
            found_s = None if found is None else self._time_of(found)
            if found is not None and found_s is not None and found_s <= latest_s:
                break
            if wanted_s <= 0.0:  # decoding starts with the first packet, as in reading
                self._land(0.0)
                found, found_s = None, 0.0
                break
            self._back_s = max(_STEP_BACK_S, 2.0 * self._back_s)
        self._pending.clear()
        if found is not None:
            self._pending.append(found)
        self._jumped = True
        self._read_s = self._key_s = found_s
        if found_s <= read_s:  # within a group that was read before: it is longer than that
            self._group_s = max(self._group_s, read_s - min(found_s, key_s))

    def _land(self, time_s: float) -> Packet[VideoStream] | None:
        """Seeks, and returns the first key frame from there on; None where there is none."""
        offset = math.floor((time_s + self._origin_s) / self._time_base)
        self._container.seek(offset, stream=self._stream)
        self._packets = self._container.demux(self._stream)
        self._pending.clear()
        if time_s <= 0.0:
            return None
        for packet in self._packets:
            timed = packet.pts is not None or packet.dts is not None
            if packet.size and packet.is_keyframe and not packet.is_corrupt and timed:
                return packet
        return None

    def _time_of(self, packet: Packet[VideoStream]) -> float | None:
        # AVI states the times of decoding only.
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or not packet.size:
            return None
        return float(stamp * self._time_base) - self._origin_s

    def _is_needed(self, packet: Packet[VideoStream]) -> bool:
        time_s = self._time_of(packet)
        return time_s is None or not self.is_early(time_s + self._origin_s)


def length_of(container: InputContainer, stream: VideoStream, origin_s: float) -> float | None:
    """Returns the length of a file in seconds by its packets, and goes back to its start.

    Nothing is decoded. None where the packets have no times, or the container cannot seek.
    """
    last_s: float | None = None
    try:
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base:
                time_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                last_s = time_s if last_s is None else max(last_s, time_s)
        container.seek(stream.start_time or 0, stream=stream)
    except av.error.FFmpegError:
        return None
    length_s = 0.0 if last_s is None else last_s - origin_s
    return length_s if length_s > 0.0 else None
