"""The API of programs, below `/v1`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import PurePath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import ValidationError

from dfd_edge.judging.results import Label
from dfd_edge.serve.fetching import Fetcher
from dfd_edge.serve.hub import HEADERS, ServerEvent, Subscription, as_stream
from dfd_edge.serve.models import Address, JudgementList, JudgementModel, Note, ProblemModel
from dfd_edge.serve.problems import MEDIA_TYPE, Problem
from dfd_edge.serve.queue import ALL
from dfd_edge.serve.service import Service
from dfd_edge.serve.store import Judgement, State, Upload
from dfd_edge.serve.uploads import (
    HEAD_BYTES,
    UNKNOWN_TYPE,
    Incoming,
    media_type,
    receive_multipart,
    receive_raw,
    too_large,
)

EVENT_STREAM = "text/event-stream"
JSON_LINES = "application/jsonl"
MAX_WAIT_S = 60.0
"""Longest `Prefer: wait`."""
_MAX_JSON = 1 << 16
_MAX_LISTED = 200
_WAIT = re.compile(r"\bwait=(\d{1,6})\b")
_PROBLEM: dict[str, Any] = {"model": ProblemModel, "content": {MEDIA_TYPE: {}}}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return dict.fromkeys(statuses, _PROBLEM)


def _body() -> dict[str, Any]:
    """Returns the three bodies of a submission, for OpenAPI."""
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": binary}, "required": ["file"]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": binary},
                "application/json": {"schema": Address.model_json_schema()},
            },
        }
    }


def api_routes(service: Service) -> APIRouter:
    """Returns the routes below `/v1`."""
    router = APIRouter(prefix="/v1", tags=["judgements"])
    settings, hub, store = service.settings, service.hub, service.store
    fetcher = Fetcher(settings)

    @router.post(
        "/judgements",
        status_code=202,
        response_model=JudgementModel,
        responses={
            200: {"model": JudgementModel, "description": "It is done, or was judged before"},
            **_problems(400, 403, 413, 422, 429, 502, 503),
        },
        openapi_extra=_body(),
    )
    async def submit(
        request: Request,
        name: Annotated[str | None, Query(max_length=1000)] = None,
        again: bool = False,
        prefer: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Queues a file: a form with one `file`, the bytes themselves, or an address.

        The same file judged by the same bundle is answered with 200 and the judgement that exists,
        unless `again` is set. `Prefer: wait=30` waits up to so many seconds for the verdict, and
        answers with 200 where it has come.
        """
        service.check_room()
        upload = await _receive(request, service, fetcher, name)
        judgement, new = service.submit(upload, again=again)
        headers = {"Location": f"/v1/judgements/{judgement.id}"}
        wait_s = _wanted_wait_s(prefer)
        if wait_s and not judgement.state.final:
            headers["Preference-Applied"] = f"wait={wait_s:g}"
            judgement = await _ended(service, judgement, wait_s)
        status = 202 if new and not judgement.state.final else 200
        return JSONResponse(service.describe(judgement), status, headers)

    @router.get("/judgements", response_model=JudgementList, responses=_problems(422))
    def search(
        q: Annotated[str, Query(max_length=500)] = "",
        label: Label | None = None,
        state: State | None = None,
        limit: Annotated[int, Query(ge=1, le=_MAX_LISTED)] = 50,
        before: Annotated[int | None, Query(ge=1)] = None,
    ) -> dict[str, Any]:
        """Lists judgements, the newest first; `q` is searched in names, notes and digests."""
        found = store.search(text=q, label=label, state=state, before=before, limit=limit + 1)
        more = str(found[limit - 1].number) if len(found) > limit else None
        return {"judgements": [service.describe(one) for one in found[:limit]], "next": more}

    @router.get("/judgements/{id}", response_model=JudgementModel, responses=_problems(404))
    def get(id: str) -> dict[str, Any]:
        """Returns a judgement."""
        return service.describe(service.get(id))

    @router.patch("/judgements/{id}", response_model=JudgementModel, responses=_problems(404, 422))
    def change(id: str, note: Note) -> dict[str, Any]:
        """Changes the note of a judgement."""
        service.get(id)
        changed = store.set_note(id, note.note)
        return service.describe(changed or service.get(id))

    @router.post(
        "/judgements/{id}/cancel", response_model=JudgementModel, responses=_problems(404, 409)
    )
    async def cancel(id: str) -> Response:
        """Cancels a judgement that waits or runs."""
        judgement = service.get(id)
        if judgement.state.final:
            raise Problem("already-finished", f"it is {judgement.state}: delete it instead")
        await service.queue.cancel(judgement)
        judgement = await _ended(service, judgement, MAX_WAIT_S)
        return JSONResponse(service.describe(judgement))

    @router.delete("/judgements/{id}", status_code=204, responses=_problems(404))
    async def delete(id: str) -> Response:
        """Deletes a judgement with its original and its results."""
        await service.delete(service.get(id))
        return Response(status_code=204)

    @router.get("/judgements/{id}/records", responses=_problems(404, 409))
    def records(id: str) -> Response:
        """Returns the records that `dfd-edge --json` prints, by the published JSON Schema."""
        return _lines(service, id, "records")

    @router.get("/judgements/{id}/evidence", responses=_problems(404, 409))
    def evidence(id: str) -> Response:
        """Returns where the scores come from, in JSON Lines.

        A line has `time_s`, `track`, `crop` (x0, y0 and side in pixels of the frame) and `values`:
        rows of logits that lie evenly over the crop.
        """
        return _lines(service, id, "evidence")

    @router.get("/judgements/{id}/events", responses=_problems(404))
    async def events(
        id: str,
        last_event_id: Annotated[int | None, Header()] = None,
    ) -> Response:
        """Streams `state`, `progress` and `record` events until the judgement has ended."""
        judgement = service.get(id)
        after = last_event_id or 0
        if judgement.state.final and last_event_id is not None:
            if next(service.results.lines(id, "records", after), None) is None:
                return Response(status_code=204)  # a browser does not come back then
        subscription = hub.subscribe(id)
        stream = as_stream(_events_of(service, judgement, subscription, after))
        return StreamingResponse(stream, media_type=EVENT_STREAM, headers=HEADERS)

    @router.get("/judgements/{id}/media", responses=_problems(404, 410))
    def media(id: str) -> Response:
        """Returns the original; parts of it by `Range`."""
        judgement = service.get(id)
        path = settings.media / (judgement.media or "-")
        if judgement.media is None or not path.is_file():
            kept = f"originals are kept for {settings.keep_days:g} days"
            raise Problem("media-removed", f"{judgement.name}: {kept}; its results are still here")
        with path.open("rb") as file:
            kind = media_type(file.read(HEAD_BYTES))
        return FileResponse(
            path,
            media_type=kind,
            filename=judgement.name,
            content_disposition_type="attachment" if kind == UNKNOWN_TYPE else "inline",
            headers={"Cache-Control": "private, no-cache"},  # asked for again: it may be deleted
        )

    @router.get("/judgements/{id}/report", responses=_problems(404, 409))
    def report(id: str) -> Response:
        """Returns the report that `dfd-edge --report` writes: one self-contained page."""
        judgement = service.get(id)
        if judgement.state is not State.DONE:
            raise Problem("not-done", f"it is {judgement.state}: a report needs a verdict")
        page = service.results.report(judgement).encode()
        name = f"{PurePath(judgement.name).stem}.html"
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

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

        return StreamingResponse(as_stream(stream()), media_type=EVENT_STREAM, headers=HEADERS)

    return router


