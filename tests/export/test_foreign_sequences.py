"""Published sequence models in the standard form: a logit after every step of the same clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers, ops

from dfd_edge.bundle.manifest import FrameSpec, VariantSpec
from dfd_edge.errors import UsageError
from dfd_export.foreign.keras_graph import Classes
from dfd_export.foreign.model_file import ModelFile
from dfd_export.foreign.reference import ForeignModels, compare_foreign
from dfd_export.foreign.sequence import ForeignSequence, build_sequence, open_sequence
from dfd_export.graphs.sequence_graph import describe_sequence_model, export_sequence_graph
from notebooks import STEPS, WIDTH, predict, recurrent, save, shake

FRAME = FrameSpec(48, 1.5, WIDTH, None, {"fp32": VariantSpec("frame.onnx")})


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(7)


def published(model: keras.Model, path: Path) -> ForeignSequence:
    return open_sequence(ModelFile.read(save(model, path)))


def clips(count: int, steps: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, steps, WIDTH)).astype(np.float32)


def run_graph(found: ForeignSequence, classes: Classes, features: np.ndarray) -> np.ndarray:
    """P(fake) after every step, through the exported graph one step at a time: [n, T]."""
    model = build_sequence(found, classes)
    spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    graph = export_sequence_graph(model, FRAME, spec, metadata={})
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    state = np.zeros((len(features), spec.state_width), np.float32)
    steps = []
    for step in range(features.shape[1]):
        inputs = {
            "features": features[:, step : step + 1],
            "lengths": np.ones(len(features), np.int32),
            "state": state,
        }
        logit, state = session.run(["fake_logit", "next_state"], inputs)
        steps.append(logit[:, 0])
    return 1 / (1 + np.exp(-np.stack(steps, axis=1).astype(np.float64)))


def cut_off(
    features: np.ndarray, steps: int, padding: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Clips of so many steps as notebooks pad them: features, and the mask."""
    mask = np.broadcast_to(np.arange(features.shape[1]) < steps, features.shape[:2])
    return np.where(mask[..., None], features, np.float32(padding)), mask


@pytest.mark.parametrize(
    ("suffix", "classes", "units", "activation"),
    [
        (".h5", Classes.REAL_FAKE, 1, "sigmoid"),
        pytest.param(".keras", Classes.FAKE_REAL, 1, "sigmoid", marks=pytest.mark.slow),
        (".keras", Classes.REAL_FAKE, 2, "softmax"),
        pytest.param(".h5", Classes.FAKE_REAL, 2, "softmax", marks=pytest.mark.slow),
    ],
)
def test_a_clip_of_any_length_gets_its_published_probability(
    tmp_path: Path, suffix: str, classes: Classes, units: int, activation: str
):
    verdict = layers.Dense(units, activation=activation)
    model = shake(recurrent(verdict=verdict))
    features = clips(4, STEPS)
    found = published(model, tmp_path / f"model{suffix}")
    assert found.steps == STEPS
    assert found.reads_padding == ()
    after = run_graph(found, classes, features)
    for steps in range(1, STEPS + 1):
        given = predict(model, list(cut_off(features, steps)))
        if given.shape[1] == 2:
            fake = given[:, classes.split(",").index("fake")]
        else:
            fake = given[:, 0] if classes is Classes.REAL_FAKE else 1 - given[:, 0]
        np.testing.assert_allclose(after[:, steps - 1], fake, atol=1e-5)
    assert np.ptp(after) > 0.01


def chain(*middle: Any, steps: int | None = STEPS) -> keras.Model:
    return keras.Sequential([keras.Input((steps, WIDTH)), *middle, layers.Dense(1, "sigmoid")])


