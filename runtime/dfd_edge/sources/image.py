"""Still pictures."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.asked import check_one_of
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources.formats import image_format
from dfd_edge.sources.frame import MAX_PIXELS, MOST_PIXELS, Image, check_size
from dfd_edge.sources.headers import HeaderError, Stated, stated
from dfd_edge.sources.quiet import quiet_opencv
from dfd_edge.sources.video import head_of, read_head

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
        raise SourceError(
            f"{name}: not a picture (JPEG, PNG, WebP, BMP, TIFF, PPM, JPEG 2000, HEIC and AVIF "
            "are read)"
        )
    data = _read(source, name, max(_FILE_BYTES, _BYTES_A_PIXEL * max_pixels))
    if kind in _FORMATS_OF_PILLOW:
        return _read_with_pillow(data, name, kind, max_pixels)
    try:
        size = stated(data, kind)
    except HeaderError as error:
        raise SourceError(f"{name}: {error}") from error
    _refuse(name, size, max_pixels)
    try:
        with quiet_opencv():
            decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{name}: the picture cannot be decoded ({error.err})") from error
    if decoded is None:
        raise SourceError(f"{name}: the picture cannot be decoded; damaged or cut off")
    image = np.asarray(decoded, dtype=np.uint8)
    _refuse(name, Stated(image.shape[1], image.shape[0]), max_pixels)
    return image


def as_bgr(pixels: NDArray[np.uint8], colour: Colour) -> Image:
    """Brings an image that somebody else has decoded to the order of channels that is used here.

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
    refusal = check_size("array", shape[1], shape[0], MOST_PIXELS)
    if refusal:
        raise UsageError(refusal)
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
        raise SourceError(f"{name}: cannot be read ({error})") from error
    if len(data) > most:
        raise SourceError(f"{name}: more than {most / 2**20:,.0f} MiB, too large for a picture")
    return data


def _up_to(file: BinaryIO, most: int) -> bytes:
    """The bytes of a file in pieces: `read` makes room for all that is asked for at once."""
    pieces: list[bytes] = []
    left = most
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _refuse(name: str, size: Stated, max_pixels: int) -> None:
    refusal = check_size(name, size.width, size.height, max_pixels)
    if refusal:
        raise SourceError(refusal)
    if size.pages > 1:
        raise SourceError(
            f"{name}: {size.pages} pictures in one file; save each as a file of its own"
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
            raise SourceError(
                f"{name}: an HDR picture ({_HDR_TRANSFERS[transfer]}); export it as a JPEG"
            )
        return _upright_bgr(opened)
    except ImportError as error:
        raise SourceError(
            f"{name}: {title} pictures need the extra `heic` ({error}); "
            "run `pip install 'dfd-edge[heic]'`"
        ) from error
    except SourceError:
        raise
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, SyntaxError) as error:
        raise SourceError(
            f"{name}: the {title} picture cannot be decoded; damaged or cut off"
        ) from error


def _opened_heif(data: bytes) -> tuple[Any, int, int | None]:
    """The opened picture, the number of pictures in the file, and its transfer function."""
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
