"""The process that `graph_trial` starts: loads the graph on standard input and runs it once.

Exits with 0 when it ran, 1 where onnxruntime refuses it (which it says again where the message is
wanted), 3 where there was too little memory, 4 where there is no onnxruntime.
"""

import contextlib
import json
import sys

import numpy as np


def main() -> int:
    """Runs the graph."""
    asked = json.loads(sys.argv[1])
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (asked["bytes"], asked["bytes"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import onnxruntime  # noqa: PLC0415 - inside the limits
    except ImportError:
        return 4
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
        return 3
    except Exception as error:  # onnxruntime raises types of its own
        text = str(error)
        return 3 if "allocat" in text or "bad_alloc" in text else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
