"""Sources that a limited child process opens and decodes; frames come over a pipe.

The child can only break itself: a crash, a hang or too much memory is an error of that source.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfd_edge.closing import Closing
from dfd_edge.errors import (
    CameraError,
    NotMediaError,
    SourceError,
    SourceFaultError,
    SourceNotFoundError,
    UnreachableError,
    UnsupportedError,
)
from dfd_edge.libraries import wrong_version
from dfd_edge.sandbox.messages import FramesRequest, OpenRequest, receive_message, send_object
from dfd_edge.sandbox.process import ChildProcess, name_of_signal
from dfd_edge.sources.expand import SourceItem, SourceKind
from dfd_edge.sources.frames import (
    BURST_FRAMES,
    BURST_SIDE,
    MOST_PIXELS,
    AllFrames,
    Burst,
    DueFrames,
    Foreseeable,
    Frame,
    Image,
    Pixels,
)
from dfd_edge.sources.timing import Backlog

if TYPE_CHECKING:
    from dfd_edge.sources.planes import PlaneLayout

#: A child that is silent for this long is ended. Waits for a network end sooner.
STALL_S = 30.0
_POLL_MS = 50
#: Linux' own pipes hold 64 KB: a frame would take dozens of turns. Few may have more than 1 MB.
_PIPE_BYTES = (1 << 22, 1 << 20)
_MAX_TEXT = 2000
#: Errors that a child may name.
_ERRORS: dict[object, type[SourceError]] = {
    kind.__name__: kind
    for kind in (
        *(SourceError, SourceNotFoundError, NotMediaError, UnsupportedError, UnreachableError),
        CameraError,
    )
}


class SandboxedSource(Closing):
    """A source that a child process decodes, once from start to end. Use as a context manager.

    It gives the same frames as the source itself would.

    Args:
        item: What is opened, and how.
        live: Whether it is to be watched.
        threads: Threads that FFmpeg may use.
        stop: Ends the wait for the source.

    Attributes:
        finite, complete, reason, end_s, width, height, duration_s, frame_rate, doubt, notes: As of
            the source itself.
        backlog: How far a live stream is behind.

    Raises:
        SourceError: The child could not open it, or died of it.
    """

    def __init__(
        self,
        item: SourceItem,
        *,
        live: bool,
        threads: int = 1,
        stop: threading.Event | None = None,
    ) -> None:
        self.name = item.name
        self.finite = True
        self.complete = True
        self.reason: str | None = None
        self.end_s = 0.0
        self.width = self.height = 0
        self.duration_s: float | None = None
        self.frame_rate = 25.0
        self.doubt: str | None = None
        self.notes: tuple[str, ...] = ()
        self.backlog = Backlog(1.0 / self.frame_rate)
        self._child = Child(item, live=live, threads=threads, stop=stop)
        self._consumed = False
        try:
            opened = self._child.next()
            if opened is None:
                raise SourceError(self.name, "stopped before it was open")
            self._take(opened)
        except BaseException:
            self.close()
            raise

    def frames(
        self, sampler: DueFrames, *, every: bool = False, bursts: bool = False
    ) -> Iterator[Frame]:
        """Yields the due frames in order.

        Args:
            sampler: Says which frames are due.
            every: Whether the other frames are yielded too, for display.
            bursts: Whether due frames carry their `Burst`.

        Raises:
            SourceError: As of the source itself; or the child crashed, hung or hit a limit.
        """
        if self._consumed:
            raise SourceError(self.name, "already read", "open it again for a second pass")
        self._consumed = True
        # A sampler that cannot be sent is asked here, about frames that were all sent.
        sent = isinstance(sampler, Foreseeable)
        copy = sampler.foresee() if isinstance(sampler, Foreseeable) else AllFrames()
        self._child.send(FramesRequest(copy, every=every, bursts=bursts, skips=self.backlog.skips))
        while message := self._child.next():
            self._take(message)
            answers = [sampler.is_due(time_s) for time_s in message.times_s]
            due = message.due if sent else any(answers[-1:])
            if message.picture is not None and (due or every):
                burst = message.burst if due else None
                yield Frame(message.picture, message.time_s, message.index, due, burst)
            if message.ended:
                return

    def close(self) -> None:
        """Ends the child. Safe to call twice."""
        self._child.close()

    def _take(self, message: Message) -> None:
        """Applies the changes of the source in the child."""
        for name, value in message.changed.items():
            setattr(self, name, value)
        # The way from there to here counts as waiting.
        way_s = min(max(time.monotonic() - message.sent_s, 0.0), STALL_S)
        self.backlog.lag_s = message.lag_s + way_s
        self.backlog.skipped_s += message.skipped_s


def sandboxed_still(item: SourceItem) -> Image:
    """Decodes a still picture in a child process.

    Returns:
        uint8 [height, width, 3], BGR.

    Raises:
        SourceError: As of the picture itself; or the child crashed, hung or hit a limit.
    """
    child = Child(item, live=False, threads=1, stop=None)
    try:
        message = child.next()
    finally:
        child.close()
    if message is None or not isinstance(message.picture, np.ndarray):
        raise SourceError(item.name, "no picture came of the sandbox")
    return message.picture


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A message of a child, each value checked.

    Attributes:
        changed: Attributes of the source, as `SandboxedSource` has them.
        times_s: Of frames that were decoded since the last message, in order.
        picture: A frame or still, or None.
        time_s, index, due, burst: Of the frame.
        lag_s, skipped_s: As of `Backlog`; the second since the last message.
        sent_s: `time.monotonic()`, which all processes share.
        ended: Whether it was the last one.

    Raises:
        ValueError: A number is none, or not finite.
    """

    changed: dict[str, object]
    times_s: list[float]
    picture: Pixels | None
    time_s: float
    index: int
    due: bool
    burst: Burst | None
    lag_s: float
    skipped_s: float
    sent_s: float
    ended: bool

    @classmethod
    def of(cls, fields: dict[str, Any], picture: Pixels | None, burst: Burst | None) -> Message:
        """Reads a received message."""
        changed = dict(fields.get("changed", {}))
        return cls(
            changed={name: _KINDS[name](value) for name, value in changed.items()},
            times_s=[_number(time_s) for time_s in fields.get("times_s", [])],
            picture=picture,
            time_s=_number(fields.get("time_s", 0.0)),
            index=int(_number(fields.get("index", 0))),
            due=fields.get("due") is True,
            burst=burst,
            lag_s=_number(fields.get("lag_s", 0.0)),
            skipped_s=max(0.0, _number(fields.get("skipped_s", 0.0))),
            sent_s=_number(fields.get("sent_s", 0.0)),
            ended="ended" in fields,
        )


