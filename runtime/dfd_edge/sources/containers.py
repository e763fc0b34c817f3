"""Containers and pictures that may be opened, recognised by their first bytes.

FFmpeg follows playlists (HLS, DASH, concat) under any file name, and playlists name other files
and addresses. So only containers that carry their own pictures are opened.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard

import av

from dfd_edge.errors import (
    NotMediaError,
    SourceError,
    SourceNotFoundError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


_HEAD_BYTES = 64

#: Before 19, PyAV by default refuses a file whose title is not UTF-8.
_TOLERANT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)

#: Whether PyAV passes options to the decoders while it opens a container, without a fault.
_HANDS_ON = tuple(int(number) for number in av.__version__.split(".")[:2]) >= (17, 1)

#: FFmpeg's names of the containers that are opened as files.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "m4v",
    "h264",
    "hevc",
    "obu",
    "ivf",
    "asf",
    "flv",
    "ogg",
    "mxf",
    "dv",
    "nut",
    "rm",
    "gif",
    "apng",
    "yuv4mpegpipe",
    "mjpeg",
)
#: Sound files: opened only to distinguish them from files that are no media at all.
SOUNDS = ("mp3", "wav", "flac", "aac", "aiff", "amr", "ac3")

FORMAT_WHITELIST = ",".join(CONTAINERS + SOUNDS)

_VIDEO_SUFFIXES = """
    .mp4 .m4v .mov .3gp .3g2 .mkv .webm .avi .mpg .mpeg .mpe .m2v .ts .m2ts .mts .vob .wmv .asf
    .flv .ogv .ogg .mxf .dv .nut .rm .rmvb .gif .apng .mjpeg .mjpg .h264 .264 .hevc .h265 .y4m
"""
VIDEO_SUFFIXES = frozenset(_VIDEO_SUFFIXES.split())
_IMAGE_SUFFIXES = """
    .jpg .jpeg .jpe .jfif .png .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k .j2c .jpc
    .heic .heif .hif .avif
"""
IMAGE_SUFFIXES = frozenset(_IMAGE_SUFFIXES.split())

_PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<?xml", b"<MPD", b"v=0\r\n", b"v=0\n")


def open_container(
    location: object,
    options: dict[str, str] | None = None,
    *,
    form: str | None = None,
    timeout: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    hwaccel: Any = None,  # noqa: ANN401 - PyAV's settings
) -> InputContainer:
    """Opens a container for reading, with any version of PyAV.

    Args:
        location: A name for FFmpeg, or an object to read from.
        options: FFmpeg's options.
        form: FFmpeg's name of the format; by default it finds out.
        timeout: Seconds that opening and each reading may take.
        max_pixels: Larger frames are not decoded while FFmpeg looks for what is not stated; with
            PyAV 17.0 and older they are.
        hwaccel: PyAV's settings for decoding on a device; None decodes on the CPU.

    Raises:
        av.error.FFmpegError: It cannot be opened.
    """
    # As `options`, PyAV 17.0 hands them to the streams too, and writes beyond an empty array where
    # there are none yet, as in FLV and MPEG.
    limits = {"max_pixels": str(max_pixels)} if max_pixels and _HANDS_ON else {}
    container: InputContainer = av.open(
        location,
        mode="r",
        format=form,
        options=limits,
        container_options=options or {},
        timeout=timeout,
        hwaccel=hwaccel,
        **_TOLERANT,
    )
    return container


def is_image(head: bytes) -> bool:
    """Returns whether these first bytes (32 or more) begin a picture that `read_image` reads.

    PNG and WebP may still hold an animation: `sources.headers.is_animation` looks further.
    """
    return image_format(head) is not None


def image_format(head: bytes) -> str | None:
    """Returns the picture format that these first bytes (32 or more) begin, or None."""
    for name, starts in _IMAGE_STARTS.items():
        if head.startswith(starts):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"BM") and head[6:10] == b"\x00\x00\x00\x00":
        return "bmp"
    if head[4:8] == b"ftyp":
        return _HEIF_BRANDS.get(head[8:12]) or _generic_heif(head)
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#":
        return "pnm"
    return None


_IMAGE_STARTS = {
    "jpeg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG\r\n\x1a\n",),
    "tiff": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "jp2": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
}
#: Major brands of stills in the container of MP4; the brands of series ("msf1", "hevc", "avis")
#: are films, which FFmpeg reads.
_HEIF_BRANDS = {
    b"heic": "heif",
    b"heix": "heif",
    b"heim": "heif",
    b"heis": "heif",
    b"avif": "avif",
}


def _generic_heif(head: bytes) -> str | None:
    """Distinguishes HEIC from AVIF where the major brand ("mif1") leaves it open."""
    if head[8:12] not in (b"mif1", b"mif2", b"miaf"):
        return None
    return "avif" if b"avif" in head[16:] else "heif"


def is_playlist(head: bytes) -> bool:
    """Returns whether these first bytes begin a playlist, which names other files."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLIST_STARTS)


