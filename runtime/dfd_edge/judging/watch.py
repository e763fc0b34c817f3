"""Live sources: results as they arrive, and the verdict so far at any time."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from dfd_edge.closing import Closing
from dfd_edge.judging.results import Event, EventKind, FrameResult, Verdict
from dfd_edge.judging.stream import Stream
from dfd_edge.sources.frames import Frame
from dfd_edge.sources.live import Captured, FrameSource, LiveReader, Policy

_POLL_S = 0.05


class Watch(Closing, Iterator[FrameResult]):
    """Iterates over the results of a live source. `Detector.watch` returns one.

    Ends with the source, after `duration_s`, or after `close()`, which may be called from another
    thread or a signal handler. Use as a context manager where the loop may be left early.

    Args:
        stream: Judges the frames.
        connect: Opens the source; the event that it gets ends its waits.
        policy: `every` or `latest`; None chooses by the kind of source.
        max_staleness_ms: Frames that waited longer than this are dropped, not judged.
        duration_s: Seconds after which to end.
        on_event: Called with gaps, reconnects, drops and notes, from the reader's thread.
        on_image: Called in the iterating thread with every frame and the newest result.
        every_image: Without it, `on_image` gets the judged frames only.
        reconnect_s: Seconds after which a lost source is given up; 0 never opens it again, None
            tries for ever.
        wait: Whether to wait until the source is open. Otherwise it is opened in the background,
            and the first `next` raises what went wrong.

    Raises:
        SourceError: The source cannot be opened.
    """

    def __init__(
        self,
        stream: Stream,
        connect: Callable[[threading.Event], FrameSource],
        *,
        policy: Policy | None = None,
        max_staleness_ms: float | None = None,
        duration_s: float | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_image: Callable[[Frame, FrameResult | None], None] | None = None,
        every_image: bool = True,
        reconnect_s: float | None = None,
        wait: bool = True,
    ) -> None:
        self._stream = stream
        self._max_staleness_s = None if max_staleness_ms is None else max_staleness_ms / 1e3
        self._duration_s = duration_s
        self._on_event = on_event
        self._on_image = on_image
        self._newest: FrameResult | None = None
        self._closed = threading.Event()
        self._stale = 0
        self._reader = LiveReader(
            connect,
            name=stream.source,
            is_due=stream.is_due,
            foresee=stream.sampler.foresee,
            on_event=self._report,
            policy=policy,
            every_image=every_image and on_image is not None,
            period_s=stream.sampler.period_s,
            reconnect_s=reconnect_s,
            bursts=stream.takes_bursts,
        )
        self._reader.start()
        if wait:
            try:
                self._reader.wait_open()
            except BaseException:  # Ctrl-C too: the caller has nothing to close yet
                self.close()
                raise

    @property
    def source(self) -> str:
        """Name of the source."""
        return self._stream.source

    @property
    def opened(self) -> bool:
        """True once the source has been opened."""
        return self._reader.start_s is not None

    @property
    def dropped(self) -> int:
        """Number of due frames that were not judged: replaced by newer ones, or too stale."""
        return self._reader.dropped + self._stale

    @property
    def gaps(self) -> int:
        """Number of times the source was lost, or delivered nothing for a while."""
        return self._reader.gaps

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> FrameResult:
        while not self._closed.is_set():
            try:
                captured = self._reader.take(_POLL_S)
            except EOFError:
                break
            if captured is None:
                start_s = self._reader.start_s
                if start_s is not None and self._over(time.monotonic() - start_s):
                    break
                continue
            frame = captured.frame
            if self._over(frame.time_s):
                break
            if captured.frame.due and self._is_stale(captured):
                self._stale += 1
                continue
            result = None
            if captured.frame.due:
                observation = self._stream.observe(
                    frame.pixels,
                    frame.time_s,
                    captured_s=captured.captured_s,
                    burst=frame.burst,
                )
                self._newest = result = self._stream.score([observation])[0]
            if self._on_image is not None:
                self._on_image(frame, self._newest)
            if result is not None:
                return result
        self.close()
        raise StopIteration

    def verdict(self) -> Verdict:
        """Returns the verdict so far."""
        gaps = self.gaps
        reason = self._reader.reason
        if not self.opened and reason is None:
            reason = "it was not opened"
        if gaps:
            lost = f"the source was lost {gaps} {'time' if gaps == 1 else 'times'}"
            reason = lost if reason is None else f"{lost}; {reason}"
        verdict = self._stream.verdict(complete=reason is None, reason=reason)
        if not verdict.frames and reason is None:
            return dataclasses.replace(verdict, complete=False, reason="no frame came")
        return verdict

    def close(self) -> None:
        """Ends the watch; returns at once. `verdict()` stays."""
        self._closed.set()
        self._reader.close()
        self._stream.leave()

    def _over(self, time_s: float) -> bool:
        return self._duration_s is not None and time_s >= self._duration_s

    def _is_stale(self, captured: Captured) -> bool:
        if self._max_staleness_s is None:
            return False
        return time.monotonic() - captured.captured_s > self._max_staleness_s

    def _report(self, kind: EventKind, time_s: float, detail: str) -> None:
        if self._on_event is not None:
            self._on_event(Event(self._stream.source, time_s, kind, detail))
