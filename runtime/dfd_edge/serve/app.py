"""The application: a service with its routes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from dfd_edge.serve.metrics import MEDIA_TYPE, Metrics
from dfd_edge.serve.pages.routes import pages_routes
from dfd_edge.serve.routes.events import event_routes
from dfd_edge.serve.routes.judgements import api_routes
from dfd_edge.serve.routes.live import live_routes
from dfd_edge.serve.routes.problems import install_problems
from dfd_edge.serve.routes.submissions import submission_routes
from dfd_edge.serve.safety.guard import check_exposure, install_guard
from dfd_edge.serve.safety.login import login_routes
from dfd_edge.serve.service import MakeWorkers, Service, process_workers
from dfd_edge.version import own_version

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dfd_edge.serve.settings import ServiceSettings

_DESCRIPTION = """Judges whether the faces in films and photographs are real or deepfaked.

Errors are `application/problem+json`. Records follow the JSON Schema that
`dfd_edge.records_schema()` returns."""


def create_app(settings: ServiceSettings, make_workers: MakeWorkers = process_workers) -> FastAPI:
    """Returns the application. It begins to judge when a server starts it.

    Args:
        settings: Settings of the service.
        make_workers: Returns what judges; processes by default.

    Raises:
        UsageError: The folder cannot be used, or another service works in it.
    """
    check_exposure(settings)
    service = Service(settings, make_workers)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start()
            yield
        finally:
            await service.end()

    app = FastAPI(
        title="dfd-edge",
        version=own_version(),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    install_problems(app)
    for routes in (submission_routes, api_routes, event_routes, live_routes, pages_routes):
        app.include_router(routes(service))
    app.router.routes.extend(login_routes(settings))
    _add_health(app, service)
    install_guard(app, settings)
    app.add_middleware(RequestCounter, metrics=service.metrics)
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> JSONResponse:
        """Answers as long as the service runs."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", tags=["health"], responses={503: {}})
    async def readyz() -> JSONResponse:
        """Answers with 200 while files can be judged, else with 503."""
        queue = service.queue
        ready = queue.alive > 0 and not queue.ending
        status = "ready" if ready else "ending" if queue.ending else "no process can judge"
        return JSONResponse({"status": status, "workers": queue.alive}, 200 if ready else 503)

    @app.get("/metrics", tags=["health"])
    def metrics() -> Response:
        """Returns figures in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)


class RequestCounter:
    """Counts and times requests, as ASGI middleware.

    Args:
        app: The application.
        metrics: Takes the figures.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s, status = time.monotonic(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - begun_s)
