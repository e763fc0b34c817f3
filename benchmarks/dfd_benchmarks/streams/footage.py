"""A clip made ready for sending: brought to size and rate, stamped, encoded once, in a loop."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from dfd_benchmarks.streams.stamps import write_stamp
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources.frames import Image
from dfd_edge.sources.video import VideoFile

#: The clip that is sent where none is given; in a clone of the project.
SAMPLE = Path(__file__).parents[3] / "samples" / "real_astronaut.mp4"
#: Seconds of a clip that are used.
MAX_CLIP_S = 6.0
_TIME_BASE = Fraction(1, 90_000)
#: As a camera's encoder would: no look-ahead, no B-frames, one slice, a key frame a second.
_ENCODER = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": "21",
    "bf": "0",
    "sc_threshold": "0",
    "x264-params": "sliced-threads=0:threads=1",
}


@dataclass(frozen=True, slots=True)
class Footage:
    """Encoded footage that can be sent over and over.

    Attributes:
        path: MPEG-TS with H.264; frame i bears the stamp i and is shown at i / fps.
        clip: The clip that it was made from.
        width, height: Size in pixels.
        fps: Frames per second.
        frames: Number of frames; it starts with a key frame, and one follows every second.
        bitrate_kbps: Mean bit rate in 1000 bits per second.
    """

    path: Path
    clip: str
    width: int
    height: int
    fps: int
    frames: int
    bitrate_kbps: float


def make_footage(clip: Path | None, path: Path, *, size: tuple[int, int], fps: int) -> Footage:
    """Encode a clip for sending: forwards, then backwards, so that nothing jumps in the loop.

    Args:
        clip: A video; the sample with one face where None.
        path: Where the footage is written, `*.ts`.
        size: Width and height in pixels, even; the clip is scaled to fit and padded with grey.
        fps: Frames per second.

    Raises:
        UsageError: A value out of range, or there is no sample here.
        SourceError: The clip cannot be read.
    """
    clip = clip_or_sample(clip)
    width, height = size
    if width % 2 or height % 2:
        raise UsageError(f"size {width}x{height}: H.264 needs even sides")
    if not 1 <= fps <= 240:
        raise UsageError(f"fps is {fps}; give 1 to 240")
    pictures = fitted_pictures(clip, size, fps)
    order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    while len(order) < 2 * fps:  # so that a number says which frame it was for seconds
        order += order
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=fps, options={**_ENCODER, "g": str(fps)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        for number, index in enumerate(order):
            image = pictures[index].copy()
            write_stamp(image, number)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(number / fps / _TIME_BASE), _TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    bitrate = path.stat().st_size * 8 * fps / len(order)
    return Footage(path, str(clip), width, height, fps, len(order), bitrate / 1e3)


def clip_or_sample(clip: Path | None) -> Path:
    """The clip, or the sample with one face where there is none.

    Raises:
        UsageError: There is no sample here.
    """
    if clip is None and not SAMPLE.is_file():
        raise UsageError("the sample clips are not installed; name a CLIP with one face in it")
    return clip or SAMPLE


def fitted_pictures(clip: Path, size: tuple[int, int], fps: int) -> list[Image]:
    """The first seconds of a clip at the rate and the size asked for: uint8 BGR each.

    Raises:
        SourceError: The clip cannot be read, or has a single frame.
    """
    pictures: list[Image] = []
    with VideoFile(str(clip)) as video:
        for frame in video.frames(_Every()):
            if frame.time_s >= MAX_CLIP_S:
                break
            picture = _fitted(frame.image, size)
            while len(pictures) <= frame.time_s * fps:
                pictures.append(picture)
    if len(pictures) < 2:
        raise SourceError(clip, "a single frame", "give a clip of a second or more")
    return pictures


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    width, height = size
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = (min(width, round(image.shape[1] * scale)), min(height, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    padded = np.full((height, width, 3), 96, np.uint8)
    padded[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        image, inner, interpolation=method
    )
    return padded


class _Every:
    """Samples all frames."""

    def is_due(self, time_s: float) -> bool:
        return True
