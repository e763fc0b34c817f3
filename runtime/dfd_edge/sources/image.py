"""Still pictures and animated WebP files."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.arguments import check_one_of
from dfd_edge.closing import Closing
from dfd_edge.errors import NotMediaError, SourceError, UnsupportedError, UsageError
from dfd_edge.sources.bursts import RecentFrames, luma_of_image
from dfd_edge.sources.containers import head_of, image_format, read_head
from dfd_edge.sources.conversion import ColourCount, few_colours
from dfd_edge.sources.frames import (
    MAX_FRAME_PIXELS,
    MAX_PIXELS,
    MOST_PIXELS,
    DueFrames,
    Frame,
    Image,
    check_asked_size,
    check_size,
)
from dfd_edge.sources.headers import HeaderError, Stated, riff_chunks, stated, webp_size

#: Newer versions of OpenCV have a module for it; in 4.11 the same functions lie at the top.
_log: Any = getattr(cv2.utils, "logging", cv2)
_SILENT = 0


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keeps OpenCV from writing warnings of its own to standard error."""
    level = _log.getLogLevel()
    _log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        _log.setLogLevel(level)


#: Order of the channels of an image.
Colour = Literal["bgr", "rgb"]

#: Bytes of a file for each pixel that is allowed: four samples of 16 bits without compression.
_BYTES_A_PIXEL = 8
#: A file may be so large in any case: telephones append clips.
_FILE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20
#: Formats that OpenCV does not read, with the libraries that do.
_FORMATS_OF_PILLOW = {"heif": "HEIC", "avif": "AVIF"}
#: Transfer functions of ITU-T H.273 that show pale when they are taken for SDR.
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
#: The colour box of HEIF: primaries, then the transfer function.
_NCLX = re.compile(rb"colrnclx..(..)", re.DOTALL)


def read_image(
    source: str | Path | BinaryIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image:
    """Reads a still picture, upright by its orientation.

    JPEG, PNG, WebP, BMP, TIFF, PPM and JPEG 2000 are read; HEIC and AVIF where `pillow` and
    `pillow-heif` are installed, the extra `heic`.

    Args:
        source: The file, or an open binary file, which is read from its start.
        name: What messages call it; the path by default.
        max_pixels: Larger pictures are refused before they are decoded.

    Returns:
        uint8 [height, width, 3], BGR.

    Raises:
        SourceError: The file is missing, a folder, unreadable, empty, no picture, an animation,
            several pages, cut off, too large or too small.
    """
    if isinstance(source, str | Path):
        name = name or str(source)
        kind = image_format(read_head(Path(source)))
    else:
        name = name or "picture"
        kind = image_format(head_of(source, name))
    if kind is None:
        raise NotMediaError(
            name,
            "not a picture (JPEG, PNG, WebP, BMP, TIFF, PPM, JPEG 2000, HEIC and AVIF are read)",
        )
    data = _read(source, name, max(_FILE_BYTES, _BYTES_A_PIXEL * max_pixels))
    if kind in _FORMATS_OF_PILLOW:
        return _read_with_pillow(data, name, kind, max_pixels)
    try:
        size = stated(data, kind)
    except HeaderError as error:
        raise NotMediaError(name, str(error)) from error
    _refuse(name, size, max_pixels)
    try:
        with quiet_opencv():
            decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise NotMediaError(name, f"the picture cannot be decoded ({error.err})") from error
    if decoded is None:
        raise NotMediaError(name, "the picture cannot be decoded; damaged or cut off")
    image = np.asarray(decoded, dtype=np.uint8)
    _refuse(name, Stated(image.shape[1], image.shape[0]), max_pixels)
    return image


def as_bgr(pixels: NDArray[np.uint8], colour: Colour) -> Image:
    """Converts a decoded image to BGR.

    Args:
        pixels: uint8 [height, width] or [height, width, 1, 3 or 4]; a fourth channel is left out.
        colour: The order of three and four channels.

    Raises:
        UsageError: It is something else, such as several frames, or too small.
    """
    check_one_of("colour", colour, get_args(Colour))
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or (*shape, 1)[2] not in (1, 3, 4):
        several = "; push frames one by one to a `stream`" if len(shape) > 3 else ""
        raise UsageError(
            f"array of shape {shape} and dtype {pixels.dtype}: give an image as uint8 "
            f"[height, width, 3] (or 1 or 4 channels){several}"
        )
    check_asked_size("array", shape[1], shape[0], MOST_PIXELS)
    if (*shape, 1)[2] == 1:
        pixels = np.repeat(pixels.reshape(*shape[:2], 1), 3, axis=2)
    bgr = pixels[:, :, 2::-1] if colour == "rgb" else pixels[:, :, :3]
    return np.ascontiguousarray(bgr)


def _read(source: str | Path | BinaryIO, name: str, most: int) -> bytes:
    try:
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                data = _up_to(file, most + 1)
        else:
            source.seek(0)
            data = _up_to(source, most + 1)
    except (OSError, ValueError) as error:
        raise SourceError(name, f"cannot be read ({error})") from error
    if len(data) > most:
        raise UnsupportedError(name, f"more than {most / 2**20:,.0f} MiB, too large for a picture")
    return data


def _up_to(file: BinaryIO, most: int) -> bytes:
    """Reads a file in pieces: `read` allocates all that is asked for at once."""
    pieces: list[bytes] = []
    left = most
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _refuse(name: str, size: Stated, max_pixels: int) -> None:
    check_size(name, size.width, size.height, max_pixels)
    if size.pages > 1:
        raise UnsupportedError(
            name, f"{size.pages} pictures in one file", "save each as a file of its own"
        )


def _read_with_pillow(data: bytes, name: str, kind: str, max_pixels: int) -> Image:
    """Reads HEIC or AVIF: tiles put together, turned upright, as 8-bit BGR.

    HEIF's own turns and mirrors say how a picture is to be seen; EXIF only repeats them.
    """
    title = _FORMATS_OF_PILLOW[kind]
    try:
        opened, pages, transfer = _opened_heif(data) if kind == "heif" else _opened_avif(data)
        width, height = opened.size
        _refuse(name, Stated(width, height, pages), max_pixels)
        if transfer in _HDR_TRANSFERS:
            raise UnsupportedError(
                name, f"an HDR picture ({_HDR_TRANSFERS[transfer]})", "export it as a JPEG"
            )
        return _upright_bgr(opened)
    except ImportError as error:
        raise UnsupportedError(
            name,
            f"{title} pictures need the extra `heic` ({error})",
            "run `pip install 'dfd-edge[heic]'`",
        ) from error
    except SourceError:
        raise
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, SyntaxError) as error:
        raise NotMediaError(
            name, f"the {title} picture cannot be decoded; damaged or cut off"
        ) from error


