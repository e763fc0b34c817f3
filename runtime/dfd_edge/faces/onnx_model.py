"""Files of the face models, and sessions on them: fixed shapes, batch 1, on the CPU."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import BundleError, DfdError, ProviderError, is_out_of_memory
from dfd_edge.inference.graph import all_finite
from dfd_edge.inference.installation import reason_of

FACE_MODELS_DIR = Path(__file__).resolve().parents[1] / "models" / "face"


def open_face_model(file_name: str, *, threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Opens a face model of `models/face`.

    The face models run on the CPU whatever the provider of the bundle: one takes some 5 ms on
    a single thread, and a copy to an accelerator and back would cost about as much.

    Args:
        file_name: Name of the ONNX file inside `models/face`.
        threads: Threads that onnxruntime may use inside one operator.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ProviderError: When onnxruntime is not installed.
        BundleError: When the file is missing or unreadable.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - `import dfd_edge` must work without onnxruntime
    except ImportError as error:
        raise ProviderError(
            f"onnxruntime cannot be imported ({error}): pip install 'dfd-edge[cpu]'"
        ) from error
    path = FACE_MODELS_DIR / file_name
    if not path.is_file():
        raise BundleError(f"{path}: the face model is missing: install dfd-edge again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises many types of its own
        raise BundleError(f"{path}: onnxruntime refuses the face model: {error}") from error


def run_face_model(
    session: Any,  # noqa: ANN401 - onnxruntime has no types
    name: str,
    image: NDArray[np.float32],
) -> list[NDArray[np.float32]]:
    """Runs a face model on its one input.

    Args:
        session: What `open_face_model` returned.
        name: Its input.
        image: float32 [1, 192, 192, 3].

    Returns:
        The outputs, all finite.

    Raises:
        DfdError: It does not run, or an output is not finite.
    """
    try:
        outputs: list[NDArray[np.float32]] = session.run(None, {name: image})
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime raises many types of its own
        if is_out_of_memory(error):
            raise MemoryError(reason_of(error)) from error
        raise DfdError(f"the face model cannot be run ({reason_of(error)})") from error
    if not all_finite(*outputs):
        raise DfdError(
            "the face model gives numbers that are not finite: onnxruntime does not work on this "
            "machine: install another version"
        )
    return outputs


def face_model_sha256(file_name: str) -> str:
    """Returns the SHA-256 of a face model's file, in hexadecimal."""
    return hashlib.sha256((FACE_MODELS_DIR / file_name).read_bytes()).hexdigest()
