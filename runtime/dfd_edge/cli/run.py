"""A run of `dfd-edge`: files are judged in their order, live sources together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dfd_edge.cli.together import judge_together
from dfd_edge.closing import native_calls
from dfd_edge.detector import Detector
from dfd_edge.errors import DfdError, OutputError, SourceError, UsageError, source_error
from dfd_edge.faces.selection import FacesOption
from dfd_edge.inference.processor import usable_cores
from dfd_edge.judging.recording import check_scan, plan_moments
from dfd_edge.judging.results import Event, EventKind, FrameResult, Label, Verdict
from dfd_edge.sinks.console import LiveLines, Printer
from dfd_edge.sinks.sink import Images, Sink, Sinks, SourceState
from dfd_edge.sources import Frame, SourceItem, SourceKind, SourceOptions

if TYPE_CHECKING:
    from dfd_edge.inference.provider_options import ProviderOptions
    from dfd_edge.judging.watch import Watch
    from dfd_edge.provenance.beside import Reading
    from dfd_edge.provenance.record import Provenance
    from dfd_edge.provenance.signing import Signer
    from dfd_edge.provenance.trust import TrustList
    from dfd_edge.sinks.note import SourceHashes
    from dfd_edge.sinks.video_file import AnnotatedVideo
    from dfd_edge.view.overlay import Overlay, ViewSettings
    from dfd_edge.view.window import Windows

LIVE_KINDS = (SourceKind.CAMERA, SourceKind.ADDRESS)

_REFRESH_MS = 15
_JOIN_S = 0.1
_FINISH_VIDEO_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Options of a run, by the names that they have on the command line.

    Attributes:
        sources: Files, images, folders, addresses, or "-".
        cameras: Camera numbers and device files.
        model: Folder of the bundle; None for the shipped one.
        provider: Provider of the frame model.
        precision: Variant of the frame model.
        threads: Threads that each library may use.
        provider_options: Device, memory limit and the like; None for the defaults.
        source_options: How sources are opened.
        faces: Which faces are judged.
        cropped: Whether images are face crops already.
        rate_hz: Frames judged per second; None for the bundle's own rate.
        policy: "every", "latest", or None for the default of the source.
        max_staleness_ms: Live frames that waited longer are dropped.
        duration_s: Seconds of each source that are judged.
        max_frames: Moments at which each film in a file is judged; None for all of it.
        scan: Whether films are searched for passages that look fake.
        provenance: Whether it is read what files say of their origin.
        trust_list: Certificates that are trusted for that; None for the list that is shipped.
        jobs: Files judged at once; None for one a core.
        as_json: Whether JSON Lines go to standard output.
        csv_path: CSV file, or None.
        save_video: Annotated video, or None.
        report_path: Report, or None.
        sign: Certificate and key that sign the annotated video and the report, or None.
        webhook: Address for notifications, or None.
        window: Whether windows are opened; None for live sources where there is a display.
        fail_on: Labels of a verdict that set the exit code to 3.
        verbose: Whether more is printed on standard error.
    """

    sources: tuple[str, ...] = ()
    cameras: tuple[int | str, ...] = ()
    model: Path | None = None
    provider: str = "auto"
    precision: str = "auto"
    threads: int = 1
    provider_options: ProviderOptions | None = None
    source_options: SourceOptions = field(default_factory=SourceOptions)
    faces: FacesOption = "all"
    cropped: bool = False
    rate_hz: float | None = None
    policy: str | None = None
    max_staleness_ms: float | None = None
    duration_s: float | None = None
    max_frames: int | None = None
    scan: bool = False
    provenance: bool = False
    trust_list: Path | None = None
    jobs: int | None = None
    as_json: bool = False
    csv_path: Path | None = None
    save_video: Path | None = None
    report_path: Path | None = None
    sign: tuple[Path, Path] | None = None
    webhook: str | None = None
    window: bool | None = False
    fail_on: frozenset[Label] = frozenset()
    verbose: bool = False


