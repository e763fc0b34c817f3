"""A sequence graph says what its Keras model says, however a stream is cut into calls."""

from __future__ import annotations

import functools

import keras
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_export.graphs.sequence_graph import describe_sequence_model, export_loop_graph
from dfd_export.graphs.sequence_layers.conversion import UnsupportedLayer
from dfd_training.models import HEADS
from dfd_training.models.sequence import RunningMean, WindowAttention
from sequence_models import (
    WIDTH,
    SequencePair,
    chain_model,
    features_of,
    gru,
    head_model,
    lstm,
    operators,
    randomise,
)

LOOPS = {"Loop", "If", "Scan"}


@functools.cache
def pair_of(head: str) -> SequencePair:
    return SequencePair.of(head_model(head))


@pytest.fixture(params=sorted(HEADS))
def head(request) -> str:
    return request.param


def test_a_head_is_native_operators_of_opset_17(head: str):
    graph = pair_of(head).graph
    onnx.checker.check_model(graph, full_check=True)
    assert not LOOPS.intersection(operators(graph))
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert graph.ir_version == 8


@pytest.mark.parametrize(
    ("name", "operator", "count"),
    [
        ("gru", "GRU", 3),
        ("gru_small", "GRU", 2),
        ("gru_single", "GRU", 1),
        ("lstm", "LSTM", 3),
        ("attention", "Softmax", 1),
        ("mean", "CumSum", 1),
    ],
)
def test_a_head_has_its_operators_and_few_others(name: str, operator: str, count: int):
    found = operators(pair_of(name).graph)
    assert found.count(operator) == count
    # What a step costs beside the arithmetic is the number of nodes.
    assert len(found) <= {"attention": 41, "mean": 20}.get(name, 17)


def test_grus_reset_after_the_product_as_keras_does():
    for node in pair_of("gru").graph.graph.node:
        if node.op_type == "GRU":
            assert {a.name: a.i for a in node.attribute}["linear_before_reset"] == 1


def test_full_and_padded_sequences_give_what_keras_gives(head: str):
    pair = pair_of(head)
    features = features_of(4, 26)
    for lengths in (np.full(4, 26), np.array([26, 1, 20, 7])):
        wanted = pair.keras_logits(features, lengths)
        found, _ = pair.run(features, lengths)
        real = np.arange(26) < lengths[:, None]
        assert np.ptp(wanted[real]) > 1e-2
        np.testing.assert_allclose(found[real], wanted[real], atol=2e-5)


def test_padding_leaves_the_state_as_it_is_alone(head: str):
    pair = pair_of(head)
    features, lengths = features_of(5, 24), np.array([24, 1, 19, 20, 3])
    _, states = pair.run(features, lengths)
    alone = np.stack(
        [pair.run_alone(row[:length])[1] for row, length in zip(features, lengths, strict=True)]
    )
    np.testing.assert_allclose(states, alone, atol=2e-5)


@st.composite
def cuts(draw) -> list[list[int]]:
    """Steps that each of up to four sequences takes in each call; 0 leaves it out."""
    rows = draw(st.integers(1, 4))
    step = st.one_of(st.just(1), st.integers(0, 9), st.integers(0, 30))
    return draw(st.lists(st.lists(step, min_size=rows, max_size=rows), min_size=1, max_size=8))


