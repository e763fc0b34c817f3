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
from dfd_edge.results import EventKind
from dfd_edge.sources.decoding import DueFrames
from dfd_edge.sources.frame import Frame

#: Frames that wait under the policy `every` before the reader is held up.
QUEUE_FRAMES = 8
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 8.0
#: Drops are told at most this often.
_DROP_NEWS_S = 5.0


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
        captured_s: `time.monotonic()` when it was read.
    """

    frame: Frame
    due: bool
    captured_s: float


class LiveReader(threading.Thread):
    """Reads a live source until it is closed.

    Under `latest` only the newest due frame waits, and one that is overtaken is counted as
    dropped. Under `every` the reader waits for its frames to be taken. A live source that is lost
    is opened again with growing pauses; nothing stands in for the frames that are missing.

    Args:
        connect: Opens the source; called again after each loss.
        name: What messages call the source.
        is_due: Says for each time whether the frame is to be judged.
        on_event: Called from the reader's thread.
        policy: See `Policy`; by default `latest`, and `every` for sources with an end.
        every_image: Whether frames that are not due are handed out too, for display.

    Attributes:
        dropped: Due frames that were overtaken before they were taken.
        gaps: How often the source was lost.
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
    ) -> None:
        super().__init__(name=f"dfd-edge reader {name}", daemon=True)
        self.dropped = 0
        self.gaps = 0
        self._connect = connect
        self._is_due = is_due
        self._on_event = on_event
        self._every_image = every_image
        self._source = connect()  # the first connection's error is the caller's
        finite = self._source.finite
        self._policy = policy or (Policy.EVERY if finite else Policy.LATEST)
        self._waiting: deque[Captured] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._start_s = time.monotonic()
        self._offset_s = 0.0  # start of the present connection in the clock of the first
        self._told_drops_s = 0.0

    @property
    def reason(self) -> str | None:
        """What is missing of the present connection's frames; None where nothing is."""
        return self._source.reason if self._error is None else str(self._error)

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
        """Asks the reader to end; returns at once. The reader lets go of the source itself."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        try:
            while not self._closed.is_set():
                lost = self._read()
                if self._closed.is_set() or self._source.finite or not self._reopen(lost):
                    return
        except BaseException as error:  # raised again where frames are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._source.close()  # one that was opened while `close` was called was never read

    def _read(self) -> str | None:
        """Reads one connection to its end and returns why it was lost, None at a plain end.

        Raises:
            SourceError: A source with an end broke before it.
        """
        source, offset_s = self._source, self._offset_s
        wanted = _Wanted(self._is_due, offset_s, every=self._every_image)
        try:
            for frame in source.frames(wanted):
                time_s = offset_s + frame.time_s
                self._offer(
                    Captured(Frame(frame.image, time_s, frame.index), wanted.due, time.monotonic())
                )
                if self._closed.is_set():
                    break
        except SourceError as error:
            if source.finite:
                raise
            return str(error)
        finally:
            source.close()
        return None

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

    def _reopen(self, lost: str | None) -> bool:
        """Opens the source again; False when it was closed meanwhile."""
        self.gaps += 1
        lost_s = time.monotonic()
        self._on_event(EventKind.GAP, lost_s - self._start_s, lost or "the stream ended")
        pause_s = FIRST_RETRY_S
        while not self._closed.wait(pause_s * random.uniform(0.8, 1.2)):
            try:
                self._source = self._connect()
            except SourceError:
                pause_s = min(2.0 * pause_s, LONGEST_RETRY_S)
                continue
            if self._closed.is_set():
                return False
            now_s = time.monotonic()
            self._offset_s = now_s - self._start_s
            away = f"back after {now_s - lost_s:.1f} s"
            self._on_event(EventKind.RECONNECT, self._offset_s, away)
            return True
        return False


class _Wanted:
    """Asks the stream's sampler, in its clock, and wants the other frames too for display."""

    def __init__(self, is_due: Callable[[float], bool], offset_s: float, *, every: bool) -> None:
        self._is_due = is_due
        self._offset_s = offset_s
        self._every = every
        self.due = False

    def is_due(self, time_s: float) -> bool:
        self.due = self._is_due(self._offset_s + time_s)
        return self.due or self._every
