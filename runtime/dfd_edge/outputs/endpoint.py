"""Where notifications are posted: an http or https address, and one attempt at it."""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from dfd_edge.errors import UsageError
from dfd_edge.version import version_of

_SCHEMES = ("http", "https")
_UNQUOTED = "%/:=&?~+!$,;'@()*[]-._"
_MAX_RETRY_AFTER_S = 60.0


class Refused(Exception):
    """The server does not want the notification: trying again is of no use."""


class Unreachable(Exception):
    """The server could not be reached or could not answer now: try again.

    Attributes:
        wait_s: Seconds that the server asks to wait, 0 where it does not.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that takes notifications.

    Attributes:
        url: Without user name and password.
        authorization: Header made of them, or None.
        shown: Scheme and host alone: for many services the path is a secret.
    """

    url: str = field(repr=False)
    authorization: str | None = field(repr=False)
    shown: str

    @classmethod
    def parse(cls, address: str) -> Endpoint:
        """Checks and takes apart an address. User name and password become Basic authorization.

        Raises:
            UsageError: It is no http or https address; the message does not repeat it, since it
                may hold a password.
        """
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise UsageError("--webhook: the address has no valid host or port") from None
        if not address.isprintable() or " " in address:
            raise UsageError("--webhook: the address has a space or a control character in it")
        if parts.scheme not in _SCHEMES or not host:
            raise UsageError("--webhook: give an http or https address, such as https://HOST/PATH")
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise UsageError("--webhook: the address has no valid host or port") from None
        place = f"[{host}]" if ":" in host else host
        if port is not None:
            place += f":{port}"
        path = quote(parts.path or "/", safe=_UNQUOTED)
        query = f"?{quote(parts.query, safe=_UNQUOTED)}" if parts.query else ""
        more = "/..." if path != "/" or query else ""
        return cls(
            url=f"{parts.scheme}://{place}{path}{query}",
            authorization=_authorization(parts),
            shown=f"{parts.scheme}://{place}{more}",
        )

    def post(self, body: bytes, *, timeout_s: float) -> None:
        """Posts a JSON object once; redirects are not followed.

        Args:
            body: UTF-8.
            timeout_s: Seconds that connecting, and each wait for the server, may take.

        Raises:
            Refused: The answer is a redirect or a fault of the request (3xx, 4xx).
            Unreachable: There was no answer, or it was 429 or 5xx.
        """
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"dfd-edge/{version_of('dfd-edge') or 'unknown'}",
        }
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        try:
            with _opener().open(request, timeout=timeout_s) as answer:
                status, wait_s = answer.status, _retry_after(answer.headers.get("Retry-After"))
        except urllib.error.URLError as error:
            raise Unreachable(_cause(error.reason, timeout_s)) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(_cause(error, timeout_s)) from None
        if 200 <= status < 300:
            return
        if status == 429 or status >= 500:
            raise Unreachable(f"it answered {status}", wait_s)
        if 300 <= status < 400:
            raise Refused(f"it answered {status}, a redirect; give the address that it leads to")
        raise Refused(f"it answered {status}")


def _authorization(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https and nothing else; any answer is returned, redirects and errors too."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler())
    return opener


def _retry_after(text: str | None) -> float:
    """Seconds to wait; dates are not read."""
    if text is None or not text.strip().isdecimal():
        return 0.0
    return min(float(text), _MAX_RETRY_AFTER_S)


def _cause(error: object, timeout_s: float) -> str:
    """Why there was no answer, without anything of the address."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:.1f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused ({error.verify_message})"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return "connection lost"
    if isinstance(error, http.client.HTTPException):
        return "its answer is not HTTP"
    strerror = getattr(error, "strerror", None)
    return str(strerror or type(error).__name__)
