"""Windows that show annotated frames, their keys, and the stills that a key saves."""

from __future__ import annotations

import itertools
import os
import platform
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2

from dfd_edge.libraries import opens_windows
from dfd_edge.sinks.note import program, short_name
from dfd_edge.sinks.sink import Images, Sink, SourceState
from dfd_edge.sources.frames import Image
from dfd_edge.text import printable
from dfd_edge.view.overlay import Scene, ViewSettings, draw_help

_OTHERS = re.compile(r"[^\w.-]+")
_MOST_CHARACTERS = 48
_AFTER_HEADER = 33
"""Bytes of a PNG file's signature and its first chunk, IHDR."""
_COMPRESSION = (cv2.IMWRITE_PNG_COMPRESSION, 3)
_PROBE = (
    "import cv2, numpy\n"
    "cv2.imshow('dfd-edge', numpy.zeros((16, 16, 3), numpy.uint8))\n"
    "cv2.waitKey(1)\n"
    "cv2.destroyAllWindows()\n"
)
_PROBE_TIMEOUT_S = 20.0
_LEAST_SIDE_PX = 360
_MOST_PX = (1600, 900)
#: Keys and their actions, as listed by the help in the window.
KEYS = (
    ("q, Esc", "quit"),
    ("space, p", "pause, go on"),
    ("e", "evidence map"),
    ("s", "save a still"),
    ("h, ?", "this list"),
)
_ESCAPE = "\x1b"
_SCREEN_PX = (1920, 1080)
_STEP_PX = 40


def save_still(image: Image, source: str, time_s: float, folder: Path) -> Path:
    """Writes a still, named by source and time; existing files are not overwritten.

    Its text says that it is an annotated still, by this program, and not the original.

    Args:
        image: uint8 [height, width, 3], BGR.
        source: Name of the source: a path, a camera, an address.
        time_s: Time of the frame in seconds since the start of the source.
        folder: Folder for the still.

    Returns:
        Path of the PNG file.

    Raises:
        OSError: It cannot be written; no partial file stays.
    """
    png = _noted(cv2.imencode(".png", image, _COMPRESSION)[1].tobytes(), source, time_s)
    stem = f"{_stem(source)}_{time_s:.2f}s"
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            file = path.open("xb")
        except FileExistsError:
            continue
        try:
            with file:
                file.write(png)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path
    raise AssertionError  # count() is endless


def _noted(png: bytes, source: str, time_s: float) -> bytes:
    """Returns the PNG file with a note on what it is, as international text (PNG, 11.3.3.4)."""
    name, version = program()
    comment = (
        f"annotated still by {name} {version}; not the original; source {short_name(source)} at "
        f"{time_s:.2f} s"
    )
    texts = {"Software": f"{name} {version}", "Comment": comment}
    return (
        png[:_AFTER_HEADER] + b"".join(_text(*text) for text in texts.items()) + png[_AFTER_HEADER:]
    )


def _text(keyword: str, text: str) -> bytes:
    """Returns a chunk of uncompressed text without a language."""
    body = b"iTXt" + keyword.encode() + bytes(5) + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _stem(source: str) -> str:
    """Returns the part of a source name that is safe in file names everywhere."""
    _, scheme, rest = source.partition("://")
    name = rest.partition("?")[0] if scheme else Path(source).stem
    return _OTHERS.sub("-", name)[:_MOST_CHARACTERS].strip("-._") or "still"


