"""Pictures that are face crops already, as in the deepfake-faces set: the face that fills them.

`dfd-train prepare` and the runtime find it alike.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.detector import Face, FaceFinder
from dfd_edge.sources.frames import Pixels, whole

PAD_SHARE = 0.5
"""Border put round the picture before the second try, over its longer side."""
MIN_SHARE = 0.35
"""A face smaller than this beside the picture's longer side is not what it was cropped to."""
CENTRAL_SHARES = (0.2, 0.8)
"""The centre of the face lies between these shares of the picture's width and height."""

#: Where eyes, nose, mouth and ears of a face seen from the front lie in its box, which is 1 wide:
#: means over the sample clips.
_FRONTAL = np.array(
    [[0.30, 0.33], [0.70, 0.33], [0.50, 0.58], [0.50, 0.76], [0.10, 0.42], [0.90, 0.42]],
    np.float32,
)


class CroppedFaces:
    """Finds the one face of pictures that are face crops: there always is one.

    Args:
        finder: The face detector.
        crop_scale: Side of the model's crop over the size of the face.
    """

    def __init__(self, finder: FaceFinder, *, crop_scale: float) -> None:
        self._finder = finder
        self._crop_scale = crop_scale

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Returns the face of a picture, in a list.

        The detector runs first, with its own tries; then once more with the picture's border
        repeated round it. A face much smaller than the picture, or beside its middle, is not the
        face that it was cropped to. Without a face the picture is the model's crop as it is; the
        score is then 0.

        Args:
            frame: As of `FaceDetector.detect`.
            thorough: Without effect: the face is large.
        """
        picture = whole(frame)
        if faces := _plausible(self._finder.detect(picture), picture):
            return faces[:1]
        pad = round(PAD_SHARE * max(picture.shape[:2]))
        padded = cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        found = self._finder.detect(np.asarray(padded, np.uint8))
        if faces := _plausible([_moved(face, -pad) for face in found], picture):
            return faces[:1]
        return [_whole_picture(picture, self._crop_scale)]


def frontal_face(box: NDArray[np.float32], score: float) -> Face:
    """Returns a face that looks straight ahead, for detectors that give a box and no key points.

    Args:
        box: float32 [4], x0, y0, x1, y1 in pixels.
        score: Confidence of the detector.
    """
    return Face(
        box=box,
        keypoints=(box[:2] + (box[2:] - box[:2]) * _FRONTAL).astype(np.float32),
        score=score,
    )


def _whole_picture(picture: NDArray[np.uint8], crop_scale: float) -> Face:
    """Returns the face whose crop for the model is the whole picture, looking ahead; score 0."""
    height, width = picture.shape[:2]
    centre = np.array([width, height], np.float32) / 2.0
    half = max(height, width) / crop_scale / 2.0
    return frontal_face(np.concatenate([centre - half, centre + half]).astype(np.float32), 0.0)


def _plausible(faces: list[Face], picture: NDArray[np.uint8]) -> list[Face]:
    height, width = picture.shape[:2]
    low, high = CENTRAL_SHARES
    return [
        face
        for face in faces
        if face.size >= MIN_SHARE * max(height, width)
        and low * width <= (face.box[0] + face.box[2]) / 2.0 <= high * width
        and low * height <= (face.box[1] + face.box[3]) / 2.0 <= high * height
    ]


def _moved(face: Face, offset: float) -> Face:
    return Face(
        box=face.box + np.float32(offset),
        keypoints=face.keypoints + np.float32(offset),
        score=face.score,
    )
