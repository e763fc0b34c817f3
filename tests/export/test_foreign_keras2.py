"""Files that Keras 2 wrote, as most published ones were: the same numbers under Keras 3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dfd_edge.errors import UsageError
from notebooks import (
    SIZE,
    STEPS,
    WIDTH,
    cnn,
    load_foreign,
    pictures,
    predict,
    recurrent,
    save,
    shake,
)

k2 = pytest.importorskip("tf_keras", reason="tf_keras, which still is Keras 2, is not installed")
tf = pytest.importorskip("tensorflow")
L = k2.layers
A = k2.applications


@pytest.fixture(autouse=True)
def seeded() -> None:
    k2.utils.set_random_seed(7)


def same(model: Any, path: Path, inputs: Any, atol: float = 1e-5) -> None:
    """Saves a model by Keras 2, loads it, and compares what both give."""
    wanted = predict(model, inputs)
    file, loaded = load_foreign(save(model, path))
    assert file.keras_version.startswith("2.")
    np.testing.assert_allclose(predict(loaded, inputs), wanted, atol=atol)
    assert np.ptp(wanted, axis=0).max() > 30 * atol, "the model says the same of everything"


def branches() -> Any:
    """A network with branches, batch norms and a sum, as those of keras.applications have them."""
    image = k2.Input((SIZE, SIZE, 3))
    x = L.BatchNormalization()(L.Conv2D(8, 3, strides=3, use_bias=False)(image))
    wide = L.BatchNormalization()(L.Conv2D(8, 5, padding="same")(x))
    narrow = L.BatchNormalization(scale=False)(L.Conv2D(8, 1)(x))
    x = L.ReLU(6.0)(L.Add()([wide, x]))
    x = L.Concatenate()([x, narrow, L.MaxPooling2D(3, strides=1, padding="same")(x)])
    return k2.Model(image, L.Activation("relu")(L.SeparableConv2D(12, 3)(x)), name="branches")


def nested(form: str, inside: Any) -> Any:
    """A network inside a model, all or in part not trained further."""
    inside.trainable = form != "frozen"
    if form == "half frozen":
        for layer in inside.layers[: len(inside.layers) // 2]:
            layer.trainable = False
    if form == "functional":
        image = k2.Input((SIZE, SIZE, 3))
        x = L.GlobalAveragePooling2D()(inside(image, training=False))
        return k2.Model(image, L.Dense(2, activation="softmax")(L.Dropout(0.2)(x)))
    head = [L.GlobalAveragePooling2D(), L.BatchNormalization(), L.Dense(1, activation="sigmoid")]
    return k2.Sequential([inside, *head])


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("form", ["trained", "frozen", "half frozen", "functional"])
def test_a_network_inside_a_model(tmp_path: Path, form: str, suffix: str):
    # Frozen layers change the order in which Keras writes the weights.
    x = pictures(6).astype(np.float32) / 255
    same(nested(form, shake(branches(), inputs=x)), tmp_path / f"model{suffix}", x)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_sequential_cnns(tmp_path: Path, suffix: str):
    x = pictures(6).astype(np.float32) / 255
    head = [L.Flatten(), L.Dense(16, activation=L.LeakyReLU(0.1)), L.Dense(1, activation="sigmoid")]
    same(shake(cnn(*head, k=k2), inputs=x), tmp_path / f"model{suffix}", x)


@pytest.mark.parametrize(
    ("suffix", "cell", "masking"),
    [
        (".h5", "GRU", "input"),
        pytest.param(".keras", "GRU", "layer", marks=pytest.mark.slow),
        pytest.param(".keras", "LSTM", "input", marks=pytest.mark.slow),
        (".h5", "LSTM", "layer"),
    ],
)
def test_sequence_models(tmp_path: Path, suffix: str, cell: str, masking: str):
    rng = np.random.default_rng(3)
    features = rng.normal(size=(5, STEPS, WIDTH)).astype(np.float32)
    mask = np.arange(STEPS) < np.array([[8], [1], [5], [3], [7]])
    features[~mask] = 0
    recurrence = getattr(L, cell)
    if masking == "input":
        inputs: Any = [k2.Input((STEPS, WIDTH)), k2.Input((STEPS,), dtype="bool")]
        x = recurrence(7, return_sequences=True)(inputs[0], mask=inputs[1])
        x = L.Dense(4, activation="relu")(L.BatchNormalization()(recurrence(5)(x)))
        model, given = k2.Model(inputs, L.Dense(2, activation="softmax")(x)), [features, mask]
    else:
        model = k2.Sequential(
            [
                L.Masking(0.0, input_shape=(STEPS, WIDTH)),
                recurrence(7, return_sequences=True),
                recurrence(5),
                L.Dense(1, activation="sigmoid"),
            ]
        )
        given = features
    same(shake(model), tmp_path / f"model{suffix}", given)


def test_a_compiled_sequence_model(tmp_path: Path):
    model = shake(recurrent(verdict=L.Dense(1, activation="sigmoid"), k=k2))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], weighted_metrics=[])
    rng = np.random.default_rng(3)
    features = rng.normal(size=(5, STEPS, WIDTH)).astype(np.float32)
    same(model, tmp_path / "model.h5", [features, np.ones((5, STEPS), bool)])


PREPROCESSING: dict[str, Callable[[Any], Any]] = {
    "tf": A.inception_v3.preprocess_input,
    "torch": A.densenet.preprocess_input,
    "caffe": A.resnet50.preprocess_input,
    "by 255": lambda x: x / 255.0,
    "from one": lambda x: 1.0 - x / 255.0,
    "layer": L.Rescaling(1 / 127.5, -1),
    "own": lambda x: (x - [120.0, 110.0, 100.0]) * 0.02 + 0.5,
    "cast": lambda x: tf.cast(x, tf.float32) / 127.5,
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("mode", PREPROCESSING)
def test_preprocessing_inside_a_model(tmp_path: Path, mode: str, suffix: str):
    if mode == "caffe" and suffix == ".keras":
        pytest.skip("Keras 2 itself cannot write it: it has no form for an ellipsis there")
    image = k2.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 5, strides=3)(PREPROCESSING[mode](image))
    x = tf.nn.relu(x) + x
    x = L.Dense(1)(L.GlobalAveragePooling2D()(x))
    model = shake(k2.Model(image, tf.nn.sigmoid(x)))
    same(model, tmp_path / f"model{suffix}", pictures(6).astype(np.float32))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_statistics_of_a_normalisation_inside_a_network(tmp_path: Path, suffix: str):
    # Keras 3 itself forgets them when it reads an .h5 file, and says nothing.
    norm = L.Normalization()
    inside = k2.Sequential(
        [k2.Input((SIZE, SIZE, 3)), L.Rescaling(1 / 255), norm, L.Conv2D(4, 3), L.ReLU()]
    )
    norm.set_weights([np.array(v) for v in ([0.5, 0.4, 0.3], [0.05, 0.06, 0.07], 0)])
    norm.finalize_state()
    image = k2.Input((SIZE, SIZE, 3))
    x = L.Dense(1)(L.GlobalAveragePooling2D()(inside(image)))
    model = shake(k2.Model(image, x))
    same(model, tmp_path / f"model{suffix}", pictures(6).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "Xception", "InceptionV3", "ResNet50V2"],
)
def test_networks_of_keras_applications(tmp_path: Path, name: str):
    size = 80
    make = getattr(A, name)
    options = {"include_preprocessing": False} if "V3Small" in name else {}
    inside = make(weights=None, include_top=False, input_shape=(size, size, 3), **options)
    model = k2.Sequential([inside, L.GlobalAveragePooling2D(), L.Dense(1, activation="sigmoid")])
    x = pictures(6, size).astype(np.float32)
    if name != "EfficientNetB0":
        x = x / 127.5 - 1
    same(shake(model, inputs=x), tmp_path / "model.h5", x, atol=1e-3)


def test_models_called_twice(tmp_path: Path):
    twin = k2.Sequential([k2.Input((SIZE, SIZE, 3)), L.Conv2D(4, 3), L.GlobalAveragePooling2D()])
    image = k2.Input((SIZE, SIZE, 3))
    x = L.Concatenate()([twin(image), twin(L.ZeroPadding2D(1)(L.Cropping2D(1)(image)))])
    model = shake(k2.Model(image, L.Dense(1, activation="sigmoid")(x)))
    for suffix in (".h5", ".keras"):
        same(model, tmp_path / f"model{suffix}", pictures(6).astype(np.float32) / 255)


def as_older(path: Path, change: Callable[[dict], None]) -> Path:
    """Rewrites the description of an .h5 file as an older Keras 2 wrote it."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_descriptions_as_older_keras_2_wrote_them(tmp_path: Path):
    model = shake(cnn(L.GlobalAveragePooling2D(), L.Dense(2, activation="softmax"), k=k2))
    x = pictures(6).astype(np.float32) / 255
    wanted = predict(model, x)

    def without_input(config: dict) -> None:
        del config["config"]["layers"][0]
        first = config["config"]["layers"][0]["config"]
        first["batch_input_shape"] = [None, SIZE, SIZE, 3]

    def bare_list(config: dict) -> None:
        without_input(config)
        config["config"] = config["config"]["layers"]

    def softmax_v2(config: dict) -> None:
        config["config"]["layers"][-1]["config"]["activation"] = "softmax_v2"

    for change in (without_input, bare_list, softmax_v2):
        path = as_older(save(model, tmp_path / f"{change.__name__}.h5"), change)
        np.testing.assert_allclose(predict(load_foreign(path)[1], x), wanted, atol=1e-6)

    image = k2.Input((SIZE, SIZE, 3))
    graph = k2.Model(image, model(image))
    path = save(graph, tmp_path / "graph.h5")
    as_older(path, lambda config: config.update(class_name="Model"))
    np.testing.assert_allclose(predict(load_foreign(path)[1], x), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: tf.reduce_max(x, axis=[1, 2]), "calls TensorFlow's 'math.reduce_max', which"),
        (lambda x: x**2, r"calls TensorFlow's 'math.pow', which is not taken over"),
        (lambda x: x[:, 2:-2], r"\(SlicingOpLambda\) calls TensorFlow's '__operators__.getitem'"),
    ],
)
def test_other_calls_of_tensorflow_are_named(tmp_path: Path, call, message: str):
    image = k2.Input((SIZE, SIZE, 3))
    x = L.Flatten()(call(image))
    path = save(k2.Model(image, L.Dense(1, activation="sigmoid")(x)), tmp_path / "model.h5")
    with pytest.raises(UsageError, match=message):
        load_foreign(path)


def test_a_lambda_of_keras_2_is_refused_and_never_runs(tmp_path: Path):
    marker = tmp_path / "it ran"
    layer = L.Lambda(lambda x, path=str(marker): (open(path, "w").close(), x / 255)[1])  # noqa: PTH123
    model = k2.Sequential([k2.Input((SIZE, SIZE, 3)), layer, L.Flatten(), L.Dense(1)])
    for suffix in (".h5", ".keras"):
        path = save(model, tmp_path / f"model{suffix}")
        marker.unlink(missing_ok=True)
        with pytest.raises(UsageError, match=r"\(Lambda\) holds Python code, which is never run"):
            load_foreign(path)
        assert not marker.exists()


def test_axes_swapped_are_refused(tmp_path: Path):
    sequence = k2.Input((STEPS, WIDTH))
    path = save(
        k2.Model(sequence, L.Dense(1)(L.GRU(3, time_major=True)(sequence))), tmp_path / "model.h5"
    )
    with pytest.raises(UsageError, match=r"layer gru\S* \(GRU\) has time_major=True"):
        load_foreign(path)
