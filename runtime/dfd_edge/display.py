"""A window for annotated frames, on machines that have a display."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache

import cv2

from dfd_edge.libraries import opens_windows
from dfd_edge.sources.frames import Image

_PROBE = (
    "import cv2, numpy\n"
    "cv2.imshow('dfd-edge', numpy.zeros((16, 16, 3), numpy.uint8))\n"
    "cv2.waitKey(1)\n"
    "cv2.destroyAllWindows()\n"
)
_PROBE_TIMEOUT_S = 20.0
_LEAST_SIDE_PX = 360
_MOST_PX = (1600, 900)


@cache
def display_fault() -> str | None:
    """Why no window can be opened, or None where one can.

    Without a usable display `cv2.imshow` aborts the process, so a child process tries first.
    """
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if platform.system() == "Linux" and not named:
        return "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    if not opens_windows():
        return "the installed OpenCV is headless, without windows"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the display {named or ''} does not answer"
    if probe.returncode == 0:
        return None
    said = [line.strip() for line in probe.stderr.splitlines() if line.strip()]
    return f"a window cannot be opened on {named or 'this display'} ({said[-1] if said else ''})"


class Window:
    """A window that shows frames. To be used from the main thread only.

    Args:
        title: Text of its title bar; one window for each title.
        place: Where on the screen it opens, x and y; by default where the desktop puts it.
    """

    def __init__(self, title: str, *, place: tuple[int, int] | None = None) -> None:
        self.title = title
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        if place is not None:
            cv2.moveWindow(title, *place)
        self._sized = False

    def show(self, image: Image) -> None:
        """Shows a frame, uint8 BGR; nothing where the window was closed meanwhile."""
        try:
            if not self._sized:
                cv2.resizeWindow(self.title, *window_size(image))
                self._sized = True
            cv2.imshow(self.title, image)
        except cv2.error:
            if self.is_open():
                raise

    def close(self) -> None:
        """Closes the window, if its user has not."""
        if self.is_open():
            cv2.destroyWindow(self.title)

    def is_open(self) -> bool:
        """Whether the window is still there."""
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:
            return False


def window_size(image: Image) -> tuple[int, int]:
    """Width and height at which a window opens: large enough to read, small enough for a screen."""
    height, width = image.shape[:2]
    scale = max(1.0, _LEAST_SIDE_PX / min(height, width))
    scale = min(scale, _MOST_PX[0] / width, _MOST_PX[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def poll_key(wait_ms: int = 1) -> str:
    """Lets the windows draw themselves; returns the character of the key pressed, or "".

    Letters come in lower case. Keys without a character (arrows, shift, function keys) give "".
    """
    key = cv2.waitKeyEx(wait_ms)
    if key < 0:
        return ""
    code = key & 0xFFFF  # above it some backends say which modifiers are held
    return chr(code).lower() if code < 128 else ""
