"""Layers that are not taken over, each with what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfd_edge.errors import UsageError

NOT_KERAS = "is not Keras' own, and no other code is loaded: build the model of Keras' own layers"

_FOREIGN = "runs a program of another library, which is not loaded from files: use Keras layers"
_CODE = {
    "Lambda": "holds Python code, which is never run from a file: put a layer in its place that "
    "does the same (Rescaling for a scaling, Activation for an activation) and save again",
    "__lambda__": "is Python code, which is never run from a file: use a function of Keras",
    "TFSMLayer": _FOREIGN,
    "TorchModuleWrapper": _FOREIGN,
    "JaxLayer": _FOREIGN,
    "FlaxLayer": _FOREIGN,
}
"""Refused wherever they stand in a file, before Keras sees it."""

OLD = {
    "CuDNNGRU": "is of TensorFlow 1: put GRU(reset_after=True) in its place and save again",
    "CuDNNLSTM": "is of TensorFlow 1: put LSTM in its place and save again",
}

_WHOLE_CLIP = "needs the clip's later steps, which a live stream has not seen yet: train the model "
_OVER_TIME = _WHOLE_CLIP + "with GRU or LSTM layers in its place"
_MIXES = "over the clip: end the recurrent part with return_sequences=False and train again"

OVER_TIME = {
    "Bidirectional": _WHOLE_CLIP + "with the GRU or LSTM alone, forwards",
    "ConvLSTM2D": "takes pictures, not features: no bundle holds such a model",
    "RNN": "has a cell of its own: use GRU or LSTM layers",
    "SimpleRNN": "cannot be exported: use GRU or LSTM layers",
    **dict.fromkeys(
        ("Conv1D", "SeparableConv1D", "DepthwiseConv1D", "MaxPooling1D", "AveragePooling1D"),
        _OVER_TIME,
    ),
    **dict.fromkeys(("Attention", "AdditiveAttention", "MultiHeadAttention"), _OVER_TIME),
    "GlobalAveragePooling1D": f"averages {_MIXES}",
    "GlobalMaxPooling1D": f"takes the largest {_MIXES}",
    "Flatten": f"mixes the steps {_MIXES}",
}
"""Not taken over in a sequence model."""


def refuse(path: Path, layer: str, kind: str, problem: str) -> UsageError:
    """The error that names a layer that cannot be taken over."""
    return UsageError(f"{path}: layer {_printable(layer)} ({_printable(kind)}) {problem}")


def _printable(name: str) -> str:
    """A name out of a file, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in name)[:80]


def check_code(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON
    """Looks for code in the description of a model.

    Raises:
        UsageError: There is some; the message names the layer.
    """
    if isinstance(value, dict):
        kind = value.get("class_name")
        if isinstance(kind, str) and kind in _CODE:
            config = value.get("config")
            name = config.get("name") if isinstance(config, dict) else None
            raise refuse(path, str(name or "without a name"), kind, _CODE[kind])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            check_code(path, item)
