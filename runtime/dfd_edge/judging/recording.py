"""Recordings: judged whole, at some moments, or scanned for passages that look fake."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfd_edge.arguments import check_whole
from dfd_edge.errors import UsageError
from dfd_edge.judging.pipeline import judge_frames
from dfd_edge.judging.results import Event, EventKind, FrameResult, Label, Verdict
from dfd_edge.sources.frames import FirstFrames, Frame
from dfd_edge.sources.seeking import PartSampler, Spread

if TYPE_CHECKING:
    from dfd_edge.bundle.manifest import Manifest
    from dfd_edge.judging.stream import Stream
    from dfd_edge.sandbox.source import SandboxedSource
    from dfd_edge.sources.image import AnimatedWebP
    from dfd_edge.sources.video import RawVideo, VideoFile

    Recording = VideoFile | RawVideo | AnimatedWebP | SandboxedSource

OnResult = Callable[[FrameResult], None]
OnImage = Callable[[Frame, FrameResult | None], None]
OnProgress = Callable[[float, float | None], None]
OnEvent = Callable[[Event], None]

_MOST_MOMENTS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How far a recording is read, and what is called meanwhile.

    Attributes:
        stop: Ends it.
        duration_s: Seconds from its start that are judged; None for all.
        on_frame: Called with each result.
        on_image: Called with decoded frames and the newest result.
        every_image: Whether that is every frame, due or not.
        on_progress: Called with the seconds done and the length, or None.
        on_event: Called with notes on the recording.
    """

    stop: threading.Event
    duration_s: float | None = None
    on_frame: OnResult | None = None
    on_image: OnImage | None = None
    every_image: bool = True
    on_progress: OnProgress | None = None
    on_event: OnEvent | None = None


def plan_moments(
    max_frames: object,
    manifest: Manifest,
    *,
    rate_hz: float | None = None,
    duration_s: float | None = None,
    least: int,
) -> PartSampler:
    """Returns a sampler of so many moments.

    Args:
        max_frames: How many.
        manifest: Manifest of the bundle.
        rate_hz: A rate that was asked for, which does not go with it.
        duration_s: Seconds from the start in which they lie; None for all.
        least: Judged frames that the bundle decides on.

    Raises:
        UsageError: The number is out of range, or does not go with the rate or the bundle.
    """
    if rate_hz is not None:
        raise UsageError(
            f"{max_frames} frames in all and {rate_hz:g} frames a second were asked for: give the "
            "number or the rate"
        )
    _check_sequence(manifest, f"{max_frames} frames spread over a film were asked for")
    count = check_whole("max_frames", max_frames, least=1, most=_MOST_MOMENTS)
    if count < least:
        raise UsageError(
            f"{count} frames are too few: model {manifest.name} decides on {least} judged frames "
            f"or more; give {least} or more"
        )
    return PartSampler(Spread(count, within_s=duration_s), manifest.sequence.rate_hz)


def check_scan(manifest: Manifest, *, max_frames: object, on_standard_input: bool) -> None:
    """Refuses a scan that does not go with the rest.

    Raises:
        UsageError: A number of frames was asked for too, the bundle judges the first frames alone,
            or the source can be read once only.
    """
    if max_frames is not None:
        raise UsageError(
            f"a scan and {max_frames} frames were asked for: a scan chooses its frames itself; "
            "leave the number out"
        )
    _check_sequence(manifest, "a scan was asked for")
    if on_standard_input:
        raise UsageError(
            "a scan was asked for, which reads a film twice, and standard input comes once: give "
            "the file itself"
        )


def _check_sequence(manifest: Manifest, asked: str) -> None:
    if (first := manifest.sequence.first_frames) is not None:
        raise UsageError(
            f"{asked}, but model {manifest.name} judges each of the first {first} frames and no "
            "others: leave that out"
        )


