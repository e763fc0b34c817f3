"""Clips for tests, from single pictures."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray


def write_clip(path: Path, frames: list[NDArray[np.uint8]], fps: int = 10) -> None:
    """Write BGR frames as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))


def moving(image: NDArray[np.uint8], seed: int, count: int = 16) -> list[NDArray[np.uint8]]:
    """Frames of a picture that drifts and zooms a little, with noise of their own."""
    rng = np.random.default_rng(seed)
    height, width = (side // 2 * 2 for side in image.shape[:2])
    frames = []
    for number in range(count):
        zoom = 1.0 + 0.05 * np.sin(number / 5 + seed)
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 2 * np.sin(number / 4), zoom)
        frame = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        noise = rng.normal(0, 3, frame.shape)
        frames.append(np.clip(frame + noise, 0, 255).astype(np.uint8))
    return frames
