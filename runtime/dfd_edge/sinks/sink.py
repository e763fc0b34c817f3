"""The protocol of everything that receives the results of a run, and a list of such receivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from dfd_edge.closing import Closing

if TYPE_CHECKING:
    from dfd_edge.judging.results import Event, FrameResult, Verdict
    from dfd_edge.provenance.record import Provenance
    from dfd_edge.view.overlay import Scene


class Images(IntEnum):
    """Decoded frames that a sink needs: none, the judged ones at least, or every one."""

    NONE = 0
    JUDGED = 1
    EVERY = 2


@dataclass(frozen=True, slots=True)
class SourceState:
    """State of a live source.

    Attributes:
        name: Name of the source.
        opened: Whether it has been opened so far.
        ended: Whether it has ended.
        dropped: Due frames that were not judged.
        gaps: How often it was lost, or delivered nothing for a while.
    """

    name: str
    opened: bool = True
    ended: bool = False
    dropped: int = 0
    gaps: int = 0


class Sink(Closing):
    """Receives the results of a run. Use as a context manager.

    A sink overrides the methods that it needs; the others do nothing. Results of live sources
    come from several threads, so every method but `refresh` has to be thread-safe.

    Attributes:
        images: Which decoded frames `image` is called with.
    """

    images: Images = Images.NONE

    def begin(self, source: str, *, live: bool) -> None:
        """Announces a source.

        Args:
            source: Its name, as results carry it.
            live: Whether it is a camera or a stream.
        """

    def provenance(self, source: str, provenance: Provenance) -> None:
        """Receives what a file says of its origin, before the first frame of it.

        Called only where a table is written, for which judging waits until it is read. Other
        sinks find it in the verdict or the error.
        """

    def frame(self, result: FrameResult) -> None:
        """Receives the result of a judged frame."""

    def image(self, scene: Scene) -> None:
        """Receives a decoded frame together with the newest result."""

    def progress(self, done_s: float, whole_s: float | None) -> None:
        """Receives how far a file is judged.

        Args:
            done_s: Seconds of it that are done.
            whole_s: Its length in seconds, or None.
        """

    def event(self, event: Event) -> None:
        """Receives an event; one of kind `error` means that the source could not be judged."""

    def verdict(self, verdict: Verdict) -> None:
        """Receives the verdict on a source. No more results of that source follow."""

    def refresh(self, states: Sequence[SourceState]) -> None:
        """Redraws live displays; called from the main thread about 60 times a second.

        Args:
            states: The live sources, in the order in which they were given.
        """

    def close(self) -> None:
        """Releases what the sink holds. Safe to call twice."""


class Sinks(Sink):
    """Several sinks as one, called in their order. They are closed by whoever opened them."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._on_frame = [s.frame for s in sinks if type(s).frame is not Sink.frame]
        self._on_image = [s.image for s in sinks if s.images is not Images.NONE]
        self.images = max((sink.images for sink in sinks), default=Images.NONE)

    def begin(self, source: str, *, live: bool) -> None:
        """Announces a source to each sink."""
        for sink in self._sinks:
            sink.begin(source, live=live)

    def provenance(self, source: str, provenance: Provenance) -> None:
        """Passes on what a file says of its origin."""
        for sink in self._sinks:
            sink.provenance(source, provenance)

    def frame(self, result: FrameResult) -> None:
        """Passes on the result of a judged frame."""
        for take in self._on_frame:
            take(result)

    def image(self, scene: Scene) -> None:
        """Passes on a decoded frame to the sinks that need any, which get all that one needs."""
        for take in self._on_image:
            take(scene)

    def progress(self, done_s: float, whole_s: float | None) -> None:
        """Passes on how far a file is judged."""
        for sink in self._sinks:
            sink.progress(done_s, whole_s)

    def event(self, event: Event) -> None:
        """Passes on an event."""
        for sink in self._sinks:
            sink.event(event)

    def verdict(self, verdict: Verdict) -> None:
        """Passes on a verdict."""
        for sink in self._sinks:
            sink.verdict(verdict)

    def refresh(self, states: Sequence[SourceState]) -> None:
        """Redraws live displays."""
        for sink in self._sinks:
            sink.refresh(states)
