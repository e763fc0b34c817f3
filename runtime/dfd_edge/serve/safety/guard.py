"""Checks before the application: access, amounts, and rules for browsers.

The service judges private footage, so another web page that is open in the same browser is an
attacker too: it can send requests here (CSRF), or give its own name to this machine's address and
read the answers (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse

from dfd_edge.errors import UsageError
from dfd_edge.serve.routes.problems import Problem, wants_page
from dfd_edge.serve.safety.uploads import too_large

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dfd_edge.serve.settings import ServiceSettings

logger = logging.getLogger(__name__)

#: Shorter tokens can be guessed.
MIN_TOKEN = 16
#: Requests that run at once, open streams of events among them.
MAX_REQUESTS = 200
#: A body of which nothing comes for this long is given up.
BODY_TIMEOUT_S = 30.0
#: Bodies of requests that hand in no file, and what a multipart body has beside its file.
MAX_SMALL_BYTES = 1 << 16
COOKIE = "dfd_edge"
COOKIE_DAYS = 7
WRONG_TOKEN_S = 0.5
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_OWN_SITES = frozenset(("same-origin", "none"))
#: Answered without a token: probes of whoever runs the service, and what the login page needs.
_OPEN = ("/healthz", "/readyz", "/login", "/logout")
_OPEN_FOLDER = "/static/"
_UPLOADS = "/v1/judgements"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Of what users uploaded, and of reports: nothing runs, whatever a browser takes it for.
_INERT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
_FEATURES = (
    *("accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "microphone"),
    *("midi", "payment", "publickey-credentials-get", "serial", "usb"),
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With `no-referrer`, browsers send `Origin: null` with forms, which could be anybody's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
}


def install_guard(app: FastAPI, settings: ServiceSettings) -> None:
    """Puts the checks before everything else of an application.

    Args:
        app: The application.
        settings: Address, names, token and limits of the service.
    """
    app.add_middleware(Guard, settings=settings)


def check_exposure(settings: ServiceSettings) -> None:
    """Refuses to listen to other machines without a secret.

    Raises:
        UsageError: The address is not a loopback one and there is no token; or the token is short.
    """
    if settings.token is not None and len(settings.token) < MIN_TOKEN:
        raise UsageError(
            f"--token: {len(settings.token)} characters can be guessed: give {MIN_TOKEN} or more, "
            'such as from: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    if settings.token is not None:
        return
    others = [name for name in settings.hosts if not is_loopback(name)]
    if others:
        raise UsageError(
            f"--allow-host {others[0]}: who knows this name could read and judge footage: set "
            f"DFD_TOKEN to a secret of {MIN_TOKEN} or more characters"
        )
    if not is_loopback(settings.host):
        raise UsageError(
            f"--host {settings.host}: other machines could read and judge footage: set DFD_TOKEN "
            f"to a secret of {MIN_TOKEN} or more characters, and put a proxy with TLS before the "
            "service, since the token and the footage are readable on the way without it "
            "(docs/serve.md, For good, and for others); or leave --host out"
        )


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine alone: `localhost` or a loopback address."""
    name = host.lower().strip("[]").removeprefix("::ffff:")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Session:
    """The secret that lets requests in: as a header of programs, or as a cookie of people.

    The cookie does not hold the token, but a signature by it with an end: a stolen one works for
    days, and no longer than the token.

    Args:
        token: The secret.
        clock: Seconds since 1970.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        self._token = token.encode()
        self._clock = clock

    def is_token(self, given: str) -> bool:
        """Returns whether this is the token, in a time that does not depend on what is given."""
        digests = (hashlib.sha256(text).digest() for text in (given.encode(), self._token))
        return hmac.compare_digest(*digests)

    def cookie(self) -> str:
        """Returns a new value of the cookie."""
        ends = str(int(self._clock()) + COOKIE_DAYS * 86_400)
        return f"{ends}.{self._sign(ends)}"

    def is_cookie(self, value: str) -> bool:
        """Returns whether a value was signed here and has not ended."""
        ends, _, signature = value.partition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign(ends).encode())
        return genuine and ends.isascii() and ends.isdigit() and int(ends) > self._clock()

    def admits(self, request: Request) -> bool:
        """Returns whether a request brings the token or the cookie."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(given.strip())
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(request.headers.get("cookie", ""))
        except CookieError:
            return False
        return COOKIE in cookies and self.is_cookie(cookies[COOKIE].value)

    def _sign(self, ends: str) -> str:
        return hmac.new(self._token, f"session until {ends}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """Checks each request before the application sees it, and completes each answer.

    ASGI middleware.

    Args:
        app: The application.
        settings: Address, names, token and limits of the service.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._names = _names_of(settings)
        # A name is needed to rebind it: literal addresses are as good as this machine's own.
        self._any_address = not is_loopback(settings.host)
        self._session = None if settings.token is None else Session(settings.token)
        self._max_bytes = settings.max_bytes
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request, answer = Request(scope), _Answer(scope, send)
        try:
            self._running += 1
            await self._check(request)
            body = _Body(receive, self._limit_of(request), answer)
            await self._app(scope, body.receive, answer.send)
        except Problem as problem:
            await answer.replace(problem)
        except Exception as error:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            detail = f"{type(error).__name__}: the log of the service has the traceback"
            if not await answer.replace(Problem("fault", detail)):
                raise  # the answer had begun: the connection is cut, so that it is not taken whole
        finally:
            self._running -= 1

    async def _check(self, request: Request) -> None:
        self._check_host(request)
        if self._running > MAX_REQUESTS:
            detail = f"{MAX_REQUESTS} requests are running: ask again in a moment"
            raise Problem("busy", detail, {"Retry-After": "5"})
        self._check_site(request)
        await self._check_token(request)
        limit, stated = self._limit_of(request), request.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated[:20]) > limit:
            raise _too_large(limit)

    def _check_host(self, request: Request) -> None:
        """Refuses names that are not the service's own: DNS rebinding."""
        given = request.headers.getlist("host")
        name = _host_of(given[0]) if len(given) == 1 else None
        if name is None:
            raise Problem("bad-host", "the request has no Host, several, or none that is readable")
        if name in self._names or (self._any_address and _is_address(name)):
            return
        raise Problem(
            "bad-host",
            f"{name} is no name of this service: the operator adds further ones with --allow-host",
        )

    def _check_site(self, request: Request) -> None:
        """Refuses what the pages of other sites send here: CSRF, and embedding."""
        site = request.headers.get("sec-fetch-site")
        if request.method in _SAFE_METHODS:
            # A link from elsewhere may lead here; scripts, pictures and frames may not.
            visit = request.headers.get("sec-fetch-mode") == "navigate"
            if site is None or site in _OWN_SITES or (visit and request.method == "GET"):
                return
            raise Problem("refused", "another site asks for this; open it here instead")
        if site is not None and site not in _OWN_SITES:
            raise Problem("refused", "the request comes from another site's page")
        origin = request.headers.get("origin")
        if origin is None or (origin == "null" and site is not None):
            return  # a program; or a browser that has said already that it is no other site
        if origin.partition("://")[2].lower() != request.headers["host"].lower():
            raise Problem("refused", f"the request comes from a page of {origin:.100}, not of here")

    async def _check_token(self, request: Request) -> None:
        path = request.url.path
        if self._session is None:
            # Whatever server or proxy runs the application may listen to others all the same.
            if request.client is not None and not is_loopback(request.client.host):
                raise Problem("refused", "other machines need a token, which DFD_TOKEN sets")
            return
        if path in _OPEN or path.startswith(_OPEN_FOLDER):
            return
        if self._session.admits(request):
            return
        if "authorization" in request.headers:
            await asyncio.sleep(WRONG_TOKEN_S)
        detail = "send the header `Authorization: Bearer TOKEN`, or log in at /login"
        raise Problem("token-needed", detail, {"WWW-Authenticate": "Bearer"})

    def _limit_of(self, request: Request) -> int:
        upload = request.method == "POST" and request.url.path.rstrip("/") == _UPLOADS
        return MAX_SMALL_BYTES + (self._max_bytes if upload else 0)


