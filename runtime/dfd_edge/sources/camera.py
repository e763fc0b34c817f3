"""Cameras through OpenCV."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dfd_edge.errors import SourceError
from dfd_edge.sources.decoding import DueFrames
from dfd_edge.sources.frame import Frame
from dfd_edge.sources.quiet import quiet_opencv

#: Indexes that are tried where the system does not list its cameras.
_TRIED_INDEXES = 4


class Camera:
    """A camera, opened.

    Args:
        device: Index of the camera, or its device file (`/dev/video2`).

    Raises:
        SourceError: No such camera, or it is in use or gives no picture; the message lists the
            cameras that were found.
    """

    finite = False
    reason: str | None = None

    def __init__(self, device: int | str) -> None:
        self.name = f"camera {device}" if isinstance(device, int) else device
        present = list_cameras()
        if _device_file(device) not in present and platform.system() == "Linux":
            raise SourceError(f"{self.name}: no such camera; {_found(present)}")
        with quiet_opencv():
            self._capture = cv2.VideoCapture(device)
            opened = self._capture.isOpened()
        if not opened:
            raise SourceError(
                f"{self.name}: cannot be opened (in use by another program, or no permission); "
                f"{_found(present)}"
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def frames(self, sampler: DueFrames) -> Iterator[Frame]:
        """Yields the frames that `sampler` asks for until the camera is lost.

        Frames that are not due are grabbed without being converted. Times are those of the grab.

        Raises:
            SourceError: The camera gives no more frames.
        """
        start_s = time.monotonic()
        index = 0
        while self._capture.grab():
            time_s = time.monotonic() - start_s
            if sampler.is_due(time_s):
                taken, image = self._capture.retrieve()
                if taken and image is not None:
                    yield Frame(np.asarray(image, dtype=np.uint8), time_s, index)
            index += 1
        raise SourceError(f"{self.name}: gives no more frames (unplugged?)")

    def close(self) -> None:
        """Lets go of the camera."""
        self._capture.release()

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
            raise SourceError(f"{camera.name}: opens but gives no picture; is it in use?")
        return int(image.shape[1]), int(image.shape[0])


def list_cameras() -> list[str]:
    """The cameras found: device files on Linux, indexes that open elsewhere."""
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
