"""From a frame to the crops that the model sees: detection, tracking, crop geometry, quality.

Training and inference must do these alike, so they stand here once and `dfd_training` calls
them here.
"""

from dfd_edge.faces.crop import (
    CropRegion,
    Quality,
    assess,
    crop_region,
    extract_crop,
    middle_square,
)
from dfd_edge.faces.cropped import CroppedFaces
from dfd_edge.faces.detector import (
    DETECTOR_NAME,
    DetectorOptions,
    Face,
    FaceDetector,
    FaceFinder,
    FaceMesh,
)
from dfd_edge.faces.tracker import TrackedFace, Tracker

__all__ = [
    "DETECTOR_NAME",
    "CropRegion",
    "CroppedFaces",
    "DetectorOptions",
    "Face",
    "FaceDetector",
    "FaceFinder",
    "FaceMesh",
    "Quality",
    "TrackedFace",
    "Tracker",
    "assess",
    "crop_region",
    "extract_crop",
    "middle_square",
]
