"""What may be opened: whitelists of containers and pictures, and a look at the first bytes.

FFmpeg follows playlists (HLS, DASH, concat) under any file name, and playlists name other files
and addresses. So only containers that carry their own pictures are opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from av.container import InputContainer

#: Before 19, PyAV refuses a file over a title that is not UTF-8, unless it is told otherwise.
_TOLERANT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)

#: Whether PyAV hands options on to the decoders while it opens a container, without a fault.
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
#: Sound files: opened only to be told apart from files that are no media at all.
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
) -> InputContainer:
    """Opens a container for reading, with any version of PyAV.

    Args:
        location: A name for FFmpeg, or an object to read from.
        options: FFmpeg's options.
        form: FFmpeg's name of the format; by default it finds out.
        timeout: Seconds that opening and each reading may take.
        max_pixels: Larger frames are not decoded while FFmpeg looks for what is not stated; with
            PyAV 17.0 and older they are.

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
        **_TOLERANT,
    )
    return container


def is_image(head: bytes) -> bool:
    """Whether these first bytes (32 or more) begin a picture of a kind that `read_image` knows.

    PNG and WebP may still hold an animation: `sources.headers.is_animation` looks further.
    """
    return image_format(head) is not None


def image_format(head: bytes) -> str | None:
    """Name of the picture format that these first bytes (32 or more) begin, or None."""
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
    """Tells HEIC from AVIF where the major brand ("mif1") leaves it open."""
    if head[8:12] not in (b"mif1", b"mif2", b"miaf"):
        return None
    return "avif" if b"avif" in head[16:] else "heif"


def is_playlist(head: bytes) -> bool:
    """Whether these first bytes begin a playlist, which names other files instead of pictures."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLIST_STARTS)


def is_mp4(head: bytes) -> bool:
    """Whether these first bytes begin an MP4 or QuickTime file."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
