"""What the command line does with its sources: files one after the other, live ones together."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from dfd_edge.detector import Detector, OnImage
from dfd_edge.display import Window, poll_key
from dfd_edge.errors import DfdError, SourceError, UsageError
from dfd_edge.faces.finding import FacesOption
from dfd_edge.outputs import Overlay, VideoFileWriter, written_whole
from dfd_edge.outputs.reporter import Reporter
from dfd_edge.results import FrameResult, Label, Verdict
from dfd_edge.sources import Frame, Image, SourceItem, SourceKind
from dfd_edge.sources.live import Policy
from dfd_edge.watching import Watch

logger = logging.getLogger(__name__)

_SHOW_PERIOD_MS = 15
_JOIN_S = 0.1
_FINISH_VIDEO_S = 2.0

LIVE_KINDS = (SourceKind.CAMERA, SourceKind.ADDRESS)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What was asked for on the command line."""

    rate_hz: float | None = None
    policy: Policy | None = None
    max_staleness_ms: float | None = None
    duration_s: float | None = None
    faces: FacesOption = "all"
    threads: int = 1
    save_video: Path | None = None
    window: bool = False


class Run:
    """Judges sources and hands what comes out to a reporter.

    Args:
        detector: Judges.
        reporter: Prints.
        options: What was asked for.
        on_image: Called with every frame and the newest result; from several threads where
            several live sources are watched.
    """

    def __init__(
        self,
        detector: Detector,
        reporter: Reporter,
        options: RunOptions,
        *,
        on_image: OnImage | None = None,
    ) -> None:
        self.stop = threading.Event()
        self._detector = detector
        self._reporter = reporter
        self._options = options
        self._on_image = on_image

    def files(self, items: list[SourceItem]) -> None:
        """Judges files and images one after the other until all are done or `stop` is set.

        Raises:
            UsageError: The annotated video cannot be written as asked for.
        """
        for number, item in enumerate(items, start=1):
            if self.stop.is_set():
                left = len(items) - number + 1
                self._reporter.failures += left
                self._reporter.note(f"stopped; {left} of {len(items)} sources were not judged")
                return
            place = f"{number}/{len(items)} " if len(items) > 1 else ""
            self._reporter.progress.start(f"{place}{Path(item.name).name}")
            try:
                self._file(item)
            except UsageError:
                raise
            except DfdError as error:
                self._reporter.failure(item.name, error)
        self._reporter.progress.clear()

    def live(self, items: list[SourceItem]) -> None:
        """Watches live sources together until all have ended or `stop` is set.

        Raises:
            UsageError: The annotated video cannot be written as asked for.
        """
        views: list[_LiveView] = []
        with contextlib.ExitStack() as opened:
            for item in items:
                try:
                    view = self._open_view(item)
                except SourceError as error:
                    self._reporter.failure(item.name, error)
                else:
                    opened.push(view.outputs)
                    views.append(view)
            for view in views:
                view.thread.start()
            windows: dict[str, Window] = {}
            while any(view.thread.is_alive() for view in views) and not self.stop.is_set():
                if self._options.window:
                    self._show(views, windows)
                else:
                    self.stop.wait(_SHOW_PERIOD_MS / 1e3)
            for view in views:
                view.watch.close()
            for view in views:
                view.thread.join(_FINISH_VIDEO_S if view.canvas.writer else _JOIN_S)
                self._finish(view)
            for window in windows.values():
                window.close()

    def _finish(self, view: _LiveView) -> None:
        opened = view.watch.opened
        told = view.error is not None and not opened
        if not opened and view.error is None:
            view.error = SourceError(f"{view.watch.source}: stopped before it was open")
        try:
            view.finish()
        except DfdError as error:
            if not told:
                self._reporter.failure(view.watch.source, error)
        if opened:
            self._reporter.verdict(view.verdict())

    def _file(self, item: SourceItem) -> None:
        options, reporter = self._options, self._reporter
        with contextlib.ExitStack() as outputs:
            canvas = self._canvas(outputs)
            window = Window(item.name) if options.window else None
            if window is not None:
                outputs.callback(window.close)

            def draw(frame: Frame, result: FrameResult | None) -> None:
                image = canvas.draw(frame, result)
                if window is not None:
                    window.show(image)
                    self._press(poll_key(), [canvas])
                    if not window.is_open():
                        self.stop.set()

            verdict = self._detector.analyze(
                item,
                on_frame=reporter.frame,
                on_image=_together(
                    self._on_image,
                    draw if window is not None or canvas.writer is not None else None,
                ),
                on_progress=reporter.progress.update,
                rate_hz=options.rate_hz,
                duration_s=options.duration_s,
                faces=options.faces,
                stop=self.stop,
            )
            if window is not None and item.kind is SourceKind.IMAGE:
                while window.is_open() and not self.stop.is_set():
                    self._press(poll_key(_SHOW_PERIOD_MS), [canvas])
        reporter.verdict(verdict)

    def _open_view(self, item: SourceItem) -> _LiveView:
        options = self._options
        with contextlib.ExitStack() as outputs:
            canvas = self._canvas(outputs)
            drawn = options.window or canvas.writer is not None
            view = _LiveView(canvas, outputs)
            view.watch = self._detector.watch(
                item,
                policy=options.policy,
                rate_hz=options.rate_hz,
                max_staleness_ms=options.max_staleness_ms,
                duration_s=options.duration_s,
                faces=options.faces,
                wait=False,  # a source that does not answer must hold neither Ctrl-C nor the others
                on_event=self._reporter.event,
                on_image=_together(self._on_image, view.draw if drawn else None),
            )
            outputs.callback(view.watch.close)
            view.outputs = outputs.pop_all()
        view.thread = threading.Thread(
            target=view.follow, args=(self._reporter,), name=f"dfd-edge {item.name}", daemon=True
        )
        return view

    def _canvas(self, outputs: contextlib.ExitStack) -> _Canvas:
        """Where frames are drawn; with a writer where annotated video was asked for."""
        decision = self._detector.decision
        overlay = Overlay(decision.fake_threshold, decision.real_threshold)
        path = self._options.save_video
        if path is None:
            return _Canvas(overlay, None)
        writer = VideoFileWriter(
            outputs.enter_context(written_whole(path)), threads=self._options.threads
        )
        outputs.callback(writer.close)
        return _Canvas(overlay, writer)

    def _show(self, views: list[_LiveView], windows: dict[str, Window]) -> None:
        for view in views:
            image = view.newest
            if image is None:
                continue
            name = view.watch.source
            if name not in windows:
                windows[name] = Window(name)
            elif not windows[name].is_open():
                self.stop.set()
                return
            windows[name].show(image)
        self._press(poll_key(_SHOW_PERIOD_MS), [view.canvas for view in views])

    def _press(self, key: str, canvases: list[_Canvas]) -> None:
        if key == "quit":
            self.stop.set()
        elif key == "e":
            for canvas in canvases:
                canvas.overlay.evidence = not canvas.overlay.evidence


