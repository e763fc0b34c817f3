"""Models exported once for all tests of the exporter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import pytest

from dfd_edge.bundle.manifest import FrameSpec, SequenceSpec
from dfd_export.graphs.frame_graph import describe_frame_model
from dfd_export.graphs.sequence_graph import describe_sequence_model
from notebooks import pictures
from tiny_bundle import make_crops, make_models


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, as somebody has them at hand. Not to be changed."""
    folder = tmp_path_factory.mktemp("faces")
    for index, picture in enumerate(pictures(6, 90)):
        assert cv2.imwrite(str(folder / f"{index}.png"), picture)
    return folder


@dataclass(frozen=True)
class Exported:
    """Keras models with the graphs made of them. Not to be changed."""

    frame_model: keras.Model
    sequence_model: keras.Model
    frame: FrameSpec
    sequence: SequenceSpec
    frame_graph: onnx.ModelProto
    sequence_graph: onnx.ModelProto
    crops: np.ndarray


@pytest.fixture(scope="session")
def exported(tiny_bundle: Path) -> Exported:
    """The models of the bundle `tiny_bundle` beside its graphs."""
    frame_model, sequence_model = make_models()
    return Exported(
        frame_model,
        sequence_model,
        describe_frame_model(frame_model, crop_scale=1.5),
        describe_sequence_model(sequence_model, rate_hz=5.0, max_gap_s=1.0),
        onnx.load(tiny_bundle / "frame.onnx"),
        onnx.load(tiny_bundle / "sequence.onnx"),
        make_crops(4, 64),
    )