def judge_recording(video: Recording, stream: Stream, reading: Reading) -> Verdict:
    """Judges an opened recording and closes it.

    Args:
        video: The recording.
        stream: Judges; its sampler says which frames.
        reading: How far it is read, and what is called.

    Returns:
        The verdict; `unsure` where its pictures do not allow a decision.

    Raises:
        SourceError: It cannot be decoded.
    """
    started_s = time.perf_counter()
    said = _report_notes(video, reading.on_event, 0)
    sampler = stream.sampler
    parts = sampler if isinstance(sampler, PartSampler) else None
    if parts is not None and video.duration_s is not None:
        parts.place(video.duration_s)
    every = reading.every_image and reading.on_image is not None
    placed = parts is not None and not parts.throughout

    def report(result: FrameResult) -> None:
        if reading.on_frame is not None:
            reading.on_frame(result)
        if reading.on_progress is not None:
            reading.on_progress(result.time_s, video.duration_s)

    judge_frames(
        _due_frames(video, stream, duration_s=reading.duration_s, every=every and not placed),
        stream,
        stop=reading.stop,
        on_result=report,
        on_image=reading.on_image,
        frame_bytes=3 * video.width * video.height,
    )
    elapsed_s = time.perf_counter() - started_s + getattr(video, "ahead_s", 0.0)
    if parts is not None and not placed and video.duration_s is not None:
        parts.place(video.duration_s)  # its length was found by reading its packets
    _report_notes(video, reading.on_event, said)
    if parts is not None and video.duration_s is None and reading.on_event is not None:
        note = (
            "its length is not known, so that no moments could be chosen: all of it was read, and "
            f"judged at {parts.rate_hz:g} Hz"
        )
        reading.on_event(Event(stream.source, 0.0, EventKind.NOTE, note))
    verdict = _verdict(video, stream, reading, parts)
    stream.close()
    doubt = getattr(video, "doubt", None)
    if doubt is not None:
        verdict = undecided(verdict, doubt)
    factor = verdict.duration_s / elapsed_s if elapsed_s > 0 else None
    return dataclasses.replace(verdict, realtime_factor=factor)


def _verdict(
    video: Recording, stream: Stream, reading: Reading, parts: PartSampler | None
) -> Verdict:
    asked_s = reading.duration_s
    if reading.stop.is_set():
        return stream.verdict(complete=False, reason="stopped before its end")
    if parts is not None and not parts.throughout and video.duration_s is not None:
        length_s = min(video.duration_s, asked_s or video.duration_s)
        if not video.complete:
            length_s = min(length_s, video.end_s)
        reason = f"only {parts.planned} moments of {length_s:.1f} s were asked for"
        if video.reason is not None:
            reason = f"{reason}; {video.reason}"
        return stream.verdict(duration_s=length_s, complete=False, reason=reason)
    if asked_s is not None and video.end_s > asked_s:
        reason = f"only the first {asked_s:g} s were asked for"
        return stream.verdict(duration_s=asked_s, complete=False, reason=reason)
    return stream.verdict(
        duration_s=None if isinstance(stream.sampler, FirstFrames) else video.end_s,
        complete=video.complete,
        reason=video.reason,
    )


def _due_frames(
    video: Recording, stream: Stream, *, duration_s: float | None, every: bool
) -> Generator[Frame, None, None]:
    """Yields the due frames of a recording, or every frame, and closes it."""
    with contextlib.closing(video):
        for frame in video.frames(stream.sampler, every=every, bursts=stream.takes_bursts):
            if duration_s is not None and frame.time_s >= duration_s:
                return
            yield frame
            if stream.sampler.is_done and not every:
                return


def _report_notes(video: Recording, on_event: OnEvent | None, said: int) -> int:
    """Reports the notes after the first `said` ones; returns how many there are."""
    if on_event is not None:
        for note in video.notes[said:]:
            on_event(Event(video.name, 0.0, EventKind.NOTE, note))
    return len(video.notes)


def undecided(verdict: Verdict, doubt: str) -> Verdict:
    """Returns the verdict without a decision, for pictures that do not allow one."""
    if verdict.p_fake is None:
        return verdict
    reason = doubt if verdict.reason is None else f"{verdict.reason}; {doubt}"
    people = tuple(
        dataclasses.replace(person, label=Label.UNSURE, intervals=()) for person in verdict.people
    )
    return dataclasses.replace(verdict, label=Label.UNSURE, people=people, reason=reason)
