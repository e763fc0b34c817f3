"""Progress of a run: done, rate, time left, failures."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from dfd_edge.archive.rows import Clip
from dfd_edge.errors import DfdError

if TYPE_CHECKING:
    from dfd_edge.archive.run import Outcome

_TERMINAL_S, _LOG_S = 1.0, 30.0
#: The rate is that of this long.
_WINDOW_S = 120.0


class Progress:
    """Prints a line now and then.

    The clips are counted in a thread of their own, with a second listing: until it ends, the line
    says "at least".

    Args:
        clips: Lists the clips.
        is_done: Whether an earlier run has committed one.
        note: Prints a line.
        limit: Most clips that this run judges.
    """

    def __init__(
        self,
        clips: Callable[[], Iterator[Clip]],
        is_done: Callable[[Clip], bool],
        note: Callable[[str], None],
        *,
        limit: int | None = None,
    ) -> None:
        self._note = note
        self._every_s = _TERMINAL_S if sys.stderr.isatty() else _LOG_S
        self._total = 0
        self._counted = self._over = False
        self._rows = 0
        self._times: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._shown_s = time.monotonic()
        self._thread = threading.Thread(
            target=self._count, args=(clips, is_done, limit), name="archive count", daemon=True
        )
        self._thread.start()

    def show(self, outcome: Outcome, *, last: bool = False) -> None:
        """Notes one more row, and prints a line when it is time, or at the end."""
        now_s = time.monotonic()
        if last:
            self._print(outcome, now_s, done=outcome.judged)
            return
        self._rows += 1
        if now_s - self._shown_s < self._every_s:
            return
        self._shown_s = now_s
        self._times.append((now_s, self._rows))
        while now_s - self._times[0][0] > _WINDOW_S and len(self._times) > 2:
            self._times.popleft()
        self._print(outcome, now_s, done=self._rows)

    def close(self) -> None:
        """Ends the count."""
        self._over = True

    def _print(self, outcome: Outcome, now_s: float, *, done: int) -> None:
        since_s, before = self._times[0]
        rate = (done - before) / max(1e-6, now_s - since_s)
        whole = f"{self._total:,}" if self._counted else f"at least {max(self._total, done):,}"
        words = [f"{done:,} of {whole} clips", f"{rate:.2g} a second"]
        if self._counted and rate > 0.0 and done < self._total:
            words.append(f"{_span((self._total - done) / rate)} left")
        words.append(f"{outcome.failed:,} failed")
        if outcome.before:
            words.append(f"{outcome.before:,} done before")
        self._note(", ".join(words))

    def _count(
        self,
        clips: Callable[[], Iterator[Clip]],
        is_done: Callable[[Clip], bool],
        limit: int | None,
    ) -> None:
        try:
            for _ in islice((clip for clip in clips() if not is_done(clip)), limit):
                self._total += 1
                if self._over:
                    return
        except DfdError:  # the run itself meets it too, and reports it
            return
        self._counted = True


def _span(seconds: float) -> str:
    """Returns a length of time in words: "2 h 5 min"."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"