def _opened_heif(data: bytes) -> tuple[Any, int, int | None]:
    """Returns the opened picture, the number of pictures in the file, and its transfer curve."""
    import pillow_heif  # noqa: PLC0415

    opened = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    colour = opened.info.get("nclx_profile") or {}
    return opened, len(opened), colour.get("transfer_characteristics")


def _opened_avif(data: bytes) -> tuple[Any, int, int | None]:
    from PIL import AvifImagePlugin  # noqa: PLC0415

    if not AvifImagePlugin.SUPPORTED:
        raise ImportError("this Pillow was built without AVIF")
    opened = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    colour = _NCLX.search(data)
    return opened, opened.n_frames, None if colour is None else int.from_bytes(colour[1], "big")


def _upright_bgr(opened: Any) -> Image:  # noqa: ANN401 - Pillow's and pillow-heif's pictures
    from PIL import Image, ImageCms, ImageOps  # noqa: PLC0415

    profile = opened.info.get("icc_profile")
    if isinstance(opened, Image.Image):
        picture = ImageOps.exif_transpose(opened)
    else:
        picture = opened.to_pillow()
    rgb = picture.convert("RGB")
    if profile:
        try:
            stated = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            ImageCms.profileToProfile(rgb, stated, ImageCms.createProfile("sRGB"), inPlace=True)
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that cannot be read, or is none of RGB, changes nothing
    return np.ascontiguousarray(np.asarray(rgb, dtype=np.uint8)[:, :, ::-1])


#: Browsers show frames of 10 ms and less for so long.
_LEAST_SHOWN_S, _SHOWN_S = 0.011, 0.1
_DISPOSE, _OVERWRITE = 1, 2
_ALPHA = 0x10
#: Bytes that a frame takes at most: its pixels as they are, and what stands before them.
_FRAME_BYTES_A_PIXEL, _LEAST_BYTES = 5, 1 << 16


