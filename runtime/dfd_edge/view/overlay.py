"""Annotated frames, readable from 240p to 4K."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import cv2

from dfd_edge.judging.results import FrameResult, Label, PersonResult
from dfd_edge.sources.frames import Image
from dfd_edge.view.drawing import (
    COLOURS,
    DARK,
    Area,
    Colour,
    darken,
    draw_tag,
    lay_evidence,
    tag_area,
    tag_size,
    text_width,
    unit_of,
    write,
)
from dfd_edge.view.timeline import TIMELINE_S, draw_timeline, judging_rate, timeline_area

_NAMES = {Label.NO_FACE: "NO FACE"}


@dataclass(slots=True)
class ViewSettings:
    """Choices of the user for all annotated pictures of a run.

    Attributes:
        evidence: Whether the evidence map is drawn, in windows and in annotated video.
        paused: Whether the windows are paused.
        helped: Whether the windows list the keys.
    """

    evidence: bool = True
    paused: bool = False
    helped: bool = False


@dataclass(slots=True, eq=False)
class Scene:
    """A frame with what is to be drawn into it; any thread may draw it.

    Attributes:
        source: Name of the source.
        image: uint8 [height, width, 3], BGR. Never changed.
        time_s: Time of the frame.
        result: The newest result, which may be of an earlier frame, or None.
        history: Results of the last seconds, oldest first.
        thresholds: P(fake) from which the label is `fake`, and up to which it is `real`.
    """

    source: str
    image: Image
    time_s: float
    result: FrameResult | None
    history: tuple[FrameResult, ...] = ()
    thresholds: tuple[float, float] = (1.0, 0.0)
    _last: tuple[tuple[bool, bool], Image] | None = field(default=None, init=False, repr=False)

    def drawn(self, *, evidence: bool = True, paused: bool = False) -> Image:
        """Returns an annotated copy of the frame. The last one is kept: do not change it.

        Args:
            evidence: Whether the evidence map is laid over the faces.
            paused: Whether the header says that the display is paused.
        """
        last = self._last
        if last is not None and last[0] == (evidence, paused):
            return last[1]
        image = self._draw(evidence=evidence, paused=paused)
        self._last = (evidence, paused), image
        return image

    def _draw(self, *, evidence: bool, paused: bool) -> Image:
        canvas = self.image.copy()
        unit = unit_of(canvas)
        people = self.result.people if self.result is not None else ()
        if evidence:
            for person in people:
                if person.evidence is not None:
                    lay_evidence(canvas, person.evidence, person.crop)
        strip = timeline_area(canvas, unit)
        words, colour = self._header(canvas.shape[1] - round(14 * unit), unit, paused=paused)
        whole = Area(0, 0, strip.right, strip.bottom)
        header = tag_area(words, (round(4 * unit), round(4 * unit)), unit, whole)
        for person in people:
            _draw_box(canvas, person, unit)
        draw_timeline(canvas, self.time_s, self.history, self.thresholds, unit)
        taken = [header, strip]
        for person in people:
            text = _person_text(person)
            area = _free_area(canvas, person, text, unit, taken)
            taken.append(area)
            draw_tag(canvas, text, area, _person_colour(person), unit)
        draw_tag(canvas, words, header, colour, unit)
        return canvas

    def _header(self, room: int, unit: float, *, paused: bool) -> tuple[str, Colour]:
        """Returns text and colour of the header; the least important parts are left out first."""
        result = self.result
        label = result.label if result is not None else Label.NO_FACE
        words = ["PAUSED"] if paused else []
        words.append(_NAMES.get(label, label.value.upper()))
        # Ordered by importance; drawn in the order of the numbers.
        extras: list[tuple[int, str]] = []
        if result is not None and result.p_fake is not None:
            extras.append((0, f"P(fake) {result.p_fake:.2f}"))
        if result is not None and result.staleness_ms is not None:
            extras.append((2, f"{result.staleness_ms:.0f} ms old"))
            times = (earlier.time_s for earlier in reversed(self.history))
            rate_hz = judging_rate(times, self.time_s)
            if rate_hz is not None:
                extras.append((3, f"{rate_hz:.1f}/s"))
        extras.append((1, clock(self.time_s)))
        if text_width(_joined(words, extras), unit) > room:
            extras = [(order, text.removeprefix("P(fake) ")) for order, text in extras]
        while extras and text_width(_joined(words, extras), unit) > room:
            extras.pop()
        return _joined(words, extras), COLOURS[label]


class Overlay:
    """Turns the frames of one source into scenes; remembers its last seconds.

    Args:
        fake_threshold: Probability from which a person is called fake, drawn in the timeline.
        real_threshold: Probability up to which a person is called real, likewise.
        source: Name of the source.
    """

    def __init__(
        self, fake_threshold: float, real_threshold: float, *, source: str = "stream"
    ) -> None:
        self._source = source
        self._thresholds = (fake_threshold, real_threshold)
        self._history: deque[FrameResult] = deque()

    def scene(self, image: Image, time_s: float, result: FrameResult | None) -> Scene:
        """Returns the scene of a frame.

        Args:
            image: uint8 [height, width, 3], BGR.
            time_s: Time of the frame.
            result: The newest result, which may be of an earlier frame, or None.
        """
        self._remember(result)
        history = tuple(self._history)
        return Scene(self._source, image, time_s, result, history, self._thresholds)

    def _remember(self, result: FrameResult | None) -> None:
        if result is None or (self._history and self._history[-1] is result):
            return
        if self._history and result.time_s < self._history[-1].time_s:
            self._history.clear()
        self._history.append(result)
        while result.time_s - self._history[0].time_s > TIMELINE_S:
            self._history.popleft()


def draw_help(canvas: Image, keys: tuple[tuple[str, str], ...]) -> None:
    """Draws a list of keys into the middle of a frame, in place.

    Args:
        canvas: uint8 [height, width, 3], BGR.
        keys: Names of keys, each with its action.
    """
    height, width = canvas.shape[:2]

    def sizes(unit: float) -> tuple[int, int, int]:
        names = max(text_width(name, unit) for name, _ in keys)
        texts = max(text_width(text, unit) for _, text in keys)
        return names, names + texts + round(40 * unit), round((16 * len(keys) + 14) * unit)

    unit = unit_of(canvas)
    _, wide, tall = sizes(unit)
    unit *= min(1.0, width / wide, height / tall)
    names, wide, tall = sizes(unit)
    left, top = max(0, (width - wide) // 2), max(0, (height - tall) // 2)
    darken(canvas, Area(left, top, min(width, left + wide), min(height, top + tall)), 0.2)
    for number, (name, text) in enumerate(keys, start=1):
        y = top + round((16 * number + 2) * unit)
        write(canvas, name, (left + round(12 * unit), y), unit)
        write(canvas, text, (left + names + round(28 * unit), y), unit)


def clock(time_s: float) -> str:
    """Returns a time as text: seconds with a decimal, from ten minutes on `m:ss` or `h:mm:ss`."""
    if time_s < 600.0:
        return f"{time_s:.1f} s"
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _joined(words: list[str], extras: list[tuple[int, str]]) -> str:
    return "  ".join([*words, *(text for _, text in sorted(extras))])


def _person_text(person: PersonResult) -> str:
    if not person.judged:
        return f"#{person.track} {person.reason or 'not judged'}"
    text = f"#{person.track} {person.label.value}"
    return text if person.p_fake is None else f"{text} {person.p_fake:.2f}"


def _person_colour(person: PersonResult) -> Colour:
    return COLOURS[person.label if person.judged else Label.NO_FACE]


def _draw_box(canvas: Image, person: PersonResult, unit: float) -> None:
    x0, y0, x1, y1 = (round(side) for side in person.box)
    thickness = max(2, round(2 * unit))
    cv2.rectangle(canvas, (x0, y0), (x1, y1), DARK, thickness + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _person_colour(person), thickness, cv2.LINE_AA)


def _free_area(
    canvas: Image, person: PersonResult, text: str, unit: float, taken: list[Area]
) -> Area:
    """Returns the area of a person's label: at the box, clear of other labels if possible."""
    x0, y0, x1, y1 = (round(side) for side in person.box)
    gap = max(2, round(2 * unit)) // 2 + 1
    wide, tall = tag_size(text, unit)
    whole = Area(0, 0, canvas.shape[1], canvas.shape[0])
    corners = (
        (x0 - gap, y0 - gap - tall),  # above
        (x0 - gap, y1 + gap),  # below
        (x1 - wide, y0 - gap - tall),
        (x1 - wide, y1 + gap),
        (x0 + gap, y1 - gap - tall),  # inside
        (x0 + gap, y0 + gap),
        (x1 - gap - wide, y0 + gap),
        (x1 + gap, y0),  # beside
        (x0 - gap - wide, y0),
    )
    areas = []
    for x, y in corners:
        area = tag_area(text, (x, y), unit, whole)
        areas.append(area)
        moved = abs(area.top - y) > tall // 4
        if not moved and not any(area.meets(other) for other in taken):
            return area
    # With labels on all sides: the first free line from the top of the box, or any.
    for y in range(max(0, y0), whole.bottom - tall, tall):
        area = tag_area(text, (x0, y), unit, whole)
        if not any(area.meets(other) for other in taken):
            return area
    return areas[0]