class Child:
    """A process that decodes one source.

    Args:
        item: What it opens.
        live: Whether it is to be watched.
        threads: Threads that FFmpeg may use.
        stop: Ends waits.

    Raises:
        SourceError: It cannot be started.
    """

    def __init__(
        self, item: SourceItem, *, live: bool, threads: int, stop: threading.Event | None
    ) -> None:
        self._name = item.name
        self._stop = stop or threading.Event()
        self._memory_mb = item.options.sandbox_memory_mb
        # Nobody knows when the next bytes of a pipe come.
        self._may_stall = item.kind is SourceKind.STANDARD_INPUT
        network = "network" if item.kind is SourceKind.ADDRESS else "local"
        try:
            self._process = ChildProcess(
                "dfd_edge.sandbox.child",
                network,
                environment={"OPENCV_LOG_LEVEL": "SILENT"},
                takes_input=self._may_stall,
            )
        except OSError as error:
            raise SourceError(self._name, f"the sandbox cannot be started ({error})") from error
        _widen(self._process.answers)
        self.send(OpenRequest(_sendable(item), live, threads, self._memory_mb))

    def send(self, thing: OpenRequest | FramesRequest) -> None:
        """Sends something to the child."""
        with contextlib.suppress(BrokenPipeError):  # `next` raises the cause of its death
            send_object(self._process.control, thing)

    def next(self) -> Message | None:
        """Returns the child's next message; None once `stop` is set.

        Raises:
            SourceError: The source's own error; or the child died, hung or talked nonsense.
        """
        try:
            message, size = receive_message(self._receive)
            if "error" in message:
                raise self._error_of(dict(message["error"]))
            return Message.of(message, *self._pictures(message, size))
        except _Stopped:
            return None
        except EOFError:
            raise SourceError(self._name, self._cause_of_death()) from None
        except (LookupError, ValueError, TypeError, RecursionError) as error:
            self.close()
            raise SourceError(self._name, f"the sandbox sent no sense ({error})") from None

    def close(self) -> None:
        """Ends the process. Safe to call twice."""
        self._process.close()

    def _pictures(self, message: dict[str, Any], size: int) -> tuple[Pixels | None, Burst | None]:
        """Receives a picture, and behind it the planes of its burst."""
        if not size:
            return None, None
        layout = _layout(message["planes"]) if "planes" in message else None
        height, width = (
            (layout.height, layout.width)
            if layout is not None
            else (int(_number(side)) for side in message["shape"])
        )
        of_burst = message.get("burst")
        planes = None if of_burst is None else _planes(of_burst)
        expected = 3 * height * width if layout is None else layout.size
        if (
            min(height, width) < 1
            or height * width > MOST_PIXELS
            or size != expected + (0 if planes is None else planes.size)
        ):
            raise ValueError(f"a picture of {width}x{height} in {size} bytes")
        data = np.empty(expected, np.uint8)
        self._receive(data.data)
        pixels: Pixels = (
            data.reshape(height, width, 3) if layout is None else _picture(layout, data)
        )
        if planes is None:
            return pixels, None
        self._receive(planes.data.cast("B"))
        return pixels, Burst(tuple(planes))

    def _receive(self, buffer: memoryview) -> None:
        """Fills the buffer from the child's pipe.

        Raises:
            EOFError: It is dead.
            _Stopped: `stop` is set, or the child was closed.
            SourceError: Nothing came for too long.
        """
        poll = select.poll()
        poll.register(self._process.answers, select.POLLIN | select.POLLHUP)
        heard_s = time.monotonic()
        while buffer:
            if self._stop.is_set() or self._process.closed:
                raise _Stopped
            if poll.poll(_POLL_MS):
                count = os.readv(self._process.answers, [buffer])
                if not count:
                    raise EOFError
                buffer = buffer[count:]
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > STALL_S and not self._may_stall:
                self.close()
                raise SourceError(
                    self._name, f"decoding got nowhere for {STALL_S:g} s", "its sandbox was ended"
                )

    def _error_of(self, told: dict[str, Any]) -> SourceError:
        """Returns the error that the child met, under the name that the source has here."""
        kind = told.get("kind")
        if kind == MemoryError.__name__:
            return SourceError(
                self._name,
                f"decoding takes more than the {self._memory_mb} MB that its sandbox has",
                "where you trust it, give more with --sandbox-memory",
            )
        cause = str(told["cause"])[:_MAX_TEXT]
        if kind in _ERRORS:
            return _ERRORS[kind](self._name, cause, _text(told.get("mend")))
        advice = wrong_version() or "run again with --no-sandbox and -v for the cause"
        return SourceFaultError(self._name, f"decoding failed in its sandbox ({cause})", advice)

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        self.close()
        if code >= 0:
            return f"decoding failed in its sandbox (exit {code})"
        name = name_of_signal(code)
        if -code == signal.SIGKILL:
            return f"the sandbox that decoded it was killed ({name}), perhaps for want of memory"
        return f"decoding crashed in its sandbox ({name}): damaged or hostile"


