"""Live sources: read in a thread of their own, newest frame first, reconnected when lost."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dfd_edge.errors import SourceError
from dfd_edge.judging.results import EventKind
from dfd_edge.sampling import AllFrames, DueFrames, Shifted
from dfd_edge.sources.backlog import Backlog
from dfd_edge.sources.frame import Frame
from dfd_edge.sources.interrupting import interrupted_by

#: Frames that wait under the policy `every` before the reader is held up.
QUEUE_FRAMES = 8
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 8.0
#: Drops are told at most this often.
_DROP_NEWS_S = 5.0
#: A pause between frames that is longer, and three times the one before it, is a gap.
_SILENCE_S = 2.0
_SILENCE_SHARE = 3.0
#: How often a caller who waits for the source to open looks for what should end that.
_POLL_S = 0.05


class Policy(StrEnum):
    """Which frames of a live source are judged: all that are due, or only the newest."""

    EVERY = "every"
    LATEST = "latest"


class FrameSource(Protocol):
    """An open connection to a camera, an address or a file.

    Attributes:
        finite: Whether it has an end, after which it is not opened again.
        reason: What of it is missing or could not be decoded so far; None where nothing is.
    """

    finite: bool
    reason: str | None

    def frames(self, sampler: DueFrames) -> Iterator[Frame]:
        """Yields the frames that `sampler` asks for; raises SourceError when the source is lost."""
        ...

    def close(self) -> None:
        """Lets go of the source."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A frame of a live source.

    Attributes:
        frame: The frame; its time counts from the start of the first connection.
        due: Whether it is to be judged.
        captured_s: `time.monotonic()` when it could have been read: what it waited on its way
            is taken off.
    """

    frame: Frame
    due: bool
    captured_s: float


class LiveReader(threading.Thread):
    """Opens a live source and reads it until it is closed, all in a thread of its own.

    Under `latest` only the newest due frame waits, one that is overtaken is counted as dropped,
    and a network stream that falls behind is skipped forward to a newer key frame. Under `every`
    the reader waits for its frames to be taken. A live source that is lost is opened again with
    growing pauses; nothing stands in for the frames that are missing.

    Args:
        connect: Opens the source; called again after each loss.
        name: What messages call the source.
        is_due: Says for each time whether the frame is to be judged.
        on_event: Called from the reader's thread.
        policy: See `Policy`; by default `latest`, and `every` for sources with an end.
        every_image: Whether frames that are not due are handed out too, for display.
        period_s: Seconds between two due frames, to count those that were skipped.
        reconnect_s: Seconds after which a lost source is given up; 0 never opens it again, None
            tries for ever.
        foresee: Gives a copy of what `is_due` asks, for a source that another process decodes.

    Attributes:
        dropped: Due frames that were overtaken before they were taken, or skipped to catch up.
        gaps: How often the source was lost, or gave nothing for a while.
        start_s: `time.monotonic()` when the source was first open; None before.
    """

    def __init__(
        self,
        connect: Callable[[], FrameSource],
        *,
        name: str,
        is_due: Callable[[float], bool],
        on_event: Callable[[EventKind, float, str], None],
        policy: Policy | None = None,
        every_image: bool = False,
        period_s: float = 0.2,
        reconnect_s: float | None = None,
        foresee: Callable[[], DueFrames] = AllFrames,
    ) -> None:
        super().__init__(name=f"dfd-edge reader {name}", daemon=True)
        self.dropped = 0
        self.gaps = 0
        self._label = name
        self._connect = connect
        self._is_due = is_due
        self._foresee = foresee
        self._on_event = on_event
        self._every_image = every_image
        self._period_s = period_s
        self._reconnect_s = reconnect_s
        self._policy = policy
        self._source: FrameSource | None = None
        self._waiting: deque[Captured] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self.start_s: float | None = None
        self._offset_s = 0.0  # start of the present connection in the clock of the first
        self._told_drops_s = 0.0
        self._told_reason: str | None = None

    @property
    def reason(self) -> str | None:
        """What is missing of the present connection's frames; None where nothing is."""
        if self._error is not None:
            return str(self._error)
        return None if self._source is None else self._source.reason

    def wait_open(self) -> None:
        """Waits until the source is open, or the reader was closed.

        Raises:
            SourceError: It cannot be opened.
        """
        with self._changed:
            while self.start_s is None and not self._ended and not self._closed.is_set():
                self._changed.wait(_POLL_S)
            if self.start_s is None and self._error is not None:
                raise self._error

    def take(self, timeout_s: float) -> Captured | None:
        """Next frame, or None when none came within `timeout_s`.

        Raises:
            EOFError: The source has ended and all its frames were taken.
            SourceError: A source with an end broke before it.
        """
        with self._changed:
            if not self._waiting and not self._ended:
                self._changed.wait(timeout_s)
            if self._waiting:
                captured = self._waiting.popleft()
                self._changed.notify_all()
                return captured
            if self._error is not None:
                raise self._error
            if self._ended:
                raise EOFError
            return None

    def close(self) -> None:
        """Asks the reader to end; returns at once. The reader lets go of the source itself.

        A wait for the network ends within a tenth of a second, one for a camera's driver or for
        the address of a host when the system ends it.
        """
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        try:
            with interrupted_by(self._closed):
                self._follow()
        except BaseException as error:  # raised again where frames are taken
            if not self._closed.is_set():
                self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            if self._source is not None:  # one opened while `close` was called was never read
                self._source.close()

    def _follow(self) -> None:
        """Opens the source and reads one connection after the other.

        Raises:
            SourceError: The first connection cannot be opened, a source with an end broke before
                it, or a live one was given up.
        """
        source = self._source = self._connect()
        self._policy = self._policy or (Policy.EVERY if source.finite else Policy.LATEST)
        with self._changed:
            self.start_s = time.monotonic()
            self._changed.notify_all()
        for note in getattr(source, "notes", ()):
            self._on_event(EventKind.NOTE, 0.0, note)
        while not self._closed.is_set():
            lost = self._read(source)
            if self._closed.is_set() or source.finite:
                return
            reopened = self._reopen(lost)
            if reopened is None:
                return
            source = self._source = reopened

    def _read(self, source: FrameSource) -> str | None:
        """Reads one connection to its end and returns why it was lost, None at a plain end.

        Raises:
            SourceError: A source with an end broke before it.
        """
        offset_s = self._offset_s
        backlog: Backlog = getattr(source, "backlog", None) or Backlog(self._period_s)
        backlog.skips = self._policy is Policy.LATEST

        def tell_silence(from_s: float, to_s: float) -> None:
            if not source.finite and not backlog.skipped_s:
                damaged = source.reason != self._told_reason
                self._told_reason = source.reason
                self._tell_silence(from_s, to_s, "no whole frame" if damaged else "nothing")

        wanted = _Wanted(
            self._is_due,
            self._foresee,
            offset_s,
            every=self._every_image,
            on_silence=tell_silence,
        )
        try:
            for frame in source.frames(wanted):
                time_s = offset_s + frame.time_s
                if skipped_s := backlog.take_skipped_s():
                    self._tell_skipped(skipped_s, time_s)
                placed = Frame(frame.image, time_s, frame.index)
                self._offer(Captured(placed, wanted.due, time.monotonic() - backlog.lag_s))
                if self._closed.is_set():
                    break
        except SourceError as error:
            if source.finite:
                raise
            return str(error)
        finally:
            source.close()
        return None

    def _tell_silence(self, from_s: float, to_s: float, missing: str) -> None:
        self.gaps += 1
        self._on_event(EventKind.GAP, from_s, f"{missing} came for {to_s - from_s:.1f} s")
        self._on_event(EventKind.RECONNECT, to_s, "frames come again")

    def _tell_skipped(self, skipped_s: float, time_s: float) -> None:
        self.dropped += round(skipped_s / self._period_s)
        self._on_event(EventKind.DROP, time_s, f"{skipped_s:.1f} s skipped to catch up")

    def _offer(self, captured: Captured) -> None:
        with self._changed:
            if self._policy is Policy.EVERY:
                while len(self._waiting) >= QUEUE_FRAMES and not self._closed.is_set():
                    self._changed.wait(0.1)
            else:
                # The newest due frame stays, and behind it the newest for display.
                overtaken = [w for w in self._waiting if w.due == captured.due or captured.due]
                self._waiting = deque(w for w in self._waiting if w not in overtaken)
                self._count_drops(sum(w.due for w in overtaken), captured.frame.time_s)
            self._waiting.append(captured)
            self._changed.notify_all()

    def _count_drops(self, count: int, time_s: float) -> None:
        self.dropped += count
        if count and time_s - self._told_drops_s >= _DROP_NEWS_S:
            self._told_drops_s = time_s
            self._on_event(EventKind.DROP, time_s, f"{self.dropped} due frames dropped so far")

    def _reopen(self, lost: str | None) -> FrameSource | None:
        """Opens the source again; None when it was closed meanwhile, or is not to be opened again.

        Raises:
            SourceError: It is given up.
        """
        lost_s = time.monotonic()
        start_s = lost_s if self.start_s is None else self.start_s
        why = lost or f"{self._label}: the stream ended"
        if self._reconnect_s == 0.0:
            if lost is None:
                return None
            raise SourceError(lost)
        self.gaps += 1
        self._on_event(EventKind.GAP, lost_s - start_s, lost or "the stream ended")
        pause_s = FIRST_RETRY_S
        while not self._closed.wait(self._next_pause_s(pause_s, lost_s)):
            try:
                source = self._connect()
            except SourceError:
                if self._is_over(lost_s):
                    raise SourceError(f"{why}; not back within {self._reconnect_s:g} s") from None
                pause_s = min(2.0 * pause_s, LONGEST_RETRY_S)
                continue
            if self._closed.is_set():
                source.close()
                return None
            now_s = time.monotonic()
            self._offset_s = now_s - start_s
            away = f"back after {now_s - lost_s:.1f} s"
            self._on_event(EventKind.RECONNECT, self._offset_s, away)
            return source
        return None

    def _next_pause_s(self, pause_s: float, lost_s: float) -> float:
        """How long to wait for the next try: spread a little, with one try at the limit."""
        pause_s *= random.uniform(0.8, 1.2)
        if self._reconnect_s is None:
            return pause_s
        return max(0.0, min(pause_s, lost_s + self._reconnect_s - time.monotonic()))

    def _is_over(self, lost_s: float) -> bool:
        return self._reconnect_s is not None and time.monotonic() >= lost_s + self._reconnect_s


