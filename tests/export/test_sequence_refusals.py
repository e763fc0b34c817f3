"""A sequence model that cannot be exported is refused: which layer, why, and what to do."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from dfd_edge.errors import UsageError
from dfd_export.graphs.sequence_graph import describe_sequence_model, export_sequence_graph
from dfd_export.graphs.sequence_layers.conversion import UnsupportedLayer
from sequence_models import WIDTH, chain_model, frame_spec, gru, lstm


class Doubled(layers.Dense):
    """A dense layer that does something else."""

    def call(self, x):
        return 2 * super().call(x)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            lambda: [layers.SimpleRNN(3, return_sequences=True), layers.Dense(1)],
            r"\(SimpleRNN\) cannot be converted: fit the model anew with GRU or LSTM",
        ),
        (
            lambda: [layers.Bidirectional(gru()), layers.Dense(1)],
            r"\(Bidirectional\) reads the clip backwards too, and a live stream cannot see",
        ),
        (
            lambda: [gru(go_backwards=True), layers.Dense(1)],
            "goes backwards, which a live stream cannot: fit it anew with go_backwards=False",
        ),
        (
            lambda: [gru(activation="relu"), layers.Dense(1)],
            "has activations relu and sigmoid: fit it anew with tanh and sigmoid",
        ),
        (
            lambda: [lstm(recurrent_activation="hard_sigmoid"), layers.Dense(1)],
            r"\(LSTM\) has activations tanh and hard_sigmoid",
        ),
        (
            lambda: [gru(stateful=False), layers.Conv1D(3, 3, padding="causal"), layers.Dense(1)],
            r"\(Conv1D\) looks at steps beside its own, which no state carries",
        ),
        (lambda: [gru(), layers.Dense(1, activation="sigmoid")], "ends in sigmoid; it has to give"),
        (
            lambda: [gru(), layers.Dense(1), layers.Activation("sigmoid")],
            r"\(Activation\) ends in sigmoid; it has to give a logit: leave the activation out",
        ),
        (
            lambda: [gru(), layers.Dense(4, activation="glu"), layers.Dense(2), layers.Dense(1)],
            "has activation glu: fit the model anew with one of celu, elu",
        ),
        (
            lambda: [gru(), layers.ReLU(threshold=0.5), layers.Dense(1)],
            r"\(ReLU\) has threshold 0.5",
        ),
        (
            lambda: [gru(), layers.ReLU(max_value=1, negative_slope=0.5), layers.Dense(1)],
            "has both max_value 1 and negative_slope 0.5",
        ),
        (
            lambda: [gru(), Doubled(1)],
            r"\(Doubled\) cannot be converted: build the model as a chain",
        ),
        (
            lambda: [layers.TimeDistributed(layers.UnitNormalization()), gru(), layers.Dense(1)],
            r"\(UnitNormalization\) cannot be converted",
        ),
        (lambda: [gru(1), layers.BatchNormalization()], r"\(GRU\) comes last, but does not give"),
        (lambda: [layers.Dense(1)], "it has no recurrent layer"),
        (lambda: [layers.Dense(1, name="one"), layers.Dropout(0.5)], "it has no recurrent layer"),
    ],
)
def test_layers_that_cannot_be_exported_are_named(chain, message: str):
    model = chain_model(*chain(), masked=False)
    with pytest.raises(UnsupportedLayer, match=f"^sequence model functional.*{message}"):
        describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)


def added(x):
    return layers.Dense(1)(layers.Add()([gru()(x), gru()(x)]))


def started(x):
    return layers.Dense(1)(gru()(x, initial_state=layers.Dense(3)(x[:, 0])))


def attending(x):
    return layers.Dense(1)(layers.MultiHeadAttention(2, 3)(x, x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (added, r"\(Add\) takes more than one tensor: only a chain of layers can be exported"),
        (started, r"\(GRU\) takes more than one tensor: only a chain"),
        (attending, r"\(MultiHeadAttention\) attends to steps that no state carries"),
        (lambda x: layers.Dense(1)(layers.GRU(3)(x)), "gives its last step only"),
        (lambda x: layers.Dense(1)(layers.GlobalMaxPooling1D()(x)), "for the whole clip"),
        (lambda x: layers.Dense(1)(gru(stateful=True)(x)), r"\(GRU\) keeps states between batches"),
        (lambda x: layers.Dense(1)(layers.Lambda(lambda y: y)(x)), r"\(Lambda\) holds Python code"),
        (lambda x: layers.Dense(1)(layers.BatchNormalization(axis=1)(x)), "works on axis 1: fit"),
        (lambda x: layers.Dense(1)(layers.LayerNormalization(axis=1)(x)), "works on axis 1: fit"),
        (lambda x: layers.Dense(1)(gru()(x, mask=x[..., 0] > 0))[:, -1:], r"\(GetItem\) cannot be"),
        (lambda x: layers.Dense(1)(layers.PReLU()(x)), "has a slope for each step"),
    ],
)
def test_networks_that_are_no_chain_of_steps_are_refused(build, message: str):
    features = keras.Input(batch_shape=(2, 5, WIDTH), name="features")
    mask = keras.Input(batch_shape=(2, 5), dtype="bool", name="mask")
    logits = build(features)
    if len(logits.shape) == 3:
        logits = keras.ops.squeeze(logits, axis=-1)
    model = keras.Model({"features": features, "mask": mask}, logits)
    with pytest.raises(UnsupportedLayer, match=message):
        describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)


def test_a_model_has_to_give_a_logit_for_each_step():
    model = chain_model(gru(), layers.Dense(1), squeeze=False)
    with pytest.raises(UnsupportedLayer, match=r"it gives \[None, None, 1\], not one logit"):
        describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    features = keras.Input((None, 1), name="features")
    bare = keras.Model(features, keras.ops.squeeze(layers.Dropout(0.5)(features), axis=-1))
    with pytest.raises(UnsupportedLayer, match="it has no layer that gives a logit"):
        describe_sequence_model(bare, rate_hz=5.0, max_gap_s=1.0)


def test_a_sequence_model_of_other_features_is_refused():
    model = chain_model(gru(), layers.Dense(1))
    spec = describe_sequence_model(model, rate_hz=5.0, max_gap_s=1.0)
    with pytest.raises(UsageError, match="features of width 6, but the frame model gives 1280"):
        export_sequence_graph(model, frame_spec(1280), spec, metadata={})
