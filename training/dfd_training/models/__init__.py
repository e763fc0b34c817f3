"""Frame and sequence models in Keras 3, on any of its backends."""

from dfd_training.models.backbone import Backbone, PixelScaling, backbone_of
from dfd_training.models.frame import (
    EvidenceHead,
    ModelCost,
    build_frame_model,
    load_frame_model,
    measure,
    read_logit_layer,
)
from dfd_training.models.registry import BACKBONES
from dfd_training.models.saving import crop_scale_of, detector_of, save_model, with_crop_scale
from dfd_training.models.sequence import (
    HEADS,
    SEQUENCE_INPUTS,
    SIGNALS_HEAD,
    build_sequence_model,
    check_head,
    load_sequence_model,
    takes_signals,
)
from dfd_training.models.weights import ImageNetWeights, KerasWeights, PackagedWeights

__all__ = [
    "BACKBONES",
    "HEADS",
    "SEQUENCE_INPUTS",
    "SIGNALS_HEAD",
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
    "check_head",
    "crop_scale_of",
    "detector_of",
    "load_frame_model",
    "load_sequence_model",
    "measure",
    "read_logit_layer",
    "save_model",
    "takes_signals",
    "with_crop_scale",
]
