"""The child process: decodes one source and sends its frames.

python -m dfd_edge.sandbox.child CONTROL ANSWERS LIFELINE local|network
"""

from __future__ import annotations

import dataclasses
import os
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dfd_edge.errors import DfdError, SourceError, SourceFaultError, is_out_of_memory
from dfd_edge.sandbox import confining
from dfd_edge.sandbox.messages import (
    FramesRequest,
    OpenRequest,
    read_all,
    receive_object,
    send_message,
)

if TYPE_CHECKING:
    from dfd_edge.sources.frames import Burst, DueFrames, Foreseeable, Pixels
    from dfd_edge.sources.seeking import PartSampler

#: Times of frames that are not sent go together, at least this often.
_REPORT_S = 0.1
#: Messages that wait to be sent; frames among them may be large.
_QUEUE_MESSAGES = 2
#: Attributes of a source that are reported to the parent, as far as it has them.
REPORTED = (
    *("finite", "complete", "reason", "end_s", "width", "height", "duration_s"),
    *("frame_rate", "doubt", "notes"),
)


def main(control: int, answers: int, lifeline: int, network: bool) -> None:
    """Opens, decodes and sends until the source or the parent ends."""
    confining.end_with_parent(lifeline)
    if not network:
        confining.leave_network()
    sender = _Sender(answers)
    try:
        _answer(control, sender, network)
    except Exception as error:
        sender.send(error=_parts(error))
    sender.finish()


def _parts(error: Exception) -> dict[str, str | None]:
    """Returns the parts of an error, from which the parent builds its own."""
    if is_out_of_memory(error):
        return {"kind": MemoryError.__name__}
    if isinstance(error, SourceError):
        return {"kind": type(error).__name__, "cause": error.cause, "mend": error.mend}
    if isinstance(error, DfdError):
        return {"kind": SourceError.__name__, "cause": str(error)}
    # Its text may hold an address with its password.
    return {"kind": SourceFaultError.__name__, "cause": type(error).__name__}


def _answer(control: int, sender: _Sender, network: bool) -> None:
    def receive(buffer: memoryview) -> None:
        read_all(control, buffer)

    request: OpenRequest = receive_object(receive)
    import cv2  # noqa: PLC0415 - after the network is gone

    from dfd_edge.sources import SourceKind  # noqa: PLC0415
    from dfd_edge.sources.opening import open_file, open_live, read_still  # noqa: PLC0415

    cv2.setNumThreads(1)
    item = request.item
    on_disk = not network and isinstance(item.location, str | os.PathLike)
    files = [os.fspath(item.location)] if on_disk else []
    confining.limit(request.memory_mb)
    confining.read_only(files)
    sender.start()
    options = dataclasses.replace(item.options, sandbox=False, decoder="cpu")
    item = dataclasses.replace(item, options=options)
    if item.kind is SourceKind.IMAGE:
        sender.send_picture(read_still(item))
        return
    if request.live:
        source: Any = open_live(item, threads=request.threads)
    else:
        source = open_file(item, threading.Event(), threads=request.threads)
    sender.source = source
    sender.send(opened=True)
    asked: FramesRequest = receive_object(receive)
    backlog = getattr(source, "backlog", None)
    if backlog is not None:
        backlog.skips = asked.skips
    sampler = _ReportingSampler(asked.sampler, sender)
    for frame in source.frames(sampler, every=asked.every, bursts=asked.bursts):
        sender.send_picture(
            frame.pixels, frame.burst, time_s=frame.time_s, index=frame.index, due=frame.due
        )
    sender.send(ended=True)


class _Sender:
    """Sends messages to the parent, with the changed attributes of the source.

    A thread of its own does the sending: a decoder that waited for the parent to take a frame would
    fall behind a live stream.

    Args:
        descriptor: Where to.

    Attributes:
        source: The opened source; None before.
    """

    def __init__(self, descriptor: int) -> None:
        self.source: Any = None
        self._descriptor = descriptor
        self._reported: dict[str, Any] = {}
        self._times_s: list[float] = []
        self._sent_s = 0.0
        self._waiting: queue.Queue[tuple[dict[str, Any], list[memoryview]] | None]
        self._waiting = queue.Queue(_QUEUE_MESSAGES)
        self._thread = threading.Thread(target=self._send_waiting, daemon=True)

    def start(self) -> None:
        """Starts the thread; called after the process was confined, which each thread inherits."""
        self._thread.start()

    def finish(self) -> None:
        """Waits until everything is sent."""
        if not self._thread.is_alive():
            self._thread.start()
        self._waiting.put(None)
        self._thread.join()

    def report_time(self, time_s: float) -> None:
        """Notes the time of a frame."""
        self._times_s.append(time_s)
        if time.monotonic() - self._sent_s > _REPORT_S:
            self.send()

    def send_picture(self, pixels: Pixels, burst: Burst | None = None, **frame: float) -> None:
        """Sends a frame, with its burst if it has one, or a still; planes as they are."""
        import numpy as np  # noqa: PLC0415 - after the network is gone

        from dfd_edge.sources.frames import whole  # noqa: PLC0415
        from dfd_edge.sources.planes import PlanePicture  # noqa: PLC0415

        message: dict[str, Any] = dict(frame)
        if isinstance(pixels, PlanePicture):
            message["planes"] = dataclasses.astuple(pixels.layout)
            pictures = list(pixels.planes)
        else:
            message["shape"] = pixels.shape[:2]
            pictures = [whole(pixels)]
        if burst is not None:
            message["burst"] = burst.planes[0].shape
            pictures += burst.planes
        self._send(message, [np.ascontiguousarray(p).data.cast("B") for p in pictures])

    def send(self, **message: object) -> None:
        """Sends something without a picture."""
        self._send(message, [])

    def _send(self, message: dict[str, Any], pictures: list[memoryview]) -> None:
        source = self.source
        state = {name: getattr(source, name) for name in REPORTED if hasattr(source, name)}
        changed = {
            name: value
            for name, value in state.items()
            if name not in self._reported or self._reported[name] != value
        }
        self._reported |= changed
        backlog = getattr(source, "backlog", None)
        if backlog is not None:
            message["lag_s"] = backlog.lag_s
            message["skipped_s"] = backlog.take_skipped_s()
        self._sent_s = time.monotonic()
        message |= {"changed": changed, "times_s": self._times_s, "sent_s": self._sent_s}
        self._times_s = []
        self._waiting.put((message, pictures))

    def _send_waiting(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            try:
                send_message(self._descriptor, *waiting)
            except OSError:  # the parent is gone, or wants no more
                os._exit(0)


class _ReportingSampler:
    """A sampler that reports the time of every frame to the parent."""

    def __init__(self, sampler: Foreseeable, sender: _Sender) -> None:
        self._sampler = sampler
        self._sender = sender

    def is_due(self, time_s: float) -> bool:
        self._sender.report_time(time_s)
        return self._sampler.is_due(time_s)

    def foresee(self) -> DueFrames:
        return self._sampler.foresee()

    @property
    def parts(self) -> PartSampler | None:
        from dfd_edge.sources.seeking import PartSampler  # noqa: PLC0415 - as in `_answer`

        return self._sampler if isinstance(self._sampler, PartSampler) else None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), network=sys.argv[4] == "network")