class _Stopped(Exception):
    """The wait was asked to stop."""


def _widen(pipe: int) -> None:
    import fcntl  # noqa: PLC0415 - not on Windows

    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        return
    for size in _PIPE_BYTES:
        with contextlib.suppress(OSError):  # more than a user may have
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
            return


def _sendable(item: SourceItem) -> SourceItem:
    """Returns the item with an open file's bytes in place of the file."""
    file: Any = item.location
    if not hasattr(file, "read"):
        return item
    file.seek(0)
    contents: Any = io.BytesIO(file.read())
    return replace(item, location=contents)


def _planes(shape: list[object]) -> NDArray[np.uint8]:
    """Returns room for the planes of a burst, each of this height and width."""
    height, width = (int(_number(side)) for side in shape)
    if not 1 <= min(height, width) <= max(height, width) <= BURST_SIDE:
        raise ValueError(f"a burst of {width}x{height}")
    return np.empty((BURST_FRAMES, height, width), np.uint8)


def _layout(values: list[Any]) -> PlaneLayout:
    """Returns how planes are stored; the layout checks the values."""
    from dfd_edge.sources.planes import PlaneLayout  # noqa: PLC0415 - opens FFmpeg's libraries

    name, *numbers, mirrored = values
    width, height, matrix, levels, degrees = (int(_number(number)) for number in numbers)
    return PlaneLayout(str(name), width, height, matrix, levels, degrees, mirrored is True)


def _picture(layout: PlaneLayout, data: NDArray[np.uint8]) -> Pixels:
    from dfd_edge.sources.planes import PlanePicture  # noqa: PLC0415 - opens FFmpeg's libraries

    return PlanePicture.from_planes(layout, data)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} for a number")
    return float(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:_MAX_TEXT]


def _side(value: object) -> int:
    return int(_number(value))


def _duration(value: object) -> float | None:
    return None if value is None else _number(value)


def _rate(value: object) -> float:
    rate = _number(value)
    if rate <= 0.0:
        raise ValueError(f"{rate:g} frames per second")
    return rate


def _notes(value: object) -> tuple[str, ...]:
    return tuple(str(note)[:_MAX_TEXT] for note in value) if isinstance(value, list) else ()


#: Conversions of the attributes that a child reports.
_KINDS: dict[str, Callable[[object], object]] = {
    **dict.fromkeys(("finite", "complete"), bool),
    **dict.fromkeys(("reason", "doubt"), _text),
    **dict.fromkeys(("width", "height"), _side),
    "end_s": _number,
    "duration_s": _duration,
    "frame_rate": _rate,
    "notes": _notes,
}
