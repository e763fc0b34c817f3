"""`dfd-edge serve`: the service on the command line."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_edge.cli.options import provenance_flags, provider_flags
from dfd_edge.errors import DfdError, UsageError
from dfd_edge.inference.machine_settings import settings_flag

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from dfd_edge.serve.service import MakeWorkers, Service
    from dfd_edge.serve.settings import ServiceSettings

_EPILOG = (
    "Exit codes: 0 ended; 1 a fault; 2 usage; 4 the provider asked for cannot run; 5 the bundle "
    "was refused."
)
_MB = 1 << 20
_BACKLOG = 512
_GRACE_S = 10
"""Seconds that answers have to end in after a signal."""
_LIBRARIES = ("fastapi", "uvicorn", "jinja2", "python_multipart", "prometheus_client", "plotly")


@click.command("serve", epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8333,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the database, originals and results; by default dfd-edge in the user's own "
    "data folder.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Folder of the bundle; the shipped one by default.",
)
@settings_flag
@provider_flags
@click.option(
    "--jobs",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    metavar="N",
    help="Files judged at once, each in a process with its own session.",
)
@click.option(
    "--keep",
    "keep_days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="Delete originals after so many days; 0 deletes each once it is judged.",
)
@click.option(
    "--token",
    envvar="DFD_TOKEN",
    metavar="TEXT",
    help="Ask requests for this secret; also read from DFD_TOKEN, which `ps` does not show.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Answer requests for this host name too, as behind a proxy. Repeatable.",
)
@click.option(
    "--allow-addresses",
    metavar="HOST,...",
    help="Fetch files from these hosts when somebody pastes an address; by default from none.",
)
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    metavar="NAME=SOURCE",
    help="Watch this camera or address on the live page. Repeatable.",
)
@click.option(
    "--max-size",
    type=click.FloatRange(min=0, min_open=True),
    default=2048,
    show_default=True,
    metavar="MB",
    help="Refuse larger files.",
)
@click.option(
    "--max-duration",
    "max_duration_s",
    type=click.FloatRange(min=0, min_open=True),
    default=3600,
    show_default=True,
    metavar="S",
    help="Refuse longer films.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Refuse more judgements than this to wait.",
)
@click.option(
    "--max-time",
    "max_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=7200,
    show_default=True,
    metavar="S",
    help="End judgements that take longer.",
)
@click.option(
    "--sandbox/--no-sandbox",
    default=True,
    show_default=True,
    help="Decode files in a process with limits on memory, time, files and network.",
)
@click.option(
    "--sandbox-memory",
    "memory_mb",
    type=click.IntRange(min=256),
    default=2048,
    show_default=True,
    metavar="MB",
    help="Memory that decoding may allocate.",
)
@provenance_flags
@click.option(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Judge on a Ray cluster, with --jobs replicas at most; without an address on one that is "
    "started here.",
)
@click.option(
    "--log",
    "log_kind",
    type=click.Choice(["text", "json"]),
    help="Form of the log on standard error; by default text on a terminal, JSON elsewhere.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every request.")
def command(
    data: Path | None,
    max_size: float,
    allow_addresses: str | None,
    cameras: tuple[str, ...],
    ray_address: str | None,
    log_kind: str | None,
    verbose: bool,
    **options: Any,  # noqa: ANN401 - each is typed in ServiceSettings
) -> None:
    """Runs the service: pages and an API that judge films and photographs.

    It prints its address and listens on this machine alone; anything else needs a --token.
    Ctrl-C waits for what runs; a second one ends it at once, and it is judged again at the next
    start.
    """
    try:
        _check_libraries()
        from dfd_edge.cli.options import check_provenance_flags, take_provider_flags
        from dfd_edge.serve.settings import CameraSource, ServiceSettings, default_folder

        check_provenance_flags(provenance=options["provenance"], trust_list=options["trust_list"])
        settings = ServiceSettings(
            provider_options=take_provider_flags(options),
            data=data or default_folder(),
            max_bytes=max(1, int(max_size * _MB)),
            allowed_addresses=tuple(
                host.strip() for host in (allow_addresses or "").split(",") if host.strip()
            ),
            cameras=tuple(CameraSource.parse(camera) for camera in cameras),
            **options,
        )
        _set_up_logs(log_kind, verbose=verbose)
        if ray_address is None:
            run(settings)
        else:
            from dfd_edge.serve.ray_app import cluster

            with cluster(settings, ray_address) as make_workers:
                run(settings, make_workers)
    except DfdError as error:
        click.echo(f"dfd-edge: error: {error}", err=True)
        sys.exit(error.exit_code)


def _check_libraries() -> None:
    """Refuses to start where a library is missing, or the system lacks what children need."""
    from importlib import import_module

    if os.name != "posix":
        raise UsageError("serve runs on Linux and macOS: use WSL or a container on Windows")
    for library in _LIBRARIES:
        try:
            import_module(library)
        except ImportError as error:
            raise UsageError(
                f"serve needs {library}, which cannot be imported ({error}): run "
                "`pip install 'dfd-edge[cpu,serve]'`"
            ) from error


def run(settings: ServiceSettings, make_workers: MakeWorkers | None = None) -> None:
    """Runs the service until a signal ends it.

    Args:
        settings: Its settings.
        make_workers: Returns what judges; processes by default.

    Raises:
        DfdError: It cannot start.
    """
    import asyncio
    import socket

    from dfd_edge.serve.app import create_app
    from dfd_edge.serve.service import process_workers

    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise UsageError(
            f"--host {settings.host} --port {settings.port}: cannot listen there "
            f"({error.strerror}): give another --port"
        ) from error
    listener.listen(_BACKLOG)
    os.umask(0o077)  # footage of strangers is for this user alone
    app = create_app(settings, make_workers or process_workers)
    host = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}/"
    with contextlib.suppress(KeyboardInterrupt), listener:
        asyncio.run(_serve(app, listener, address))


async def _serve(app: FastAPI, listener: socket.socket, address: str) -> None:
    """Judges and answers until a signal; then waits for what runs, until the next signal."""
    import asyncio
    import signal

    import uvicorn

    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        lifespan="off",  # the service is begun and ended here, where errors and signals are seen
        log_config=None,
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )

    class Server(uvicorn.Server):
        """A server that leaves signals to its caller."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(config)

    def on_signal() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        service.hub.close()
        if server.force_exit:
            service.queue.hurry()

    loop = asyncio.get_running_loop()
    try:
        await service.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        click.echo(f"dfd-edge: {address}")
        await server.serve(sockets=[listener])
    finally:
        if service.queue.running:
            click.echo("dfd-edge: waiting for what runs; Ctrl-C again ends it", err=True)
        await service.end()


_EXTRA = ("judgement", "label", "method", "path", "status", "client", "took_ms")


class _JsonFormatter(logging.Formatter):
    """Formats each entry as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {n: getattr(record, n) for n in _EXTRA if getattr(record, n, None) is not None}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _set_up_logs(kind: str | None, *, verbose: bool) -> None:
    """Sends the log to standard error.

    Args:
        kind: "text" or "json"; by default text on a terminal and JSON elsewhere.
        verbose: Whether every request is logged.
    """
    handler = logging.StreamHandler()
    kind = kind or ("text" if sys.stderr.isatty() else "json")
    if kind == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("dfd-edge: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Entry point of `dfd-edge serve`."""
    command(sys.argv[2:], prog_name="dfd-edge serve")
