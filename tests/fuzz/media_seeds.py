"""Small whole media files that fuzzing starts from, made by PyAV, OpenCV and Pillow."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

Image = NDArray[np.uint8]

os.environ.setdefault("SVT_LOG", "1")  # else the AV1 encoder writes its settings
SIZE = (160, 120)
FRAMES = 6
RATE = 10

#: Name, encoder, options of the encoder, options of the muxer. The suffix chooses the container.
_FILMS: tuple[tuple[str, str, dict[str, str], dict[str, str]], ...] = (
    ("h264.mp4", "libx264", {"g": "3", "bf": "1"}, {"movflags": "faststart"}),
    ("fragments.mp4", "libx264", {"g": "3"}, {"movflags": "frag_keyframe+empty_moov"}),
    ("hevc.mp4", "libx265", {"x265-params": "log-level=none"}, {}),
    ("av1.mp4", "libsvtav1", {"preset": "12"}, {}),
    ("mpeg4.mov", "mpeg4", {}, {}),
    ("prores.mov", "prores_ks", {}, {}),
    ("h264.mkv", "libx264", {"g": "3", "bf": "1"}, {}),
    ("ffv1.mkv", "ffv1", {}, {}),
    ("vp9.webm", "libvpx-vp9", {"deadline": "realtime"}, {}),
    ("vp8.webm", "libvpx", {"deadline": "realtime"}, {}),
    ("mpeg2.mpg", "mpeg2video", {}, {}),
    ("h264.ts", "libx264", {"g": "3"}, {}),
    ("mjpeg.avi", "mjpeg", {}, {}),
    ("mpeg4.avi", "mpeg4", {}, {}),
    ("h264.flv", "libx264", {"g": "3"}, {}),
    ("wmv2.wmv", "wmv2", {}, {}),
    ("pictures.mjpeg", "mjpeg", {}, {}),
)
_PIXELS = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}


def make_seeds(folder: Path) -> list[Path]:
    """Writes the files into a folder, which is made, and returns them in a fixed order.

    What this machine has no encoder for is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frames = _frames()
    made = [_film(folder / name, frames, *how) for name, *how in _FILMS]
    made += _stills(folder, frames)
    return [path for path in made if path is not None and path.stat().st_size]


def _frames() -> list[Image]:
    """A face before a coloured ground, which moves a little."""
    from skimage import data

    face = np.ascontiguousarray(data.astronaut()[:330, 40:480, ::-1])
    return [
        np.asarray(cv2.resize(np.roll(face, 6 * number, axis=1), SIZE), dtype=np.uint8)
        for number in range(FRAMES)
    ]


def _film(
    path: Path, frames: list[Image], codec: str, options: dict[str, str], muxing: dict[str, str]
) -> Path | None:
    try:
        with _same_scheduling(), av.open(str(path), "w", options=muxing) as container:
            stream = container.add_stream(codec, rate=RATE, options=options)
            stream.width, stream.height = SIZE
            stream.pix_fmt = _PIXELS.get(codec, "yuv420p")
            stream.codec_context.thread_count = 1  # libvpx's wait for each other by spinning
            for number, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError):  # this build lacks the encoder
        path.unlink(missing_ok=True)
        return None
    return path


@contextlib.contextmanager
def _same_scheduling() -> Iterator[None]:
    """Takes back the real-time priority that SVT-AV1 gives the calling thread of root.

    Every later process of that thread would inherit it, a browser among them, and hold all
    processors of a small machine for good.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _stills(folder: Path, frames: list[Image]) -> list[Path]:
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    pictures = [PillowImage.fromarray(image[:, :, ::-1]) for image in frames]
    first, rest = pictures[0], pictures[1:]
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "a picture"
    animated = {"save_all": True, "append_images": rest, "duration": 100}
    how: dict[str, tuple[PillowImage.Image, dict[str, object]]] = {
        "plain.jpg": (first, {"quality": 90}),
        "turned.jpg": (first, {"exif": exif, "progressive": True}),
        "grey.jpg": (first.convert("L"), {}),
        "plain.png": (first, {}),
        "palette.png": (first.convert("P"), {}),
        "deep.png": (first.convert("I;16"), {}),
        "animated.png": (first, animated),
        "lossy.webp": (first, {"exif": exif}),
        "lossless.webp": (first, {"lossless": True}),
        "animated.webp": (first, animated),
        "animated.gif": (first, animated),
        "plain.gif": (first, {}),
        "raw.tiff": (first, {}),
        "lzw.tiff": (first, {"compression": "tiff_lzw"}),
        "deflate.tiff": (first, {"compression": "tiff_adobe_deflate"}),
        "pages.tiff": (first, {"save_all": True, "append_images": rest[:2]}),
        "plain.bmp": (first, {}),
        "plain.ppm": (first, {}),
        "plain.jp2": (first, {}),
        "plain.avif": (first, {"exif": exif, "speed": 10}),
        "plain.heic": (first, {"exif": exif}),
    }
    made = []
    for name, (picture, options) in how.items():
        stream = io.BytesIO()
        try:
            kind = PillowImage.registered_extensions()[Path(name).suffix]
            picture.save(stream, kind, **options)
        except (KeyError, OSError):  # this build lacks the encoder
            continue
        path = folder / name
        path.write_bytes(stream.getvalue())
        made.append(path)
    return made
