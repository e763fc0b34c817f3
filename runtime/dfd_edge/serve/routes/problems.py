"""Errors as `application/problem+json` (RFC 9457), and as pages for browsers."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from dfd_edge.serve.pages import routes as pages

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
#: Every problem of the service: its name, status and title.
PROBLEMS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request is not understood"),
    "token-needed": (401, "A token is needed"),
    "refused": (403, "The request is refused"),
    "address-refused": (403, "This address is not fetched"),
    "not-found": (404, "There is no such thing here"),
    "method-not-allowed": (405, "This address does not take that"),
    "not-done": (409, "The judgement has no result yet"),
    "already-finished": (409, "The judgement has ended already"),
    "media-removed": (410, "The original is no longer kept"),
    "too-large": (413, "The file is too large"),
    "wrong-type": (415, "This kind of body is not read"),
    "too-slow-upload": (408, "The body of the request stands still"),
    "bad-host": (421, "The service is not known by this name"),
    "invalid": (422, "A value of the request is not valid"),
    "queue-full": (429, "Too many judgements are waiting"),
    "fault": (500, "The service has a fault"),
    "address-failed": (502, "The address could not be fetched"),
    "busy": (503, "The service has too much to do"),
    "ending": (503, "The service is ending"),
    # Errors of judgements, whose requests were fine.
    "not-judged": (200, "The file could not be judged"),
    "too-long": (200, "The film is too long"),
    "too-many-faces": (200, "The film has too many faces"),
    "too-slow": (200, "The judgement took too long"),
    "crashed": (200, "The process that judged has died"),
}


@dataclass(eq=False)
class Problem(Exception):
    """A request that cannot be answered as asked.

    Attributes:
        name: One of `PROBLEMS`.
        detail: One line: value, cause and mend.
        headers: Headers of the answer.
    """

    name: str
    detail: str
    headers: dict[str, str] | None = None

    @property
    def status(self) -> int:
        """Status of the answer."""
        return PROBLEMS[self.name][0]

    def body(self) -> dict[str, object]:
        """Returns the problem as an object."""
        return {"status": self.status, **error_of(self.name, self.detail)}

    def response(self, request: Request) -> Response:
        """Returns the answer: a page for browsers, JSON for programs."""
        if wants_page(request):
            return pages.problem_page(request, self)
        return JSONResponse(self.body(), self.status, media_type=MEDIA_TYPE, headers=self.headers)


def error_of(name: str, detail: str) -> dict[str, str]:
    """Returns `type`, `title` and `detail` of a problem."""
    return {"type": f"/problems/{name}", "title": PROBLEMS[name][1], "detail": detail}


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page, by its `Accept`."""
    # Not `request.url`, which cannot be taken apart where the host is no host.
    if request.scope["path"].startswith("/v1/"):
        return "text/html" in request.headers.get("accept", "").partition(",")[0]
    return "text/html" in request.headers.get("accept", "")


_BY_STATUS = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "wrong-type",
}


def install_problems(app: FastAPI) -> None:
    """Lets every error of the application be answered as a problem."""
    from fastapi.exceptions import RequestValidationError  # noqa: PLC0415 - with the application

    @app.get("/problems/{name}", tags=["problems"])
    async def problem(name: str) -> dict[str, str | int]:
        """Returns the title and status of a kind of problem; 200 where it is a judgement's."""
        if name not in PROBLEMS:
            raise Problem("not-found", f"there is no problem {name!r:.60}")
        status, title = PROBLEMS[name]
        return {"type": f"/problems/{name}", "title": title, "status": status}

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> Response:
        return problem.response(request)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        name = _BY_STATUS.get(error.status_code, "fault" if error.status_code >= 500 else "refused")
        phrase = HTTPStatus(error.status_code).phrase
        detail = f"{request.method} {request.scope['path']}: {error.detail or phrase}"
        headers = None if error.headers is None else dict(error.headers)
        return Problem(name, detail, headers).response(request)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Problem("invalid", f"{where}: {first['msg']}").response(request)

    @app.exception_handler(Exception)
    async def on_fault(request: Request, error: Exception) -> Response:
        detail = f"{type(error).__name__}: the log of the service has the traceback"
        return Problem("fault", detail).response(request)
