"""Models and bundles for tests: the real graphs, nothing trained.

Loads TensorFlow; tests that only need a bundle take the fixture `tiny_bundle`, which is cached.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import FaceSpec
from dfd_edge.faces import DETECTOR_NAME, DetectorOptions
from dfd_edge.faces.detector import DETECTOR_FILE
from dfd_edge.faces.onnx_model import face_model_sha256
from dfd_export.bundles.bundle_writer import BundleInfo, write_bundle
from dfd_export.variants.samples import Sample
from dfd_export.variants.writer import VariantOptions, add_variants
from dfd_training.models import BACKBONES, build_frame_model, build_sequence_model
from small_bundle import CARD, DECISION


def make_info(name: str = "tiny", crop_scale: float = 1.5) -> BundleInfo:
    """What a test bundle says beside its models."""
    return BundleInfo(
        name=name,
        face=FaceSpec(DETECTOR_NAME, face_model_sha256(DETECTOR_FILE), DetectorOptions().to_dict()),
        crop_scale=crop_scale,
        decision=DECISION,
        card=CARD,
    )


def make_models(
    input_size: int = 64, *, backbone: str = "efficientnet_lite0", head: str = "gru", seed: int = 3
) -> tuple[keras.Model, keras.Model]:
    """A frame model with ImageNet weights, where there are any, and random head, and a random
    sequence model.

    Random convolutions would say the same of every picture, and hide what goes wrong before them.
    """
    keras.utils.set_random_seed(seed)
    weights = "imagenet" if BACKBONES[backbone].weights is not None else "none"
    frame = build_frame_model(backbone=backbone, input_size=input_size, weights=weights)
    width = frame.output["features"].shape[-1]
    sequence = build_sequence_model(feature_width=width, head=head)
    rng = np.random.default_rng(seed)
    for variable in [*frame.get_layer("evidence_head").weights, *sequence.weights]:
        if not variable.path.endswith("kernel"):
            low = 0.5 if variable.path.endswith(("variance", "gamma")) else -0.3
            variable.assign(rng.uniform(low, low + 0.6, variable.shape))
    return frame, sequence


def make_crops(count: int, size: int, seed: int = 5) -> np.ndarray:
    """Pictures of noise at several scales: uint8 [count, size, size, 3]."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 128, (count, size, size, 3))
    coarse = rng.integers(0, 128, (count, 4, 4, 3))
    block = -(-size // 4)
    large = coarse.repeat(block, axis=1).repeat(block, axis=2)[:, :size, :size]
    return (fine + large).astype(np.uint8)


def build(out: Path, input_size: int = 64) -> Path:
    """Exports such models into a bundle."""
    frame, sequence = make_models(input_size)
    write_bundle(frame, sequence, out=out, info=make_info(), crops=make_crops(4, input_size))
    return out


def make_sample(count: int = 24, size: int = 64) -> Sample:
    """Crops of noise as three clips and a few photographs, every other file fake."""
    files = [f"clip{n // 6}.mp4" if n < 18 else f"picture{n}.png" for n in range(count)]
    return Sample(
        crops=make_crops(count, size, seed=9),
        paths=np.array(files),
        groups=np.array(files),
        fake=np.arange(count) // 6 % 2 == 1,
        tracks=np.zeros(count, np.int64),
        times_s=np.array([n % 6 / 5 if n < 18 else 0.0 for n in range(count)]),
        description="crops of noise",
    )


def build_variants(bundle: Path, out: Path) -> Path:
    """Adds both variants to a bundle, whatever they change: noise is no measure of a model."""
    add_variants(
        Bundle.load(bundle),
        out=out,
        options=VariantOptions(int8=True, fp16=True, max_auc_drop=1.0),
        calibration=make_crops(24, 64, seed=8),
        sample=make_sample(),
    )
    return out
