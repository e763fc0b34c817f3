"""Drawing results into a frame, readable from 240p to 4K."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from dfd_edge.results import FrameResult, Label, PersonResult
from dfd_edge.sources.frame import Image

Colour = tuple[int, int, int]
Place = Callable[[float, float], tuple[int, int]]

#: BGR, told apart by people with red-green blindness too (blue, vermilion, yellow, grey).
COLOURS: dict[Label, Colour] = {
    Label.REAL: (190, 130, 20),
    Label.FAKE: (20, 70, 225),
    Label.UNSURE: (60, 200, 235),
    Label.NO_FACE: (160, 160, 160),
}
_INK: Colour = (255, 255, 255)
_DARK: Colour = (24, 24, 24)
_NAMES = {Label.NO_FACE: "NO FACE"}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TIMELINE_S = 20.0
_TIMELINE_SHARE = 0.16
_EVIDENCE_ALPHA = 0.45


class Overlay:
    """Draws boxes, labels, evidence and a score timeline; remembers the last seconds.

    Args:
        fake_threshold, real_threshold: Probabilities drawn as lines in the timeline.
        evidence: Whether the evidence map is laid over the faces.
    """

    def __init__(
        self, fake_threshold: float, real_threshold: float, *, evidence: bool = True
    ) -> None:
        self.evidence = evidence
        self._thresholds = (fake_threshold, real_threshold)
        self._history: deque[FrameResult] = deque()

    def draw(self, image: Image, time_s: float, result: FrameResult | None) -> Image:
        """Returns an annotated copy of a frame.

        Args:
            image: uint8 [height, width, 3], BGR.
            time_s: Time of the frame.
            result: The newest result, which may be of an earlier frame, or None.
        """
        canvas = image.copy()
        unit = _unit(canvas)
        self._remember(result)
        people = result.people if result is not None else ()
        if self.evidence:
            for person in people:
                _draw_evidence(canvas, person)
        for person in people:
            _draw_person(canvas, person, unit)
        self._draw_timeline(canvas, time_s, unit)
        _draw_header(canvas, time_s, result, unit)
        return canvas

    def _remember(self, result: FrameResult | None) -> None:
        if result is None or (self._history and self._history[-1] is result):
            return
        if self._history and result.time_s < self._history[-1].time_s:
            self._history.clear()
        self._history.append(result)
        while result.time_s - self._history[0].time_s > _TIMELINE_S:
            self._history.popleft()

    def _draw_timeline(self, canvas: Image, time_s: float, unit: float) -> None:
        height, width = canvas.shape[:2]
        strip = max(round(height * _TIMELINE_SHARE), round(24 * unit))
        top = height - strip
        canvas[top:] = (canvas[top:] * 0.35).astype(np.uint8)
        pad = round(4 * unit)

        def place(at_s: float, p: float) -> tuple[int, int]:
            x = width - 1 - (time_s - at_s) / _TIMELINE_S * (width - 1)
            return round(x), round(height - pad - p * (strip - 2 * pad))

        line = max(1, round(unit))
        for threshold, label in zip(self._thresholds, (Label.FAKE, Label.REAL), strict=True):
            y = place(time_s, threshold)[1]
            cv2.line(canvas, (0, y), (width, y), COLOURS[label], line, cv2.LINE_AA)
        tracks = {person.track for result in self._history for person in result.people}
        for track in sorted(tracks):
            self._draw_curve(canvas, track, place, line * 2)
        _text(canvas, "P(fake)", (pad, top + round(12 * unit)), 0.75 * unit, _INK)

    def _draw_curve(self, canvas: Image, track: int, place: Place, thickness: int) -> None:
        last: tuple[float, tuple[int, int]] | None = None
        for result in self._history:
            person = next((p for p in result.people if p.track == track), None)
            if person is None or person.p_fake is None:
                continue
            point = place(result.time_s, person.p_fake)
            if last is not None and result.time_s - last[0] <= 1.0:
                colour = COLOURS[person.label]
                cv2.line(canvas, last[1], point, colour, thickness, cv2.LINE_AA)
            else:
                cv2.circle(canvas, point, thickness, COLOURS[person.label], -1, cv2.LINE_AA)
            last = (result.time_s, point)


def _unit(image: Image) -> float:
    """Size of a drawing unit in pixels: 1 at 360 lines, with a floor for small pictures."""
    height, width = image.shape[:2]
    return max(0.75, float(min(height, width)) / 360.0)


def _draw_header(canvas: Image, time_s: float, result: FrameResult | None, unit: float) -> None:
    label = result.label if result is not None else Label.NO_FACE
    words = [_NAMES.get(label, label.value.upper()), f"{time_s:.1f} s"]
    if result is not None and result.p_fake is not None:
        words.insert(1, f"P(fake) {result.p_fake:.2f}")
    if result is not None and result.staleness_ms is not None:
        words.append(f"{result.staleness_ms:.0f} ms old")
    room = canvas.shape[1] - round(14 * unit)
    while len(words) > 1 and _text_width("  ".join(words), unit) > room:
        words.pop()
    _tag(canvas, "  ".join(words), (round(4 * unit), round(4 * unit)), COLOURS[label], unit)


def _draw_person(canvas: Image, person: PersonResult, unit: float) -> None:
    x0, y0, x1, y1 = (round(side) for side in person.box)
    colour = COLOURS[person.label] if person.judged else COLOURS[Label.NO_FACE]
    thickness = max(2, round(2 * unit))
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _DARK, thickness + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, thickness, cv2.LINE_AA)
    text = f"#{person.track} {person.label.value}"
    if not person.judged:
        text = f"#{person.track} {person.reason or 'not judged'}"
    elif person.p_fake is not None:
        text += f" {person.p_fake:.2f}"
    tall = _tag_height(unit)
    above = y0 - tall - thickness
    _tag(canvas, text, (x0, above if above >= 0 else y1 + thickness), colour, unit)


def _draw_evidence(canvas: Image, person: PersonResult) -> None:
    """Lays the evidence over the crop: vermilion where it speaks for fake, clear elsewhere."""
    if person.evidence is None:
        return
    x0, y0, side = person.crop
    height, width = canvas.shape[:2]
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + side, width), min(y0 + side, height)
    if right <= left or bottom <= top:
        return
    weight = 1.0 / (1.0 + np.exp(-person.evidence))
    smooth = cv2.resize(weight, (side, side), interpolation=cv2.INTER_CUBIC)
    part = np.clip(smooth, 0.0, 1.0)[top - y0 : bottom - y0, left - x0 : right - x0, None]
    # Only what speaks for fake is shown; a map without it leaves the face as it is.
    alpha = np.clip(2.0 * part - 1.0, 0.0, 1.0) * _EVIDENCE_ALPHA
    under = canvas[top:bottom, left:right]
    colour = np.array(COLOURS[Label.FAKE], np.float32)
    canvas[top:bottom, left:right] = (under * (1.0 - alpha) + colour * alpha).astype(np.uint8)


def _tag_height(unit: float) -> int:
    return round(16 * unit)


def _tag(canvas: Image, text: str, corner: tuple[int, int], colour: Colour, unit: float) -> None:
    """A filled label whose upper left corner is at `corner`, moved to stay inside the frame."""
    wide = _text_width(text, unit)
    tall, pad = _tag_height(unit), round(3 * unit)
    height, width = canvas.shape[:2]
    x = max(0, min(corner[0], width - wide - 2 * pad))
    y = max(0, min(corner[1], height - tall))
    cv2.rectangle(canvas, (x, y), (x + wide + 2 * pad, y + tall), colour, -1)
    # Black or white, whichever is read more easily on this colour.
    luma = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]
    ink = _DARK if luma > 140 else _INK
    at = (x + pad, y + tall - round(4.5 * unit))
    _text(canvas, text, at, unit, ink)


def _text(canvas: Image, text: str, at: tuple[int, int], unit: float, ink: Colour) -> None:
    scale, thickness = _font(unit)
    cv2.putText(canvas, text, at, _FONT, scale, ink, thickness, cv2.LINE_AA)


def _text_width(text: str, unit: float) -> int:
    (wide, _), _ = cv2.getTextSize(text, _FONT, *_font(unit))
    return wide


def _font(unit: float) -> tuple[float, int]:
    """Scale and thickness of writing."""
    return 0.4 * unit, max(1, round(unit))
