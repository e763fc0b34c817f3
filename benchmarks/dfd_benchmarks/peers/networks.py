"""The networks that peers share: Keras models, and the bundle that is exported from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import CardInfo, PersonScore
from dfd_edge.inference.names import Resize
from dfd_export.bundles.bundle_writer import NO_GAP_S, BundleInfo, write_bundle
from dfd_export.foreign.models import WHOLE_FRAME
from dfd_export.variants.samples import Sample
from dfd_export.variants.writer import VariantOptions, add_variants
from dfd_training.calibration.decision_file import uncalibrated
from dfd_training.models import build_frame_model, build_sequence_model, load_frame_model
from dfd_training.recipes.networks import build_frozen_cnn, build_rnn

Kind = Literal["shipped", "inception"]
KINDS: tuple[Kind, ...] = ("shipped", "inception")

_SHIPPED_BACKBONE = "efficientnet_lite0"
_INCEPTION_SIZE = 224
_SEED = 0
_CARD = CardInfo(
    training_data="None.",
    protocol="Made for a benchmark; what it says of a clip means nothing.",
    metrics={},
    licence="That of the weights.",
    limits=["It is not fitted."],
)


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """A frame and a sequence model.

    Attributes:
        name: The name of both.
        weights: Where those of the frame model come from, in words.
        frame: From `image` [B, S, S, 3], RGB 0..255, to `features` [B, F], `fake_logit` [B] and
            what else the model gives.
        sequence: From `features` [B, T, F] and `mask` [B, T] to logits [B, T]; weights random.
    """

    name: str
    weights: str
    frame: keras.Model
    sequence: keras.Model

    @property
    def size(self) -> int:
        """S, the side of a picture in pixels."""
        return int(self.frame.inputs[0].shape[1])

    @property
    def feature_width(self) -> int:
        """F."""
        return int(self.frame.output["features"].shape[-1])


def build_networks(kind: Kind, *, keras_file: Path | None = None) -> Networks:
    """Builds what is to be run.

    Args:
        kind: `shipped`: the architectures of the shipped bundle; ImageNet weights from the
            installed package, so that int8 has real ranges to keep. `inception`: InceptionV3 and
            two small GRUs as in `dfd-train recipe cnn-rnn-baseline`, with random weights.
        keras_file: A frame model to take in place of the kind's, with the shipped sequence model.

    Raises:
        UsageError: The file holds no frame model, or there are no weights.
    """
    keras.utils.set_random_seed(_SEED)
    if keras_file is not None:
        frame = load_frame_model(keras_file)
        width = int(frame.output["features"].shape[-1])
        sequence = build_sequence_model(feature_width=width)
        return Networks(frame.name, keras_file.name, frame, sequence)
    if kind == "inception":
        frame = build_frozen_cnn(
            backbone="inception_v3", size=_INCEPTION_SIZE, weights="none", seed=_SEED
        )
        _keep_scale(frame)
        sequence = build_rnn(feature_width=int(frame.output["features"].shape[-1]))
        return Networks("InceptionV3 + GRU", "random", frame, sequence)
    size = Bundle.load().manifest.frame.input_size
    frame = build_frame_model(backbone=_SHIPPED_BACKBONE, input_size=size, weights="imagenet")
    sequence = build_sequence_model(feature_width=int(frame.output["features"].shape[-1]))
    return Networks("shipped architecture", "ImageNet, random head", frame, sequence)


def _keep_scale(model: keras.Model) -> None:
    """Makes random kernels such that numbers neither vanish nor explode (He et al., ICCV 2015).

    With those of Glorot, Keras' default, and batch norms that have seen nothing, InceptionV3 gives
    features around 1e-7, by which no fault of an engine would be seen.
    """
    rng = np.random.default_rng(_SEED)
    for variable in model.weights:
        if variable.path.endswith("kernel") and len(variable.shape) == 4:
            deviation = np.sqrt(2.0 / np.prod(variable.shape[:3]))
            variable.assign(rng.normal(0.0, deviation, variable.shape))


def export_networks(
    networks: Networks, out: Path, *, crops: NDArray[np.uint8], int8: bool
) -> Bundle:
    """Exports both models into a bundle that judges whole frames, the first of a clip alone.

    Args:
        networks: The networks to export.
        out: The bundle's folder.
        crops: uint8 [n, S, S, 3], RGB, two or more: for the exporter's comparison, and for the
            ranges of int8. As many first frames are judged.
        int8: Also make the int8 variant.

    Raises:
        ParityError, VariantRefused: What was exported says something else than Keras.
    """
    info = BundleInfo(
        name=networks.name,
        face=WHOLE_FRAME,
        crop_scale=1.0,
        decision=uncalibrated(PersonScore.LAST),
        card=_CARD,
        rate_hz=30.0,
        max_gap_s=NO_GAP_S,
        first_frames=len(crops),
        resize=Resize.BILINEAR,
    )
    write_bundle(networks.frame, networks.sequence, out=out, info=info, crops=crops)
    bundle = Bundle.load(out)
    if int8:
        # Labels are of no account here: the head is random, and any change of AUC is allowed.
        number = np.arange(len(crops))
        files = np.array([f"frame{index}" for index in number])
        sample = Sample(
            crops=crops,
            paths=files,
            groups=files,
            fake=number % 2 == 1,
            tracks=np.zeros(len(crops), np.int64),
            times_s=np.zeros(len(crops)),
            description="frames of a clip, labelled at random",
        )
        options = VariantOptions(int8=True, max_auc_drop=1.0)
        add_variants(bundle, out=out, options=options, calibration=crops, sample=sample)
        bundle = Bundle.load(out)
    return bundle
