"""Submissions: a file in a form, the bytes themselves, or an address to fetch it from."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from dfd_edge.serve.judging.store import Upload
from dfd_edge.serve.routes.models import Address, JudgementModel, problems
from dfd_edge.serve.routes.problems import Problem
from dfd_edge.serve.safety.fetching import Fetcher
from dfd_edge.serve.safety.uploads import Incoming, receive_multipart, receive_raw, too_large
from dfd_edge.serve.service import Service

MAX_WAIT_S = 60.0
"""Longest `Prefer: wait`."""
_MAX_JSON = 1 << 16
_WAIT = re.compile(r"\bwait=(\d{1,6})\b")


def submission_routes(service: Service) -> APIRouter:
    """Returns the route that takes files."""
    router = APIRouter(prefix="/v1", tags=["judgements"])
    fetcher = Fetcher(service.settings)

    @router.post(
        "/judgements",
        status_code=202,
        response_model=JudgementModel,
        responses={
            200: {"model": JudgementModel, "description": "It is done, or was judged before"},
            **problems(400, 403, 413, 422, 429, 502, 503),
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
            judgement = await service.ended(judgement, wait_s)
        status = 202 if new and not judgement.state.final else 200
        return JSONResponse(service.describe(judgement), status, headers)

    return router


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
