"""What the command line does with its sources: files one after the other, live ones together."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import av

from dfd_edge.closing import native_calls
from dfd_edge.detector import Detector, OnImage
from dfd_edge.errors import DfdError, OutputError, SourceError, UsageError, source_error
from dfd_edge.faces.finding import FacesOption
from dfd_edge.judging.results import Event, FrameResult, Label, Verdict
from dfd_edge.judging.watch import Watch
from dfd_edge.sinks.console import Reporter
from dfd_edge.sinks.csv_file import opened_csv
from dfd_edge.sinks.files import written_whole
from dfd_edge.sinks.video_file import VideoFileWriter
from dfd_edge.sources import Frame, Image, SourceItem, SourceKind
from dfd_edge.sources.live import Policy
from dfd_edge.view.overlay import Overlay, Scene
from dfd_edge.view.terminal import SourceState
from dfd_edge.view.window import Screen, ViewSettings

if TYPE_CHECKING:
    from dfd_edge.detector import Detector, OnImage
    from dfd_edge.judging.results import Event
    from dfd_edge.sources import SourceItem


class AnnotatedVideo:
    """The annotated video of a run, which appears whole or not at all. Thread-safe.

    Made by `annotated_video`.

    Attributes:
        frames: How many were written so far.
    """

    def __init__(self, writer: VideoFileWriter, path: Path) -> None:
        self.frames = 0
        self._writer = writer
        self._path = path

    def add(self, image: Image, time_s: float) -> None:
        """Writes a frame, uint8 BGR, at its time in seconds.

        Raises:
            DfdError: It cannot be encoded or written.
        """
        with _one_line(self._path):
            self._writer.add(image, time_s)
            self.frames += 1


@contextlib.contextmanager
def annotated_video(path: Path, *, threads: int) -> Iterator[AnnotatedVideo]:
    """Opens an annotated video and finishes it; after an error nothing of it stays.

    Args:
        path: File to write; one that is there is replaced at the end.
        threads: Threads that the encoder may use.

    Raises:
        UsageError: The folder does not exist or cannot be written to.
        DfdError: The video cannot be encoded or written.
    """
    with written_whole(path) as partial:
        with _one_line(path):
            writer = VideoFileWriter(partial, threads=threads)
        try:
            yield AnnotatedVideo(writer, path)
        except BaseException:
            with contextlib.suppress(av.FFmpegError, OSError):
                writer.close()
            raise
        with _one_line(path):
            writer.close()


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns troubles of the encoder and the disk into the program's own error."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        cause = error.strerror or type(error).__name__
        raise DfdError(f"{path}: the annotated video cannot be written ({cause})") from error


class Canvas:
    """Annotates the frames of one source, for a window and for annotated video.

    Args:
        overlay: Draws.
        settings: What the user has chosen.
        video: Takes every frame, or None.
    """

    def __init__(
        self, overlay: Overlay, settings: ViewSettings, video: AnnotatedVideo | None
    ) -> None:
        self.video = video
        self._overlay = overlay
        self._settings = settings

    def add(self, frame: Frame, result: FrameResult | None) -> tuple[Scene, Image | None]:
        """Takes a frame and the newest result.

        Returns:
            The scene, and the scene as drawn; None where nobody looks at it.
        """
        scene = self._overlay.scene(frame.image, frame.time_s, result)
        if self.video is None and self._settings.paused:
            return scene, None
        image = scene.drawn(evidence=self._settings.evidence)
        if self.video is not None:
            self.video.add(image, frame.time_s)
        return scene, image


@dataclass(slots=True, eq=False)
class LiveView:
    """One live source: its thread, its newest annotated frame and the files it fills.

    The thread may outlive the run, when a frame takes long. What it still brings after `leave` is
    left out: nothing is drawn, printed or written any more.

    Attributes:
        reporter: Takes the results.
        canvas: Annotates the frames.
        on_image: Called with every frame and the newest result, or None.
        drawn: Whether frames are annotated.
        outputs: Files that are finished with the source.
        watch: The source itself, set when it is opened.
        thread: Runs `follow`.
        newest: The newest scene, and the same as drawn, or None before the first frame.
        error: What ended the watch.
    """

    reporter: Reporter
    canvas: Canvas
    on_image: OnImage | None = None
    drawn: bool = False
    outputs: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    watch: Watch = field(init=False)
    thread: threading.Thread = field(init=False)
    newest: tuple[Scene, Image | None] | None = None
    error: DfdError | None = None
    _gate: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False

    @property
    def wants_images(self) -> bool:
        """Whether anything is made of the frames themselves."""
        return self.drawn or self.on_image is not None

    def take(self, watch: Watch) -> None:
        """Takes the source and makes the thread that will follow it."""
        self.watch = watch
        name = f"dfd-edge {watch.source}"
        self.thread = threading.Thread(target=self.follow, name=name, daemon=True)

    def take_image(self, frame: Frame, result: FrameResult | None) -> None:
        """Takes every frame; called in the source's thread."""
        with native_calls(), self._gate:
            if self._over:
                return
            if self.on_image is not None:
                self.on_image(frame, result)
            if self.drawn:
                self.newest = self.canvas.add(frame, result)

    def take_event(self, event: Event) -> None:
        """Takes what happened to the source; called in its reader's thread."""
        with self._gate:
            if not self._over:
                self.reporter.event(event)

    def follow(self) -> None:
        """Hands on results until the watch ends; runs in the source's thread."""
        shown: Label | None = None
        try:
            for result in self.watch:
                with self._gate:
                    if not self._over:
                        self.reporter.frame(result)
                        self.reporter.live(result, changed=result.label is not shown)
                shown = result.label
        except Exception as error:
            self._fail(error)

    def state(self) -> SourceState:
        """How the source does, for the terminal."""
        return SourceState(
            self.watch.source,
            opened=self.watch.opened,
            ended=not self.thread.is_alive(),
            dropped=self.watch.dropped,
            gaps=self.watch.gaps,
        )

    def leave(self) -> None:
        """Takes nothing any more. Safe to call twice."""
        with self._gate:
            self._over = True

    def finish(self) -> None:
        """Closes the files; after an error they are thrown away instead.

        Raises:
            DfdError: What ended the watch, or a file that cannot be finished.
        """
        self.leave()
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

    def _fail(self, error: Exception) -> None:
        """Takes what ended the watch; tells it at once where the source was never open."""
        with self._gate:
            if self._over:
                return
            self.error = source_error(self.watch.source, error)
            if not self.watch.opened and not isinstance(error, OutputError):
                self.reporter.failure(self.watch.source, self.error)


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
            view.error = SourceError(f"{view.watch.source}: stopped before it was open")
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


