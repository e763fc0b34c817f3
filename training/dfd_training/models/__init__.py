"""Frame and sequence models in Keras 3, on any of its backends."""

from dfd_training.models.backbone import Backbone, backbone_of
from dfd_training.models.cost import ModelCost, measure
from dfd_training.models.frame import EvidenceHead, build_frame_model
from dfd_training.models.pretrained import ImageNetWeights, KerasWeights, PackagedWeights
from dfd_training.models.registry import BACKBONES
from dfd_training.models.saving import load_frame_model, load_sequence_model, save_model
from dfd_training.models.scaling import PixelScaling
from dfd_training.models.sequence import HEADS, build_sequence_model

__all__ = [
    "BACKBONES",
    "HEADS",
    "Backbone",
    "EvidenceHead",
    "ImageNetWeights",
    "KerasWeights",
    "ModelCost",
    "PackagedWeights",
    "PixelScaling",
    "backbone_of",
    "build_frame_model",
    "build_sequence_model",
    "load_frame_model",
    "load_sequence_model",
    "measure",
    "save_model",
]
