"""Files that are no whole model, and models that hold code: one clear line, and nothing runs."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from dfd_edge.errors import UsageError
from dfd_export.foreign.model_file import ModelFile
from notebooks import SIZE, cnn, load_foreign, pictures, predict, save, shake


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return shake(cnn(layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")))


def description(path: Path) -> dict:
    """The description of a model, out of its file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"])


def with_description(path: Path, config: object, out: Path) -> Path:
    """A copy of a model file with another description."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as copy:
            for name in archive.namelist():
                text = json.dumps(config) if name == "config.json" else archive.read(name)
                copy.writestr(name, text)
        return out
    out.write_bytes(path.read_bytes())
    with h5py.File(out, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)
    return out


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "model.keras"])
def test_a_saved_model_is_loaded_with_its_weights(model, tmp_path: Path, name: str):
    file, loaded = load_foreign(save(model, tmp_path / name))
    assert file.keras_version == keras.__version__
    x = pictures(3).astype(np.float32)
    np.testing.assert_allclose(predict(loaded, x), predict(model, x), atol=1e-6)


def test_own_losses_and_metrics_are_not_needed(tmp_path: Path):
    model = cnn(layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid"))

    def my_loss(truth, found):
        return keras.ops.mean(truth - found)

    model.compile("adam", my_loss, metrics=[my_loss])
    for name in ("model.h5", "model.keras"):
        assert load_foreign(save(model, tmp_path / name))[0].loss == "my_loss"


def test_own_initialisers_and_regularisers_are_not_needed(model, tmp_path: Path):
    path = save(model, tmp_path / "model.keras")
    config = description(path)
    dense = config["config"]["layers"][-1]["config"]
    dense["kernel_regularizer"] = {"class_name": "MyPenalty", "config": {}, "module": "mine"}
    load_foreign(with_description(path, config, tmp_path / "other.keras"))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_is_taken_in_32_bits(tmp_path: Path, policy: str):
    keras.config.set_dtype_policy(policy)
    try:
        mixed = cnn(layers.GlobalAveragePooling2D(), layers.Dense(1, dtype="float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    for name in ("model.h5", "model.keras"):
        _, loaded = load_foreign(save(mixed, tmp_path / name))
        assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_statistics_of_a_normalisation_inside_are_kept(tmp_path: Path, name: str):
    # Keras itself forgets them when it reads an .h5 file, and says nothing.
    norm = layers.Normalization()
    norm.adapt(pictures(8).astype(np.float32))
    inside = keras.Sequential([keras.Input((SIZE, SIZE, 3)), norm, layers.Conv2D(4, 3)])
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1)]
    model = shake(keras.Sequential([inside, layers.ReLU(), *head]))
    x = pictures(3).astype(np.float32)
    _, loaded = load_foreign(save(model, tmp_path / name))
    np.testing.assert_allclose(predict(loaded, x), predict(model, x), atol=1e-5)


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_layers_that_only_keras_applications_have_are_known(tmp_path: Path, name: str):
    convnext = importlib.import_module("keras.src.applications.convnext")
    scale = convnext.LayerScale(init_values=0.5, projection_dim=12)
    model = shake(cnn(scale, convnext.StochasticDepth(0.2), layers.GlobalAveragePooling2D()))
    x = pictures(3).astype(np.float32)
    _, loaded = load_foreign(save(model, tmp_path / name))
    np.testing.assert_allclose(predict(loaded, x), predict(model, x), atol=1e-4)


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_foreign(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_files_that_are_no_model_are_told_apart(model, tmp_path: Path):
    whole = save(model, tmp_path / "whole.h5").read_bytes()
    archive = save(model, tmp_path / "whole.keras").read_bytes()
    (tmp_path / "saved_model").mkdir()
    for name, data, wanted in (
        ("empty.h5", b"", "not a Keras model file"),
        ("pickle.h5", b"\x80\x04\x95cposix\nsystem", "a pickle, which can run code"),
        ("page.keras", b"<!DOCTYPE html>", "not a Keras model file"),
        ("cut.h5", whole[: len(whole) // 2], "a damaged HDF5 file"),
        ("cut.keras", archive[: len(archive) // 2], "a damaged .keras archive"),
        ("archive.h5", archive, "rename it to .keras"),
        ("hdf5.keras", whole, "rename it to .h5"),
    ):
        (tmp_path / name).write_bytes(data)
        assert wanted in refused(tmp_path / name), name
    assert "a folder, but no finished run of a recipe and" in refused(tmp_path / "saved_model")
    assert "no such model file" in refused(tmp_path / "none.keras")


def test_a_saved_model_folder_of_keras_2_becomes_a_file_as_its_advice_says(tmp_path: Path):
    model = shake(
        cnn(tf_keras.layers.GlobalAveragePooling2D(), tf_keras.layers.Dense(1), k=tf_keras)
    )
    model.save(str(tmp_path / "saved"))
    advice = refused(tmp_path / "saved")
    assert "a SavedModel folder of Keras 2" in advice
    program = re.search('python -c "(.*)" and give model.h5$', advice)[1]
    with contextlib.chdir(tmp_path):
        exec(program)
    _, loaded = load_foreign(tmp_path / "model.h5")
    x = pictures(3).astype(np.float32)
    np.testing.assert_allclose(predict(loaded, x), predict(model, x), atol=1e-5)


def test_an_unpacked_archive_is_packed_as_its_advice_says(model, tmp_path: Path):
    folder = tmp_path / "open"
    with zipfile.ZipFile(save(model, tmp_path / "model.keras")) as archive:
        archive.extractall(folder)
    (tmp_path / "model.keras").unlink()
    arguments = re.search("run python (-m zipfile .*)$", refused(folder))[1].split()
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True)
    load_foreign(tmp_path / "model.keras")


def test_an_exported_folder_holds_no_layers(model, tmp_path: Path):
    model.export(tmp_path / "exported", verbose=False)
    assert "a SavedModel folder without Keras' layers" in refused(tmp_path / "exported")
    part = tmp_path / "exported" / "saved_model.pb"
    assert "a part of a SavedModel folder: give the whole folder" in refused(part)


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        (
            "model.tflite",
            b"\x1c\0\0\0TFL3\0\0",
            "a TensorFlow Lite model: the program of a network",
        ),
        ("model.onnx", b"\x08\x07\x12\x04tf2o", "an ONNX model: the program of a network without"),
        ("frozen.pb", b"\n\x0e\n\x05input", "a frozen graph of TensorFlow"),
        ("best.ckpt.index", b"\0\0\x0e_CHECK", "a checkpoint, which holds weights but no layers"),
        ("best.ckpt.data-00000-of-00001", b"\0\0\0\0\0\0\0\0\0", "a checkpoint"),
        (
            "old.pth",
            b"\x80\x02\x8a\nl\xfc\x9cF",
            "a pickle, which can run code and is never opened",
        ),
        ("net.safetensors", b"\x40\0\0\0\0\0\0\0{}", "weights without layers: build the model as"),
        (
            "model.json",
            b'{"format": "layers-model", "modelTopology": {}, "weightsManifest": []}',
            "a model of TensorFlow.js: with tensorflowjs installed, run tensorflowjs_converter",
        ),
        (
            "graph.json",
            b'{"format": "graph-model", "modelTopology": {}, "weightsManifest": []}',
            "a graph model of TensorFlow.js: the program of a network without its layers",
        ),
        (
            "layers.json",
            b'{"class_name": "Sequential"}',
            "the layers of a model without its weights",
        ),
        ("notes.json", b"{}", "JSON, but no model"),
    ],
)
def test_other_formats_are_named_with_what_to_give_instead(tmp_path, name, data, wanted):
    path = tmp_path / name
    path.write_bytes(data)
    assert wanted in refused(path)
    if name == "model.json":
        assert wanted in refused(tmp_path)


def test_weights_of_pytorch_are_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    assert "weights of PyTorch, which hold no Keras layers" in refused(tmp_path / "model.pth")


def test_weights_alone_are_told_from_a_model(model, tmp_path: Path):
    model.save_weights(tmp_path / "best.weights.h5")
    assert "holds weights or other arrays, but no model: build the model as its notebook" in (
        refused(tmp_path / "best.weights.h5")
    )
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["x"] = np.zeros(3)
    assert "no model" in refused(tmp_path / "table.h5")


def test_archives_with_other_files_inside_are_refused(model, tmp_path: Path):
    path = save(model, tmp_path / "model.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.py", "print()")
    assert "not a .keras archive of weights and layers alone" in refused(path)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_weights_of_another_model_are_refused(model, tmp_path: Path, suffix: str):
    path = save(model, tmp_path / f"model{suffix}")
    config = description(path)
    config["config"]["layers"][-1]["config"]["units"] = 2
    message = refused(with_description(path, config, tmp_path / f"other{suffix}"))
    assert f"written by Keras {keras.__version__}" in message


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("config"),
        lambda c: c["config"].pop("layers"),
        lambda c: c["config"].update(layers=[]),
        lambda c: c["config"]["layers"][1].update(config=None),
        lambda c: c["config"]["layers"][1].update(class_name=["Conv2D"]),
        lambda c: c["config"]["layers"][1]["config"].update(filters="many"),
        lambda c: c["config"]["layers"][1]["config"].update(unheard_of=1),
    ],
)
def test_a_damaged_description_gives_one_line(model, tmp_path: Path, suffix: str, change):
    path = save(model, tmp_path / f"model{suffix}")
    config = description(path)
    change(config)
    refused(with_description(path, config, tmp_path / f"damaged{suffix}"))


def run_me(marker: str) -> keras.layers.Lambda:
    return layers.Lambda(lambda x, path=marker: (open(path, "w").close(), x)[1])  # noqa: PTH123


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_lambda_is_refused_by_name_and_never_runs(tmp_path: Path, suffix: str):
    marker = tmp_path / "it ran"
    inner = keras.Sequential([keras.Input((12,)), run_me(str(marker))])
    model = cnn(layers.GlobalAveragePooling2D(), inner, layers.Dense(1, activation="sigmoid"))
    path = save(model, tmp_path / f"model{suffix}")
    marker.unlink(missing_ok=True)
    message = refused(path)
    assert f"layer {inner.layers[0].name} (Lambda) holds Python code, which is never run" in message
    assert "Rescaling" in message
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_code_hidden_anywhere_in_a_description_is_refused(model, tmp_path: Path, suffix: str):
    marker = tmp_path / "it ran"
    path = save(
        cnn(layers.GlobalAveragePooling2D(), run_me(str(marker)), layers.Dense(1)),
        tmp_path / f"lambda{suffix}",
    )
    marker.unlink(missing_ok=True)
    code = description(path)["config"]["layers"][-2]["config"]["function"]
    plain = save(model, tmp_path / f"plain{suffix}")
    for place in ("activation", "kernel_initializer", "name"):
        config = description(plain)
        config["config"]["layers"][-1]["config"][place] = code
        refused(with_description(plain, config, tmp_path / f"{place}{suffix}"))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"class_name": "MyAttention", "module": "__main__", "config": {"name": "a"}},
            r"layer a \(MyAttention\) is not Keras' own",
        ),
        (
            {"class_name": "Popen", "module": "subprocess", "config": {"args": "touch ran"}},
            r"\(Popen\) is not Keras' own",
        ),
        (
            {
                "class_name": "Dense",
                "module": "keras.layers",
                "registered_name": "mine>Dense",
                "config": {
                    "name": "d",
                    "trainable": True,
                    "units": 1,
                    "activation": {"class_name": "function", "config": "my_swish"},
                },
            },
            r"layer d \(Dense\) has the activation 'my_swish', which is none of Keras' own",
        ),
        (
            {
                "class_name": "TFSMLayer",
                "module": "keras.layers",
                "config": {"name": "t", "trainable": True, "filepath": "/somewhere"},
            },
            r"layer t \(TFSMLayer\) runs a program of another library",
        ),
        (
            {"class_name": "CuDNNLSTM", "config": {"name": "old", "trainable": True, "units": 3}},
            r"layer old \(CuDNNLSTM\) is of TensorFlow 1",
        ),
        (
            {
                "class_name": "WhileLoop",
                "module": "keras.src.ops.core",
                "config": {"name": "w"},
            },
            r"layer w \(WhileLoop\) is not Keras' own",
        ),
        (
            {"class_name": "Dense\x1b[31m", "config": {"name": "red\x1b[31m", "trainable": True}},
            r"layer red\?\[31m \(Dense\?\[31m\) is not Keras' own",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_layers_that_are_not_keras_own_are_named(model, tmp_path, suffix, entry, message):
    path = save(model, tmp_path / f"model{suffix}")
    config = description(path)
    config["config"]["layers"].append(entry)
    with pytest.raises(UsageError, match=message):
        load_foreign(with_description(path, config, tmp_path / f"other{suffix}"))


def test_a_model_of_a_class_of_its_own_is_refused(tmp_path: Path):
    class MesoNet(keras.Sequential):
        pass

    model = MesoNet([keras.Input((8,)), layers.Dense(1)])
    message = refused(save(model, tmp_path / "model.keras"))
    assert "'MesoNet' is not Keras' own" in message


def test_arguments_of_calls_hold_tensors_and_numbers_only(tmp_path: Path):
    image = keras.Input((8, 8, 3))
    path = save(keras.Model(image, image / 255.0), tmp_path / "model.keras")
    load_foreign(path)
    config = description(path)
    node = config["config"]["layers"][1]["inbound_nodes"][0]
    node["args"][1] = {"class_name": "Dense", "module": "keras.layers", "config": {"units": 1}}
    message = refused(with_description(path, config, tmp_path / "other.keras"))
    assert "is called with a 'Dense'" in message


def test_a_file_is_read_only(model, tmp_path: Path):
    path = save(model, tmp_path / "model.h5")
    before = path.read_bytes()
    path.chmod(0o444)
    load_foreign(path)
    assert ModelFile.read(path).config["class_name"] == "Sequential"
    assert path.read_bytes() == before
