"""The windows of a run, and what their keys do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.closing import Closing
from dfd_edge.display import Window, poll_key, window_size
from dfd_edge.outputs.overlay import Scene, draw_help
from dfd_edge.outputs.still import save_still
from dfd_edge.outputs.text import printable
from dfd_edge.sources.frames import Image

#: Names of the keys, and what they do; the help in the window lists them.
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


@dataclass(slots=True)
class ViewSettings:
    """What the user has chosen for all pictures of a run.

    Attributes:
        evidence: Whether the evidence map is drawn; holds for annotated video too.
        paused: Whether the windows stand still.
        helped: Whether the windows list the keys.
    """

    evidence: bool = True
    paused: bool = False
    helped: bool = False


@dataclass(slots=True)
class _Tiles:
    """Places for windows side by side, in rows, on a screen of the usual size."""

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


class Screen(Closing):
    """Shows annotated frames, one window a source. To be used from the main thread only.

    A key holds for all windows, whichever has the focus.

    Args:
        settings: Changed by the keys.
        stop: Set when the user quits.
        note: Prints a line for the user.
        folder: Where stills go; the working directory by default.
    """

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
        self._scenes: dict[str, Scene] = {}
        self._tiles = _Tiles()

    def show(self, source: str, scene: Scene, image: Image | None) -> None:
        """Shows a frame, unless the windows stand still.

        Args:
            source: Name of the source: the title of its window.
            scene: The frame and what is drawn into it.
            image: The scene as drawn by who has done so already, uint8 BGR, or None.
        """
        if self._scenes.get(source) is scene or (self.settings.paused and source in self._scenes):
            return
        if source not in self._windows:
            place = self._tiles.next_place(*window_size(scene.image))
            # One alone is left to the desktop; of several none should cover another.
            several = bool(self._windows)
            title = printable(source)
            self._windows[source] = Window(title, place=place if several else None)
        self._scenes[source] = scene
        self._put(source, image)

    def poll(self, wait_ms: int = 1) -> bool:
        """Lets the windows draw themselves, and does what the key pressed asks for.

        Args:
            wait_ms: Milliseconds to wait for a key.

        Returns:
            Whether the user has closed none of them.
        """
        key = poll_key(wait_ms)
        if key:
            self.press(key)
        return all(window.is_open() for window in self._windows.values())

    def press(self, key: str) -> None:
        """Does what a key asks for; other keys do nothing.

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
                self._put(source, None)

    def close(self) -> None:
        """Closes the windows that are still there."""
        for window in self._windows.values():
            window.close()
        self._windows.clear()
        self._scenes.clear()

    def _put(self, source: str, image: Image | None) -> None:
        settings = self.settings
        if image is None or settings.paused:
            image = self._scenes[source].drawn(evidence=settings.evidence, paused=settings.paused)
        if settings.helped:
            image = image.copy()
            draw_help(image, KEYS)
        self._windows[source].show(image)

    def _save_stills(self) -> None:
        folder = Path.cwd() if self._folder is None else self._folder
        for source, scene in self._scenes.items():
            image = scene.drawn(evidence=self.settings.evidence)
            try:
                path = save_still(image, source, scene.time_s, folder)
            except OSError as error:
                self._note(f"error: no still can be saved in {folder} ({error.strerror})")
            else:
                self._note(f"still saved: {path}")