class AnimatedWebP(Closing):
    """An animated WebP file, read once from start to end. Use as a context manager.

    Each frame is a still of its own in the file: it is decoded by itself and laid on the canvas, as
    the container's specification says (developers.google.com/speed/webp/docs/riff_container). The
    canvas starts black: nothing lies behind it.

    Args:
        source: The file, or an open binary file.
        name: What messages call the source.
        max_pixels: Larger canvases are refused before anything is decoded.

    Attributes:
        width, height: Size of the canvas in pixels.
        duration_s: Length in seconds.
        frame_rate: Frames per second, on average.
        complete: False once a frame turned out to be damaged or cut off.
        reason: Why `complete` is False, else None.
        notes: What a user should know of the file; nothing here.
        end_s: Time at which the last whole frame ends, in seconds.

    Raises:
        SourceError: It cannot be read, or is too large or small.
    """

    finite = True

    def __init__(
        self, source: str | Path | BinaryIO, *, name: str, max_pixels: int = MAX_FRAME_PIXELS
    ) -> None:
        self.name = name
        self.complete = True
        self.reason: str | None = None
        self.notes: tuple[str, ...] = ()
        self._colours = ColourCount()
        self.end_s = 0.0
        self._owned = isinstance(source, str | Path)
        self._file: BinaryIO = (
            Path(source).open("rb")  # noqa: SIM115 - closed in `close`
            if isinstance(source, str | Path)
            else source
        )
        try:
            self._file.seek(0)
            self.width, self.height = webp_size(self._file.read(64))
            check_size(name, self.width, self.height, max_pixels)
            self._frames = [
                (at, length) for kind, at, length in riff_chunks(self._file) if kind == b"ANMF"
            ]
            shown_s = [self._header(at)[4] for at, _ in self._frames]
            if not shown_s:
                raise HeaderError("it holds no frame")
        except (OSError, HeaderError, struct.error) as error:
            self.close()
            raise NotMediaError(name, f"the animation cannot be read ({error})") from error
        except SourceError:
            self.close()
            raise
        self.duration_s: float | None = sum(shown_s)
        self.frame_rate = len(shown_s) / self.duration_s

    def frames(
        self, sampler: DueFrames, *, every: bool = False, bursts: bool = False
    ) -> Iterator[Frame]:
        """Yields the due frames in order.

        Args:
            sampler: Says which frames are due.
            every: Whether the other frames are yielded too, for display.
            bursts: Whether due frames carry their `Burst`.

        Raises:
            SourceError: Not one frame could be decoded.
        """
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        cleared: tuple[slice, slice] | None = None
        recent = RecentFrames(luma_of_image) if bursts else None
        decoded = 0
        for index, (at, length) in enumerate(self._frames):
            left, top, width, height, shown_s, flags = self._header(at)
            if cleared is not None:
                canvas[cleared] = 0
            area = slice(top, top + height), slice(left, left + width)
            cleared = area if flags & _DISPOSE else None
            picture = self._decode(at, length, width, height)
            time_s = self.end_s
            self.end_s += shown_s
            if picture is None:
                if recent is not None:
                    recent.interrupt()
                continue
            decoded += 1
            _lay(canvas[area], picture, overwrite=bool(flags & _OVERWRITE))
            due = sampler.is_due(time_s)
            if due or every:
                image: Image = canvas.copy()
                self._colours.add(few_colours(image))
            if recent is not None:
                recent.add(image if due or every else canvas.copy(), time_s)
            if due or every:
                burst = recent.burst() if due and recent is not None else None
                yield Frame(image, time_s, index, due, burst)
        if not decoded:
            raise NotMediaError(self.name, "no frame could be decoded; damaged or cut off")

    @property
    def doubt(self) -> str | None:
        """Why its pictures cannot be decided on, whatever they score, else None."""
        return self._colours.doubt

    def close(self) -> None:
        """Closes the file, if it was opened here."""
        if self._owned:
            self._file.close()

    def _header(self, at: int) -> tuple[int, int, int, int, float, int]:
        """Returns left, top, width, height, seconds shown and flags of the frame at a place."""
        self._file.seek(at)
        data = self._file.read(16)
        if len(data) < 16:
            raise HeaderError("cut off")
        left, top, width, height, shown_ms = (
            int.from_bytes(data[place : place + 3], "little") for place in range(0, 15, 3)
        )
        left, top, width, height = 2 * left, 2 * top, width + 1, height + 1
        if left + width > self.width or top + height > self.height:
            raise HeaderError("a frame lies outside its canvas")
        shown_s = shown_ms / 1e3 if shown_ms / 1e3 >= _LEAST_SHOWN_S else _SHOWN_S
        return left, top, width, height, shown_s, data[15]

    def _decode(self, at: int, length: int, width: int, height: int) -> NDArray[np.uint8] | None:
        """Decodes a frame, uint8 [height, width, 3 or 4]; None where it is damaged.

        It is handed to the decoder as a file of its own, whose size is known to be the frame's.
        """
        # `read` allocates the size that it is given before it checks how much there is.
        most = _LEAST_BYTES + _FRAME_BYTES_A_PIXEL * width * height
        self._file.seek(at + 16)
        chunks = self._file.read(max(0, length - 16)) if length <= most else b""
        header = b""
        if chunks.startswith(b"ALPH"):  # the decoder holds the sizes against each other
            size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
            header = b"VP8X" + struct.pack("<II", 10, _ALPHA) + size
        body = b"WEBP" + header + chunks
        picture = b"RIFF" + struct.pack("<I", len(body)) + body
        try:
            if len(chunks) + 16 == length and webp_size(picture) == (width, height):
                with quiet_opencv():
                    found = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
                if found is not None:
                    return np.asarray(found, np.uint8)
        except (HeaderError, struct.error, cv2.error):
            pass
        self.complete = False
        self.reason = "frames of the animation are damaged or cut off"
        return None


def _lay(canvas: Image, picture: NDArray[np.uint8], *, overwrite: bool) -> None:
    """Blends a frame into its part of the canvas."""
    if picture.shape[2] == 3:
        canvas[:] = picture
        return
    share = picture[:, :, 3:].astype(np.float32) / 255.0
    below = 0.0 if overwrite else canvas * (1.0 - share)
    canvas[:] = np.round(picture[:, :, :3] * share + below).astype(np.uint8)
