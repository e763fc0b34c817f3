"""Pipeline for files: decoding, face detection and the models overlap.

Each stage has its own thread and a bounded queue before the next, and each library runs single
threaded: on few cores that carries more than threads inside the libraries, which fight.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from dfd_edge.judging.people import Observation
from dfd_edge.judging.results import FrameResult
from dfd_edge.judging.stream import Stream
from dfd_edge.sources.frames import Frame

#: Most frames between two stages; fewer where they are large.
QUEUE_FRAMES = 4
#: Crops that are judged together: those of larger batches take little less time, and at the end of
#: a file nothing else is left to do meanwhile.
BATCH = 4
_QUEUE_BYTES = 128 * 2**20
_POLL_S = 0.05
#: A stage that is stuck in a read (standard input) is left behind after this.
_JOIN_S = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A decoded frame on its way.

    Attributes:
        frame: None where frames are not shown, so that it takes no memory meanwhile.
        observation: None where it was not due.
    """

    frame: Frame | None
    observation: Observation | None


class _End:
    """Last entry of a queue, with the error that ended the stage."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Stage(threading.Thread, Generic[T]):
    """Runs an iterator in a thread of its own, at most so many entries ahead."""

    def __init__(
        self,
        name: str,
        entries: Generator[T, None, None],
        stopped: Callable[[], bool],
        ahead: int,
    ) -> None:
        super().__init__(name=f"dfd-edge {name}", daemon=True)
        self._entries = entries
        self._stopped = stopped
        self._queue: queue.Queue[T | _End] = queue.Queue(ahead)
        self._ended = False
        self._error: BaseException | None = None

    def run(self) -> None:
        error: BaseException | None = None
        try:
            for entry in self._entries:
                if not self._put(entry):
                    break
        except BaseException as caught:  # handed to the thread that waits for the entries
            error = caught
        finally:
            self._entries.close()
        self._put(_End(error))

    def get(self) -> T | None:
        """Returns the next entry; None at the end, or after a stop.

        Raises:
            Exception: The error that ended the stage, behind its last entry.
        """
        while not self._ended:
            try:
                entry = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                if self._stopped():
                    return None
                continue
            if not isinstance(entry, _End):
                return entry
            self._ended = True
            self._error = entry.error
        if self._error is not None:
            raise self._error
        return None

    def __iter__(self) -> Iterator[T]:
        while (entry := self.get()) is not None:
            yield entry

    def _put(self, entry: T | _End) -> bool:
        while not self._stopped():
            try:
                self._queue.put(entry, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False


def judge_frames(
    frames: Generator[Frame, None, None],
    stream: Stream,
    *,
    stop: threading.Event,
    on_result: Callable[[FrameResult], None] | None = None,
    on_image: Callable[[Frame, FrameResult | None], None] | None = None,
    frame_bytes: int = 0,
) -> None:
    """Judges decoded frames in order and returns when they end or `stop` is set.

    Args:
        frames: Frames; those that are due are judged. Iterated and closed in another thread.
        stream: Takes the observations.
        stop: Ends the work early, within a frame's time.
        on_result: Called with each result, in order, in the calling thread.
        on_image: Called with every frame, due or not, and the newest result.
        frame_bytes: Size of a frame; few large ones are held at once.

    Raises:
        Exception: Whatever iterating `frames` or judging raised.
    """
    ended = threading.Event()

    def stopped() -> bool:
        return stop.is_set() or ended.is_set()

    ahead = max(1, min(QUEUE_FRAMES, _QUEUE_BYTES // max(1, frame_bytes)))
    decoding = _Stage("decoding", frames, stopped, ahead)
    keep = on_image is not None
    observed = _observe(decoding, stream, keep=keep)
    detection = _Stage("detection", observed, stopped, ahead)
    decoding.start()
    detection.start()
    newest: FrameResult | None = None
    scored = 0
    try:
        while not stop.is_set() and (
            batch := _gather(detection, 1 if keep or scored < BATCH else BATCH)
        ):
            due = [seen.observation for seen in batch if seen.observation is not None]
            results = iter(stream.score(due)) if due else iter(())
            scored += len(due)
            for seen in batch:
                if seen.observation is not None:
                    newest = next(results)
                    if on_result is not None:
                        on_result(newest)
                if on_image is not None and seen.frame is not None:
                    on_image(seen.frame, newest)
    finally:
        ended.set()
        for stage in (decoding, detection):
            stage.join(_JOIN_S)


def _observe(frames: _Stage[Frame], stream: Stream, *, keep: bool) -> Generator[_Seen, None, None]:
    for frame in frames:
        observation = None
        if frame.due:
            observation = stream.observe(frame.pixels, frame.time_s, burst=frame.burst)
        if frame.due or keep:
            yield _Seen(frame if keep else None, observation)


def _gather(stage: _Stage[_Seen], most: int) -> list[_Seen]:
    """Returns the next frames whose crops fill a batch, waiting for each.

    A batch takes less time than its frames one by one, but the first results and those that are
    drawn are to come at once. It does not depend on what happens to be ready: the same file has the
    same scores, to the last bit, in each run.

    Args:
        stage: Gives them.
        most: Crops in a batch.
    """
    batch: list[_Seen] = []
    crops = 0
    while crops < most and len(batch) < most:
        try:
            seen = stage.get()
        except Exception:
            if not batch:
                raise
            break  # it comes again, behind the results of these
        if seen is None:
            break
        batch.append(seen)
        crops += _crops(seen)
    return batch


def _crops(seen: _Seen) -> int:
    return len(seen.observation.judged) if seen.observation is not None else 0
