"""Logging in: people give the token once; their browser keeps a cookie that scripts cannot read.

Programs send the token with each request instead. `guard` checks both.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dfd_edge.serve.pages import routes as pages
from dfd_edge.serve.routes.problems import Problem
from dfd_edge.serve.safety.guard import COOKIE, COOKIE_DAYS, WRONG_TOKEN_S, Session

if TYPE_CHECKING:
    from starlette.requests import Request

    from dfd_edge.serve.settings import ServiceSettings

_FORM = "application/x-www-form-urlencoded"


def login_routes(settings: ServiceSettings) -> list[Route]:
    """Returns the routes `/login` and `/logout`.

    Args:
        settings: The token of the service; without one both lead to the start page.
    """
    session = None if settings.token is None else Session(settings.token)

    async def show(request: Request) -> Response:
        if session is None or session.admits(request):
            return RedirectResponse(next_of(request.query_params.get("next", "")), 303)
        target = next_of(request.query_params.get("next"))
        return pages.render(request, "login.html", next=target, wrong=False)

    async def take(request: Request) -> Response:
        fields = await _form(request)
        target = next_of(fields.get("next"))
        if session is None:
            return RedirectResponse(target, 303)
        if not session.is_token(fields.get("token", "")):
            await asyncio.sleep(WRONG_TOKEN_S)
            return pages.render(request, "login.html", status=401, next=target, wrong=True)
        response = RedirectResponse(target, 303)
        _set(response, request, session.cookie(), COOKIE_DAYS * 86_400)
        return response

    async def leave(request: Request) -> Response:
        response = RedirectResponse("/login" if session else "/", 303)
        _set(response, request, "", 0)
        return response

    return [
        Route("/login", show, methods=["GET"]),
        Route("/login", take, methods=["POST"]),
        Route("/logout", leave, methods=["POST"]),
    ]


def next_of(text: str | None) -> str:
    """Returns a place of this service to go to after the login: never one of another host."""
    text = text or "/"
    parts = urlsplit(text)
    plain = text.isprintable() and "\\" not in text
    own = text.startswith("/") and not text.startswith("//") and not parts.netloc
    return text if own and plain and not parts.path.startswith("/login") else "/"


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != _FORM:
        raise Problem("wrong-type", f"/login takes a form ({_FORM})")
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(body, max_num_fields=10)
    except ValueError as error:
        raise Problem("bad-request", f"the form is not read ({error})") from None
    return {name: values[0] for name, values in fields.items()}


def _set(response: Response, request: Request, value: str, seconds: int) -> None:
    response.set_cookie(
        COOKIE,
        value,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        # A proxy that ends TLS says so; whoever else does only harms the own login.
        secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
    )