@cache
def display_fault() -> str | None:
    """Returns why no window can be opened, or None.

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
    """A window that shows frames. For the main thread only.

    Args:
        title: Text of its title bar; one window for each title.
        place: x and y on the screen; by default the desktop places it.
    """

    def __init__(self, title: str, *, place: tuple[int, int] | None = None) -> None:
        self.title = title
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        if place is not None:
            cv2.moveWindow(title, *place)
        self._sized = False

    def show(self, image: Image) -> None:
        """Shows a frame, uint8 BGR; does nothing if the window was closed meanwhile."""
        try:
            if not self._sized:
                cv2.resizeWindow(self.title, *window_size(image))
                self._sized = True
            cv2.imshow(self.title, image)
        except cv2.error:
            if self.is_open():
                raise

    def close(self) -> None:
        """Closes the window, unless the user has."""
        if self.is_open():
            cv2.destroyWindow(self.title)

    def is_open(self) -> bool:
        """Returns whether the window is still open."""
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:
            return False


def window_size(image: Image) -> tuple[int, int]:
    """Returns the initial size of a window: large enough to read, small enough for a screen."""
    height, width = image.shape[:2]
    scale = max(1.0, _LEAST_SIDE_PX / min(height, width))
    scale = min(scale, _MOST_PX[0] / width, _MOST_PX[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def poll_key(wait_ms: int = 1) -> str:
    """Processes window events; returns the character of the key pressed, or "".

    Letters are lower case. Keys without a character (arrows, shift, function keys) return "".
    """
    key = cv2.waitKeyEx(wait_ms)
    if key < 0:
        return ""
    code = key & 0xFFFF  # above it some backends say which modifiers are held
    return chr(code).lower() if code < 128 else ""


@dataclass(slots=True)
class _Tiles:
    """Places windows side by side in rows, on a screen of common size."""

    left: int = 0
    top: int = 0
    row: int = 0
    rounds: int = 0

    def next_place(self, width: int, height: int) -> tuple[int, int]:
        if self.left and self.left + width > _SCREEN_PX[0]:
            self.left, self.top, self.row = 0, self.top + self.row, 0
        if self.top and self.top + height > _SCREEN_PX[1]:
            self.rounds += 1
            self.left = self.top = self.rounds * _STEP_PX
            self.row = 0
        place = self.left, self.top
        self.left += width
        self.row = max(self.row, height)
        return place


class Windows(Sink):
    """Shows annotated frames, one window a source. Keys act on all windows, whichever has focus.

    Frames may come from any thread; all other methods are for the main thread.

    Args:
        settings: Changed by the keys.
        stop: Set when the user quits.
        note: Prints a line for the user.
        folder: Folder for stills; the working directory by default.
    """

    images = Images.EVERY

    def __init__(
        self,
        settings: ViewSettings,
        *,
        stop: threading.Event,
        note: Callable[[str], None],
        folder: Path | None = None,
    ) -> None:
        self.settings = settings
        self._stop = stop
        self._note = note
        self._folder = folder
        self._windows: dict[str, Window] = {}
        self._newest: dict[str, Scene] = {}
        self._shown: dict[str, Scene] = {}
        self._tiles = _Tiles()

    def image(self, scene: Scene) -> None:
        """Draws a frame, to be shown at the next poll."""
        if not self.settings.paused:
            scene.drawn(evidence=self.settings.evidence)
        self._newest[scene.source] = scene

    def refresh(self, states: Sequence[SourceState]) -> None:
        """Shows the newest frames and handles a key; ends the run where a window was closed."""
        if not self.poll():
            self._stop.set()

    def poll(self, wait_ms: int = 1) -> bool:
        """Shows the newest frames, unless the windows are paused, and handles the key pressed.

        Args:
            wait_ms: Milliseconds to wait for a key.

        Returns:
            False when the user has closed a window.
        """
        for scene in tuple(self._newest.values()):
            self._show(scene)
        key = poll_key(wait_ms)
        if key:
            self.press(key)
        return all(window.is_open() for window in self._windows.values())

    def press(self, key: str) -> None:
        """Acts on a key; keys without a meaning do nothing.

        Args:
            key: Its character, in lower case.
        """
        settings = self.settings
        if key in ("q", _ESCAPE):
            self._stop.set()
        elif key in (" ", "p"):
            settings.paused = not settings.paused
        elif key == "e":
            settings.evidence = not settings.evidence
        elif key in ("h", "?"):
            settings.helped = not settings.helped
        elif key == "s":
            self._save_stills()
            return
        else:
            return
        for source, window in self._windows.items():
            if window.is_open():
                self._put(source, window)

    def close(self) -> None:
        """Closes the windows that are still open."""
        for window in self._windows.values():
            window.close()
        self._windows.clear()
        self._newest.clear()
        self._shown.clear()

    def _show(self, scene: Scene) -> None:
        source = scene.source
        if self._shown.get(source) is scene or (self.settings.paused and source in self._shown):
            return
        window = self._windows.get(source)
        if window is None:
            place = self._tiles.next_place(*window_size(scene.image))
            # The desktop places a single window; of several none should cover another.
            several = bool(self._windows)
            window = Window(printable(source), place=place if several else None)
            self._windows[source] = window
        self._shown[source] = scene
        self._put(source, window)

    def _put(self, source: str, window: Window) -> None:
        settings = self.settings
        image = self._shown[source].drawn(evidence=settings.evidence, paused=settings.paused)
        if settings.helped:
            image = image.copy()
            draw_help(image, KEYS)
        window.show(image)

    def _save_stills(self) -> None:
        folder = Path.cwd() if self._folder is None else self._folder
        for source, scene in self._shown.items():
            image = scene.drawn(evidence=self.settings.evidence)
            try:
                path = save_still(image, source, scene.time_s, folder)
            except OSError as error:
                self._note(f"error: no still can be saved in {folder} ({error.strerror})")
            else:
                self._note(f"still saved: {path}")
