"""Streams of server-sent events: of one judgement, and of all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from dfd_edge.serve.judging.hub import ServerEvent, Subscription
from dfd_edge.serve.judging.queue import ALL
from dfd_edge.serve.judging.store import Judgement
from dfd_edge.serve.routes.models import problems
from dfd_edge.serve.service import Service

_MEDIA_TYPE = "text/event-stream"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event_routes(service: Service) -> APIRouter:
    """Returns the routes of the streams."""
    router = APIRouter(prefix="/v1", tags=["events"])
    hub = service.hub

    @router.get("/judgements/{id}/events", responses=problems(404))
    async def events(
        id: str,
        last_event_id: Annotated[int | None, Header()] = None,
    ) -> Response:
        """Streams `state`, `progress` and `record` events until the judgement has ended."""
        judgement = service.get(id)
        after = last_event_id or 0
        seen_all = next(service.results.lines(id, "records", after), None) is None
        if judgement.state.final and last_event_id is not None and seen_all:
            return Response(status_code=204)  # a browser does not come back then
        subscription = hub.subscribe(id)
        return event_stream(_events_of(service, judgement, subscription, after))

    @router.get("/events")
    async def all_events() -> Response:
        """Streams `state` and `progress` events of all judgements, from now on."""
        subscription = hub.subscribe(ALL)

        async def stream() -> AsyncIterator[ServerEvent | None]:
            try:
                yield None  # the answer begins at once
                async for event in subscription:
                    yield event
            finally:
                hub.leave(ALL, subscription)

        return event_stream(stream())

    return router


def event_stream(events: AsyncIterator[ServerEvent | None]) -> StreamingResponse:
    """Returns events as an answer; None stands for a while without any."""

    async def stream() -> AsyncIterator[bytes]:
        async for event in events:
            # A comment where nothing came for a while: proxies cut silent connections.
            yield b": \n\n" if event is None else event.encode()

    return StreamingResponse(stream(), media_type=_MEDIA_TYPE, headers=_HEADERS)


async def _events_of(
    service: Service, judgement: Judgement, subscription: Subscription, after: int
) -> AsyncIterator[ServerEvent | None]:
    """Yields the state, the records so far, and then what comes."""
    try:
        yield ServerEvent.of("state", service.describe(judgement))
        number = after
        for number, line in service.results.lines(judgement.id, "records", after):
            yield ServerEvent("record", line, number)
        current = service.store.get(judgement.id)
        if current is None:
            return
        if current.state.final:
            if not judgement.state.final:
                yield ServerEvent.of("state", service.describe(current))
            return
        async for event in subscription:
            if event is None or event.number is None or event.number > number:
                yield event
            if event is not None and event.final:
                return
            if event is not None and event.name == "state":
                number = 0  # begun again: its records come anew
    finally:
        service.hub.leave(judgement.id, subscription)
