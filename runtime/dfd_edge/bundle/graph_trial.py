"""Cost checks of untrusted graphs: by their sizes, or by a trial in a process of its own.

Graphs of the shipped bundle are trusted. Others are tried only where `graph_size` cannot compute
their sizes. The process has limits of memory and time and ends with them: onnxruntime cannot be
stopped from outside while it computes a single operator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dfd_edge.bundle.graph_size import Shape, TooLarge, check_size
from dfd_edge.errors import BundleError

TRIAL_S = 30.0
"""Time limit; a model of a bundle loads and runs within a second."""
TRIAL_BYTES = 4 << 30
BATCH = 8
STEPS = 2
"""Crops or tracks, and steps, of the inputs that the sizes are computed for."""

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
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("graph_trial_run.py")), shapes],
            input=data,
            env={"ORT_DISABLE_TELEMETRY": "1", **os.environ},
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
        3: f"it cannot be loaded and run in {TRIAL_BYTES >> 30} GiB of memory",
        4: "it cannot be tried in a process of its own (onnxruntime is not found there)",
    }
    killed = f"loading or running it ends the process (signal {-done.returncode})"
    return killed if done.returncode < 0 else faults.get(done.returncode)