@pytest.mark.parametrize(
    "middle",
    [
        lambda: [layers.Masking(0.0), layers.GRU(5)],
        lambda: [layers.Masking(-9.0), layers.LSTM(6, return_sequences=True), layers.LSTM(4)],
        lambda: [
            layers.Masking(0.0),
            layers.TimeDistributed(layers.Dense(7, activation="relu")),
            layers.GRU(5, reset_after=False, recurrent_dropout=0.2, dropout=0.1),
            layers.BatchNormalization(axis=1),
            layers.Dense(6),
            layers.LeakyReLU(),
            layers.Dropout(0.5),
        ],
        lambda: [
            layers.Masking(0.0),
            layers.Dense(7, activation="tanh"),
            layers.GRU(4, return_sequences=True, unroll=True, zero_output_for_mask=True),
            layers.Dropout(0.2),
            layers.BatchNormalization(),
            layers.GRU(3),
            layers.Flatten(),
            layers.LayerNormalization(),
        ],
    ],
)
def test_chains_with_a_masking_layer(tmp_path: Path, middle):
    model = shake(chain(*middle()))
    features = clips(3, STEPS)
    found = published(model, tmp_path / "model.keras")
    assert found.mask is None
    after = run_graph(found, Classes.REAL_FAKE, features)
    padded = [cut_off(features, steps, found.padding)[0] for steps in range(1, STEPS + 1)]
    if found.reads_padding:
        padded, after = padded[-1:], after[:, -1:]
    wanted = np.concatenate([predict(model, clip) for clip in padded], axis=1)
    np.testing.assert_allclose(after, wanted, atol=1e-5)


def test_a_model_of_any_length_goes_on(tmp_path: Path):
    model = shake(recurrent(verdict=layers.Dense(1, activation="sigmoid"), steps=None))
    found = published(model, tmp_path / "model.keras")
    assert found.steps is None
    features = clips(2, 30)
    after = run_graph(found, Classes.REAL_FAKE, features)
    whole = predict(model, [features, np.ones((2, 30), bool)])
    np.testing.assert_allclose(after[:, -1:], whole, atol=1e-5)


def test_a_model_that_reads_its_padding_is_told_from_one_that_does_not(tmp_path: Path):
    layer = layers.LSTM(5, name="blind")
    model = shake(chain(layer))
    found = published(model, tmp_path / "model.h5")
    assert found.reads_padding == ("blind",)
    features = clips(2, STEPS)
    after = run_graph(found, Classes.REAL_FAKE, features)
    np.testing.assert_allclose(after[:, -1:], predict(model, features), atol=1e-5)
    short = predict(model, cut_off(features, 3)[0])
    assert np.abs(after[:, 2:3] - short).max() > 0.01


def test_the_mask_said_to_the_first_layer_reaches_the_others(tmp_path: Path):
    # It does since Keras 3.11; before, padding moved every layer but the first.
    model = recurrent(verdict=layers.Dense(1))
    assert published(model, tmp_path / "model.keras").reads_padding == ()


def comparison(found: ForeignSequence, graph_of: ForeignSequence) -> Any:
    model = build_sequence(graph_of, Classes.REAL_FAKE)
    spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    graph = export_sequence_graph(model, FRAME, spec, metadata={})
    session = onnxruntime.InferenceSession(graph.SerializeToString())

    class Features:
        """A frame graph's session that gives random features."""

        def run(self, _names, inputs):
            return [clips(1, len(inputs["image"]))[0]]

    crops = np.zeros((6, 48, 48, 3), np.uint8)
    originals = ForeignModels(sequence=found)
    (compared,) = compare_foreign(originals, crops, Features(), session)
    return compared


def test_the_gate_compares_with_the_published_model_itself(tmp_path: Path):
    model = shake(recurrent(verdict=layers.Dense(1, activation="sigmoid")))
    found = published(model, tmp_path / "model.keras")
    same = comparison(found, found)
    assert same.passed
    assert same.case == "published model, clips of 1 to 8 steps"
    assert same.spread > 1000 * same.tolerance
    recurrence = model.layers[2]
    recurrence.set_weights([w * 1.01 for w in recurrence.get_weights()])
    assert not comparison(found, published(model, tmp_path / "other.keras")).passed


def bidirectional() -> keras.Model:
    return chain(layers.Bidirectional(layers.GRU(3), name="both"))


