"""Small real clips for tests: a moving crop of a photograph, encoded by PyAV."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

TIME_BASE = Fraction(1, 90_000)


def portrait() -> Image:
    """A photograph with one face, uint8 BGR [512, 512, 3]."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def face_frames(
    count: int, *, size: tuple[int, int] = (320, 240), mirrored: bool = False
) -> list[Image]:
    """A crop that moves over the photograph while the light changes; the face stays inside."""
    picture = portrait()[:360, 40:440]
    if mirrored:
        picture = np.ascontiguousarray(picture[:, ::-1])
    frames = []
    for number in range(count):
        x, y = 20 + round(15 * np.sin(number / 9)), 10 + round(8 * np.cos(number / 7))
        view = picture[y : y + 270, x : x + 360]
        light = 1.0 + 0.1 * np.sin(number / 11)
        bright = np.clip(view * light, 0, 255).astype(np.uint8)
        frames.append(np.asarray(cv2.resize(bright, size), dtype=np.uint8))
    return frames


def plain_frames(count: int, *, size: tuple[int, int] = (320, 240)) -> list[Image]:
    """A moving colour gradient: no face."""
    width, height = size
    ramp = np.linspace(0, 255, width, dtype=np.float32)
    frames = []
    for number in range(count):
        row = np.roll(ramp, 3 * number)
        plane = np.repeat(row[None], height, axis=0)
        frames.append(np.stack([plane, plane[::-1], 255 - plane], axis=2).astype(np.uint8))
    return frames


def write_clip(
    path: Path,
    frames: Sequence[Image],
    *,
    rate: int = 25,
    times_s: Sequence[float] | None = None,
    codec: str = "libx264",
    rotation: float | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes frames (uint8 BGR); the suffix chooses the container."""
    muxing = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {"g": "25"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.codec_context.time_base = TIME_BASE
        base = stream.codec_context.time_base or Fraction(1, rate)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            time_s = number / rate if times_s is None else times_s[number]
            frame.pts = round(time_s / base)
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if rotation is not None:  # not every PyAV can write it
        turned = path.with_stem(f"{path.stem}-turned")
        run_ffmpeg("-display_rotation", str(rotation), "-i", path, "-c", "copy", turned)
        turned.replace(path)
    return path


def write_sound(path: Path, *, seconds: float = 1.0) -> Path:
    """Encodes a tone without any video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        tone = np.sin(np.arange(int(44_100 * seconds)) * 0.06).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 44_100
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def run_ffmpeg(*arguments: str | Path) -> bytes:
    """Runs the ffmpeg that imageio-ffmpeg carries, one of another build than PyAV's own.

    Returns:
        What it wrote to standard output.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
    command += [str(argument) for argument in arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout
