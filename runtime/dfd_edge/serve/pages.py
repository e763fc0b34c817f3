"""Pages for people."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from dfd_edge.serve.problems import Problem
    from dfd_edge.serve.service import Service


def pages_routes(service: Service) -> APIRouter:
    """Returns the routes of the pages."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def home() -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>dfd-edge</title><h1>dfd-edge</h1>")

    return router


def problem_page(request: Request, problem: Problem) -> Response:
    """Returns an error as a page."""
    text = f"<!doctype html><title>dfd-edge</title><p>{escape(problem.detail)}</p>"
    return HTMLResponse(text, problem.status, headers=problem.headers)