class _Wanted:
    """Asks the stream's sampler, in its clock, and wants the other frames too for display.

    Args:
        is_due: The sampler's answer.
        foresee: Gives a copy of the sampler.
        offset_s: What is added to the connection's times.
        every: Whether frames that are not due are wanted too.
        on_silence: Called with both ends of a pause between two frames that is a gap.
    """

    def __init__(
        self,
        is_due: Callable[[float], bool],
        foresee: Callable[[], DueFrames],
        offset_s: float,
        *,
        every: bool,
        on_silence: Callable[[float, float], None],
    ) -> None:
        self._is_due = is_due
        self._foresee = foresee
        self._offset_s = offset_s
        self._every = every
        self._on_silence = on_silence
        self._last_s: float | None = None
        self._step_s = 0.0
        self.due = False

    def is_due(self, time_s: float) -> bool:
        now_s = self._offset_s + time_s
        if self._last_s is not None:
            step_s = now_s - self._last_s
            silent = step_s > max(_SILENCE_S, _SILENCE_SHARE * self._step_s)
            if silent:
                self._on_silence(self._last_s, now_s)
            self._step_s = step_s
        self._last_s = now_s
        self.due = self._is_due(now_s)
        return self.due or self._every

    def foresee(self) -> DueFrames:
        """A copy that only says which frames are wanted."""
        return AllFrames() if self._every else Shifted(self._foresee(), self._offset_s)
