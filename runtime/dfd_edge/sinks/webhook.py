"""Webhook: posts a notification when the label of a live source changes, and for each verdict."""

from __future__ import annotations

import base64
import http.client
import logging
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from dfd_edge.errors import UsageError
from dfd_edge.judging.decision import HeldLabel
from dfd_edge.judging.results import FrameResult, Label, Record, Verdict
from dfd_edge.sinks.sink import Sink
from dfd_edge.text import json_line
from dfd_edge.version import own_version

_SCHEMES = ("http", "https")
_UNQUOTED = "%/:=&?~+!$,;'@()*[]-._"
_MAX_RETRY_AFTER_S = 60.0
logger = logging.getLogger(__name__)
#: Seconds that `close` waits for deliveries.
CLOSE_S = 2.0
#: Length of the queue; when it is full, the oldest notification is dropped.
CAPACITY = 100
#: Attempts at one notification, about a minute in all.
ATTEMPTS = 9
_TIMEOUT_S = 5.0
_FIRST_DELAY_S = 0.25
_MAX_DELAY_S = 30.0
_CLOSING_DELAY_S = 0.5


class Refused(Exception):
    """The server rejects the notification: retrying is useless."""


class Unreachable(Exception):
    """The server could not be reached or could not answer now: retry.

    Attributes:
        wait_s: Seconds that the server asks to wait, 0 where it does not.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An http or https address that receives notifications.

    Attributes:
        url: Without user name and password.
        authorization: Basic authorization header made of them, or None.
        shown: Scheme and host only: for many services the path is a secret.
    """

    url: str = field(repr=False)
    authorization: str | None = field(repr=False)
    shown: str

    @classmethod
    def parse(cls, address: str) -> Endpoint:
        """Parses an address. User name and password become Basic authorization.

        Raises:
            UsageError: It is no http or https address; the message does not repeat it, as it may
                hold a password.
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
            "User-Agent": f"dfd-edge/{own_version()}",
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
    """Returns an opener for http and https only; it returns redirects and errors as answers."""
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
    """Returns why there was no answer, without any part of the address."""
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


class Webhook(Sink):
    """Posts notifications from a thread of its own, in order. Thread-safe; no call waits.

    A notification that cannot be delivered is retried with growing delays and the same body;
    receivers recognise repeats by the `id`. Losses are counted and reported, each cause once.

    Args:
        endpoint: Receives the notifications.
        capacity: Length of the queue.
        timeout_s: Seconds for connecting, and for each wait for the server.
        note: Prints a line for the user.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        capacity: int = CAPACITY,
        timeout_s: float = _TIMEOUT_S,
        note: Callable[[str], None] = logger.warning,
    ) -> None:
        self._note = note
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._run = uuid.uuid4().hex
        self._sequence = 0
        self._dropped = 0
        self._delivered = 0
        self._labels: dict[str, HeldLabel] = {}
        self._queue: deque[bytes] = deque()
        self._capacity = capacity
        self._reported: set[str] = set()
        self._deadline_s: float | None = None
        self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="dfd-edge webhook", daemon=True)
        self._thread.start()

    def begin(self, source: str, *, live: bool) -> None:
        """Announces a source; of files the verdict alone is posted.

        The label of a person has hysteresis, so `fake` has lasted when it comes. That of a source
        also changes with who is in view, and a face that was missed in one frame is no news.
        """
        if live:
            with self._changed:
                self._labels[source] = HeldLabel(at_once=Label.FAKE)

    def frame(self, result: FrameResult) -> None:
        """Notifies when the label of a live source has changed."""
        with self._changed:
            held = self._labels.get(result.source)
            if held is None:
                return
            previous = held.label
            if held.update(result.label, result.time_s):
                self._add(
                    "label",
                    source=result.source,
                    time_s=result.time_s,
                    label=result.label,
                    previous=previous,
                    p_fake=result.p_fake,
                )

    def verdict(self, verdict: Verdict) -> None:
        """Notifies of the verdict on a source."""
        with self._changed:
            held = self._labels.pop(verdict.source, None)
            self._add(
                "verdict",
                source=verdict.source,
                time_s=verdict.duration_s,
                label=verdict.label,
                previous=None if held is None else held.label,
                p_fake=verdict.p_fake,
                verdict=verdict.to_record(),
            )

    def close(self) -> None:
        """Delivers what waits, or gives up after `CLOSE_S`. Safe to call twice."""
        with self._changed:
            if self._deadline_s is not None:
                return
            self._deadline_s = time.monotonic() + CLOSE_S
            self._changed.notify_all()
        self._thread.join(CLOSE_S)
        with self._changed:
            self._abandoned = True
            lost = self._sequence - self._delivered
            dropped = (
                f", {self._dropped} of them dropped from a full queue" if self._dropped else ""
            )
        if lost:
            self._report(f"{lost} of {self._sequence} notifications were not delivered{dropped}")

    def _add(
        self,
        cause: str,
        *,
        source: str,
        time_s: float,
        label: Label,
        previous: Label | None,
        p_fake: float | None,
        verdict: Record | None = None,
    ) -> None:
        if self._deadline_s is not None:
            return
        self._sequence += 1
        body = {
            "record": "notification",
            "id": f"{self._run}-{self._sequence}",
            "run": self._run,
            "sequence": self._sequence,
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "cause": cause,
            "source": source,
            "time_s": round(time_s, 3),
            "label": label.value,
            "previous_label": None if previous is None else previous.value,
            "p_fake": None if p_fake is None else round(p_fake, 6),
            "verdict": verdict,
        }
        if len(self._queue) >= self._capacity:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append(json_line(body).encode("ascii"))
        self._changed.notify_all()

    def _work(self) -> None:
        while (body := self._take()) is not None:
            try:
                delivered = self._deliver(body)
            except Exception as error:
                logger.debug("a fault of this program", exc_info=True)
                self._report_once(f"a notification could not be posted ({type(error).__name__})")
                delivered = False
            with self._changed:
                self._delivered += delivered

    def _take(self) -> bytes | None:
        """Returns the next notification; None at the end."""
        with self._changed:
            while not self._queue:
                if self._deadline_s is not None:
                    return None
                self._changed.wait()
            return self._queue.popleft() if self._left_s() > 0.0 else None

    def _deliver(self, body: bytes) -> bool:
        for attempt in range(ATTEMPTS):
            timeout_s = min(self._timeout_s, self._left_s())
            if timeout_s <= 0.0:
                return False
            if self._dropped:
                self._report_once(
                    "notifications come faster than it takes them; the oldest are lost"
                )
            try:
                self._endpoint.post(body, timeout_s=timeout_s)
            except Refused as refusal:
                self._report_once(f"a notification was refused: {refusal}")
                return False
            except Unreachable as trouble:
                self._report_once(f"{trouble}; trying again")
                if not self._pause(attempt, trouble.wait_s):
                    return False
            else:
                return True
        return False

    def _pause(self, attempt: int, asked_s: float) -> bool:
        """Waits before the next attempt; returns False when there is no time for one."""
        delay_s = min(_FIRST_DELAY_S * 2.0**attempt, _MAX_DELAY_S) * random.uniform(0.5, 1.0)
        until_s = time.monotonic() + max(delay_s, asked_s)
        with self._changed:
            while self._deadline_s is None:
                left_s = until_s - time.monotonic()
                if left_s <= 0.0:
                    return True
                self._changed.wait(left_s)
        # The run is over: sooner than planned, unless the server asked for more time than is left.
        if asked_s > self._left_s():
            return False
        wait_s = max(asked_s, min(delay_s, _CLOSING_DELAY_S))
        time.sleep(max(0.0, min(wait_s, until_s - time.monotonic())))
        return self._left_s() > 0.0

    def _left_s(self) -> float:
        """Seconds until the deadline; without end before `close`."""
        return float("inf") if self._deadline_s is None else self._deadline_s - time.monotonic()

    def _report_once(self, what: str) -> None:
        if what not in self._reported and not self._abandoned:
            self._reported.add(what)
            self._report(what)

    def _report(self, what: str) -> None:
        self._note(f"webhook {self._endpoint.shown}: {what}")