def is_mp4(head: bytes) -> bool:
    """Returns whether these first bytes begin an MP4 or QuickTime file."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def is_file_object(source: object) -> TypeGuard[BinaryIO]:
    """Returns whether a source is an open file, or like one, that can be read from its start."""
    if not hasattr(source, "read") or not hasattr(source, "seek"):
        return False
    try:
        return bool(source.seekable()) if hasattr(source, "seekable") else True
    except ValueError:  # it is closed, which reading it will say
        return True


def head_of(file: BinaryIO, name: str) -> bytes:
    """Returns the first bytes of an open file, and goes back to its start.

    Raises:
        SourceError: It cannot be read, or is empty.
        UsageError: It was opened as text.
    """
    try:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except (OSError, ValueError) as error:  # closed, or no place can be sought in it
        raise SourceError(name, f"the file object cannot be read ({error})") from error
    if not isinstance(head, bytes):
        raise UsageError(
            f'the file object gives {type(head).__name__}, not bytes: open it with mode "rb"',
            source=name,
        )
    if not head:
        raise NotMediaError(name, "the file is empty (0 bytes)")
    return head


def read_head(path: Path) -> bytes:
    """Returns the first bytes of a file.

    Raises:
        SourceError: The path is missing, a folder, unreadable, not a plain file, or empty.
    """
    try:
        if path.is_dir():
            raise NotMediaError(path, "a folder, not a file")
        if path.exists() and not path.is_file():
            raise NotMediaError(path, "neither a file nor a folder")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not head:
        raise NotMediaError(path, "the file is empty (0 bytes)")
    return head


def _unreadable(path: Path, error: OSError) -> SourceError:
    if error.errno == errno.ENOENT:
        return SourceNotFoundError(path, "no such file or folder")
    if error.errno == errno.EACCES:
        return SourceError(path, "no permission to read it")
    return SourceError(path, error.strerror or type(error).__name__)


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
    """Chooses the stream that is judged.

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
        raise UnsupportedError(name, *_wrong_number(container, number))
    videos = [stream for stream in videos if not _disposition(stream) & _ATTACHED_PICTURE]
    if not videos:
        if container.streams.audio:
            raise NotMediaError(name, "sound only, no video in it")
        raise NotMediaError(name, "no video in it; damaged or cut off, or no video at all")
    longest_s = max(stream_duration_s(stream) or 0.0 for stream in videos)
    chosen = max(videos, key=lambda stream: _rank(stream, longest_s))
    films = [stream for stream in videos if not _is_still(stream)]
    if len(films) < 2 or container.format.name.partition(",")[0] in _ADAPTIVE_FORMATS:
        return chosen, ()
    others = " or ".join(_described(stream) for stream in films if stream is not chosen)
    note = f"{len(films)} films in it: judges stream {_described(chosen)}, not {others}"
    return chosen, (f"{note}; --stream N chooses another",)


def stream_duration_s(stream: VideoStream) -> float | None:
    """Returns the length of a stream in seconds; None where the container states none."""
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
    """Returns whether a stream is marked as stills, or has too few pictures for a film."""
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


def _wrong_number(container: InputContainer, number: int) -> tuple[str, str | None]:
    """Returns cause and mend of a stream number that is none of a video stream."""
    for stream in container.streams:
        if stream.index == number:
            wrong = f"stream {number} is {stream.type}, not video"
            break
    else:
        wrong = f"there is no stream {number}"
    choices = " and ".join(_described(stream) for stream in container.streams.video)
    if not choices:
        return f"{wrong}, and no video at all", None
    return wrong, f"the video streams are {choices}"