@given(calls=cuts(), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", sorted(HEADS))
def test_any_cut_of_streams_into_calls_gives_the_same(name: str, calls: list[list[int]], seed: int):
    pair = pair_of(name)
    totals = np.sum(calls, axis=0)
    streams = [
        features_of(1, max(total, 1), seed=seed + row)[0] for row, total in enumerate(totals)
    ]
    taken = np.zeros(len(totals), int)
    states = pair.start(len(totals))
    logits: list[list[float]] = [[] for _ in totals]
    for lengths in calls:
        # Streams without a step stay out of the call; the others share it, padded behind.
        rows = np.flatnonzero(lengths)
        if not len(rows):
            continue
        counts = np.array(lengths)[rows]
        batch = np.zeros((len(rows), counts.max(), WIDTH), np.float32)
        for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
            batch[place, :count] = streams[row][taken[row] : taken[row] + count]
        found, states[rows] = pair.run(batch, counts, states[rows])
        for row, count, values in zip(rows, counts, found, strict=True):
            logits[row].extend(values[:count])
            taken[row] += count
    for row, total in enumerate(totals):
        if total:
            whole, state = pair.run_alone(streams[row])
            np.testing.assert_allclose(logits[row], whole, atol=2e-5)
            np.testing.assert_allclose(states[row], state, atol=2e-5)


def test_attention_forgets_what_left_its_window():
    pair = pair_of("attention")
    features = features_of(1, 60)[0]
    changed = features.copy()
    changed[:30] += 1.0
    logits, state = pair.run_alone(features)
    others, other_state = pair.run_alone(changed)
    assert np.abs(logits[30:49] - others[30:49]).min() > 0
    np.testing.assert_allclose(logits[49:], others[49:], atol=1e-6)
    np.testing.assert_allclose(state, other_state, atol=1e-6)


def test_attention_over_a_window_of_one_step_needs_a_state_of_another_layer():
    layers_of = [WindowAttention(heads=2, window=1), layers.Dense(1)]
    with pytest.raises(UnsupportedLayer, match="it has no recurrent layer"):
        describe_sequence_model(chain_model(*layers_of), rate_hz=5.0, max_gap_s=1.0)
    check_chain(chain_model(*layers_of[:1], layers.GRU(3, return_sequences=True), layers.Dense(1)))


def test_the_mean_of_a_day_is_still_exact():
    pair = SequencePair.of(chain_model(layers.Dense(1), RunningMean()))
    features = features_of(1, 1000)
    wanted = pair.keras_logits(features, np.array([1000]))[0, -1]
    state = pair.start(1)
    for _ in range(432):  # 24 hours at 5 Hz
        logits, state = pair.run(features, np.array([1000]), state)
    assert state[0, 1] == 432_000
    np.testing.assert_allclose(logits[0, -1], wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loops"), [("gru", 3), ("lstm", 3)])
def test_tf2onnx_s_loops_say_the_same(name: str, loops: int):
    pair = pair_of(name)
    data = export_loop_graph(pair.model).SerializeToString()
    assert read_onnx(data).operators["Loop"] == loops
    session = open_session(data, Provider.CPU, threads=1, name="loop.onnx")
    features = features_of(3, 21)
    for lengths in (np.full(3, 21), np.array([21, 1, 12])):
        real = np.arange(21) < lengths[:, None]
        looped = session.run(["fake_logit"], {"features": features, "mask": real})[0]
        native, _ = pair.run(features, lengths)
        np.testing.assert_allclose(native[real], looped[real], atol=2e-5)
        np.testing.assert_allclose(
            pair.keras_logits(features, lengths)[real], looped[real], atol=2e-5
        )


def check_chain(model: keras.Model) -> SequencePair:
    pair = SequencePair.of(model)
    features, lengths = features_of(3, 9), np.array([9, 1, 5])
    real = np.arange(9) < lengths[:, None]
    wanted = pair.keras_logits(features, lengths)
    found, _ = pair.run(features, lengths)
    assert np.ptp(wanted[real]) > 1e-3
    np.testing.assert_allclose(found[real], wanted[real], atol=2e-5)
    return pair


CHAINS = {
    "a GRU": lambda: [gru(5), layers.Dense(1)],
    "a GRU of the first kind": lambda: [gru(5, reset_after=False), layers.Dense(1)],
    "a GRU without bias": lambda: [gru(5, use_bias=False), layers.Dense(1)],
    "an LSTM": lambda: [lstm(5), layers.Dense(1)],
    "an LSTM without bias": lambda: [lstm(5, use_bias=False), layers.Dense(1)],
    "GRU behind LSTM": lambda: [lstm(4), layers.BatchNormalization(), gru(3), layers.Dense(1)],
    "batch norms everywhere": lambda: [
        layers.BatchNormalization(),
        gru(4),
        layers.BatchNormalization(scale=False),
        layers.BatchNormalization(center=False),
        layers.Dense(3, activation="tanh"),
        layers.BatchNormalization(),
        layers.Dense(1, use_bias=False),
        layers.BatchNormalization(),
    ],
    "batch norms around activations": lambda: [
        layers.Dense(4),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.BatchNormalization(),
        layers.Activation("tanh"),
        gru(),
        layers.Dense(1),
    ],
    "dense layers before and between": lambda: [
        layers.Dense(4, activation="relu"),
        gru(3),
        layers.Dense(5),
        gru(7),
        layers.Dense(2),
        layers.Dense(1),
    ],
    "layer norms": lambda: [
        layers.LayerNormalization(),
        gru(4),
        layers.BatchNormalization(),
        layers.LayerNormalization(scale=False, epsilon=0.1),
        layers.Dense(4),
        layers.LayerNormalization(center=False),
        layers.Dense(1),
    ],
    "what only training needs": lambda: [
        layers.Masking(),
        layers.GaussianNoise(0.5),
        layers.SpatialDropout1D(0.5),
        gru(4, dropout=0.5, recurrent_dropout=0.5),
        layers.Dropout(0.5),
        layers.GaussianDropout(0.5),
        layers.AlphaDropout(0.5),
        layers.ActivityRegularization(l2=0.1),
        layers.Identity(),
        layers.Dense(1),
    ],
    "layers of each step": lambda: [
        gru(4),
        layers.TimeDistributed(layers.Dense(3, activation="relu")),
        layers.TimeDistributed(layers.Dropout(0.5)),
        layers.TimeDistributed(layers.Dense(1)),
    ],
    "a model inside": lambda: [
        keras.Sequential([layers.Dense(4, activation="relu"), layers.Dropout(0.5)]),
        gru(4),
        keras.Sequential([layers.Dense(1)]),
    ],
    "layers that are activations": lambda: [
        gru(4),
        layers.Dense(4, activation=layers.LeakyReLU(negative_slope=0.1)),
        layers.ReLU(max_value=0.5),
        layers.Dense(4),
        layers.ReLU(negative_slope=0.2),
        layers.ELU(alpha=0.7),
        layers.PReLU(shared_axes=[1]),
        layers.Dense(1),
    ],
    "attention behind a GRU": lambda: [
        gru(4),
        layers.BatchNormalization(),
        WindowAttention(heads=2, window=3),
        layers.BatchNormalization(),
        WindowAttention(heads=1, window=4),
        layers.Dense(1),
    ],
    "a mean behind attention": lambda: [
        WindowAttention(heads=3, window=4),
        layers.LayerNormalization(),
        RunningMean(),
        gru(4),
        layers.BatchNormalization(),
        RunningMean(),
        layers.Dense(1),
        RunningMean(),
    ],
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_layers_give_what_keras_gives(name: str):
    pair = check_chain(chain_model(*CHAINS[name]()))
    features = features_of(2, 7)
    whole, end = pair.run(features, np.full(2, 7))
    state, parts = pair.start(2), []
    for step in range(7):
        logit, state = pair.run(features[:, step : step + 1], np.ones(2), state)
        parts.append(logit)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=2e-5)
    np.testing.assert_allclose(state, end, atol=2e-5)


@pytest.mark.parametrize(
    "activation",
    [
        "celu",
        "elu",
        "exponential",
        "gelu",
        "hard_sigmoid",
        "hard_silu",
        "leaky_relu",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softmax",
        "softplus",
        "softsign",
        "tanh",
    ],
)
def test_activations_give_what_keras_gives(activation: str):
    chain = [layers.Dense(5, activation=activation), layers.Activation(activation), gru(2)]
    check_chain(chain_model(*chain, layers.Dense(1)))


def test_batch_norms_and_dense_layers_become_one():
    chain = [gru(), layers.Dense(4), layers.BatchNormalization(), layers.ReLU(), layers.Dense(1)]
    found = operators(SequencePair.of(chain_model(*chain)).graph)
    assert (found.count("MatMul"), found.count("Add"), found.count("Mul")) == (2, 2, 0)


@pytest.mark.parametrize(
    "end",
    [
        lambda x: keras.ops.squeeze(x, axis=-1),
        lambda x: keras.ops.squeeze(x, axis=2),
        layers.Reshape((-1,)),
        lambda x: x[..., 0],
        lambda x: x[:, :, 0],
    ],
)
def test_the_last_axis_may_be_dropped_in_any_way(end):
    features = keras.Input((None, WIDTH), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = end(layers.Dense(1)(gru()(features, mask=mask)))
    check_chain(randomise(keras.Model({"features": features, "mask": mask}, x)))


def test_a_layer_may_be_used_twice():
    features = keras.Input((None, WIDTH), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    shared = gru(WIDTH)
    x = layers.Dense(1)(shared(shared(features, mask=mask), mask=mask))
    model = keras.Model({"features": features, "mask": mask}, keras.ops.squeeze(x, axis=-1))
    assert check_chain(randomise(model)).spec.state_width == 2 * WIDTH
