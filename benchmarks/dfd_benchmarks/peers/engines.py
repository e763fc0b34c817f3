"""The engines that can run a frame model: each from a picture to its features and its logit."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import keras
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dfd_benchmarks.peers.networks import Networks
from dfd_edge.bundle import Bundle
from dfd_edge.errors import DfdError
from dfd_edge.inference.session import Session
from dfd_edge.version import version_of

TOLERANCE = 1e-3
"""Allowed difference of a number, over the largest that the runtime gives."""

Crops = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Outputs = tuple[Float32, Float32]
"""Features [n, F] and fake_logit [n]."""


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """A frame model, ready to run.

    Attributes:
        name: In figures.
        label: For people.
        version: Version of the library.
        threads: Threads that it may use inside an operator; 0 where it takes all cores.
        run: From uint8 [1, S, S, 3], RGB, to features and logit.
    """

    name: str
    label: str
    version: str
    threads: int
    run: Callable[[Crops], Outputs]


class NotInstalled(Exception):
    """An engine is not here; the message says why."""


def limit_tensorflow(threads: int) -> None:
    """Sets TensorFlow's threads, as long as nothing was computed yet.

    They belong to the process; once it computed something they stay, and `tensorflow_threads`
    tells how many they are.
    """
    import tensorflow as tf  # noqa: PLC0415 - seconds to import

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return


def tensorflow_threads() -> int:
    """Threads that TensorFlow uses inside an operator; 0 is as many as there are cores."""
    import tensorflow as tf  # noqa: PLC0415

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def keras_predict(networks: Networks, bundle: Bundle, threads: int) -> Engine:
    """`predict` on one picture after the other, as notebooks do."""
    del bundle, threads

    def run(crops: Crops) -> Outputs:
        found = networks.frame.predict(crops.astype(np.float32), verbose=0)
        return found["features"], found["fake_logit"]

    return Engine("keras", "Keras predict", keras.__version__, tensorflow_threads(), run)


def tensorflow_function(networks: Networks, bundle: Bundle, threads: int) -> Engine:
    """The Keras model as a compiled `tf.function`."""
    del bundle, threads
    import tensorflow as tf  # noqa: PLC0415

    signature = [tf.TensorSpec([None, networks.size, networks.size, 3], tf.uint8)]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator] # TensorFlow's
    def infer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = networks.frame(tf.cast(image, tf.float32), training=False)
        return outputs

    def run(crops: Crops) -> Outputs:
        found = infer(tf.constant(crops))
        return found["features"].numpy(), found["fake_logit"].numpy()

    return Engine("tensorflow", "tf.function", tf.__version__, tensorflow_threads(), run)


def litert(networks: Networks, bundle: Bundle, threads: int) -> Engine:
    """LiteRT with its XNNPACK kernels, converted from Keras.

    Raises:
        NotInstalled: The package ai-edge-litert is missing.
    """
    del bundle
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415
    except ImportError as error:
        raise NotInstalled("ai-edge-litert is not installed") from error
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    size = networks.size

    @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], tf.uint8)])  # type: ignore[untyped-decorator] # TensorFlow's
    def infer(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = networks.frame(tf.cast(image, tf.float32), training=False)
        return outputs["features"], outputs["fake_logit"]

    # Keras 3 gives the converter variables that LiteRT then finds empty: all features are NaN.
    frozen = convert_variables_to_constants_v2(infer.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    interpreter = Interpreter(model_content=converter.convert(), num_threads=threads)
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    by_rank = {len(out["shape"]): out["index"] for out in interpreter.get_output_details()}

    def run(crops: Crops) -> Outputs:
        interpreter.set_tensor(image["index"], crops)
        interpreter.invoke()
        return interpreter.get_tensor(by_rank[2]), interpreter.get_tensor(by_rank[1])

    return Engine("litert", "LiteRT", version_of("ai-edge-litert") or "?", threads, run)


def openvino(networks: Networks, bundle: Bundle, threads: int) -> Engine:
    """OpenVINO on the bundle's fp32 graph, its batch fixed at 1.

    Raises:
        NotInstalled: The package openvino is missing.
    """
    try:
        ov = load_openvino()
    except ImportError as error:
        raise NotInstalled("openvino is not installed") from error
    core = ov.Core()
    model = core.read_model(_fp32_graph(bundle))
    model.reshape({"image": [1, networks.size, networks.size, 3]})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(crops: Crops) -> Outputs:
        found = request.infer({"image": crops})
        return found["features"], found["fake_logit"]

    return Engine("openvino", "OpenVINO", version_of("openvino") or "?", threads, run)


def load_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry, which reports each import to its maker.

    It takes no setting against it but a file in the user's home folder.

    Raises:
        ImportError: It is not installed.
    """
    hidden = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden is None:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = hidden


def bare_onnxruntime(networks: Networks, bundle: Bundle, threads: int) -> Engine:
    """A loop of `session.run` on the bundle's fp32 graph, onnxruntime's own settings otherwise."""
    del networks
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        _fp32_graph(bundle), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    where = names.index("features"), names.index("fake_logit")

    def run(crops: Crops) -> Outputs:
        found = session.run(names, {"image": crops})
        return found[where[0]], found[where[1]]

    return Engine("onnxruntime", "onnxruntime bare", onnxruntime.__version__, threads, run)


def runtime(bundle: Bundle, threads: int, precision: str) -> Engine:
    """The runtime's own session."""
    session = Session.open(bundle, provider="cpu", precision=precision, threads=threads)

    def run(crops: Crops) -> Outputs:
        found = session.run_frame(crops)
        return found.features, found.fake_logit

    version = version_of("dfd-edge") or "?"
    return Engine(f"runtime_{precision}", f"runtime, {precision}", version, threads, run)


OPENERS = (keras_predict, tensorflow_function, litert, openvino, bare_onnxruntime)
"""The peers of the runtime's fp32."""


def difference(found: Sequence[Float32], wanted: Sequence[Float32]) -> float:
    """Largest difference of two numbers, over the largest of the wanted ones of its array.

    Of arrays whose shapes differ it is infinite, and of what is all zero not a number.
    """
    return max(_relative(a, b) for a, b in zip(found, wanted, strict=True))


def check_distinguishes(features: Float32) -> None:
    """Refuses a network by which engines cannot be checked, as it says the same of all frames.

    Args:
        features: float32 [n, F] of different frames.

    Raises:
        DfdError: No two numbers differ by much more than `TOLERANCE`.
    """
    found = _relative(np.broadcast_to(features[:1], features.shape), features)
    if not found >= 10 * TOLERANCE:
        raise DfdError(
            f"the network's features of different frames differ by {found:.3g} (needed: "
            f"{10 * TOLERANCE:g}): they would not show a fault of an engine: give another CLIP or "
            "other weights"
        )


def _relative(found: Float32, wanted: Float32) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    largest = float(np.abs(wanted).max())
    return float(np.abs(found - wanted).max()) / largest if largest > 0 else float("nan")


def check_same(label: str, found: float) -> None:
    """Refuses what says something else.

    Raises:
        DfdError: The difference is above `TOLERANCE`, or not a number.
    """
    if not found <= TOLERANCE:
        raise DfdError(
            f"{label} differs from the runtime by {found:.3g} (allowed: {TOLERANCE:g}) with the "
            "same weights: nothing was measured: report it as a fault of the exporter"
        )


def _fp32_graph(bundle: Bundle) -> bytes:
    return bundle.read(bundle.manifest.frame.variants["fp32"].file)
