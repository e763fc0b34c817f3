"""The API of programs, below `/v1`: judgements and what belongs to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from dfd_edge.judging.results import Label
from dfd_edge.serve.judging.store import State
from dfd_edge.serve.routes.models import JudgementList, JudgementModel, Note, problems
from dfd_edge.serve.routes.problems import Problem
from dfd_edge.serve.safety.uploads import HEAD_BYTES, UNKNOWN_TYPE, media_type
from dfd_edge.serve.service import Service

JSON_LINES = "application/jsonl"
_CANCEL_S = 10.0
"""Longest wait for the end of a judgement that is cancelled."""
_MAX_LISTED = 200


def api_routes(service: Service) -> APIRouter:
    """Returns the routes below `/v1`."""
    router = APIRouter(prefix="/v1", tags=["judgements"])
    settings, store = service.settings, service.store

    @router.get("/judgements", response_model=JudgementList, responses=problems(422))
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

    @router.get("/judgements/{id}", response_model=JudgementModel, responses=problems(404))
    def get(id: str) -> dict[str, Any]:
        """Returns a judgement."""
        return service.describe(service.get(id))

    @router.patch("/judgements/{id}", response_model=JudgementModel, responses=problems(404, 422))
    def change(id: str, note: Note) -> dict[str, Any]:
        """Changes the note of a judgement."""
        service.get(id)
        changed = store.set_note(id, note.note)
        return service.describe(changed or service.get(id))

    @router.post(
        "/judgements/{id}/cancel", response_model=JudgementModel, responses=problems(404, 409)
    )
    async def cancel(id: str) -> Response:
        """Cancels a judgement that waits or runs."""
        judgement = service.get(id)
        if judgement.state.final:
            raise Problem("already-finished", f"it is {judgement.state}: delete it instead")
        await service.queue.cancel(judgement)
        return JSONResponse(service.describe(await service.ended(judgement, _CANCEL_S)))

    @router.delete("/judgements/{id}", status_code=204, responses=problems(404))
    async def delete(id: str) -> Response:
        """Deletes a judgement with its original and its results."""
        await service.delete(service.get(id))
        return Response(status_code=204)

    @router.get("/judgements/{id}/records", responses=problems(404, 409))
    def records(id: str) -> Response:
        """Returns the records that `dfd-edge --json` prints, by the published JSON Schema."""
        return _lines(service, id, "records")

    @router.get("/judgements/{id}/evidence", responses=problems(404, 409))
    def evidence(id: str) -> Response:
        """Returns where the scores come from, in JSON Lines.

        A line has `time_s`, `track`, `crop` (x0, y0 and side in pixels of the frame) and `values`:
        rows of logits that lie evenly over the crop.
        """
        return _lines(service, id, "evidence")

    @router.get("/judgements/{id}/media", responses=problems(404, 410))
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

    @router.get("/judgements/{id}/report", responses=problems(404, 409))
    def report(id: str) -> Response:
        """Returns the report that `dfd-edge --report` writes: one self-contained page."""
        judgement = service.get(id)
        if judgement.state is not State.DONE:
            raise Problem("not-done", f"it is {judgement.state}: a report needs a verdict")
        page = service.results.report(judgement).encode()
        name = f"{PurePath(judgement.name).stem}.html"
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    return router


def _lines(service: Service, id_: str, kind: str) -> Response:
    judgement = service.get(id_)
    if judgement.state is not State.DONE and judgement.state is not State.FAILED:
        raise Problem("not-done", f"it is {judgement.state}: take its events, or come back later")

    def text() -> Iterator[str]:
        for _, line in service.results.lines(id_, kind):
            yield line + "\n"

    return StreamingResponse(text(), media_type=JSON_LINES)