def _together(*calls: OnImage | None) -> OnImage | None:
    """One callback that makes all these calls; None where there are none."""
    wanted = [call for call in calls if call is not None]
    if len(wanted) < 2:
        return wanted[0] if wanted else None

    def call_all(frame: Frame, result: FrameResult | None) -> None:
        for call in wanted:
            call(frame, result)

    return call_all


@dataclass(slots=True)
class _Canvas:
    """Draws frames and writes them to the annotated video, where one was asked for."""

    overlay: Overlay
    writer: VideoFileWriter | None

    def draw(self, frame: Frame, result: FrameResult | None) -> Image:
        image = self.overlay.draw(frame.image, frame.time_s, result)
        if self.writer is not None:
            self.writer.add(image, frame.time_s)
        return image


@dataclass(slots=True, eq=False)
class _LiveView:
    """One live source with its thread, its newest annotated frame and the files it fills."""

    canvas: _Canvas
    outputs: contextlib.ExitStack
    watch: Watch = field(init=False)
    thread: threading.Thread = field(init=False)
    newest: Image | None = None
    error: DfdError | None = None

    def draw(self, frame: Frame, result: FrameResult | None) -> None:
        self.newest = self.canvas.draw(frame, result)

    def follow(self, reporter: Reporter) -> None:
        """Hands on results until the watch ends; runs in the source's thread."""
        shown: Label | None = None
        try:
            for result in self.watch:
                reporter.frame(result)
                reporter.live(result, changed=result.label is not shown)
                shown = result.label
        except DfdError as error:
            self.error = error
            if not self.watch.opened:
                reporter.failure(self.watch.source, error)
        except Exception as error:
            logger.exception("%s: a fault of this program", self.watch.source)
            cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.error = SourceError(f"{self.watch.source}: could not be judged further ({cause})")

    def finish(self) -> None:
        """Closes the files; after an error they are thrown away instead.

        Raises:
            DfdError: What ended the watch.
        """
        with self.outputs:
            if self.error is not None:
                raise self.error

    def verdict(self) -> Verdict:
        """The verdict so far; incomplete after an error."""
        verdict = self.watch.verdict()
        if self.error is None:
            return verdict
        reason = verdict.reason or "broken off by an error"
        return dataclasses.replace(verdict, complete=False, reason=reason)


@contextlib.contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Lets the first Ctrl-C, SIGTERM or SIGHUP set `stop`; the second one acts as usual."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signals.append(signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
