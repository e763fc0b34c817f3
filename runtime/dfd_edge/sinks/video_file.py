"""Annotated video: H.264 in MP4 through PyAV."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

from dfd_edge.errors import DfdError, UsageError
from dfd_edge.sinks.files import FileSink
from dfd_edge.sinks.sink import Images
from dfd_edge.sources.frames import Image

if TYPE_CHECKING:
    from dfd_edge.provenance.signing import Signer
    from dfd_edge.sinks.note import CopyNote
    from dfd_edge.view.overlay import Scene, ViewSettings

_TIME_BASE = Fraction(1, 90_000)
_NOMINAL_RATE = 30
_QUALITY = {"crf": "20", "preset": "veryfast"}
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


def check_suffix(path: Path) -> None:
    """Refuses names whose suffix is no container for annotated video.

    Raises:
        UsageError: The suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: annotated video is written as {', '.join(SUFFIXES)}")


class VideoFileWriter:
    """Writes frames with their own times; the size is that of the first frame. Thread-safe.

    Args:
        path: File to write; its suffix chooses the container.
        threads: Threads that the encoder may use.
        tags: Tags of the container, by FFmpeg's names.

    Raises:
        UsageError: The suffix is none of `SUFFIXES`.
    """

    def __init__(
        self, path: Path, *, threads: int = 1, tags: Mapping[str, str] | None = None
    ) -> None:
        check_suffix(path)
        self._container = av.open(str(path), mode="w")
        self._container.metadata.update(tags or {})
        self._threads = threads
        self._lock = threading.Lock()
        self._closed = False
        self._stream: av.VideoStream | None = None
        self._last_pts = -1

    def add(self, image: Image, time_s: float) -> None:
        """Writes a frame, uint8 BGR, at its time in seconds; times that step back follow on.

        Frames that come after `close` are left out.
        """
        with self._lock:
            if not self._closed:
                self._write(image, time_s)

    def close(self) -> None:
        """Finishes the file. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()

    def _write(self, image: Image, time_s: float) -> None:
        if self._stream is None:
            self._stream = self._add_stream(image)
        width, height = self._stream.width, self._stream.height
        if image.shape[:2] != (height, width):
            fits = (image.shape[0] // 2 * 2, image.shape[1] // 2 * 2) == (height, width)
            if fits:
                image = image[:height, :width]
            else:
                image = np.asarray(cv2.resize(image, (width, height)), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame.pts = self._last_pts = max(self._last_pts + 1, round(time_s / _TIME_BASE))
        frame.time_base = _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def _add_stream(self, image: Image) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=_NOMINAL_RATE, options=_QUALITY)
        stream.height, stream.width = (side // 2 * 2 for side in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.thread_count = self._threads
        return stream


class AnnotatedVideo(FileSink):
    """Writes the annotated frames of one source to a video file.

    Args:
        path: File to write.
        settings: Whether the evidence map is drawn.
        threads: Threads that the encoder may use.
        note: Note on what it is, for its container; None for none.
        signer: Signs it when it is finished, with the file of the note as its parent; None leaves
            it unsigned.

    Attributes:
        frames: How many were written so far.

    Raises:
        DfdError: The video cannot be encoded or written.
    """

    images = Images.EVERY
    _writer: VideoFileWriter

    def __init__(
        self,
        path: Path,
        settings: ViewSettings,
        *,
        threads: int = 1,
        note: CopyNote | None = None,
        signer: Signer | None = None,
    ) -> None:
        super().__init__(path)
        self.frames = 0
        self._settings = settings
        self._threads = threads
        self._note = note
        self._signer = signer
        self._partial = path

    def image(self, scene: Scene) -> None:
        """Writes an annotated frame at its time."""
        with self._as_error():
            self._writer.add(scene.drawn(evidence=self._settings.evidence), scene.time_s)
            self.frames += 1

    def start(self, partial: Path) -> None:
        """Opens the file."""
        with self._as_error():
            tags = None if self._note is None else self._note.tags()
            self._writer = VideoFileWriter(partial, threads=self._threads, tags=tags)
        self._partial = partial

    def finish(self) -> None:
        """Finishes the file, and signs it where there is a signer."""
        with self._as_error():
            self._writer.close()
        if self._signer is not None and self._note is not None and self.frames:
            self._sign(self._signer, self._note)

    def discard(self) -> None:
        """Closes the file, which is then removed."""
        with contextlib.suppress(av.FFmpegError, OSError):
            self._writer.close()

    def _sign(self, signer: Signer, note: CopyNote) -> None:
        """Puts a signed copy in the place of the finished file."""
        signed = self._partial.with_name(f"{self._partial.stem}.signed{self._partial.suffix}")
        try:
            try:
                signer.sign_video(self._partial, signed, self.path.name, note)
            except DfdError as error:
                cause = f"the annotated video cannot be signed ({error})"
                raise DfdError(f"{self.path}: {cause}") from error
            with self._as_error():
                signed.replace(self._partial)
        finally:
            signed.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _as_error(self) -> Iterator[None]:
        """Turns errors of the encoder and the disk into the program's own."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            cause = error.strerror or type(error).__name__
            raise DfdError(
                f"{self.path}: the annotated video cannot be written ({cause})"
            ) from error
