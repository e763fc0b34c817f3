"""Weights that others trained: found, fetched, read, or refused with what to do."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

import tiny_bundle
from dfd_edge.errors import UsageError
from dfd_training.models import BACKBONES, KerasWeights, build_frame_model

k2 = pytest.importorskip("tf_keras", reason="tf_keras, which still is Keras 2, is not installed")

SMALL = "mobilenet_v3_small"
FUNCTIONS = {
    "efficientnet_b0": "EfficientNetB0",
    "efficientnet_v2_b0": "EfficientNetV2B0",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3Small",
    "mobilenet_v3_large": "MobileNetV3Large",
    "inception_v3": "InceptionV3",
    "inception_resnet_v2": "InceptionResNetV2",
    "xception": "Xception",
    "resnet50": "ResNet50",
    "vgg16": "VGG16",
}
SIDE = 96


def preprocess(name: str, crops: np.ndarray) -> np.ndarray:
    """What Keras 2 does before the network; nothing where the network does it itself."""
    module = name.replace("efficientnet_b0", "efficientnet").removesuffix("_small")
    module = module.removesuffix("_large").replace("efficientnet_v2_b0", "efficientnet_v2")
    return getattr(k2.applications, module).preprocess_input(crops.astype(np.float32))


def settled(name: str, crops: np.ndarray):
    """A network of Keras 2 with random weights, which says different things of these crops."""
    model = getattr(k2.applications, FUNCTIONS[name])(
        include_top=False, weights=None, input_shape=(SIDE, SIDE, 3)
    )
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, k2.layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, k2.layers.Normalization) and layer.weights:
            mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
            layer.set_weights([mean, deviation**2, np.array(0)])
            layer.finalize_state()
        for weight in layer.weights:
            if "beta" in weight.name or "bias" in weight.name:
                weight.assign(rng.uniform(-0.3, 0.3, weight.shape))
    model(preprocess(name, crops), training=True)
    return model


@functools.cache
def crops() -> np.ndarray:
    return tiny_bundle.make_crops(4, SIDE)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The weights of the small network as Keras 2 writes them, and its features of the crops."""
    return written(SMALL, tmp_path_factory.mktemp("weights"))


def written(name: str, folder: Path) -> tuple[Path, np.ndarray]:
    model = settled(name, crops())
    path = folder / f"{name}_notop.h5"
    model.save_weights(path)
    maps = model(preprocess(name, crops()), training=False)
    return path, np.array(maps).mean(axis=(1, 2))


def check_features(model: keras.Model, wanted: np.ndarray) -> None:
    found = keras.ops.convert_to_numpy(model(crops(), training=False)["features"])
    assert wanted.std(axis=0).mean() > 1e-3
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=4e-3 * wanted.std())


def exhaustive() -> list:
    slow = (pytest.mark.slow, pytest.mark.exhaustive)
    return [pytest.param(name, marks=() if name == SMALL else slow) for name in FUNCTIONS]


@pytest.mark.parametrize("name", exhaustive())
def test_weights_in_the_official_layout_give_the_official_features(name: str, tmp_path: Path):
    path, wanted = written(name, tmp_path)
    check_features(build_frame_model(backbone=name, input_size=SIDE, weights=path), wanted)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Keras."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of files: its address and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def enter(monkeypatch: pytest.MonkeyPatch, address: str, md5: str | None) -> None:
    weights = KerasWeights(address=f"{address}/notop.h5", md5=md5, licence="Apache-2.0")
    monkeypatch.setitem(BACKBONES, SMALL, dataclasses.replace(BACKBONES[SMALL], weights=weights))


@pytest.mark.slow
def test_weights_are_fetched_once_and_then_found(
    network: tuple[Path, np.ndarray],
    cache: Path,
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    path, wanted = network
    address, folder = server
    shutil.copy(path, folder / "notop.h5")
    enter(monkeypatch, address, hashlib.md5(path.read_bytes()).hexdigest())
    check_features(build_frame_model(backbone=SMALL, input_size=SIDE), wanted)
    assert [found.name for found in cache.iterdir()] == ["notop.h5"]
    assert "Downloading" not in capsys.readouterr().out
    (folder / "notop.h5").unlink()
    check_features(build_frame_model(backbone=SMALL, input_size=SIDE), wanted)


def test_without_a_network_the_error_says_which_file_goes_where(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    enter(monkeypatch, "http://127.0.0.1:9", None)
    with pytest.raises(UsageError) as raised:
        build_frame_model(backbone=SMALL, input_size=SIDE)
    text = str(raised.value)
    assert f"notop.h5 is not in {cache} and cannot be fetched" in text
    assert "fetch http://127.0.0.1:9/notop.h5 where there is a network and put it there" in text
    assert "or weights='none'" in text
    assert "\n" not in text
    assert not list(cache.iterdir())


def test_a_file_that_is_not_the_official_one_is_refused(
    cache: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
):
    address, folder = server
    (folder / "notop.h5").write_bytes(b"something else")
    enter(monkeypatch, address, hashlib.md5(b"the official file").hexdigest())
    with pytest.raises(UsageError, match="does not match the provided value"):
        build_frame_model(backbone=SMALL, input_size=SIDE)


def test_weights_of_another_application_are_refused(network: tuple[Path, np.ndarray]):
    with pytest.raises(UsageError, match="not the weights of mobilenet_v3_large without its top"):
        build_frame_model(backbone="mobilenet_v3_large", input_size=SIDE, weights=network[0])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_official_files_are_those_that_keras_itself_fetches(monkeypatch: pytest.MonkeyPatch):
    """Name, address and hash against what Keras asks for when it is left to itself."""
    asked = []

    class Asked(Exception):
        pass

    def get_file(name: str, address: str, *, file_hash: str | None = None, **_: object) -> str:
        asked.append((name, address, file_hash))
        raise Asked

    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils, "get_file", get_file)
    for function in FUNCTIONS.values():
        with pytest.raises(Asked):
            getattr(keras.applications, function)(include_top=False, input_shape=(224, 224, 3))
    ours = [BACKBONES[name].weights for name in FUNCTIONS]
    assert asked == [(weights.file, weights.address, weights.md5) for weights in ours]
