"""The 468-point face mesh: where brows, eyes, lips and jaw lie.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.
Training needs it to synthesise fakes; judging a frame does not.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.detector import Face
from dfd_edge.faces.onnx_model import open_face_model, run_face_model

MESH_FILE = "face_mesh_468.onnx"
LANDMARKS = 468

_INPUT_SIZE = 192
_REGION_SCALE = 1.5
_MIN_PRESENCE_LOGIT = 0.0


class FaceMesh:
    """Finds the landmarks of a detected face; may be shared between threads."""

    def __init__(self, *, threads: int = 1) -> None:
        """Open the model.

        Args:
            threads: threads that onnxruntime may use inside one operator.

        Raises:
            ProviderError: when onnxruntime is not installed.
            BundleError: when the model file is missing or unreadable.
        """
        self._session: Any = open_face_model(MESH_FILE, threads=threads)
        self._input = self._session.get_inputs()[0].name

    def landmarks(self, frame: NDArray[np.uint8], face: Face) -> NDArray[np.float32] | None:
        """Return float32 [468, 2], pixels of the frame, or None where the model sees no face.

        Args:
            frame: uint8 [height, width, 3], BGR.
            face: a detection in that frame.
        """
        right_eye, left_eye = face.keypoints[0], face.keypoints[1]
        angle = np.arctan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
        centre = (face.box[:2] + face.box[2:]) / 2.0
        scale = _INPUT_SIZE / (face.size * _REGION_SCALE)
        cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
        to_input = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0]], np.float64)
        to_input[:, 2] = _INPUT_SIZE / 2.0 - to_input[:, :2] @ centre
        region = cv2.warpAffine(frame, to_input, (_INPUT_SIZE, _INPUT_SIZE), flags=cv2.INTER_LINEAR)
        image = region[None, :, :, ::-1].astype(np.float32) / 255.0
        raw, presence = run_face_model(self._session, self._input, image)
        if float(np.ravel(presence)[0]) < _MIN_PRESENCE_LOGIT:
            return None
        points = raw.reshape(LANDMARKS, 3)[:, :2].astype(np.float64)
        back = cv2.invertAffineTransform(to_input)
        mapped: NDArray[np.float32] = (points @ back[:, :2].T + back[:, 2]).astype(np.float32)
        return mapped
