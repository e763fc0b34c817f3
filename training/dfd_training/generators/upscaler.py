"""Pictures whose texture a super-resolution network drew: shrunk, then enlarged by the network.

Networks that were trained to invent detail leave their own texture over what they enlarge. The
last stage of many generators is such a network, and swap tools run one over the pasted face.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.generators.head_fit import resize_to
from dfd_training.generators.heads import Redraw
from dfd_training.generators.tfjs import list_models, read_layers_model
from dfd_training.synthesis.detail import Picture, jpeg

MAX_FACTOR = 4
MIN_SHRUNK_FACE = 70.0


@dataclass(frozen=True, slots=True)
class ShrinkSettings:
    """How pictures are shrunk before a network enlarges them.

    Attributes:
        factor: of the network.
        soften: blur before shrinking, as a share of the factor; 0 averages areas.
        quality: JPEG quality of the shrunk picture, or None.
    """

    factor: int
    soften: float
    quality: int | None


class Upscaler:
    """The super-resolution networks of one package, by their factor.

    Args:
        package: a `.tgz` with layers models of TensorFlow.js, input and output RGB in 0..255.

    Raises:
        UsageError: when the package cannot be read or holds no network that enlarges a picture
            by 2 to 4.
    """

    def __init__(self, package: Path) -> None:
        self._models: dict[int, keras.Model] = {}
        for name in list_models(package):
            model = read_layers_model(package, name)
            factor = _factor(model)
            if 2 <= factor <= MAX_FACTOR:
                self._models[factor] = model
        if not self._models:
            raise UsageError(f"{package}: holds no network that enlarges a picture by 2 to 4")

    @property
    def factors(self) -> tuple[int, ...]:
        """By how much the networks enlarge."""
        return tuple(sorted(self._models))

    def draw(self, rng: np.random.Generator, face_px: float) -> ShrinkSettings:
        """Draw settings under which a face of this size keeps its features."""
        able = [factor for factor in self.factors if face_px / factor >= MIN_SHRUNK_FACE]
        return ShrinkSettings(
            factor=int(rng.choice(able or [min(self.factors)])),
            soften=0.0 if rng.random() < 0.5 else float(rng.uniform(0.3, 0.6)),
            quality=int(rng.integers(60, 96)) if rng.random() < 0.3 else None,
        )

    def redraw_by(self, settings: ShrinkSettings) -> Redraw:
        """Shrinking and enlarging as one step that keeps a picture's size."""

        def redraw(picture: Picture) -> Picture:
            side = picture.shape[0]
            small = _shrink(picture, max(8, round(side / settings.factor)), settings)
            return resize_to(self.enlarge(small, settings.factor), side)

        return redraw

    def enlarge(self, picture: Picture, factor: int) -> Picture:
        """Enlarge a picture, uint8 [h, w, 3] BGR, to [factor h, factor w, 3]."""
        large = _run(self._models[factor], picture[None, :, :, ::-1].astype(np.float32))[0]
        return np.ascontiguousarray(np.rint(large[:, :, ::-1]).clip(0, 255).astype(np.uint8))


def _run(model: keras.Model, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    # Called instead of predicted with: each crop has another size, and predict traces each anew.
    output = model(pictures, training=False)
    return np.asarray(keras.ops.convert_to_numpy(output), np.float32)


def _factor(model: keras.Model) -> int:
    shape = _run(model, np.zeros((1, 16, 16, 3), np.float32)).shape
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[1] % 16:
        return 0
    return int(shape[1]) // 16


def _shrink(image: Picture, side: int, settings: ShrinkSettings) -> Picture:
    kernel = cv2.INTER_AREA
    if settings.soften:
        sigma = max(0.3, settings.soften * image.shape[0] / side)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
        kernel = cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(image, (side, side), interpolation=kernel), np.uint8)
    return small if settings.quality is None else jpeg(small, settings.quality)
