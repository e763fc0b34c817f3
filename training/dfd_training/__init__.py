"""Training: data, synthesis, models, fitting, evaluation, exploration."""

import dfd_edge  # noqa: F401 - before onnxruntime, whose telemetry it switches off
