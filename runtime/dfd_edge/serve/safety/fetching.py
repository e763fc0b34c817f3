"""Fetches files from addresses that `addresses` lets pass, within limits of size and time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from dfd_edge.errors import SourceError, UnreachableError, UnsupportedError
from dfd_edge.serve.judging.store import Upload
from dfd_edge.serve.routes.problems import Problem
from dfd_edge.serve.safety.addresses import (
    AddressPolicy,
    AddressRefusedError,
    FileTooLargeError,
    IpAddress,
    port_of,
)
from dfd_edge.serve.safety.uploads import check_free_name, plain_name
from dfd_edge.sources.address import redact
from dfd_edge.version import own_version

if TYPE_CHECKING:
    from dfd_edge.serve.settings import ServiceSettings

#: Fetches that run at once: a slow host holds up other fetches, and nothing else.
MAX_FETCHES = 4
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_REDIRECTS = 4
_READ_TIMEOUT_S = 15.0
_CHUNK_BYTES = 1 << 16


class Fetcher:
    """Fetches files into the folder of originals, a few at once.

    Args:
        settings: Hosts, limits and the folder of the service.
        policy: What is allowed; by default as the settings say.

    Raises:
        UsageError: A host of the settings means nothing.
    """

    def __init__(self, settings: ServiceSettings, policy: AddressPolicy | None = None) -> None:
        self._folder = settings.media
        self._policy = policy or AddressPolicy(
            settings.allowed_addresses, max_bytes=settings.max_bytes
        )
        self._threads = ThreadPoolExecutor(MAX_FETCHES, thread_name_prefix="dfd-edge fetch")
        self._running = 0

    async def fetch(self, address: str) -> Upload:
        """Fetches a file.

        Raises:
            Problem: The address is refused, or cannot be fetched.
        """
        if self._running >= MAX_FETCHES:
            detail = f"{MAX_FETCHES} addresses are being fetched: try again in a moment"
            raise Problem("busy", detail, {"Retry-After": "10"})
        media, stop = check_free_name(), threading.Event()
        path = self._folder / media
        self._running += 1
        try:
            task = self._threads.submit(fetch, address, path, self._policy, stop=stop)
            fetched = await asyncio.wrap_future(task)
        except AddressRefusedError as error:
            raise Problem("address-refused", str(error)) from error
        except FileTooLargeError as error:
            raise Problem("too-large", str(error)) from error
        except SourceError as error:
            raise Problem("address-failed", str(error)) from error
        finally:
            stop.set()
            self._running -= 1
        if not fetched.size:
            path.unlink()
            raise Problem("address-failed", f"{redact(address)}: the file is empty")
        return Upload(plain_name(fetched.name), media, fetched.sha256, fetched.size)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        name: The last part of the address's path, for display only.
        size: In bytes.
        sha256: Of the whole file, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


def fetch(
    address: str, destination: Path, policy: AddressPolicy, *, stop: threading.Event | None = None
) -> Fetched:
    """Fetches a file.

    Args:
        address: As the user gave it.
        destination: A file that does not exist; after an error it does not either.
        policy: What is allowed.
        stop: Ends the fetch between two reads.

    Raises:
        AddressRefusedError: The policy refuses the address, or one that it redirects to.
        FileTooLargeError: The file is larger than the policy allows.
        UnsupportedError: It is a page, or is encoded.
        UnreachableError: It cannot be fetched, or not in time.
    """
    ends_s = time.monotonic() + policy.timeout_s
    stop = stop or threading.Event()
    at = address
    for _ in range(_MAX_REDIRECTS + 1):
        parts = policy.check(at)
        with contextlib.closing(_Exchange(parts, policy, ends_s)) as exchange:
            target = exchange.redirect()
            if target is None:
                size, sha256 = _save(exchange, destination, policy, stop)
                return Fetched(_name_of(parts), size, sha256)
        before, at = parts.scheme, urljoin(at, target)
        if before == "https" and urlsplit(at).scheme == "http":
            raise AddressRefusedError(redact(address), "redirects from https to http")
    raise UnreachableError(redact(address), f"redirects more than {_MAX_REDIRECTS} times")


class _Exchange:
    """One request to one checked address, and its answer.

    Args:
        parts: The address, its text checked.
        policy: What is allowed.
        ends_s: `time.monotonic()` at which the whole fetch ends, however slowly bytes drip in.

    Attributes:
        name: The address, fit for messages.
        response: The answer; its body is not read yet.
        late: Whether the time was over before the end.

    Raises:
        AddressRefusedError, UnreachableError: As of `fetch`.
    """

    def __init__(self, parts: SplitResult, policy: AddressPolicy, ends_s: float) -> None:
        self.name = redact(parts.geturl())
        self.late = False
        self._socket: socket.socket | None = None
        self._connection: http.client.HTTPConnection | None = None
        candidates = policy.public_addresses(parts)
        self._timer = threading.Timer(max(0.0, ends_s - time.monotonic()), self._end)
        self._timer.daemon = True
        self._timer.start()
        try:
            self._socket = self._connected(parts, policy, candidates)
            self._connection = http.client.HTTPConnection(parts.hostname or "")
            self._connection.sock = self._socket
            self._connection.request("GET", _target(parts), headers=_headers(parts))
            self.response = self._connection.getresponse()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | http.client.HTTPException):
                raise self.unreachable(error) from None
            raise
        if not 200 <= self.response.status < 400:
            self.close()
            raise UnreachableError(self.name, f"the host answered {self.response.status}")

    def redirect(self) -> str | None:
        """Returns where the answer redirects to; None where it is the file."""
        if self.response.status not in _REDIRECTS:
            return None
        return self.response.headers.get("Location", "")

    def unreachable(self, error: Exception) -> UnreachableError:
        """Returns the error of a fetch that broke off."""
        if self.late or isinstance(error, TimeoutError):
            return UnreachableError(self.name, "did not come in time")
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UnreachableError(self.name, f"cannot be fetched ({cause})")

    def close(self) -> None:
        """Closes the connection. Safe to call twice."""
        self._timer.cancel()
        if self._connection is not None:
            self._connection.close()
        if self._socket is not None:
            self._socket.close()

    def _connected(
        self, parts: SplitResult, policy: AddressPolicy, candidates: list[IpAddress]
    ) -> socket.socket:
        last: OSError = OSError("no address")
        for address in candidates:
            try:
                self._socket = policy.connect(address, port_of(parts), _READ_TIMEOUT_S)
            except OSError as error:
                last = error
                continue
            if parts.scheme == "https":
                host = (parts.hostname or "").rstrip(".")
                # The handshake comes when `_end` can reach the socket.
                wrapped = policy.trusted.wrap_socket(
                    self._socket, server_hostname=host, do_handshake_on_connect=False
                )
                self._socket = wrapped
                wrapped.do_handshake()
            return self._socket
        raise last

    def _end(self) -> None:
        self.late = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not TLS's own, which takes the socket from under the thread that reads it.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _save(
    exchange: _Exchange, destination: Path, policy: AddressPolicy, stop: threading.Event
) -> tuple[int, str]:
    """Writes the body to a file. Returns its size and SHA-256."""
    response, name = exchange.response, exchange.name
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedError(name, "the host sends it compressed")
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise UnsupportedError(name, "is a page", "give the address of the file itself")
    if response.length is not None and response.length > policy.max_bytes:
        raise _too_large(name, policy)
    digest, size = hashlib.sha256(), 0
    file = destination.open("xb")
    try:
        with file:
            while chunk := response.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > policy.max_bytes:
                    raise _too_large(name, policy)
                if stop.is_set():
                    raise UnreachableError(name, "was cancelled")
                digest.update(chunk)
                file.write(chunk)
        if exchange.late or response.length:
            raise exchange.unreachable(ConnectionError("broke off before its end"))
    except BaseException as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, http.client.HTTPException | ConnectionError | TimeoutError):
            raise exchange.unreachable(error) from None
        raise
    return size, digest.hexdigest()


def _too_large(name: str, policy: AddressPolicy) -> FileTooLargeError:
    return FileTooLargeError(
        name, f"is larger than {policy.max_bytes >> 20} MB", "the operator's limit is --max-size"
    )


def _headers(parts: SplitResult) -> dict[str, str]:
    return {
        "Host": parts.netloc,
        "User-Agent": f"dfd-edge/{own_version()}",
        "Accept": "video/*, image/*, application/octet-stream",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _name_of(parts: SplitResult) -> str:
    return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.hostname or ""