async def _receive(
    request: Request, service: Service, fetcher: Fetcher, name: str | None
) -> Upload:
    """Receives the file of a submission, whatever way it comes.

    Raises:
        Problem: It cannot be taken.
    """
    settings = service.settings
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await fetcher.fetch(await _address(request))
    length = request.headers.get("content-length", "")
    room = settings.max_bytes + (_MAX_JSON if kind == "multipart/form-data" else 0)
    if length.isdigit() and int(length) > room:
        raise too_large(settings.max_bytes)
    async with Incoming(settings.media, settings.max_bytes) as incoming:
        if kind == "multipart/form-data":
            return await receive_multipart(request, incoming)
        if kind == "application/x-www-form-urlencoded":
            raise Problem(
                "wrong-type",
                "a form of this kind holds no file: send multipart/form-data (curl -F file=@FILE), "
                "or the bytes as application/octet-stream",
            )
        return await receive_raw(request, incoming, name)


async def _address(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_JSON:
            raise Problem("too-large", f"a JSON body has at most {_MAX_JSON} bytes")
    try:
        return Address.model_validate_json(body).address
    except ValidationError as error:
        first = error.errors()[0]
        cause = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
        raise Problem("invalid", f'{cause}; send {{"address": "https://..."}}') from error


def _wanted_wait_s(prefer: str | None) -> float:
    match = _WAIT.search(prefer or "")
    return 0.0 if match is None else min(float(match[1]), MAX_WAIT_S)


async def _ended(service: Service, judgement: Judgement, within_s: float) -> Judgement:
    """Waits until a judgement has ended, or for so many seconds; returns how it is then."""
    subscription = service.hub.subscribe(judgement.id)
    try:
        async with asyncio.timeout(within_s):
            current = service.store.get(judgement.id)
            if current is not None and not current.state.final:
                async for event in subscription:
                    if event is not None and event.name == "state":
                        if State(json.loads(event.data)["state"]).final:
                            break
    except TimeoutError:
        pass
    finally:
        service.hub.leave(judgement.id, subscription)
    return service.get(judgement.id)


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
            if event is not None and event.name == "state":
                if State(json.loads(event.data)["state"]).final:
                    return
                number = 0  # begun again: its records come anew
    finally:
        service.hub.leave(judgement.id, subscription)


def _lines(service: Service, id_: str, kind: str) -> Response:
    judgement = service.get(id_)
    if judgement.state is not State.DONE and judgement.state is not State.FAILED:
        raise Problem("not-done", f"it is {judgement.state}: take its events, or come back later")

    def text() -> Iterator[str]:
        for _, line in service.results.lines(id_, kind):
            yield line + "\n"

    return StreamingResponse(text(), media_type=JSON_LINES)
