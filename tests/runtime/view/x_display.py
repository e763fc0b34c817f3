"""A virtual screen: which windows are on it, what they show, keys pressed in them."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

KEYSYMS = {"Escape": 0xFF1B, " ": 0x20, "?": 0x3F, "Left": 0xFF51}
_SHIFT = 0xFFE1
_PATIENCE_S = 60.0
_CLIENT_MESSAGE = 33


def missing() -> str | None:
    """What a virtual screen lacks on this machine, or None."""
    if shutil.which("Xvfb") is None:
        return "Xvfb is not installed"
    for name in ("X11", "Xtst"):
        if ctypes.util.find_library(name) is None:
            return f"lib{name} is not installed"
    return None


class InVain(AssertionError):
    """What was waited for did not come."""


def try_again(use: Callable[[Path], None], folder: Path, times: int = 3) -> None:
    """Uses windows of a fresh screen again where something was waited for in vain.

    On a busy machine a window that opens without a window manager may take no key at all.
    """
    for number in range(times):
        place = folder / str(number)
        place.mkdir()
        try:
            return use(place)
        except InVain:
            if number == times - 1:
                raise
    return None


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = _PATIENCE_S) -> Any:
    """Waits until a condition holds and returns what it gave."""
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s:
        if found := condition():
            return found
        time.sleep(0.05)
    raise InVain(f"waited in vain for {what}")


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def _go_on(display: int, error: int) -> int:
    """Takes an error of the X server: a window may be gone before a key reaches it."""
    return 0


class _ClientMessage(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 12),  # an XEvent is larger than this kind of it
    )


class Screen:
    """A screen of its own, without a window manager. Use as a context manager."""

    def __init__(self, width: int = 1280, height: int = 800) -> None:
        self._folder = Path(tempfile.mkdtemp())
        read, write = os.pipe()
        size = f"{width}x{height}x24"
        command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp"]
        command += ["-r", "-fbdir", str(self._folder)]  # without auto-repeat: machines may be slow
        self._server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as told:
            self.name = f":{told.readline().strip()}"
        self._x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
        self._xtst = ctypes.CDLL(ctypes.util.find_library("Xtst"))
        pointer, number = ctypes.c_void_p, ctypes.c_ulong
        self._x11.XOpenDisplay.restype = pointer
        self._x11.XDefaultRootWindow.restype = number
        self._x11.XInternAtom.restype = number
        self._x11.XKeysymToKeycode.restype = ctypes.c_ubyte
        self._x11.XSetErrorHandler(_go_on)
        self._display = pointer(self._x11.XOpenDisplay(self.name.encode()))
        assert self._display, f"no connection to {self.name}"
        self._root = number(self._x11.XDefaultRootWindow(self._display))

    def windows(self) -> dict[str, int]:
        """The windows, by title."""
        root, parent, children = (
            ctypes.c_ulong(),
            ctypes.c_ulong(),
            ctypes.POINTER(ctypes.c_ulong)(),
        )
        count = ctypes.c_uint()
        self._x11.XQueryTree(
            self._display,
            self._root,
            ctypes.byref(root),
            ctypes.byref(parent),
            ctypes.byref(children),
            ctypes.byref(count),
        )
        found = {}
        for index in range(count.value):
            name = ctypes.c_char_p()
            window = ctypes.c_ulong(children[index])
            if self._x11.XFetchName(self._display, window, ctypes.byref(name)) and name.value:
                found[name.value.decode()] = window.value
        if children:
            self._x11.XFree(children)
        return found

    def wait_for_window(self, title: str) -> int:
        """Waits until a window with this in its title is there."""

        def find() -> int | None:
            return next((w for name, w in self.windows().items() if title in name), None)

        return int(wait_for(find, f"the window {title!r}"))

    def press_until(
        self, window: int, key: str, condition: Callable[[], Any], what: str, times: int = 8
    ) -> Any:
        """Presses a key until a condition holds: a window that has just opened may lose the first.

        Returns what the condition gave.
        """
        for _ in range(times - 1):
            self.press(window, key)
            with contextlib.suppress(AssertionError):
                return wait_for(condition, what, _PATIENCE_S / times)
        self.press(window, key)
        return wait_for(condition, what, _PATIENCE_S / times)

    def press(self, window: int, key: str) -> None:
        """Presses a key in a window: a character, or a name of `KEYSYMS`."""
        wait_for(lambda: self._focus(window), "a window that takes keys")
        keysym = KEYSYMS.get(key) or ord(key)
        code = self._x11.XKeysymToKeycode(self._display, ctypes.c_ulong(keysym))
        codes = [code]
        if key == "?":
            codes = [self._x11.XKeysymToKeycode(self._display, ctypes.c_ulong(_SHIFT)), code]
        for down, order in ((1, codes), (0, codes[::-1])):
            for each in order:
                self._xtst.XTestFakeKeyEvent(self._display, each, down, ctypes.c_ulong(0))
        self._x11.XSync(self._display, 0)

    def _focus(self, window: int) -> bool:
        """Turns the keyboard to a window; False while it cannot be seen yet."""
        self._x11.XSetInputFocus(self._display, ctypes.c_ulong(window), 1, ctypes.c_ulong(0))
        self._x11.XSync(self._display, 0)
        focused, reverts = ctypes.c_ulong(), ctypes.c_int()
        self._x11.XGetInputFocus(self._display, ctypes.byref(focused), ctypes.byref(reverts))
        return focused.value == window

    def close_window(self, window: int) -> None:
        """Asks a window to close, as a click on its cross does."""
        event = _ClientMessage(type=_CLIENT_MESSAGE, window=window, format=32)
        event.message_type = self._x11.XInternAtom(self._display, b"WM_PROTOCOLS", 0)
        event.data[0] = self._x11.XInternAtom(self._display, b"WM_DELETE_WINDOW", 0)
        self._x11.XSendEvent(
            self._display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(event)
        )
        self._x11.XSync(self._display, 0)

    def picture(self) -> NDArray[np.uint8]:
        """What the screen shows: uint8 [height, width, 3], BGR."""
        raw = (self._folder / "Xvfb_screen0").read_bytes()  # the X window dump format
        header = struct.unpack(">25I", raw[:100])
        width, height, stride, colours = header[4], header[5], header[12], header[19]
        pixels = np.frombuffer(raw, np.uint8, stride * height, header[0] + 12 * colours)
        rows = pixels.reshape(height, stride)[:, : 4 * width]
        return np.ascontiguousarray(rows.reshape(height, width, 4)[:, :, :3])

    def save(self, path: Path) -> None:
        """Writes what the screen shows to a PNG file."""
        cv2.imwrite(str(path), self.picture())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._x11.XCloseDisplay(self._display)
        self._server.terminate()
        self._server.wait()
        shutil.rmtree(self._folder)