def report_missing(errors: list[SourceError], events: list[Event], *, as_json: bool) -> None:
    """Tells what could not be found, where nothing else is to be judged."""
    Reporter(as_json=as_json).failures_of(errors, events)


def open_reporter(
    outputs: contextlib.ExitStack,
    detector: Detector,
    items: list[SourceItem],
    *,
    as_json: bool,
    csv_path: Path | None,
    report_path: Path | None,
    webhook: str | None,
) -> tuple[Reporter, OnImage | None]:
    """What takes the results, and what takes the frames where something is made of them.

    The files are finished when `outputs` is left, or thrown away after an error; then the webhook
    gets the time it needs, within bounds.

    Raises:
        UsageError: A file cannot be written, or the webhook is no http or https address.
    """
    hook = None
    if webhook is not None:
        from dfd_edge.sinks.webhook import (
            Endpoint,
            Webhook,
        )

        hook = outputs.enter_context(Webhook(Endpoint.parse(webhook)))
    csv_file = None
    if csv_path is not None:
        csv_file = outputs.enter_context(opened_csv(csv_path))
    if report_path is None:
        return Reporter(as_json=as_json, csv_file=csv_file, webhook=hook), None
    from dfd_edge.report import CollectingReporter, reported

    collector = outputs.enter_context(reported(report_path, detector, items))
    reporter = CollectingReporter(collector, as_json=as_json, csv_file=csv_file, webhook=hook)
    return reporter, collector.image
