"""Pages for people: handing in, verdicts, comparisons, live sources, the API, and errors."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException

from dfd_edge import report
from dfd_edge.bundle.manifest import DecisionSpec
from dfd_edge.report import words
from dfd_edge.report.html import page_environment
from dfd_edge.serve.judging.store import State
from dfd_edge.serve.pages import views

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.responses import Response

    from dfd_edge.serve.routes.problems import Problem
    from dfd_edge.serve.service import Service

_FOLDER = Path(__file__).resolve().parent
_PLACES = (("/", "Judge"), ("/compare", "Compare"), ("/live", "Live"), ("/docs", "API"))
_MOST_CHOICES = 200
#: Of the reports, whose look the pages share.
_STYLES = Path(report.__file__).with_name("page.css")


@functools.cache
def _static() -> dict[str, Path]:
    """Returns the files that pages load, by name."""
    files = {path.name: path for path in (_FOLDER / "static").iterdir() if path.is_file()}
    return files | {_STYLES.name: _STYLES}


@functools.cache
def _environment() -> Environment:
    return page_environment(_FOLDER / "templates")


def pages_routes(service: Service) -> APIRouter:
    """Returns the routes of the pages.

    Args:
        service: Has the judgements and the live sources.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def home(request: Request) -> HTMLResponse:
        labels = [(label.value, name) for label, name in words.NAMES.items()]
        retention = views.retention_words(service.settings.keep_days)
        origins = views.origins_json()
        return render(request, "home.html", labels=labels, retention=retention, origins=origins)

    @router.get("/judgements/{id_}")
    async def judgement(request: Request, id_: str) -> HTMLResponse:
        view = await asyncio.to_thread(views.view_of, service, service.get(id_))
        return render(request, "judgement.html", view=view)

    @router.get("/compare")
    async def compare(request: Request, a: str = "", b: str = "") -> HTMLResponse:
        judged = service.store.search(state=State.DONE, limit=_MOST_CHOICES)
        chosen: list[views.VerdictView | None] = []
        for id_ in (a, b):
            one = service.get(id_) if id_ else None
            if one is None or one.state is not State.DONE:
                chosen.append(None)
                continue
            chosen.append(await asyncio.to_thread(views.VerdictView.of, service, one))
            if one.id not in {other.id for other in judged}:
                judged.append(one)
        choices = [views.choice_of(one) for one in judged]
        return render(request, "compare.html", judged=choices, a=chosen[0], b=chosen[1])

    @router.get("/live")
    async def watched(request: Request) -> HTMLResponse:
        sources = [source.name for source in service.live]
        spec = DecisionSpec.from_json(service.queue.about["decision"])
        limits = {label: limit.probability for label, limit in spec.thresholds.items()}
        return render(request, "live.html", sources=sources, limits=json.dumps(limits))

    @router.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        return render(request, "docs.html", base=str(request.base_url).rstrip("/"))

    @router.get("/static/{name}")
    async def static(name: str) -> FileResponse:
        path = _static().get(name)
        if path is None:
            raise HTTPException(404, "there is no such file")
        # Asked for again each time, and answered from the ETag: never of another version.
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    return router


def problem_page(request: Request, problem: Problem) -> Response:
    """Returns an error as a page."""
    answer = render(
        request,
        "error.html",
        status=problem.status,
        title=problem.body()["title"],
        detail=problem.detail,
        code=problem.status,
        kind=problem.name,
    )
    answer.headers.update(problem.headers or {})
    return answer


def render(request: Request, template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """Returns a page.

    Args:
        request: What it answers.
        template: Name of the template.
        status: Status of the answer.
        values: What the template takes beside the layout's own.
    """
    service: Service = request.app.state.service
    layout = {
        "places": _PLACES,
        "here": request.url.path,
        "logout": service.settings.token is not None and request.url.path != "/login",
    }
    text = _environment().get_template(template).render(layout | values)
    return HTMLResponse(text, status, headers={"Cache-Control": "no-store"})
