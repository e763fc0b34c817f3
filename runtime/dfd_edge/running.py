"""What the command line does with its sources: files one after the other, live ones together."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dfd_edge.detector import Detector, OnImage
from dfd_edge.errors import DfdError, OutputError, SourceError, UsageError, source_error
from dfd_edge.faces.selection import FacesOption
from dfd_edge.outputs import Overlay
from dfd_edge.outputs.reporter import Reporter
from dfd_edge.results import FrameResult, Verdict
from dfd_edge.screen import Screen, ViewSettings
from dfd_edge.sources import Frame, SourceItem, SourceKind
from dfd_edge.sources.live import Policy
from dfd_edge.viewing import Canvas, LiveView, annotated_video

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
        on_image: Called with every judged frame, and with the others too where they are drawn,
            and the newest result; from several threads where several live sources are watched.
        stop: Set it to end the run; a new one by default.
    """

    def __init__(
        self,
        detector: Detector,
        reporter: Reporter,
        options: RunOptions,
        *,
        on_image: OnImage | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.stop = stop or threading.Event()
        self._detector = detector
        self._reporter = reporter
        self._options = options
        self._on_image = on_image
        self._settings = ViewSettings()

    def files(self, items: list[SourceItem]) -> None:
        """Judges files and images one after the other until all are done or `stop` is set.

        Whatever is raised while one of them is judged is that one's error.

        Raises:
            UsageError: The rate or the faces do not go with the bundle.
            OutputError: Results cannot be printed any more.
        """
        if items:
            rate_hz, faces = self._options.rate_hz, self._options.faces
            self._detector.stream(rate_hz=rate_hz, faces=faces).close()
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
            except OutputError:
                raise
            except Exception as error:
                self._reporter.failure(item.name, source_error(item.name, error))
        self._reporter.progress.clear()

    def live(self, items: list[SourceItem]) -> None:
        """Watches live sources together until all have ended or `stop` is set.

        Raises:
            UsageError: The bundle does not judge live sources, or not with these options.
            OutputError: Results cannot be printed any more.
        """
        with contextlib.ExitStack() as opened:
            views = self._open_views(items, opened)
            for view in views:
                view.thread.start()
            screen = opened.enter_context(self._screen()) if self._options.window else None
            if screen is None:
                opened.enter_context(self._reporter.live_view())
            while any(view.thread.is_alive() for view in views) and not self._is_over():
                if screen is None:
                    self._reporter.refresh([view.state() for view in views])
                    self.stop.wait(_SHOW_PERIOD_MS / 1e3)
                else:
                    self._show(screen, views)
            for view in views:
                view.watch.close()
            video = any(view.canvas.video is not None for view in views)
            until_s = time.monotonic() + (_FINISH_VIDEO_S if video else _JOIN_S)
            for view in views:
                view.thread.join(max(0.0, until_s - time.monotonic()))
            if self._reporter.output_error is not None:
                raise self._reporter.output_error
            for view in views:
                self._finish(view)

    def _open_views(self, items: list[SourceItem], opened: contextlib.ExitStack) -> list[LiveView]:
        views: list[LiveView] = []
        for item in items:
            try:
                view = self._open_view(item)
            except (UsageError, OutputError):
                raise
            except Exception as error:
                self._reporter.failure(item.name, source_error(item.name, error))
            else:
                opened.push(view.outputs)
                opened.callback(view.leave)
                views.append(view)
        return views

    def _is_over(self) -> bool:
        return self.stop.is_set() or self._reporter.output_error is not None

    def _finish(self, view: LiveView) -> None:
        opened = view.watch.opened
        told = view.error is not None and not opened
        if not opened and view.error is None:
            view.error = SourceError(view.watch.source, "stopped before it was open")
        try:
            view.finish()
        except OutputError:
            raise
        except DfdError as error:
            if not told:
                self._reporter.failure(view.watch.source, error)
        verdict = view.verdict()
        if opened and (view.error is None or verdict.frames):
            self._reporter.verdict(verdict)

    def _file(self, item: SourceItem) -> None:
        """Judges a file or an image.

        Raises:
            DfdError: It cannot be judged, or its annotated video cannot be written; the verdict
                is printed all the same where there is one.
        """
        verdict = None
        try:
            with contextlib.ExitStack() as outputs:
                verdict = self._judged(item, outputs)
        except DfdError:
            if verdict is not None:
                self._reporter.verdict(verdict)
            raise
        self._reporter.verdict(verdict)

    def _judged(self, item: SourceItem, outputs: contextlib.ExitStack) -> Verdict:
        """Judges a file or an image while it is shown and drawn."""
        options, reporter = self._options, self._reporter
        canvas = self._canvas(outputs)
        screen = outputs.enter_context(self._screen()) if options.window else None
        paused_s = 0.0

        def draw(frame: Frame, result: FrameResult | None) -> None:
            nonlocal paused_s
            scene, image = canvas.add(frame, result)
            if screen is not None:
                screen.show(item.name, scene, image)
                self._poll(screen, 1)
                since_s = time.perf_counter()
                while self._settings.paused and not self.stop.is_set():
                    self._poll(screen, _SHOW_PERIOD_MS)
                paused_s += time.perf_counter() - since_s

        drawn = screen is not None or canvas.video is not None
        verdict = self._detector.analyze(
            item,
            on_frame=reporter.frame,
            on_image=_together(self._on_image, draw if drawn else None),
            every_image=drawn,
            on_progress=reporter.progress.update,
            on_event=reporter.event,
            rate_hz=options.rate_hz,
            duration_s=options.duration_s,
            faces=options.faces,
            stop=self.stop,
        )
        if canvas.video is not None and not canvas.video.frames:
            reporter.note(f"{options.save_video}: not written, for there is no whole frame to show")
        if screen is not None and item.kind is SourceKind.IMAGE:
            while screen.poll(_SHOW_PERIOD_MS) and not self.stop.is_set():
                pass  # closing the window goes on to the next source
        return _without_pauses(verdict, paused_s)

    def _open_view(self, item: SourceItem) -> LiveView:
        options = self._options
        with contextlib.ExitStack() as outputs:
            canvas = self._canvas(outputs)
            drawn = options.window or canvas.video is not None
            view = LiveView(self._reporter, canvas, on_image=self._on_image, drawn=drawn)
            watch = self._detector.watch(
                item,
                policy=options.policy,
                rate_hz=options.rate_hz,
                max_staleness_ms=options.max_staleness_ms,
                duration_s=options.duration_s,
                faces=options.faces,
                wait=False,  # a source that does not answer must hold neither Ctrl-C nor the others
                on_event=view.take_event,
                on_image=view.take_image if view.wants_images else None,
                every_image=drawn,
            )
            outputs.callback(watch.close)
            view.outputs = outputs.pop_all()
        view.take(watch)
        return view

    def _canvas(self, outputs: contextlib.ExitStack) -> Canvas:
        """Where frames are drawn; with annotated video where it was asked for."""
        decision, path = self._detector.decision, self._options.save_video
        overlay = Overlay(decision.fake_threshold, decision.real_threshold)
        video = None
        if path is not None:
            video = outputs.enter_context(annotated_video(path, threads=self._options.threads))
        return Canvas(overlay, self._settings, video)

    def _screen(self) -> Screen:
        self._settings.paused = False
        return Screen(self._settings, stop=self.stop, note=self._reporter.note)

    def _show(self, screen: Screen, views: list[LiveView]) -> None:
        """Shows the newest frame of each live source, and takes a key."""
        for view in views:
            if view.newest is not None:
                screen.show(view.watch.source, *view.newest)
        self._poll(screen, _SHOW_PERIOD_MS)

    def _poll(self, screen: Screen, wait_ms: int) -> None:
        """Takes a key; who closes a window ends the run."""
        if not screen.poll(wait_ms):
            self.stop.set()


def _without_pauses(verdict: Verdict, paused_s: float) -> Verdict:
    """The verdict with its speed as if nobody had paused."""
    factor = verdict.realtime_factor
    if not factor or paused_s < 1e-3:
        return verdict
    elapsed_s = verdict.duration_s / factor - paused_s
    factor = verdict.duration_s / elapsed_s if elapsed_s > 0.0 else None
    return dataclasses.replace(verdict, realtime_factor=factor)


def _together(*calls: OnImage | None) -> OnImage | None:
    """One callback that makes all these calls; None where there are none."""
    wanted = [call for call in calls if call is not None]
    if len(wanted) < 2:
        return wanted[0] if wanted else None

    def call_all(frame: Frame, result: FrameResult | None) -> None:
        for call in wanted:
            call(frame, result)

    return call_all


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
