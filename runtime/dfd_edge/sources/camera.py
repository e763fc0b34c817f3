"""Cameras through OpenCV."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dfd_edge.closing import native_calls
from dfd_edge.errors import CameraError
from dfd_edge.sources.bursts import ForeseenBursts
from dfd_edge.sources.frames import MIN_SIDE, DueFrames, Frame
from dfd_edge.sources.image import quiet_opencv
from dfd_edge.sources.options import MAX_RATE_HZ, CameraOptions

logger = logging.getLogger(__name__)

#: Indexes that are tried where the system does not list its cameras.
_TRIED_INDEXES = 4
#: Rates that differ by less are the same: 29.97 is 30.
_FPS_TOLERANCE = 0.05


class Camera:
    """A camera, opened.

    Args:
        device: Index of the camera, or its device file (`/dev/video2`).
        options: What is asked of it. A camera takes the nearest that it has; where that is
            something else, a warning in the log says what it gives.

    Raises:
        SourceError: No such camera, or it is in use or gives no picture; the message lists the
            cameras that were found.
    """

    finite = False
    reason: str | None = None

    def __init__(self, device: int | str, options: CameraOptions | None = None) -> None:
        self.name = f"camera {device}" if isinstance(device, int) else device
        present = list_cameras()
        if _device_file(device) not in present and platform.system() == "Linux":
            raise CameraError(self.name, "no such camera", _found(present))
        with native_calls(), quiet_opencv():
            self._capture = cv2.VideoCapture(device)
            opened = self._capture.isOpened()
        if not opened:
            raise CameraError(
                self.name,
                "cannot be opened (in use by another program, or no permission)",
                _found(present),
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if options is not None:
            with quiet_opencv():
                self._ask_for(options)

    def frames(
        self, sampler: DueFrames, *, every: bool = False, bursts: bool = False
    ) -> Iterator[Frame]:
        """Yields the due frames until the camera is lost.

        Other frames are grabbed without being converted. Times are those of the grab.

        Args:
            sampler: Says which frames are due.
            every: Whether the other frames are yielded too, for display.
            bursts: Whether due frames carry their `Burst`, for which those that come directly
                before them, as far as that can be foreseen, are converted too.

        Raises:
            SourceError: The camera gives no more frames.
        """
        start_s = time.monotonic()
        ahead = ForeseenBursts(sampler) if bursts else None
        index = 0
        while self._grab():
            time_s = time.monotonic() - start_s
            due = sampler.is_due(time_s)
            wanted = ahead is not None and ahead.wants(time_s, due=due)
            if due or every or wanted:
                with native_calls():
                    taken, retrieved = self._capture.retrieve()
                if taken and retrieved is not None:
                    image = np.asarray(retrieved, dtype=np.uint8)
                    burst = ahead.keep(image, time_s) if ahead is not None and wanted else None
                    if due or every:
                        yield Frame(image, time_s, index, due, burst if due else None)
                elif ahead is not None:
                    ahead.interrupt()
            index += 1
        raise CameraError(self.name, "gives no more frames (unplugged?)")

    def close(self) -> None:
        """Closes the camera."""
        with native_calls():
            self._capture.release()

    def _grab(self) -> bool:
        with native_calls():
            return bool(self._capture.grab())

    def _ask_for(self, options: CameraOptions) -> None:
        """Applies the options to the camera, and logs what it gives instead."""
        capture = self._capture
        # In this order: the pixel format decides which sizes there are, the size which rates.
        if options.pixel_format is not None:
            letters = [ord(letter) for letter in options.pixel_format]
            capture.set(cv2.CAP_PROP_FOURCC, sum(code << 8 * n for n, code in enumerate(letters)))
        if options.width is not None and options.height is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.height)
        if options.fps is not None:
            capture.set(cv2.CAP_PROP_FPS, options.fps)
        for asked, given in _compare(options, _settings(capture)):
            logger.warning("%s: asked for %s, gives %s", self.name, asked, given)

    @classmethod
    def check(cls, device: int | str) -> tuple[int, int]:
        """Opens a camera for one frame and returns its width and height in pixels.

        Raises:
            SourceError: It cannot be opened, or gives no picture.
        """
        camera = cls(device)
        try:
            taken, image = camera._capture.read()
        finally:
            camera.close()
        if not taken or image is None:
            raise CameraError(camera.name, "opens but gives no picture", "is it in use?")
        return int(image.shape[1]), int(image.shape[0])


def _settings(capture: cv2.VideoCapture) -> CameraOptions:
    """Returns the settings that an open camera reports; None where it reports none."""
    width, height = (
        round(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    sized = min(width, height) >= MIN_SIDE
    fps = capture.get(cv2.CAP_PROP_FPS)
    code = max(0, int(capture.get(cv2.CAP_PROP_FOURCC)))
    letters = code.to_bytes(8, "little")[:4].decode("ascii", errors="replace")
    return CameraOptions(
        width=width if sized else None,
        height=height if sized else None,
        fps=fps if 0.0 < fps <= MAX_RATE_HZ else None,
        pixel_format=letters if letters.isascii() and letters.isprintable() else None,
    )


def _compare(asked: CameraOptions, given: CameraOptions) -> Iterator[tuple[str, str]]:
    """Yields the settings that the camera refused, as pairs of texts: asked, given."""
    size, given_size = (asked.width, asked.height), (given.width, given.height)
    if None not in size and None not in given_size and size != given_size:
        yield "{}x{}".format(*size), "{}x{}".format(*given_size)
    if asked.fps and given.fps and abs(asked.fps - given.fps) > _FPS_TOLERANCE * asked.fps:
        yield f"{asked.fps:g} fps", f"{given.fps:g} fps"
    if asked.pixel_format and given.pixel_format and asked.pixel_format != given.pixel_format:
        yield asked.pixel_format, given.pixel_format


def list_cameras() -> list[str]:
    """Returns the cameras found: device files on Linux, indexes that open elsewhere."""
    if platform.system() == "Linux":
        return sorted(str(path) for path in Path("/dev").glob("video*") if path.name[5:].isdigit())
    found = []
    with quiet_opencv():
        for index in range(_TRIED_INDEXES):
            capture = cv2.VideoCapture(index)
            if capture.isOpened():
                found.append(str(index))
            capture.release()
    return found


def _device_file(device: int | str) -> str:
    return f"/dev/video{device}" if isinstance(device, int) else device


def _found(present: list[str]) -> str:
    return f"found: {', '.join(present)}" if present else "no camera was found on this machine"
