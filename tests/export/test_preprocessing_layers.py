"""Every preprocessing layer of Keras for pictures: the graph says the same, or a line why not."""

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
from dfd_export.foreign.frame import FrameSettings, Scaling, build_frame, open_frame
from dfd_export.foreign.keras_graph import Classes
from dfd_export.foreign.model_file import ModelFile
from dfd_export.graphs.frame_graph import describe_frame_model, export_frame_graph
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
    "RandomHeight": {"factor": 0.2},
    "RandomHue": {"factor": 0.2},
    "RandomInvert": {},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.1, "fill_mode": "nearest"},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.2},
    "RandomShear": {},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomWidth": {"factor": 0.2},
    "RandomZoom": {"height_factor": 0.1},
    "Solarization": {"addition_factor": 0.3},
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
    answers = FrameSettings(size=SIZE, scaling=Scaling.NONE, bgr=False, classes=Classes.REAL_FAKE)
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


@pytest.mark.parametrize(("k", "suffix"), [(keras, ".keras"), (tf_keras, ".h5")])
def test_augmentation_is_left_out(tmp_path: Path, k: ModuleType, suffix: str):
    there = {kind: told for kind, told in IN_TRAINING_ONLY.items() if hasattr(k.layers, kind)}
    assert len(there) >= 8

    def augmented(x):
        for kind, told in there.items():
            x = getattr(k.layers, kind)(**told)(x)
        return k.layers.Rescaling(1 / 255)(x)

    plain = check(judging(k.layers.Rescaling(1 / 255), k), tmp_path / f"plain{suffix}")
    assert check(judging(augmented, k), tmp_path / f"model{suffix}") == plain


@pytest.mark.parametrize("layer", ALWAYS)
@pytest.mark.parametrize(("k", "suffix"), [(keras, ".keras"), (tf_keras, ".h5")])
def test_what_is_done_to_pictures_is_done_by_the_graph(
    tmp_path: Path, layer: str, k: ModuleType, suffix: str
):
    check(judging(ALWAYS[layer](k.layers), k), tmp_path / f"model{suffix}")


@pytest.mark.parametrize(
    ("kind", "told", "message"),
    [
        ("RandomCrop", {}, "does nothing at inference in Keras 3 and resizes in Keras 2"),
        ("Resizing", {"interpolation": "lanczos3"}, "has interpolation='lanczos3', which no graph"),
        ("Resizing", {"interpolation": "area"}, "has interpolation='area', which no graph"),
        ("Resizing", {"antialias": True}, "has antialias=True, which no graph can do: put"),
        ("Resizing", {"pad_to_aspect_ratio": True}, "has pad_to_aspect_ratio=True"),
    ],
)
def test_what_no_graph_does_is_refused_by_layer(tmp_path: Path, kind: str, told, message: str):
    k = tf_keras if told.get("interpolation") == "area" else keras
    layer = getattr(k.layers, kind)(32, 32, name="shape", **told)
    suffix = ".h5" if k is tf_keras else ".keras"
    with pytest.raises(UsageError, match=rf"layer shape \({kind}\) {message}"):
        exported(save(judging(layer, k), tmp_path / f"model{suffix}"))
