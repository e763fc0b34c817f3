"""Live sources: read in a thread of their own, newest frame first, reconnected when lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dfd_edge.errors import SourceError, UnreachableError
from dfd_edge.judging.results import EventKind
from dfd_edge.sources.frames import AllFrames, DueFrames, Frame, Shifted
from dfd_edge.sources.timing import Backlog

#: Frames that wait under the policy `every` before the reader is held up.
QUEUE_FRAMES = 8
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 8.0
#: Drops are reported at most this often.
_DROP_NEWS_S = 5.0
#: A pause between frames that is longer, and three times the one before it, is a gap.
_SILENCE_S = 2.0
_SILENCE_SHARE = 3.0
#: How often a caller who waits for the source checks whether to stop.
_POLL_S = 0.05


class Policy(StrEnum):
    """Policy for the frames of a live source: all that are due, or only the newest."""

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

    def frames(
        self, sampler: DueFrames, *, every: bool = False, bursts: bool = False
    ) -> Iterator[Frame]:
        """Yields the frames that are due, or every frame; due ones with bursts if asked for.

        Raises:
            SourceError: The source is lost.
        """
        ...

    def close(self) -> None:
        """Closes the source."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A frame of a live source.

    Attributes:
        frame: The frame; its time counts from the start of the first connection.
        captured_s: `time.monotonic()` when it could have been read, without its delay on the way.
    """

    frame: Frame
    captured_s: float


class LiveReader(threading.Thread):
    """Opens a live source and reads it until it is closed, all in a thread of its own.

    Under `latest` only the newest due frame waits, one that is overtaken is counted as dropped,
    and a network stream that falls behind is skipped forward to a newer key frame. Under `every`
    the reader waits for its frames to be taken. A live source that is lost is opened again with
    growing pauses; nothing stands in for the frames that are missing.

    Args:
        connect: Opens the source; called again after each loss. The event that it gets is set by
            `close`.
        name: What messages call the source.
        is_due: Returns whether the frame at a time is to be judged.
        on_event: Called from the reader's thread.
        policy: See `Policy`; by default `latest`, and `every` for sources with an end.
        every_image: Whether frames that are not due are delivered too, for display.
        period_s: Seconds between two due frames, to count those that were skipped.
        reconnect_s: Seconds after which a lost source is given up; 0 never opens it again, None
            tries for ever.
        foresee: Returns a copy of the sampler, for sources in a sandbox, and for bursts.
        bursts: Whether due frames carry their `Burst`.

    Attributes:
        dropped: Due frames that were overtaken before they were taken, or skipped.
        gaps: How often the source was lost, or gave nothing for a while.
        start_s: `time.monotonic()` when the source was first open; None before.
    """

    def __init__(
        self,
        connect: Callable[[threading.Event], FrameSource],
        *,
        name: str,
        is_due: Callable[[float], bool],
        on_event: Callable[[EventKind, float, str], None],
        policy: Policy | None = None,
        every_image: bool = False,
        period_s: float = 0.2,
        reconnect_s: float | None = None,
        foresee: Callable[[], DueFrames] = AllFrames,
        bursts: bool = False,
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
        self._bursts = bursts
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
        self._reported_drops_s = 0.0
        self._reported_reason: str | None = None
        self._final_reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Missing part of the present connection's frames, or None."""
        if self._closed.is_set():
            return self._final_reason
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
        """Returns the next frame; None if none came within `timeout_s`.

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
        """Asks the reader to end; returns at once. Nothing that comes later counts.

        The reader closes the source itself and is never waited for. One that waits for a
        sandbox ends within a tenth of a second. FFmpeg's wait for a network in this process, a
        camera's driver and the look-up of a host name cannot be ended from outside: the reader
        lives on until they give up.
        """
        self._final_reason = self.reason
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        """Reads the source until it ends or the reader is closed."""
        try:
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
        source = self._source = self._connect(self._closed)
        if self._closed.is_set():
            return
        self._policy = self._policy or (Policy.EVERY if source.finite else Policy.LATEST)
        with self._changed:
            self.start_s = time.monotonic()
            self._changed.notify_all()
        self._report_notes(source, 0)
        while not self._closed.is_set():
            lost = self._read(source)
            if self._closed.is_set() or source.finite:
                return
            reopened = self._reopen(lost)
            if reopened is None:
                return
            source = self._source = reopened

    def _read(self, source: FrameSource) -> SourceError | None:
        """Reads one connection to its end and returns why it was lost, None at a plain end.

        Raises:
            SourceError: A source with an end broke before it.
        """
        offset_s = self._offset_s
        backlog: Backlog = getattr(source, "backlog", None) or Backlog(self._period_s)
        backlog.skips = self._policy is Policy.LATEST

        def report_silence(from_s: float, to_s: float) -> None:
            if not (source.finite or backlog.skipped_s or self._closed.is_set()):
                damaged = source.reason != self._reported_reason
                self._reported_reason = source.reason
                self._report_silence(from_s, to_s, "no whole frame" if damaged else "nothing")

        def is_due(time_s: float) -> bool:
            # Once closed, the next frame ends the loop, however long the next due one would take.
            return self._closed.is_set() or self._is_due(time_s)

        sampler = _ConnectionSampler(is_due, self._foresee, offset_s, report_silence)
        said = len(getattr(source, "notes", ()))
        try:
            frames = source.frames(sampler, every=self._every_image, bursts=self._bursts)
            for frame in frames:
                if self._closed.is_set():
                    break
                said = self._report_notes(source, said)
                time_s = offset_s + frame.time_s
                if skipped_s := backlog.take_skipped_s():
                    self._report_skipped(skipped_s, time_s)
                placed = Frame(frame.pixels, time_s, frame.index, frame.due, frame.burst)
                self._offer(Captured(placed, time.monotonic() - backlog.lag_s))
        except SourceError as error:
            if source.finite:
                raise
            return error
        finally:
            source.close()
        return None

    def _report_notes(self, source: FrameSource, said: int) -> int:
        """Reports the notes after the first `said` ones; returns how many there are."""
        notes: tuple[str, ...] = getattr(source, "notes", ())
        for note in notes[said:]:
            self._on_event(EventKind.NOTE, 0.0, note)
        return len(notes)

    def _report_silence(self, from_s: float, to_s: float, missing: str) -> None:
        self.gaps += 1
        self._on_event(EventKind.GAP, from_s, f"{missing} came for {to_s - from_s:.1f} s")
        self._on_event(EventKind.RECONNECT, to_s, "frames come again")

    def _report_skipped(self, skipped_s: float, time_s: float) -> None:
        self.dropped += round(skipped_s / self._period_s)
        self._on_event(EventKind.DROP, time_s, f"{skipped_s:.1f} s skipped to catch up")

    def _offer(self, captured: Captured) -> None:
        with self._changed:
            if self._policy is Policy.EVERY:
                while len(self._waiting) >= QUEUE_FRAMES and not self._closed.is_set():
                    self._changed.wait(0.1)
            else:
                # The newest due frame stays, and behind it the newest for display.
                frame = captured.frame
                overtaken = [w for w in self._waiting if frame.due or not w.frame.due]
                self._waiting = deque(w for w in self._waiting if w not in overtaken)
                self._count_drops(sum(w.frame.due for w in overtaken), frame.time_s)
            self._waiting.append(captured)
            self._changed.notify_all()

    def _count_drops(self, count: int, time_s: float) -> None:
        self.dropped += count
        if count and time_s - self._reported_drops_s >= _DROP_NEWS_S:
            self._reported_drops_s = time_s
            self._on_event(EventKind.DROP, time_s, f"{self.dropped} due frames dropped so far")

    def _reopen(self, lost: SourceError | None) -> FrameSource | None:
        """Opens the source again; None when it was closed meanwhile, or is not to be opened again.

        Raises:
            SourceError: It is given up.
        """
        lost_s = time.monotonic()
        start_s = lost_s if self.start_s is None else self.start_s
        if self._reconnect_s == 0.0:
            if lost is None:
                return None
            raise lost
        self.gaps += 1
        self._on_event(EventKind.GAP, lost_s - start_s, str(lost or "the stream ended"))
        pause_s = FIRST_RETRY_S
        while not self._closed.wait(self._next_pause_s(pause_s, lost_s)):
            try:
                source = self._connect(self._closed)
            except SourceError:
                if self._is_over(lost_s):
                    why = lost or UnreachableError(self._label, "the stream ended")
                    gone = f"not back within {self._reconnect_s:g} s"
                    raise type(why)(why.source, f"{why.cause}; {gone}", why.mend) from None
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
        """Returns the pause before the next try: spread a little, with one try at the limit."""
        import random  # noqa: PLC0415 - it hashes to seed itself

        pause_s *= random.uniform(0.8, 1.2)
        if self._reconnect_s is None:
            return pause_s
        return max(0.0, min(pause_s, lost_s + self._reconnect_s - time.monotonic()))

    def _is_over(self, lost_s: float) -> bool:
        return self._reconnect_s is not None and time.monotonic() >= lost_s + self._reconnect_s


class _ConnectionSampler:
    """The stream's sampler in the clock of one connection; notices where nothing came for long.

    Args:
        is_due: Asks the sampler.
        foresee: Returns a copy of the sampler.
        offset_s: What is added to the connection's times.
        on_silence: Called with both ends of a pause between two frames that is a gap.
    """

    def __init__(
        self,
        is_due: Callable[[float], bool],
        foresee: Callable[[], DueFrames],
        offset_s: float,
        on_silence: Callable[[float, float], None],
    ) -> None:
        self._is_due = is_due
        self._foresee = foresee
        self._offset_s = offset_s
        self._on_silence = on_silence
        self._last_s: float | None = None
        self._step_s = 0.0

    def is_due(self, time_s: float) -> bool:
        now_s = self._offset_s + time_s
        if self._last_s is not None:
            step_s = now_s - self._last_s
            silent = step_s > max(_SILENCE_S, _SILENCE_SHARE * self._step_s)
            if silent:
                self._on_silence(self._last_s, now_s)
            self._step_s = step_s
        self._last_s = now_s
        return self._is_due(now_s)

    def foresee(self) -> DueFrames:
        """Returns a copy that only says which frames are due."""
        return Shifted(self._foresee(), self._offset_s)