class _Answer:
    """The answer to one request: it gets the headers, and may be replaced before it begins.

    Args:
        scope: The request.
        send: Sends it.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._begun = False
        self._replaced = False

    async def send(self, message: Message) -> None:
        """Sends a part of the application's answer, unless another was sent in its place."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self._begun = True
            complete_headers(MutableHeaders(scope=message), self._scope["path"])
        await self._send(message)

    async def replace(self, problem: Problem) -> bool:
        """Answers with a problem; returns False where an answer has begun."""
        if self._begun:
            return False
        request = Request(self._scope)
        response = problem.response(request)
        if problem.name == "token-needed" and wants_page(request):
            query = f"?{request.url.query}" if request.url.query else ""
            response = RedirectResponse(f"/login?next={quote(request.url.path + query)}", 303)
        if problem.name == "too-large":
            response.headers["Connection"] = "close"
        await response(self._scope, _nothing, self.send)
        self._replaced = True
        return True


class _Body:
    """The body of a request, counted: it may neither be too large nor stand still.

    Args:
        receive: Gives its parts.
        limit: Bytes that it may have.
        answer: Answered here where it has more, whatever the application makes of the error.
    """

    def __init__(self, receive: Receive, limit: int, answer: _Answer) -> None:
        self._receive = receive
        self._limit = limit
        self._answer = answer
        self._size = 0
        self._whole = False

    async def receive(self) -> Message:
        """Returns the next message.

        Raises:
            Problem: The body is too large, or nothing came of it.
        """
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), BODY_TIMEOUT_S)
        except TimeoutError:
            detail = f"nothing of the body came for {BODY_TIMEOUT_S:g} s"
            await self._refuse(Problem("too-slow-upload", detail))
        self._whole = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            await self._refuse(_too_large(self._limit))
        return message

    async def _refuse(self, problem: Problem) -> None:
        await self._answer.replace(problem)
        raise problem


def complete_headers(headers: MutableHeaders, path: str) -> None:
    """Adds what browsers are told with every answer, where the application has not.

    Args:
        headers: Of the answer.
        path: That was asked for.
    """
    uploaded = path.startswith(f"{_UPLOADS}/") and path.endswith(("/media", "/report"))
    headers["Content-Security-Policy"] = _INERT_POLICY if uploaded else _POLICY
    for name, value in _HEADERS.items():
        headers[name] = value
    # Private footage does not stay in caches.
    headers.setdefault("Cache-Control", "no-store")


def _too_large(limit: int) -> Problem:
    """Returns the problem of a body that exceeds its limit in bytes."""
    if limit > MAX_SMALL_BYTES:
        return too_large(limit - MAX_SMALL_BYTES)
    return Problem("too-large", f"at most {limit >> 10} KB are taken here")


async def _nothing() -> Message:
    """Receives nothing more of a request."""
    return {"type": "http.disconnect"}


def _names_of(settings: ServiceSettings) -> frozenset[str]:
    names = {"localhost", "127.0.0.1", "::1", settings.host.strip("[]").lower()}
    return frozenset(names | {name.lower().rstrip(".") for name in settings.hosts})


def _host_of(header: str) -> str | None:
    """Returns the name in a `Host` header, in lower case and without its port."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != header or "@" in header or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
