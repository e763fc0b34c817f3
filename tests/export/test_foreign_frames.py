"""Published CNNs as standard frame models: the same probability, whatever they end in."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from dfd_edge.errors import UsageError
from dfd_export.foreign.frame import ForeignFrame, FrameSettings, Scaling, build_frame, open_frame
from dfd_export.foreign.keras_graph import Classes
from dfd_export.foreign.model_file import ModelFile
from notebooks import SIZE, cnn, pictures, predict, save, shake


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(7)


def published(model: keras.Model, path: Path) -> ForeignFrame:
    return open_frame(ModelFile.read(save(model, path)))


def answers(**changes) -> FrameSettings:
    given = {
        "size": SIZE,
        "scaling": Scaling.UNIT,
        "bgr": False,
        "classes": Classes.REAL_FAKE,
    }
    return FrameSettings(**(given | changes))


def outputs(model: keras.Model, crops: np.ndarray) -> dict[str, np.ndarray]:
    found = model(crops.astype(np.float32), training=False)
    return {name: np.asarray(value) for name, value in found.items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


ENDS = {
    "sigmoid": lambda: [layers.Dense(1, activation="sigmoid")],
    "softmax": lambda: [layers.Dense(2, activation="softmax")],
    "sigmoid layer": lambda: [layers.Dense(1), layers.Activation("sigmoid")],
    "softmax layer": lambda: [layers.Dense(2), layers.Softmax()],
    "softmax, no bias": lambda: [layers.Dense(2, use_bias=False, activation="softmax")],
    "flattened": lambda: [layers.Dense(1, activation="sigmoid"), layers.Flatten()],
    "half precision": lambda: [
        layers.Dense(2),
        layers.Activation("softmax", dtype="float32"),
    ],
}


@pytest.mark.parametrize("classes", list(Classes))
@pytest.mark.parametrize("end", ENDS)
def test_the_logit_gives_the_published_probability_of_fake(tmp_path: Path, end: str, classes):
    crops = pictures(6)
    x = crops.astype(np.float32) / 255
    model = cnn(layers.GlobalAveragePooling2D(), layers.Dropout(0.3), *ENDS[end]())
    shake(model, inputs=x)
    given = predict(model, x).reshape(len(x), -1)
    fake = given[:, list(classes.split(",")).index("fake")] if given.shape[1] == 2 else given[:, 0]
    if given.shape[1] == 1 and classes is Classes.FAKE_REAL:
        fake = 1 - fake
    assert np.ptp(fake) > 0.01
    found = published(model, tmp_path / "model.h5")
    built = build_frame(found, answers(classes=classes))
    made = outputs(built, crops)
    np.testing.assert_allclose(sigmoid(made["fake_logit"]), fake, atol=1e-5)
    assert made["features"].shape == (6, 12)
    np.testing.assert_allclose(made["evidence"].mean((1, 2)), made["fake_logit"], atol=1e-4)


def test_logits_are_taken_as_they_are(tmp_path: Path):
    crops = pictures(6)
    for units in (1, 2):
        model = cnn(layers.GlobalAveragePooling2D(), layers.Dense(units))
        shake(model, inputs=crops / 255)
        model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
        logits = predict(model, crops.astype(np.float32) / 255)
        wanted = logits[:, 0] if units == 1 else logits[:, 1] - logits[:, 0]
        found = published(model, tmp_path / "model.keras")
        made = outputs(build_frame(found, answers()), crops)
        np.testing.assert_allclose(made["fake_logit"], wanted, atol=1e-4)


def test_operations_at_the_end_are_known(tmp_path: Path):
    crops = pictures(6)
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, strides=2)(image))
    model = keras.Model(image, ops.squeeze(ops.sigmoid(layers.Dense(1)(x)), axis=-1))
    shake(model)
    wanted = predict(model, crops.astype(np.float32) / 255)
    for name in ("model.h5", "model.keras"):
        made = outputs(build_frame(published(model, tmp_path / name), answers()), crops)
        np.testing.assert_allclose(sigmoid(made["fake_logit"]), wanted, atol=1e-5)


def test_inputs_and_outputs_may_have_names(tmp_path: Path):
    crops = pictures(4)
    plain = shake(ended(layers.Dense(1, activation="sigmoid")), inputs=crops / 255)
    image = keras.Input((SIZE, SIZE, 3), name="picture")
    named = keras.Model({"picture": image}, {"fake": plain(image)})
    made = outputs(build_frame(published(named, tmp_path / "model.keras"), answers()), crops)
    wanted = predict(plain, crops.astype(np.float32) / 255)[:, 0]
    np.testing.assert_allclose(sigmoid(made["fake_logit"]), wanted, atol=1e-5)


@pytest.mark.parametrize("scaling", list(Scaling))
@pytest.mark.parametrize("bgr", [False, True])
def test_pixels_are_scaled_as_their_notebook_did(tmp_path: Path, scaling: Scaling, bgr: bool):
    crops = pictures(6)
    pixels = crops.astype(np.float32)[..., ::-1] if bgr else crops.astype(np.float32)
    applications = keras.applications
    x = {
        Scaling.NONE: lambda p: p,
        Scaling.UNIT: lambda p: p / 255,
        Scaling.SIGNED: applications.inception_v3.preprocess_input,
        Scaling.TORCH: applications.densenet.preprocess_input,
        Scaling.CAFFE: applications.resnet50.preprocess_input,
    }[scaling](pixels.copy())
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    model = shake(cnn(*head), inputs=x)
    wanted = predict(model, x)[:, 0]
    assert np.ptp(wanted) > 0.01
    built = build_frame(published(model, tmp_path / "model.h5"), answers(scaling=scaling, bgr=bgr))
    found = sigmoid(outputs(built, crops)["fake_logit"])
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("inside", "high"),
    [
        (layers.Rescaling(1 / 127.5, -1), 1.0),
        (keras.applications.inception_v3.preprocess_input, 1.0),
        (keras.applications.vgg16.preprocess_input, 255 - 103.939),
        (layers.Normalization(mean=[120, 110, 100], variance=[3600] * 3), 155 / 60),
        (
            lambda x: layers.RandomFlip()(layers.Rescaling(1 / 255)(layers.RandomRotation(0.1)(x))),
            1,
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_scaling_inside_a_model_is_found(tmp_path: Path, inside, high: float, suffix: str):
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 5, strides=4)(inside(image))
    model = keras.Model(image, layers.Dense(1)(layers.GlobalAveragePooling2D()(x)))
    shake(model)
    found = published(model, tmp_path / f"model{suffix}")
    assert found.scaling is not None
    assert found.scaling.takes_bytes
    assert found.scaling.high == pytest.approx(high, rel=1e-4)
    crops = pictures(4)
    made = outputs(build_frame(found, answers(scaling=Scaling.NONE)), crops)
    wanted = predict(model, crops.astype(np.float32))[:, 0]
    np.testing.assert_allclose(made["fake_logit"], wanted, rtol=1e-3, atol=1e-4)


def test_scaling_inside_that_is_meant_for_smaller_numbers_is_told_apart(tmp_path: Path):
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1)]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Rescaling(2, -1), *head])
    found = published(model, tmp_path / "model.h5")
    assert found.scaling is not None
    assert not found.scaling.takes_bytes
    assert published(ended(layers.Dense(1)), tmp_path / "other.h5").scaling is None


def test_a_network_inside_with_batch_norm_behind_the_pooling_has_evidence(tmp_path: Path):
    crops = pictures(6)
    x = crops.astype(np.float32) / 127.5 - 1
    inside = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), alpha=0.35, pooling="avg"
    )
    head = [layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(1, activation="sigmoid")]
    model = shake(keras.Sequential([inside, *head]), inputs=x)
    found = published(model, tmp_path / "model.h5")
    built = build_frame(found, answers(scaling=Scaling.SIGNED))
    made = outputs(built, crops)
    assert made["evidence"].shape == (6, 2, 2)
    np.testing.assert_allclose(made["evidence"].mean((1, 2)), made["fake_logit"], atol=1e-3)
    np.testing.assert_allclose(sigmoid(made["fake_logit"]), predict(model, x)[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    "head",
    [
        lambda: [layers.Flatten()],
        lambda: [layers.GlobalMaxPooling2D()],
        lambda: [layers.GlobalAveragePooling2D(), layers.Dense(7, activation="relu")],
    ],
)
def test_a_map_that_is_not_averaged_gives_no_evidence(tmp_path: Path, head):
    model = cnn(*head(), layers.Dense(1, activation="sigmoid"))
    built = build_frame(published(model, tmp_path / "model.h5"), answers())
    assert set(built.output) == {"features", "fake_logit"}


def test_an_extractor_gives_its_features(tmp_path: Path):
    crops = pictures(6)
    model = shake(cnn(layers.GlobalAveragePooling2D()), inputs=crops / 255)
    found = published(model, tmp_path / "model.h5")
    assert found.head is None
    made = outputs(build_frame(found, answers()), crops)
    assert set(made) == {"features"}
    wanted = predict(model, crops.astype(np.float32) / 255)
    np.testing.assert_allclose(made["features"], wanted, atol=1e-5)


def test_a_model_of_any_size_takes_the_size_that_is_told(tmp_path: Path):
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    model = cnn(*head, size=None)
    found = published(model, tmp_path / "model.h5")
    assert found.size is None
    built = build_frame(found, answers(size=40))
    assert built.inputs[0].shape == (None, 40, 40, 3)


def test_layers_of_the_same_name_inside_and_outside_are_no_trouble(tmp_path: Path):
    inner = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3, name="logit"), layers.ReLU(name="image")]
    )
    head = [layers.GlobalAveragePooling2D(name="scaling"), layers.Dense(1, name="logit")]
    model = shake(keras.Sequential([inner, layers.Conv2D(4, 3, name="image"), *head]))
    crops = pictures(4)
    made = outputs(build_frame(published(model, tmp_path / "model.keras"), answers()), crops)
    wanted = predict(model, crops.astype(np.float32) / 255)[:, 0]
    np.testing.assert_allclose(made["fake_logit"], wanted, atol=1e-4)


def several_inputs() -> keras.Model:
    images = [keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))]
    return keras.Model(images, layers.Dense(1)(layers.Flatten()(layers.Subtract()(images))))


def several_outputs() -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, [layers.Dense(1)(x), layers.Dense(4)(x)])


def of_shape(*shape: int) -> keras.Model:
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(1)])


def clips() -> keras.Model:
    inner = keras.Sequential([keras.Input((32, 32, 3)), layers.GlobalAveragePooling2D()])
    frames = [keras.Input((5, 32, 32, 3)), layers.TimeDistributed(inner), layers.GRU(3)]
    return keras.Sequential([*frames, layers.Dense(1, activation="sigmoid")])


def of_clips(*inner: keras.layers.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input((6, 16, 16, 3)), *inner, layers.Dense(1, activation="sigmoid")]
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: ended(layers.Dense(5, activation="softmax")),
            "gives 5 classes; a verdict has real and fake",
        ),
        (lambda: ended(layers.Dense(1, activation="softmax")), "a softmax of one number, which is"),
        (lambda: ended(layers.Dense(2, activation="sigmoid")), "two sigmoids that need not add up"),
        (
            lambda: ended(layers.Dense(1, activation="tanh")),
            "ends in tanh, which is no probability",
        ),
        (
            lambda: ended(layers.Dense(1, activation="sigmoid"), layers.Activation("sigmoid")),
            "has sigmoid, and then comes sigmoid",
        ),
        (
            lambda: cnn(layers.Dense(1, activation="sigmoid"), layers.GlobalAveragePooling2D()),
            r"\(GlobalAveragePooling2D\) gives the verdict, but only that of a Dense layer",
        ),
        (
            lambda: cnn(layers.Dense(1, activation="sigmoid")),
            "gives a verdict for each place of a map: pool the map",
        ),
        (cnn, r"ends in an output of shape \[None, 12, 12, 12\], not in a verdict"),
        (several_inputs, "has 2 inputs, not one: save the part that takes one RGB picture"),
        (several_outputs, "has 2 outputs, not one"),
        (lambda: of_shape(32, 48, 3), "takes pictures of 32 x 48 px; crops are square"),
        (lambda: of_shape(32, 32, 1), r"takes \[None, 32, 32, 1\], not RGB pictures"),
        (lambda: of_shape(9), r"takes \[None, 9\], not RGB pictures"),
        (clips, "takes clips .*: save the model inside its TimeDistributed layer as FRAME"),
        (
            lambda: of_clips(layers.ConvLSTM2D(4, 3, name="both"), layers.GlobalAveragePooling2D()),
            r"not pictures: both \(ConvLSTM2D\) mixes the pictures of a clip, which no bundle can",
        ),
        (
            lambda: of_clips(
                layers.Conv3D(4, 3, name="one"),
                layers.MaxPooling3D(2, name="two"),
                layers.Flatten(),
            ),
            r"one \(Conv3D\), two \(MaxPooling3D\) mix the pictures of a clip",
        ),
        (
            lambda: of_clips(
                layers.TimeDistributed(layers.Conv2D(4, 3, name="see")),
                layers.TimeDistributed(layers.GlobalAveragePooling2D(name="pool")),
                layers.Bidirectional(layers.GRU(3), name="ways"),
            ),
            r"build see \(Conv2D\), pool \(GlobalAveragePooling2D\) once more as a model of one "
            r"picture, .* with GRU or LSTM in the place of ways \(Bidirectional\)",
        ),
    ],
)
def test_models_that_give_no_verdict_on_a_picture_are_refused(tmp_path, model, message: str):
    path = save(model(), tmp_path / "model.keras")
    with pytest.raises(UsageError, match=message):
        open_frame(ModelFile.read(path))


def ended(*end: keras.layers.Layer) -> keras.Model:
    return cnn(layers.GlobalAveragePooling2D(), *end)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanAbsoluteError(), "huber"])
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_regression_is_told_from_a_logit_by_its_loss(tmp_path: Path, loss, suffix: str):
    model = ended(layers.Dense(1, name="score"))
    model.compile("adam", loss)
    path = save(model, tmp_path / f"model{suffix}")
    with pytest.raises(UsageError, match=r"layer score \(Dense\) was trained to hit a number"):
        open_frame(ModelFile.read(path))
