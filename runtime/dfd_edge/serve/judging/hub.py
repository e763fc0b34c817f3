"""Server-sent events: those who listen, and the form that events have on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

_MAX_WAITING = 1000
_HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Attributes:
        name: Its type: `state`, `progress` or `record`.
        data: A line of JSON.
        number: Its `id`, by which a client that was cut off goes on; None for none.
        final: Whether a judgement has ended with it.
    """

    name: str
    data: str
    number: int | None = None
    final: bool = False

    @classmethod
    def of(cls, name: str, value: object, *, final: bool = False) -> ServerEvent:
        """Returns an event whose data is this value as JSON."""
        return cls(name, json.dumps(value, allow_nan=False), final=final)

    def encode(self) -> bytes:
        """Returns it as `text/event-stream`."""
        number = "" if self.number is None else f"id: {self.number}\n"
        return f"{number}event: {self.name}\ndata: {self.data}\n\n".encode()


class Subscription:
    """The events of one topic, from its creation on."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[ServerEvent | None] = asyncio.Queue(_MAX_WAITING)
        self._lost = False

    def put(self, event: ServerEvent | None) -> None:
        """Adds an event; None ends the subscription, as does a reader that is too slow."""
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:  # it reconnects, and gets what it missed from the store
            self._lost = True

    async def __aiter__(self) -> AsyncIterator[ServerEvent | None]:
        """Yields events, and None where nothing came for a while."""
        while not self._lost or not self._waiting.empty():
            try:
                event = await asyncio.wait_for(self._waiting.get(), _HEARTBEAT_S)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event


class Hub:
    """Passes events on to those who listen to a topic. Used from the event loop alone."""

    def __init__(self) -> None:
        self._topics: dict[str, set[Subscription]] = {}
        self._closed = False

    def subscribe(self, topic: str) -> Subscription:
        """Returns a subscription, which `leave` ends."""
        subscription = Subscription()
        self._topics.setdefault(topic, set()).add(subscription)
        if self._closed:
            subscription.put(None)
        return subscription

    def leave(self, topic: str, subscription: Subscription) -> None:
        """Ends a subscription."""
        listeners = self._topics.get(topic, set())
        listeners.discard(subscription)
        if not listeners:
            self._topics.pop(topic, None)

    def publish(self, topic: str, event: ServerEvent) -> None:
        """Passes an event on."""
        for subscription in self._topics.get(topic, ()):
            subscription.put(event)

    @property
    def listeners(self) -> int:
        """Number of open subscriptions."""
        return sum(len(listeners) for listeners in self._topics.values())

    def close(self) -> None:
        """Ends all subscriptions, and those that are still to come."""
        self._closed = True
        for listeners in self._topics.values():
            for subscription in listeners:
                subscription.put(None)
