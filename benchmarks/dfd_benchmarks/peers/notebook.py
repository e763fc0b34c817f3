"""What notebooks on deepfake videos do with a clip, from Keras' CNN-RNN example (2021) on.

Frames are read with OpenCV, cut to the middle square, resized, put through the CNN by `predict` one
at a time, and the padded features of the clip by `predict` through the recurrent network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from dfd_benchmarks.peers.networks import Networks
from dfd_edge.errors import SourceError
from dfd_training.recipes.networks import last_logit_model


class NotebookLoop:
    """A clip to its P(fake), the notebooks' way.

    Args:
        networks: The Keras models.
        frames: How many of a clip are judged, from the first on.
    """

    def __init__(self, networks: Networks, frames: int) -> None:
        self._size = networks.size
        self._frames = frames
        self._extractor = keras.Model(networks.frame.input, networks.frame.output["features"])
        logit = last_logit_model(networks.sequence)
        self._recurrent = keras.Model(logit.input, keras.ops.sigmoid(logit.output))
        self._width = networks.feature_width

    def judge(self, clip: Path) -> float:
        """P(fake) of a clip.

        Raises:
            SourceError: It cannot be read.
        """
        return self.judge_pictures(self.read(clip))

    def read(self, clip: Path) -> NDArray[np.uint8]:
        """The first frames of a clip: uint8 [T, S, S, 3], RGB, T at most `frames`.

        Raises:
            SourceError: OpenCV reads none.
        """
        video = cv2.VideoCapture(str(clip))
        pictures: list[NDArray[Any]] = []
        try:
            while len(pictures) < self._frames:
                found, frame = video.read()
                if not found:
                    break
                height, width = frame.shape[:2]
                side = min(height, width)
                top, left = (height - side) // 2, (width - side) // 2
                square = frame[top : top + side, left : left + side]
                pictures.append(cv2.resize(square, (self._size, self._size))[:, :, [2, 1, 0]])
        finally:
            video.release()
        if not pictures:
            raise SourceError(clip, "OpenCV reads no frame of it", "give a clip that it reads")
        return np.array(pictures, np.uint8)

    def judge_pictures(self, pictures: NDArray[np.uint8]) -> float:
        """P(fake) of pictures as `read` gives them."""
        features = np.zeros((1, self._frames, self._width), np.float32)
        mask = np.zeros((1, self._frames), np.bool_)
        features[0, : len(pictures)] = self.features(pictures)
        mask[0, : len(pictures)] = True
        given = {"features": features, "mask": mask}
        return float(self._recurrent.predict(given, verbose=0)[0, 0])

    def features(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of pictures, one after the other: float32 [T, F]."""
        found = np.empty((len(pictures), self._width), np.float32)
        for index, picture in enumerate(pictures):
            batch = picture[None].astype(np.float32)
            found[index] = self._extractor.predict(batch, verbose=0)[0]
        return found
