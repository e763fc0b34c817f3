"""What a machine can carry: costs of the stages, and how much of them the runtime makes use of."""

import dfd_edge  # noqa: F401 - before onnxruntime, whose telemetry it switches off
