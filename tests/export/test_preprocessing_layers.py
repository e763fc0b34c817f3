"""Every preprocessing layer of Keras for pictures: its graph says the same, or a line says why not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import tf_keras

from dfd_edge.errors import UsageError
from dfd_export.graphs.frame_graph import describe_frame_model, export_frame_graph
from dfd_export.published.ending import Classes
from dfd_export.published.frame import FrameAnswers, build_frame, open_frame
from dfd_export.published.model_file import ModelFile
from dfd_export.published.scaling import Scaling
from notebooks import SIZE, pictures, predict, save, shake

IN_TRAINING_ONLY = {
    "AugMix": {},
    "CutMix": {},
    "MixUp": {},
    "RandAugment": {},
    "RandomBrightness": {"factor": 0.2},
    "RandomColorDegeneration": {"factor": 0.2},
    "RandomColorJitter": {},
    "RandomContrast": {"factor": 0.2},
    "RandomElasticTransform": {},
    "RandomErasing": {},
    "RandomFlip": {"mode": "horizontal"},
    "RandomGaussianBlur": {},
    "RandomGrayscale": {},
    "RandomHue": {"factor": 0.2},
    "RandomInvert": {},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.1, "fill_mode": "nearest"},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.2},
    "RandomShear": {},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
}
ALWAYS = {
    "centre crop": lambda layers: layers.CenterCrop(32, 40),
    "normalization, adapted": lambda layers: _adapted(layers.Normalization()),
    "normalization, one number": lambda layers: _adapted(layers.Normalization(axis=None)),
    "normalization, told": lambda layers: layers.Normalization(mean=[9, 8, 7], variance=[4, 5, 6]),
    "rescaling": lambda layers: layers.Rescaling(1 / 127.5, offset=-1),
    "rescaling by channel": lambda layers: layers.Rescaling([0.1, 0.2, 0.3], offset=[1, 2, 3]),
    "resizing": lambda layers: layers.Resizing(32, 40),
    "resizing larger": lambda layers: layers.Resizing(64, 64),
    "resizing, nearest": lambda layers: layers.Resizing(20, 20, interpolation="nearest"),
    "resizing, cropped": lambda layers: layers.Resizing(32, 20, crop_to_aspect_ratio=True),
}


def _adapted(layer: Any) -> Any:
    layer.adapt(pictures(8).astype(np.float32))
    return layer


def judging(layer: Any, k: ModuleType = keras) -> Any:
    """A CNN that does this to its pictures first."""
    layers = k.layers
    image = k.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(layer(image))
    x = layers.GlobalAveragePooling2D()(x)
    return shake(k.Model(image, layers.Dense(1)(x)))


def exported(path: Path) -> tuple[Any, int]:
    """The session of a published model's frame graph, and how many nodes it has."""
    found = open_frame(ModelFile.read(path))
    answers = FrameAnswers(size=SIZE, scaling=Scaling.NONE, bgr=False, classes=Classes.REAL_FAKE)
    model = build_frame(found, answers)
    spec = describe_frame_model(model, crop_scale=1.5)
    graph = export_frame_graph(model, spec, metadata={})
    return onnxruntime.InferenceSession(graph.SerializeToString()), len(graph.graph.node)


def check(model: Any, path: Path) -> int:
    """Holds the graph of a model against the model; returns how many nodes it has."""
    crops = pictures(5)
    session, nodes = exported(save(model, path))
    (logits,) = session.run(["fake_logit"], {"image": crops})
    wanted = predict(model, crops.astype(np.float32))[:, 0]
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.ptp(wanted))
    return nodes
