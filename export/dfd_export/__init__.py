"""Export: Keras models to ONNX bundles behind a parity gate."""

import dfd_edge  # noqa: F401 - before onnxruntime, whose telemetry it switches off