def with_state() -> keras.Model:
    features, start = keras.Input((STEPS, WIDTH)), keras.Input((4,))
    x = layers.GRU(4)(features, initial_state=start)
    return keras.Model([features, start], layers.Dense(1)(x))


def attention() -> keras.Model:
    features = keras.Input((STEPS, WIDTH))
    x = layers.MultiHeadAttention(2, 4, name="look")(features, features)
    return keras.Model(features, layers.Dense(1, activation="sigmoid")(layers.GRU(3)(x)))


def branched() -> keras.Model:
    features = keras.Input((STEPS, WIDTH))
    x = layers.Concatenate(name="both")([layers.GRU(3)(features), layers.GRU(3)(features)])
    return keras.Model(features, layers.Dense(1)(x))


def last_step_by_slice() -> keras.Model:
    features = keras.Input((STEPS, WIDTH))
    x = layers.GRU(3, return_sequences=True)(features)
    return keras.Model(features, layers.Dense(1)(x[:, -1]))


def per_step() -> keras.Model:
    features = keras.Input((STEPS, WIDTH))
    x = layers.GRU(3, return_sequences=True)(features)
    return keras.Model(features, ops.mean(layers.Dense(1, activation="sigmoid")(x), axis=1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: chain(layers.Dense(3), layers.Masking(name="late"), layers.GRU(3)),
            r"layer late \(Masking\) masks what another layer made",
        ),
        (
            lambda: chain(layers.Masking(), layers.GRU(3, zero_output_for_mask=True)),
            r"\(GRU\) gives zeros for every clip that is padded",
        ),
        (bidirectional, r"layer both \(Bidirectional\) needs the clip's later steps, .*forwards"),
        (lambda: chain(layers.Conv1D(4, 3), layers.GRU(3)), r"\(Conv1D\) needs the clip's later"),
        (attention, r"layer look \(MultiHeadAttention\) needs the clip's later steps"),
        (lambda: chain(layers.SimpleRNN(3)), r"\(SimpleRNN\) cannot be exported"),
        (
            lambda: chain(layers.GRU(3, return_sequences=True), layers.GlobalAveragePooling1D()),
            r"\(GlobalAveragePooling1D\) averages over the clip",
        ),
        (
            lambda: chain(layers.GRU(3, return_sequences=True), layers.Flatten()),
            r"\(Flatten\) mixes the steps over the clip",
        ),
        (lambda: chain(layers.Flatten()), r"\(Flatten\) mixes the steps"),
        (branched, r"layer both \(Concatenate\) cannot be taken over"),
        (last_step_by_slice, r"\(GetItem\) cannot be taken over"),
        (per_step, r"\(Mean\) gives the verdict, but only that of a Dense layer"),
        (with_state, r"\(GRU\) takes or gives states of its own"),
        (
            lambda: chain(layers.BatchNormalization(axis=1, name="steps"), layers.GRU(3)),
            r"layer steps \(BatchNormalization\) works on axis \[1\], not on the channels",
        ),
        (
            lambda: keras.Sequential([keras.Input((STEPS, WIDTH)), layers.GRU(9)]),
            r"ends in \[None, 9\], not in a verdict",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input(batch_shape=(1, STEPS, WIDTH)), layers.GRU(3), layers.Dense(1)]
            ),
            "it takes batches of one size",
        ),
        (
            lambda: keras.Sequential([keras.Input((9,)), layers.Dense(1)]),
            r"takes \[None, 9\], not features \[B, T, F\]",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((5, 16, 16, 3)),
                    layers.TimeDistributed(layers.Flatten()),
                    layers.GRU(3),
                    layers.Dense(1),
                ]
            ),
            r"takes clips .*: build flatten\S* \(Flatten\) once more as a model of one picture",
        ),
    ],
)
def test_models_that_no_live_stream_can_run_are_refused_by_layer(tmp_path, model, message: str):
    with pytest.raises(UsageError, match=message):
        published(model(), tmp_path / "model.keras")
