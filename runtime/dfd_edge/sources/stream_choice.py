"""Which of a container's streams is the film."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfd_edge.errors import SourceError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: Bits of a stream's disposition, as FFmpeg numbers them.
_DEFAULT = 0x1
_ATTACHED_PICTURE = 0x400
_STILLS = _ATTACHED_PICTURE | 0x800 | 0x100000  # timed thumbnails and still images too
#: Fewer pictures a second are a slide show or thumbnails, where there is something better.
_SLOWEST_FILM_HZ = 1.0
#: Streams of one recording end together but for this share.
_AS_LONG = 0.95
#: These offer one film in several sizes.
_ADAPTIVE_FORMATS = frozenset(["hls", "dash"])


def choose_stream(
    container: InputContainer, name: str, number: int | None = None
) -> tuple[VideoStream, tuple[str, ...]]:
    """Picks the stream that is judged.

    Without a number it is one that can be decoded and is no cover, still or thumbnail track; of
    those the one marked as default, as players do, then the longest, then, where there are several
    of about that length, the largest.

    Args:
        container: The opened container.
        name: What messages call the source.
        number: The stream's number in the container.

    Returns:
        The stream, and a note on the other films where there are any.

    Raises:
        SourceError: There is no video, or the number is none of a video stream.
    """
    videos = list(container.streams.video)
    if number is not None:
        for stream in videos:
            if stream.index == number:
                return stream, ()
        raise SourceError(f"{name}: {_wrong_number(container, number)}")
    videos = [stream for stream in videos if not _disposition(stream) & _ATTACHED_PICTURE]
    if not videos:
        if container.streams.audio:
            raise SourceError(f"{name}: sound only, no video in it")
        raise SourceError(f"{name}: no video in it; damaged or cut off, or no video at all")
    longest_s = max(stream_duration_s(stream) or 0.0 for stream in videos)
    chosen = max(videos, key=lambda stream: _rank(stream, longest_s))
    films = [stream for stream in videos if not _is_still(stream)]
    if len(films) < 2 or container.format.name.partition(",")[0] in _ADAPTIVE_FORMATS:
        return chosen, ()
    others = " or ".join(_described(stream) for stream in films if stream is not chosen)
    note = f"{len(films)} films in it: judges stream {_described(chosen)}, not {others}"
    return chosen, (f"{note}; --stream N chooses another",)


def stream_duration_s(stream: VideoStream) -> float | None:
    """Length of a stream in seconds; None where the container states none for it."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska's, as in 00:00:10.010000000.
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) or None
    except ValueError:
        return None


def _rank(stream: VideoStream, longest_s: float) -> tuple[bool, bool, bool, bool, int]:
    return (
        stream.codec_context is not None,
        not _is_still(stream),
        bool(_disposition(stream) & _DEFAULT),
        (stream_duration_s(stream) or 0.0) >= _AS_LONG * longest_s,
        _pixels(stream),
    )


def _is_still(stream: VideoStream) -> bool:
    """Whether it is marked as stills or thumbnails, or has too few pictures for a film."""
    if _disposition(stream) & _STILLS or stream.frames == 1:
        return True
    rate = float(stream.average_rate or 0.0)
    length_s = stream_duration_s(stream)
    one_picture = length_s is not None and length_s * rate <= 1.5
    return bool(rate) and (rate < _SLOWEST_FILM_HZ or one_picture)


def _disposition(stream: VideoStream) -> int:
    return int(stream.disposition.value)


def _pixels(stream: VideoStream) -> int:
    context = stream.codec_context
    return 0 if context is None else context.width * context.height


def _described(stream: VideoStream) -> str:
    context = stream.codec_context
    parts = ["no decoder"]
    if context is not None:
        parts = [f"{context.name} {context.width}x{context.height}"]
    length_s = stream_duration_s(stream)
    if length_s is not None:
        parts.append(f"{length_s:.1f} s")
    if _disposition(stream) & _DEFAULT:
        parts.append("default")
    return f"{stream.index} ({', '.join(parts)})"


def _wrong_number(container: InputContainer, number: int) -> str:
    for stream in container.streams:
        if stream.index == number:
            wrong = f"stream {number} is {stream.type}, not video"
            break
    else:
        wrong = f"there is no stream {number}"
    choices = " and ".join(_described(stream) for stream in container.streams.video)
    return (
        f"{wrong}; the video streams are {choices}" if choices else f"{wrong}, and no video at all"
    )
