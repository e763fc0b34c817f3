"""Benchmarks: costs of the stages, capacity for streams, comparison with other engines."""

import dfd_edge  # noqa: F401 - before onnxruntime, whose telemetry it switches off
