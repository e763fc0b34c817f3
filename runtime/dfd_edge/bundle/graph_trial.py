"""Cost checks of untrusted graphs: by their sizes, or by a trial in a process of its own.

Graphs of the shipped bundle are trusted. Others are tried only where `graph_size` cannot compute
their sizes. The process has limits of memory and time and ends with them: onnxruntime cannot be
stopped from outside while it computes a single operator.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping

import numpy as np

from dfd_edge.bundle.graph_size import Shape, TooLarge, check_size
from dfd_edge.errors import BundleError, is_out_of_memory

TRIAL_S = 30.0
"""Time limit; a model of a bundle loads and runs within a second."""
TRIAL_BYTES = 4 << 30
BATCH = 8
STEPS = 2
"""Crops or tracks, and steps, of the inputs that the sizes are computed for."""

#: Exit codes of the trial.
_REFUSED, _NO_MEMORY, _NO_ONNXRUNTIME = 1, 3, 4

_passed: set[str] = set()


def check_cost(
    name: str, data: bytes, sha256: str, inputs: Mapping[str, tuple[str, Shape]]
) -> None:
    """Checks that a graph can be loaded and run within bounds of memory and time.

    Args:
        name: The file, for messages.
        data: Its bytes.
        sha256: Their hash; a graph that passed is not checked again in this process.
        inputs: By name, the element type and the shape of what it is run with.

    Raises:
        BundleError: It cannot.
    """
    if sha256 in _passed:
        return
    try:
        known = check_size(data, {key: shape for key, (_, shape) in inputs.items()})
    except (TooLarge, ValueError, RecursionError) as error:
        raise BundleError(f"{name}: {error}: this is no model of a bundle") from error
    if not known and (fault := _try(data, inputs)) is not None:
        raise BundleError(f"{name}: {fault}: this is no model of a bundle")
    _passed.add(sha256)


def _try(data: bytes, inputs: Mapping[str, tuple[str, Shape]]) -> str | None:
    """Returns why a graph cannot be loaded and run; None where it can, or is refused."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return None  # the interpreter is part of an application: it cannot be started for this
    shapes = json.dumps({"bytes": TRIAL_BYTES, "inputs": inputs})
    # It finds the modules where this process does.
    path = {"PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder)}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dfd_edge.bundle.graph_trial", shapes],
            input=data,
            env={"ORT_DISABLE_TELEMETRY": "1", **os.environ, **path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_S,
            check=False,
        )
    except OSError as error:
        return f"it cannot be tried in a process of its own ({error.strerror})"
    except subprocess.TimeoutExpired:
        return f"it cannot be loaded and run within {TRIAL_S:g} s"
    faults = {
        _NO_MEMORY: f"it cannot be loaded and run in {TRIAL_BYTES >> 30} GiB of memory",
        _NO_ONNXRUNTIME: (
            "it cannot be tried in a process of its own (onnxruntime is not found there)"
        ),
    }
    killed = f"loading or running it ends the process (signal {-done.returncode})"
    return killed if done.returncode < 0 else faults.get(done.returncode)


def _run_trial() -> int:
    """Loads the graph on standard input and runs it once, in the process that `_try` starts.

    Returns:
        Exit code: 0 when it ran, `_REFUSED` where onnxruntime refuses it (and does so again where
        the message is shown), `_NO_MEMORY`, or `_NO_ONNXRUNTIME`.
    """
    asked = json.loads(sys.argv[1])
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (asked["bytes"], asked["bytes"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import onnxruntime  # noqa: PLC0415 - inside the limits
    except ImportError:
        return _NO_ONNXRUNTIME
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            sys.stdin.buffer.read(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {n: np.ones(shape, kind) for n, (kind, shape) in asked["inputs"].items()})
    except MemoryError:
        return _NO_MEMORY
    except Exception as error:  # onnxruntime raises types of its own
        return _NO_MEMORY if is_out_of_memory(error) else _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_run_trial())