def failure_event(source: str, error: DfdError, provenance: Provenance | None = None) -> Event:
    """Returns the event that reports a source which could not be judged."""
    return Event(source, 0.0, EventKind.ERROR, str(error), provenance)


class Run:
    """Judges sources and hands the results to sinks.

    Args:
        detector: Judges.
        request: What is asked for.
        sinks: Receive the results; they are closed by the caller.
        printer: Prints notes and progress.
        stop: Set it to end the run; a new one by default.
        hashes: Takes the hash of each file before it is judged; None hashes those alone of which
            an annotated video is written.
        signer: Signs annotated videos; None leaves them unsigned.
        trust_list: Certificates that are trusted where provenance is read; None reads none.

    Attributes:
        verdicts: The verdicts so far.
        failures: How many sources could not be judged, or not to their end.
        stop: Ends the run when it is set.
    """

    def __init__(
        self,
        detector: Detector,
        request: RunRequest,
        sinks: Sink,
        printer: Printer,
        *,
        stop: threading.Event | None = None,
        hashes: SourceHashes | None = None,
        signer: Signer | None = None,
        trust_list: TrustList | None = None,
    ) -> None:
        self.verdicts: list[Verdict] = []
        self.failures = 0
        self.stop = stop or threading.Event()
        self._detector = detector
        self._request = request
        self._sinks = sinks
        self._printer = printer
        self._hashes = hashes
        self._signer = signer
        self._trust_list = trust_list
        self._lock = threading.Lock()

    def files(self, items: list[SourceItem]) -> None:
        """Judges files and images, in their order, until all are done or `stop` is set.

        Several are judged at once, one a core or as `jobs` says, and their results still come one
        file after the other; with windows and annotated videos it is one at a time. Whatever is
        raised while one of them is judged is reported as that file's error.

        Raises:
            UsageError: The rate or the faces do not go with the bundle.
            OutputError: Results cannot be printed any more.
        """
        if items:
            self._check_options(items)
        jobs = self._jobs(len(items))
        if jobs > 1:
            left = judge_together(items, self._judge_one, self._sinks, jobs=jobs, stop=self.stop)
        else:
            left = self._one_by_one(items)
        if left:
            self.failures += left
            self._printer.note(f"stopped; {left} of {len(items)} sources were not judged")

    def _check_options(self, items: list[SourceItem]) -> None:
        """Refuses once what each of the files would be refused for."""
        request, detector = self._request, self._detector
        detector.stream(rate_hz=request.rate_hz, faces=request.faces).close()
        if request.max_frames is not None:
            plan_moments(
                request.max_frames,
                detector.bundle.manifest,
                least=detector.decision.spec.min_steps,
                rate_hz=request.rate_hz,
            )
        if request.scan:
            piped = any(item.kind is SourceKind.STANDARD_INPUT for item in items)
            check_scan(detector.bundle.manifest, max_frames=None, on_standard_input=piped)

    def _jobs(self, files: int) -> int:
        """Returns how many files are judged at once."""
        if self._request.window or self._request.save_video is not None:
            return 1
        return min(files, self._request.jobs or max(1, int(usable_cores())))

    def _one_by_one(self, items: list[SourceItem]) -> int:
        """Judges files one after the other; returns how many were not begun."""
        for number, item in enumerate(items):
            if self.stop.is_set():
                return len(items) - number
            self._judge_one(item, self._sinks)
        return 0

    def _judge_one(self, item: SourceItem, sink: Sink) -> None:
        """Judges a file or an image, and reports whatever is raised as its error.

        Args:
            item: The file.
            sink: Receives its results.

        Raises:
            OutputError: Results cannot be printed any more.
        """
        sink.begin(item.name, live=False)
        reading: Reading | None = None
        try:
            reading = self._begin_reading(item)
            if reading is not None and self._request.csv_path is not None:
                self._pass_on_provenance(item, reading, sink)
            self._file(item, sink, reading)
        except OutputError:
            raise
        except Exception as error:
            provenance = None if reading is None else reading.result(self.stop)
            self._fail(item.name, source_error(item.name, error), sink, provenance)

    def _begin_reading(self, item: SourceItem) -> Reading | None:
        """Begins to read the provenance of a file, where that is asked for."""
        on_disk = item.kind in (SourceKind.VIDEO, SourceKind.IMAGE)
        if self._trust_list is None or not on_disk:
            return None
        from dfd_edge.provenance.beside import Reading

        return Reading(Path(str(item.location)), item.name, self._trust_list)

    def _pass_on_provenance(self, item: SourceItem, reading: Reading, sink: Sink) -> None:
        """Passes on a file's provenance before its first frame."""
        provenance = reading.result(self.stop)
        if provenance is not None:
            sink.provenance(item.name, provenance)

    def live(self, items: list[SourceItem]) -> None:
        """Watches live sources together until all have ended or `stop` is set.

        Raises:
            UsageError: The bundle does not judge live sources, or not with these options.
            OutputError: Results cannot be printed any more.
        """
        with contextlib.ExitStack() as opened:
            display = self._display(opened)
            views = self._open_views(items, display, opened)
            for view in views:
                view.thread.start()
            while any(view.thread.is_alive() for view in views) and not self._is_over():
                display.refresh([view.state() for view in views])
                self.stop.wait(_REFRESH_MS / 1e3)
            for view in views:
                view.watch.close()
            video = self._request.save_video is not None
            until_s = time.monotonic() + (_FINISH_VIDEO_S if video else _JOIN_S)
            for view in views:
                view.thread.join(max(0.0, until_s - time.monotonic()))
            if self._printer.error is not None:
                raise self._printer.error
            for view in views:
                self._finish(view)

    def _open_views(
        self, items: list[SourceItem], display: Sink, opened: contextlib.ExitStack
    ) -> list[LiveView]:
        views: list[LiveView] = []
        for item in items:
            try:
                view = self._open_view(item, display)
            except (UsageError, OutputError):
                raise
            except Exception as error:
                self._fail(item.name, source_error(item.name, error))
            else:
                opened.push(view.outputs)
                opened.callback(view.leave)
                views.append(view)
        return views

    def _open_view(self, item: SourceItem, display: Sink) -> LiveView:
        request = self._request
        with contextlib.ExitStack() as outputs:
            video = self._video(item, outputs)
            sinks = Sinks(self._sinks, display, *([] if video is None else [video]))
            view = LiveView(sinks, self._overlay(item), self._fail)
            sinks.begin(item.name, live=True)
            watch = self._detector.watch(
                item,
                policy=request.policy,
                rate_hz=request.rate_hz,
                max_staleness_ms=request.max_staleness_ms,
                duration_s=request.duration_s,
                faces=request.faces,
                wait=False,  # a source that does not answer must hold neither Ctrl-C nor the others
                on_event=view.take_event,
                on_image=view.take_image if sinks.images else None,
                every_image=sinks.images is Images.EVERY,
            )
            outputs.callback(watch.close)
            view.outputs = outputs.pop_all()
        view.take(watch)
        return view

    def _finish(self, view: LiveView) -> None:
        opened = view.watch.opened
        reported = view.error is not None and not opened
        if not opened and view.error is None:
            view.error = SourceError(view.watch.source, "stopped before it was open")
        try:
            view.finish()
        except OutputError:
            raise
        except DfdError as error:
            if not reported:
                self._fail(view.watch.source, error)
        verdict = view.verdict()
        if opened and (view.error is None or verdict.frames):
            self._decided(verdict)

    def _file(self, item: SourceItem, sink: Sink, reading: Reading | None) -> None:
        """Judges a file or an image.

        Args:
            item: The file.
            sink: Receives its results.
            reading: Reads its provenance; None where that is not asked for.

        Raises:
            DfdError: It cannot be judged, or its annotated video cannot be written; the verdict
                is printed all the same where there is one.
        """
        with contextlib.ExitStack() as last, contextlib.ExitStack() as outputs:
            verdict = self._judged(item, outputs, sink)
            if reading is not None:
                verdict = dataclasses.replace(verdict, provenance=reading.result(self.stop))
            last.callback(self._decided, verdict, sink)

    def _judged(
        self,
        item: SourceItem,
        outputs: contextlib.ExitStack,
        sink: Sink,
    ) -> Verdict:
        """Judges a file or an image while it is shown and drawn."""
        request = self._request
        if self._hashes is not None:
            self._hashes.add(item, self.stop)
        video = self._video(item, outputs)
        windows = outputs.enter_context(self._windows()) if request.window else None
        sinks = Sinks(*(one for one in (sink, video, windows) if one is not None))
        overlay = self._overlay(item) if sinks.images else None
        paused_s = 0.0

        def show(frame: Frame, result: FrameResult | None) -> None:
            nonlocal paused_s
            assert overlay is not None  # pictures were asked for
            sinks.image(overlay.scene(frame.image, frame.time_s, result))
            if windows is not None:
                paused_s += self._hold(windows)

        verdict = self._detector.analyze(
            item,
            on_frame=sinks.frame,
            on_image=show if sinks.images else None,
            every_image=sinks.images is Images.EVERY,
            on_progress=sink.progress,
            on_event=sink.event,
            rate_hz=request.rate_hz,
            duration_s=request.duration_s,
            faces=request.faces,
            cropped=request.cropped and item.kind is SourceKind.IMAGE,
            max_frames=request.max_frames,
            scan=request.scan,
            stop=self.stop,
        )
        if video is not None and not video.frames:
            self._printer.note(f"{video.path}: not written, for there is no whole frame to show")
        if windows is not None and item.kind is SourceKind.IMAGE:
            while windows.poll(_REFRESH_MS) and not self.stop.is_set():
                pass  # closing the window goes on to the next source
        return _without_pauses(verdict, paused_s)

    def _hold(self, windows: Windows) -> float:
        """Shows the newest frame, and returns the seconds for which the windows were paused."""
        windows.refresh([])
        since_s = time.perf_counter()
        while self._settings.paused and not self.stop.is_set():
            windows.refresh([])
            self.stop.wait(_REFRESH_MS / 1e3)
        return time.perf_counter() - since_s

    def _video(self, item: SourceItem, outputs: contextlib.ExitStack) -> AnnotatedVideo | None:
        path = self._request.save_video
        if path is None:
            return None
        from dfd_edge.sinks.note import CopyNote, file_of, sha256_of
        from dfd_edge.sinks.video_file import AnnotatedVideo

        source = file_of(item)
        sha256 = None if self._hashes is None else self._hashes.get(item.name)
        if source is not None and sha256 is None:
            sha256 = sha256_of(source, self.stop)
        note = CopyNote(item.name, self._detector.bundle.hash, source, sha256)
        video = AnnotatedVideo(
            path, self._settings, threads=self._request.threads, note=note, signer=self._signer
        )
        return outputs.enter_context(video)

    @functools.cached_property
    def _settings(self) -> ViewSettings:
        from dfd_edge.view.overlay import ViewSettings

        return ViewSettings()

    def _overlay(self, item: SourceItem) -> Overlay:
        from dfd_edge.view.overlay import Overlay

        decision = self._detector.decision
        return Overlay(decision.fake_threshold, decision.real_threshold, source=item.name)

    def _display(self, opened: contextlib.ExitStack) -> Sink:
        """Opens what shows live sources: a terminal, or lines of text, and windows."""
        from dfd_edge.view.terminal import LiveTerminal, terminal_for_views

        as_json = self._request.as_json
        terminal = None if self._request.window else terminal_for_views(as_json=as_json)
        if terminal is not None:
            return opened.enter_context(LiveTerminal(self._printer, terminal))
        shown: list[Sink] = [] if as_json else [LiveLines(self._printer)]
        if self._request.window:
            shown.append(opened.enter_context(self._windows()))
        return Sinks(*shown)

    def _windows(self) -> Windows:
        from dfd_edge.view.window import Windows

        self._settings.paused = False
        return Windows(self._settings, stop=self.stop, note=self._printer.note)

    def _is_over(self) -> bool:
        return self.stop.is_set() or self._printer.error is not None

    def _fail(
        self,
        source: str,
        error: DfdError,
        sink: Sink | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        with self._lock:
            self.failures += 1
        (sink or self._sinks).event(failure_event(source, error, provenance))

    def _decided(self, verdict: Verdict, sink: Sink | None = None) -> None:
        with self._lock:
            self.verdicts.append(verdict)
        (sink or self._sinks).verdict(verdict)


@dataclass(slots=True, eq=False)
class LiveView:
    """One live source: its thread, and the files that are filled from it.

    The thread may outlive the run, when a frame takes long. What it still brings after `leave` is
    dropped: nothing is drawn, printed or written any more.

    Attributes:
        sinks: Receive the results.
        overlay: Makes scenes of the frames.
        fail: Reports an error of the source.
        outputs: Files that are finished with the source.
        watch: The source itself, set when it is opened.
        thread: Runs `follow`.
        error: What ended the watch.
    """

    sinks: Sink
    overlay: Overlay
    fail: Callable[[str, DfdError], None]
    outputs: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    watch: Watch = field(init=False)
    thread: threading.Thread = field(init=False)
    error: DfdError | None = None
    _gate: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False

    def take(self, watch: Watch) -> None:
        """Takes the source and makes the thread that will follow it."""
        self.watch = watch
        name = f"dfd-edge {watch.source}"
        self.thread = threading.Thread(target=self.follow, name=name, daemon=True)

    def take_image(self, frame: Frame, result: FrameResult | None) -> None:
        """Passes on a frame; called in the source's thread."""
        with native_calls(), self._gate:
            if not self._over:
                self.sinks.image(self.overlay.scene(frame.image, frame.time_s, result))

    def take_event(self, event: Event) -> None:
        """Passes on an event; called in the thread that reads the source."""
        with self._gate:
            if not self._over:
                self.sinks.event(event)

    def follow(self) -> None:
        """Passes on results until the watch ends; runs in the source's thread."""
        try:
            for result in self.watch:
                with self._gate:
                    if not self._over:
                        self.sinks.frame(result)
        except Exception as error:
            self._broken(error)

    def state(self) -> SourceState:
        """Returns the state of the source, for live displays."""
        return SourceState(
            self.watch.source,
            opened=self.watch.opened,
            ended=not self.thread.is_alive(),
            dropped=self.watch.dropped,
            gaps=self.watch.gaps,
        )

    def leave(self) -> None:
        """Passes on nothing any more. Safe to call twice."""
        with self._gate:
            self._over = True

    def finish(self) -> None:
        """Finishes the files; after an error they are removed instead.

        Raises:
            DfdError: What ended the watch, or a file that cannot be finished.
        """
        self.leave()
        with self.outputs:
            if self.error is not None:
                raise self.error

    def verdict(self) -> Verdict:
        """Returns the verdict so far; incomplete after an error."""
        verdict = self.watch.verdict()
        if self.error is None:
            return verdict
        reason = verdict.reason or "broken off by an error"
        return dataclasses.replace(verdict, complete=False, reason=reason)

    def _broken(self, error: Exception) -> None:
        """Keeps what ended the watch; reports it at once where the source was never open."""
        with self._gate:
            if self._over:
                return
            self.error = source_error(self.watch.source, error)
            if not self.watch.opened and not isinstance(error, OutputError):
                self.fail(self.watch.source, self.error)


def _without_pauses(verdict: Verdict, paused_s: float) -> Verdict:
    """Returns the verdict with the speed that it would have without pauses."""
    factor = verdict.realtime_factor
    if not factor or paused_s < 1e-3:
        return verdict
    elapsed_s = verdict.duration_s / factor - paused_s
    factor = verdict.duration_s / elapsed_s if elapsed_s > 0.0 else None
    return dataclasses.replace(verdict, realtime_factor=factor)
