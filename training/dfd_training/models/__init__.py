"""Frame and sequence models in Keras 3, on any of its backends."""

from dfd_training.models.frame import EvidenceHead, build_frame_model
from dfd_training.models.registry import BACKBONES, HEADS, Backbone, ImageNetWeights
from dfd_training.models.saving import load_frame_model, load_sequence_model, save_model
from dfd_training.models.sequence import build_sequence_model

__all__ = [
    "BACKBONES",
    "HEADS",
    "Backbone",
    "EvidenceHead",
    "ImageNetWeights",
    "build_frame_model",
    "build_sequence_model",
    "load_frame_model",
    "load_sequence_model",
    "save_model",
]
