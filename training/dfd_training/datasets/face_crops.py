"""The face in a picture that is a face crop already, as sets of cropped faces have them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces import Face, FaceDetector
from dfd_edge.faces.crop import CROP_SCALE

PAD_SHARE = 0.5
"""Border put round the picture before the second try, over its longer side."""
MIN_SHARE = 0.35
"""A face smaller than this beside the picture's longer side is not what it was cropped to."""

#: Where eyes, nose, mouth and ears of a face seen from the front lie in its box, which is 1 wide:
#: means over the sample clips.
_FRONTAL = np.array(
    [[0.30, 0.33], [0.70, 0.33], [0.50, 0.58], [0.50, 0.76], [0.10, 0.42], [0.90, 0.42]],
    np.float32,
)


def face_of_crop(picture: NDArray[np.uint8], detector: FaceDetector) -> Face:
    """Find the face of a cropped picture.

    The detector is asked first, with its own tries; then once more with the picture's border
    repeated round it. What is much smaller than the picture, or beside its middle, is not the
    face that it was cropped to. If there is none, the picture is the model's crop as it is.

    Args:
        picture: uint8 [height, width, 3], BGR.
        detector: the runtime's.

    Returns:
        The face, in pixels of the picture; score 0 where nothing was found.
    """
    if faces := _plausible(detector.detect(picture), picture):
        return faces[0]
    pad = round(PAD_SHARE * max(picture.shape[:2]))
    padded = cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    found = [_moved(face, -pad) for face in detector.detect(np.asarray(padded, np.uint8))]
    if faces := _plausible(found, picture):
        return faces[0]
    return whole_picture(picture)


def whole_picture(picture: NDArray[np.uint8]) -> Face:
    """The face whose crop for the model is the whole picture, looking ahead; score 0.

    Args:
        picture: uint8 [height, width, 3].
    """
    height, width = picture.shape[:2]
    centre = np.array([width, height], np.float32) / 2.0
    side = max(height, width) / CROP_SCALE
    corner = centre - side / 2.0
    return Face(
        box=np.concatenate([corner, corner + side]).astype(np.float32),
        keypoints=(corner + side * _FRONTAL).astype(np.float32),
        score=0.0,
    )


def _plausible(faces: list[Face], picture: NDArray[np.uint8]) -> list[Face]:
    height, width = picture.shape[:2]
    return [
        face
        for face in faces
        if face.size >= MIN_SHARE * max(height, width)
        and 0.2 * width <= (face.box[0] + face.box[2]) / 2.0 <= 0.8 * width
        and 0.2 * height <= (face.box[1] + face.box[3]) / 2.0 <= 0.8 * height
    ]


def _moved(face: Face, offset: float) -> Face:
    return Face(
        box=face.box + np.float32(offset),
        keypoints=face.keypoints + np.float32(offset),
        score=face.score,
    )
