"""From judged frames to what is seen of them: annotated frames, annotated video, live views."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av

from dfd_edge.closing import native_calls
from dfd_edge.detector import OnImage
from dfd_edge.errors import DfdError, OutputError, source_error
from dfd_edge.outputs import Overlay, VideoFileWriter, written_whole
from dfd_edge.outputs.overlay import Scene
from dfd_edge.outputs.reporter import Reporter
from dfd_edge.outputs.terminal import SourceState
from dfd_edge.results import Event, FrameResult, Label, Verdict
from dfd_edge.screen import ViewSettings
from dfd_edge.sources import Frame, Image
from dfd_edge.watching import Watch


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
