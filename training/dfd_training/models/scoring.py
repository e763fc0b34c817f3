"""Frame models that score crops: fitted Keras files, and exported graphs as they ship.

A variant's decision has to rest on that variant's logits. So the graphs of a bundle run here as
they do on the edge, by the runtime's own session.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.inference.session import Session
from dfd_training.data.store import UNRECORDED_CROP_SCALE, CropStore
from dfd_training.models import load_frame_model
from dfd_training.models.saving import read_crop_scale

_PREDICT_BATCH = 64

Crops = NDArray[np.uint8]
Floats = NDArray[np.float32]


class FrameScorer(Protocol):
    """A frame model, ready to run."""

    @property
    def input_size(self) -> int:
        """Side of its crops in pixels."""

    def score(self, crops: Crops) -> tuple[Floats, Floats]:
        """Returns features [n, F] and logits [n], float32, of crops uint8 [n, S, S, 3], RGB."""


@dataclass(frozen=True, slots=True)
class FrameModel:
    """A frame model on disk. Find one with `FrameModel.find`.

    Attributes:
        path: A `.keras` file, or the folder of a bundle.
        precision: Variant of the frame graph; "fp32" for a `.keras` file.
        digest: SHA-256 of the file that computes, hexadecimal.
        crop_scale: Side of its crops over the size of the face.
    """

    path: Path
    precision: str
    digest: str
    crop_scale: float

    @classmethod
    def find(
        cls, path: Path, precision: str = "fp32", *, store: CropStore | None = None
    ) -> FrameModel:
        """Finds a model without running it.

        Args:
            path: A `.keras` file, or the folder of a bundle.
            precision: Variant of the frame graph.
            store: The store whose crops it is to score, if any.

        Raises:
            UsageError: There is none, it has no such precision, or it takes crops of another
                scale than those of the store.
            BundleError: The bundle is damaged.
        """
        model = cls._find(path, precision)
        if store is not None and model.crop_scale != store.crop_scale:
            raise UsageError(
                f"{path}: takes crops of {model.crop_scale:g} times the face, the crop scale of "
                f"{store.path} is {store.crop_scale:g}: prepare a store with --crop-scale "
                f"{model.crop_scale:g}"
            )
        return model

    @classmethod
    def _find(cls, path: Path, precision: str) -> FrameModel:
        if not path.is_dir():
            if not path.is_file():
                raise UsageError(f"{path}: no such frame model: give a .keras file or a bundle")
            if precision != "fp32":
                raise UsageError(
                    f"{path}: a Keras model has no {precision}: give the bundle that "
                    f"dfd-export bundle --{precision} makes of it"
                )
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            return cls(path, precision, digest, read_crop_scale(path) or UNRECORDED_CROP_SCALE)
        manifest = Bundle.load(path).manifest
        variants = manifest.frame.variants
        if precision not in variants:
            raise UsageError(
                f"{path}: has no {precision}, only {', '.join(variants)}: add it with dfd-export "
                "variant"
            )
        digest = manifest.files[variants[precision].file].sha256
        return cls(path, precision, digest, manifest.frame.crop_scale)

    def open(self) -> FrameScorer:
        """Loads the model; graphs run on the CPU, on one thread."""
        if self.path.is_dir():
            bundle = Bundle.load(self.path)
            return _Graph(Session.open(bundle, provider="cpu", precision=self.precision))
        return _Keras(load_frame_model(self.path))


def shared_precisions(paths: list[Path]) -> tuple[str, ...]:
    """Returns the precisions that all of these frame models have, fp32 first."""
    names = ["fp32"]
    if all(path.is_dir() for path in paths):
        carried = [Bundle.load(path).manifest.frame.variants for path in paths]
        names += [n for n in carried[0] if n != "fp32" and all(n in other for other in carried)]
    return tuple(names)


@dataclass(frozen=True, slots=True, eq=False)
class _Keras:
    model: keras.Model

    @property
    def input_size(self) -> int:
        return int(self.model.input.shape[1])

    def score(self, crops: Crops) -> tuple[Floats, Floats]:
        outputs = self.model.predict(crops.astype(np.float32), batch_size=_PREDICT_BATCH, verbose=0)
        return outputs["features"], outputs["fake_logit"]


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    session: Session

    @property
    def input_size(self) -> int:
        return self.session.bundle.manifest.frame.input_size

    def score(self, crops: Crops) -> tuple[Floats, Floats]:
        outputs = self.session.run_frame(crops)
        return outputs.features, outputs.fake_logit
