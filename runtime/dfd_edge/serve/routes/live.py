"""Routes of the live sources: their list, their records as they come, and annotated pictures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from dfd_edge.serve.judging.hub import Hub, ServerEvent
from dfd_edge.serve.live import ALL_LIVE, LiveSource
from dfd_edge.serve.routes.events import event_stream
from dfd_edge.serve.routes.problems import Problem
from dfd_edge.serve.service import Service

_BOUNDARY = "picture"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def live_routes(service: Service) -> APIRouter:
    """Returns the routes below `/v1/live`.

    Args:
        service: Has the sources, and passes their events on.
    """
    live, hub = service.live, service.hub
    router = APIRouter(prefix="/v1/live", tags=["live"])

    def found(name: str) -> LiveSource:
        source = live.get(name)
        if source is None:
            raise Problem("not-found", f"there is no live source {name!r:.60}")
        return source

    @router.get("", summary="The live sources and their state")
    async def sources() -> dict[str, list[dict[str, Any]]]:
        return {"sources": [source.status().to_record() for source in live]}

    @router.get(
        "/events",
        summary="State and records of all live sources, as server-sent events",
        response_class=StreamingResponse,
    )
    async def all_events() -> StreamingResponse:
        return event_stream(_events(list(live), ALL_LIVE, hub))

    @router.get(
        "/{name}/events",
        summary="State and records of a live source, as server-sent events",
        response_class=StreamingResponse,
    )
    async def events(name: str) -> StreamingResponse:
        source = found(name)
        return event_stream(_events([source], source.topic, hub))

    @router.get(
        "/{name}/picture",
        summary="Annotated pictures of a live source, as multipart/x-mixed-replace",
        response_class=StreamingResponse,
    )
    async def picture(name: str, still: bool = False) -> Response:
        source = found(name)
        if still:
            jpeg = await asyncio.to_thread(source.picture)
            if jpeg is None:
                raise Problem("not-found", f"no frame of {name!r} has been judged yet")
            return Response(jpeg, media_type="image/jpeg", headers=_HEADERS)
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        return StreamingResponse(_pictures(source, hub), media_type=kind, headers=_HEADERS)

    return router


async def _events(
    sources: list[LiveSource], topic: str, hub: Hub
) -> AsyncIterator[ServerEvent | None]:
    """Yields status and last minute of sources, and then what comes; None where nothing does."""
    subscription = hub.subscribe(topic)
    try:
        sent = set[int]()
        for event in itertools.chain.from_iterable(source.history() for source in sources):
            if event.number is not None:
                sent.add(event.number)
            yield event
        async for later in subscription:
            if later is None or later.number not in sent:
                yield later
    finally:
        hub.leave(topic, subscription)


async def _pictures(source: LiveSource, hub: Hub) -> AsyncIterator[bytes]:
    """Yields the newest picture, and then each one that is drawn."""
    subscription = hub.subscribe(source.picture_topic)
    try:
        yield f"--{_BOUNDARY}\r\n".encode()
        shown = None
        if (jpeg := await asyncio.to_thread(source.picture)) is not None:
            shown = jpeg
            yield _part(jpeg)
        async for sign in subscription:
            jpeg = await asyncio.to_thread(source.picture)
            # Signs that came while the last picture was sent lead to one picture. Where nothing
            # comes, the same one again keeps the connection known to be alive.
            if jpeg is not None and (sign is None or jpeg is not shown):
                shown = jpeg
                yield _part(jpeg)
    finally:
        hub.leave(source.picture_topic, subscription)


def _part(jpeg: bytes) -> bytes:
    """Returns a picture with the next boundary: browsers show it when they have seen that."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + f"\r\n--{_BOUNDARY}\r\n".encode()
