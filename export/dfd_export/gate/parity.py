"""The gate: an exported graph must give what its Keras model gives, or nothing is written.

First names, element types and axes, then shapes, then values, each with an error of its own.
The largest difference of every output in every case goes into a report beside the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from dfd_edge.bundle import check_graph, frame_contract, sequence_contract
from dfd_edge.bundle.manifest import FrameSpec, SequenceSpec
from dfd_edge.errors import BundleError
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_export.gate.cases import FrameCases, compare_sequence
from dfd_export.gate.comparison import (
    CollapsedModel,
    Comparison,
    ContractMismatch,
    ParityError,
    ParityReport,
    ShapeMismatch,
    ValueMismatch,
)

__all__ = [
    "CollapsedModel",
    "Comparison",
    "ContractMismatch",
    "ParityError",
    "ParityReport",
    "ShapeMismatch",
    "ValueMismatch",
    "check_parity",
]

BATCHES = (1, 3, 8)
TIMES = (1, 2, 7, 20, 64)

Extra = Callable[[Any, Any], Iterable[Comparison]]
"""Further comparisons: from the onnxruntime sessions of the frame and of the sequence graph."""


def check_parity(
    frame_model: keras.Model,
    sequence_model: keras.Model,
    frame_graph: onnx.ModelProto,
    sequence_graph: onnx.ModelProto,
    *,
    frame: FrameSpec,
    sequence: SequenceSpec,
    crops: NDArray[np.uint8],
    extra: Extra | None = None,
    seed: int = 0,
) -> ParityReport:
    """Compares both graphs with their Keras models.

    What is allowed is measured on the models: see `Scale`. A model whose logit varies by hardly
    more than that is refused. No graph of it could be told from a wrong one, so that the gate
    would vouch for nothing; and whoever exports a detector that says the same of every picture
    has the wrong weights or the wrong scaling.

    Args:
        frame_model: The Keras frame model.
        sequence_model: The Keras sequence model.
        frame_graph: The graph of the frame model.
        sequence_graph: The graph of the sequence model.
        frame: Contract of the frame graph.
        sequence: Contract of the sequence graph.
        crops: uint8 [n, S, S, 3], RGB; real crops, compared beside random ones.
        extra: Makes further comparisons, which have to pass like the others.
        seed: Seed of the random inputs.

    Raises:
        ContractMismatch: Names, element types or axes differ.
        CollapsedModel: A Keras model's logit hardly varies, or is no number.
        ShapeMismatch: A shape differs.
        ValueMismatch: A value differs by more than is allowed.
    """
    rng = np.random.default_rng(seed)
    frame_session = open_graph(frame_graph, "frame", *frame_contract(frame))
    sequence_session = open_graph(sequence_graph, "sequence", *sequence_contract(frame, sequence))
    frames = FrameCases.make(frame_model, frame, crops, BATCHES, rng)
    comparisons = frames.compare(frame_session)
    comparisons += compare_sequence(
        sequence_model,
        sequence_session,
        frames.wanted["features"].values,
        batches=BATCHES,
        times=TIMES,
        rng=rng,
    )
    if extra is not None:
        comparisons += extra(frame_session, sequence_session)
    report = ParityReport(comparisons)
    report.check()
    return report


def open_graph(graph: onnx.ModelProto, name: str, inputs: Any, outputs: Any) -> Any:  # noqa: ANN401
    """Opens a graph in onnxruntime after checking what it declares.

    Args:
        graph: The graph.
        name: "frame" or "sequence", for messages.
        inputs: The inputs that it must declare, and no others.
        outputs: The outputs that it must declare, and no others.

    Raises:
        ContractMismatch: It declares others, loops, or keeps weights in another file.
    """
    data = graph.SerializeToString()
    try:
        check_graph(Path(f"{name}.onnx"), data, inputs, outputs)
        return open_session(data, Provider.CPU, threads=1, name=f"{name}.onnx")
    except BundleError as error:
        raise ContractMismatch(str(error)) from error
