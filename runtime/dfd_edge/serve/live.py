"""Live sources of the service: watched in the background, and passed on to any number of viewers.

All sources share one `Detector`, and so one session of its graphs. Every source has a thread that
watches it, opens it again where it cannot be reached, and keeps its last minute. Its records go to
the hub under the topic of the source.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import cv2

from dfd_edge.closing import Closing
from dfd_edge.errors import UnsupportedError, UsageError, source_error
from dfd_edge.judging.results import Event, EventKind, FrameResult, Record
from dfd_edge.serve.judging.hub import ServerEvent
from dfd_edge.sources.expand import SourceItem
from dfd_edge.sources.frames import resized
from dfd_edge.text import json_line
from dfd_edge.view.overlay import Overlay, Scene

if TYPE_CHECKING:
    from dfd_edge.detector import Detector
    from dfd_edge.judging.watch import Watch
    from dfd_edge.serve.judging.hub import Hub
    from dfd_edge.serve.settings import ServiceSettings
    from dfd_edge.sources.frames import Frame

logger = logging.getLogger(__name__)

HISTORY_S = 60.0
"""Seconds of records that a new viewer gets at once."""
_MOST_EVENTS = 2000
_FIRST_RETRY_S = 2.0
_LAST_RETRY_S = 60.0
_JOIN_S = 5.0
_WIDEST_PX = 1280
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 80)

Publish = Callable[[str, ServerEvent], None]

ALL_LIVE = "live"
"""Topic of the events of all live sources."""


class LiveState(StrEnum):
    """State of a live source. `waiting`: it could not be reached, and will be tried again."""

    OPENING = "opening"
    WATCHING = "watching"
    WAITING = "waiting"
    ENDED = "ended"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class SourceStatus:
    """Status of a live source.

    Attributes:
        name: Its name in addresses and on pages.
        state: Its state.
        since: When that state began, UTC.
        detail: Why it is waiting or failed, in one line; else None.
        p_fake: The highest score over the last seconds among the people in view, or None.
        label: Live label of the source, None before the first judged frame.
        staleness_ms: Milliseconds since the newest judged frame was captured, or None.
        dropped: Due frames that were not judged.
        gaps: How often it was lost.
    """

    name: str
    state: LiveState
    since: datetime
    detail: str | None
    p_fake: float | None
    label: str | None
    staleness_ms: float | None
    dropped: int
    gaps: int

    def to_record(self) -> Record:
        """Returns it as the API gives it."""
        plain = dataclasses.asdict(self)
        plain["state"] = self.state.value
        plain["since"] = self.since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return plain


class LiveSource(Closing):
    """Watches one source in a thread until it ends or `close` is called.

    Args:
        name: Its name in addresses and on pages.
        item: The source.
        detector: Judges; shared by all sources.
        publish: Takes a topic and an event, from any thread.
        numbers: Numbers for events, shared by all sources.
        pause: Waits so many seconds before the source is opened again, and returns whether the
            watch was closed meanwhile; by default it waits on the clock.

    Attributes:
        name: As given.
        topic: Topic of its events: `state` with a status, `record` with a published record.
        picture_topic: Topic of the sign that there is a new picture.
    """

    def __init__(
        self,
        name: str,
        item: SourceItem,
        detector: Detector,
        publish: Publish,
        numbers: Iterator[int],
        *,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self.name = name
        self.topic = f"live/{name}"
        self.picture_topic = f"live/{name}/picture"
        self._item = dataclasses.replace(item, name=name)
        self._detector = detector
        self._publish = publish
        self._numbers = numbers
        self._closed = threading.Event()
        self._pause = pause or self._closed.wait
        self._lock = threading.Lock()
        self._state = LiveState.OPENING
        self._since = datetime.now(UTC)
        self._detail: str | None = None
        self._watch: Watch | None = None
        self._result: FrameResult | None = None
        self._arrived_s = 0.0
        self._scene: Scene | None = None
        self._encoded: tuple[Scene, bytes] | None = None
        self._history: deque[tuple[float, ServerEvent]] = deque(maxlen=_MOST_EVENTS)
        self._thread = threading.Thread(target=self._run, name=f"dfd-edge {name}", daemon=True)

    def start(self) -> None:
        """Begins to watch; returns at once."""
        self._thread.start()

    def status(self) -> SourceStatus:
        """Returns the status now."""
        with self._lock:
            result, watch = self._result, self._watch
            stale = None
            if result is not None:
                waited_ms = (time.monotonic() - self._arrived_s) * 1e3
                stale = round((result.staleness_ms or 0.0) + waited_ms, 1)
            return SourceStatus(
                name=self.name,
                state=self._state,
                since=self._since,
                detail=self._detail,
                p_fake=None if result is None else result.p_fake,
                label=None if result is None else result.label.value,
                staleness_ms=stale,
                dropped=0 if watch is None else watch.dropped,
                gaps=0 if watch is None else watch.gaps,
            )

    def history(self) -> list[ServerEvent]:
        """Returns the events of the last minute, the oldest first, after one with the status."""
        with self._lock:
            kept = [event for _, event in self._history]
        return [ServerEvent.of("state", self.status().to_record()), *kept]

    def picture(self) -> bytes | None:
        """Returns the newest annotated picture as JPEG; None before the first.

        It is drawn and encoded here, once, and not at all while nobody asks.
        """
        scene, known = self._scene, self._encoded
        if scene is None:
            return None
        if known is None or known[0] is not scene:
            known = scene, _jpeg(scene)
            self._encoded = known
        return known[1]

    def leave(self) -> None:
        """Ends the watch; returns at once."""
        self._closed.set()
        with self._lock:
            watch = self._watch
        if watch is not None:
            watch.close()

    def close(self) -> None:
        """Ends the watch; waits a few seconds at most. Safe to call twice."""
        self.leave()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while not self._closed.is_set():
            self._become(LiveState.OPENING)
            try:
                self._watch_once()
            except (UsageError, UnsupportedError) as error:  # the same the next time
                self._fail(LiveState.FAILED, error)
                return
            except Exception as error:
                if self._state is LiveState.WATCHING:
                    retry_s = _FIRST_RETRY_S
                self._fail(LiveState.WAITING, error)
                if self._pause(retry_s):
                    return
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
            else:
                self._become(LiveState.ENDED)
                return

    def _watch_once(self) -> None:
        decision = self._detector.decision
        overlay = Overlay(decision.fake_threshold, decision.real_threshold, source=self.name)

        def show(frame: Frame, result: FrameResult | None) -> None:
            self._scene = overlay.scene(frame.image, frame.time_s, result)
            self._publish(self.picture_topic, ServerEvent("picture", ""))

        watch = self._detector.watch(
            self._item,
            on_event=lambda event: self._add(event.to_record()),
            on_image=show,
            every_image=False,
            wait=False,
        )
        with self._lock:
            self._watch = watch
            self._history.clear()  # the times of another watch begin at 0 again
        with watch:
            if self._closed.is_set():
                return
            for result in watch:
                if self._state is not LiveState.WATCHING:
                    self._become(LiveState.WATCHING)
                with self._lock:
                    self._result, self._arrived_s = result, time.monotonic()
                self._add(result.to_record())
        self._add(watch.verdict().to_record())

    def _add(self, record: Record) -> None:
        """Keeps a record and passes it on."""
        time_s = float(record["time_s"] if "time_s" in record else record["duration_s"])
        with self._lock:
            event = ServerEvent("record", json_line(record), next(self._numbers))
            self._history.append((time_s, event))
            while self._history[0][0] < time_s - HISTORY_S:
                self._history.popleft()
        self._send(event)

    def _send(self, event: ServerEvent) -> None:
        self._publish(self.topic, event)
        self._publish(ALL_LIVE, event)

    def _become(self, state: LiveState, detail: str | None = None) -> None:
        with self._lock:
            if state is not self._state:
                self._since = datetime.now(UTC)
            self._state, self._detail = state, detail
        self._send(ServerEvent.of("state", self.status().to_record()))

    def _fail(self, state: LiveState, error: Exception) -> None:
        """Notes why the source is not watched, as its state and as an event."""
        known = source_error(self.name, error)
        logger.warning("live source %s", known)
        self._add(Event(self.name, 0.0, EventKind.ERROR, str(known)).to_record())
        self._become(state, str(known))


class Live(Closing):
    """All live sources of the service. Loads a detector of its own where there are any.

    Args:
        settings: Names the sources, and what judges them.
        hub: Passes their events on.
    """

    def __init__(self, settings: ServiceSettings, hub: Hub) -> None:
        self._settings = settings
        self._hub = hub
        self._loop: asyncio.AbstractEventLoop | None = None
        self._numbers = itertools.count(1)
        self._sources: dict[str, LiveSource] = {}

    def __iter__(self) -> Iterator[LiveSource]:
        return iter(self._sources.values())

    def get(self, name: str) -> LiveSource | None:
        """Returns a source, None where none has that name."""
        return self._sources.get(name)

    async def start(self) -> None:
        """Begins to watch all of them.

        Raises:
            DfdError: The model cannot be loaded, or a source cannot be one.
        """
        if not self._settings.cameras:
            return
        self._loop = asyncio.get_running_loop()
        self._sources = await asyncio.to_thread(self._load)
        for source in self:
            source.start()

    def close(self) -> None:
        """Ends all watches. Safe to call twice."""
        for source in self:
            source.leave()
        for source in self:
            source.close()

    def _load(self) -> dict[str, LiveSource]:
        from dfd_edge.detector import Detector  # noqa: PLC0415 - not without live sources

        settings = self._settings
        detector = Detector.load(
            settings.model,
            provider=settings.provider,
            precision=settings.precision,
            threads=settings.threads,
            options=settings.provider_options,
        )
        found = {}
        for camera in settings.cameras:
            number = camera.source.isascii() and camera.source.isdecimal()
            item = SourceItem.of(int(camera.source) if number else camera.source)
            found[camera.name] = LiveSource(
                camera.name, item, detector, self._publish, self._numbers
            )
        return found

    def _publish(self, topic: str, event: ServerEvent) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its viewers with it
                self._loop.call_soon_threadsafe(self._hub.publish, topic, event)


def _jpeg(scene: Scene) -> bytes:
    """Returns a scene, drawn, as JPEG of at most 1280 pixels in width."""
    image = scene.drawn()
    height, width = image.shape[:2]
    if width > _WIDEST_PX:
        size = (_WIDEST_PX, max(1, round(height * _WIDEST_PX / width)))
        image = resized(image, size)
    return bytes(cv2.imencode(".jpg", image, _JPEG)[1])
