"""Several files at once, and their results in the order of the files."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dfd_edge.judging.results import Event, FrameResult, Verdict
from dfd_edge.sinks.sink import Sink
from dfd_edge.sources import SourceItem

if TYPE_CHECKING:
    from dfd_edge.provenance.record import Provenance
    from dfd_edge.view.overlay import Scene

#: Results of a file that wait for their turn; a file that has more waits itself. An hour at 5 Hz
#: has 18,000.
MAX_WAITING = 2000
_POLL_S = 0.05


class Turns:
    """Passes on the results of several files to one sink, a file after the other.

    A file whose turn it is passes its results on at once. Those of later files are kept, up to
    `MAX_WAITING` of each, and passed on when their turn comes.

    Args:
        sink: Receives the results, from one thread at a time.
        stop: Ends waits; results that come after that are still passed on in order.
    """

    def __init__(self, sink: Sink, stop: threading.Event) -> None:
        self.sink = sink
        self.current = 0
        self._stop = stop
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[int, deque[Callable[[], None]]] = {}
        self._done: set[int] = set()

    def pass_on(self, number: int, call: Callable[[], None]) -> None:
        """Calls at once, or when it is the file's turn; waits where too many calls do.

        Args:
            number: The file's place in the order, from 0.
            call: Passes a result to the sink.
        """
        with self._changed:
            waiting = self._waiting.setdefault(number, deque())
            while number != self.current and len(waiting) >= MAX_WAITING:
                if self._stop.is_set():
                    break
                self._changed.wait(_POLL_S)
            if number != self.current:
                waiting.append(call)
                return
            self._release(number)
            call()

    def finish(self, number: int) -> None:
        """Ends a file: the next ones have their turn once all before them have ended."""
        with self._changed:
            self._done.add(number)
            while self.current in self._done:
                self._release(self.current)
                self._done.discard(self.current)
                self._waiting.pop(self.current, None)
                self.current += 1
            # The results of the file whose turn has come are passed on now, not with its next one.
            self._release(self.current)
            self._changed.notify_all()

    def wait_within(self, number: int, ahead: int) -> None:
        """Waits until a file is at most so many places behind the one whose turn it is."""
        with self._changed:
            while number > self.current + ahead and not self._stop.is_set():
                self._changed.wait(_POLL_S)

    def _release(self, number: int) -> None:
        waiting = self._waiting.get(number)
        while waiting:
            waiting.popleft()()


class InTurn(Sink):
    """The sink of one file: passes its results on in its turn.

    Pictures are passed on at once. They are kept by reports alone, which sort them by source.

    Args:
        turns: Shared by all files.
        number: The file's place in the order, from 0.
    """

    def __init__(self, turns: Turns, number: int) -> None:
        self._turns = turns
        self._number = number
        self._sink = turns.sink
        self.images = turns.sink.images

    def begin(self, source: str, *, live: bool) -> None:
        """Announces the file."""
        self._turns.pass_on(self._number, lambda: self._sink.begin(source, live=live))

    def provenance(self, source: str, provenance: Provenance) -> None:
        """Passes on what the file says of its origin."""
        self._turns.pass_on(self._number, lambda: self._sink.provenance(source, provenance))

    def frame(self, result: FrameResult) -> None:
        """Passes on the result of a frame."""
        self._turns.pass_on(self._number, lambda: self._sink.frame(result))

    def image(self, scene: Scene) -> None:
        """Passes on a picture."""
        self._sink.image(scene)

    def progress(self, done_s: float, whole_s: float | None) -> None:
        """Passes on how far the file is, while it is its turn; otherwise that is dropped."""
        if self._turns.current == self._number:
            self._sink.progress(done_s, whole_s)

    def event(self, event: Event) -> None:
        """Passes on an event."""
        self._turns.pass_on(self._number, lambda: self._sink.event(event))

    def verdict(self, verdict: Verdict) -> None:
        """Passes on the verdict."""
        self._turns.pass_on(self._number, lambda: self._sink.verdict(verdict))


def judge_together(
    items: Sequence[SourceItem],
    judge: Callable[[SourceItem, Sink], None],
    sink: Sink,
    *,
    jobs: int,
    stop: threading.Event,
) -> int:
    """Judges files at once, each in a thread, and passes their results on in order.

    Args:
        items: The files.
        judge: Judges one, and gives its results to a sink. What it raises ends the others too.
        sink: Receives the results.
        jobs: How many files at once, 2 or more.
        stop: Ends the work; files that were not begun are left out.

    Returns:
        How many files were not begun.

    Raises:
        Exception: The first that `judge` or the sink raised.
    """
    turns = Turns(sink, stop)
    lock = threading.Lock()
    numbers = iter(range(len(items)))
    begun: set[int] = set()
    errors: list[BaseException] = []
    broken = threading.Event()

    def work() -> None:
        while not (stop.is_set() or broken.is_set()):
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            turns.wait_within(number, jobs)
            if stop.is_set() or broken.is_set():
                turns.finish(number)  # later ones may have been begun
                return
            begun.add(number)
            try:
                judge(items[number], InTurn(turns, number))
                turns.finish(number)
            except BaseException as error:  # raised again in the calling thread
                errors.append(error)
                broken.set()

    threads = [
        threading.Thread(target=work, name=f"dfd-edge job {number + 1}", daemon=True)
        for number in range(min(jobs, len(items)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not broken.is_set():
            thread.join(_POLL_S)  # so that signals are handled
    if errors:
        stop.set()
        raise errors[0]
    return len(items) - len(begun)
