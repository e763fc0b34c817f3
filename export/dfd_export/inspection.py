"""What is in a bundle, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx

from dfd_edge.bundle import Bundle
from dfd_edge.onnx_file import read_onnx
from dfd_export.card import render_card


def describe(bundle: Bundle) -> str:
    """Graphs with operators, axes, sizes, parameters and metadata; files with hashes; the card."""
    return "\n".join(_lines(bundle)) + "\n\n" + render_card(bundle.manifest)


def _lines(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    yield f"{manifest.name}  {bundle.hash}  written {manifest.created}  {bundle.path}"
    for name, entry in manifest.files.items():
        yield f"  {name:<16} {entry.size:>10,} bytes  sha256 {entry.sha256}"
    for name in manifest.graphs():
        yield from _graph_lines(name, bundle.read(name))


def _graph_lines(name: str, data: bytes) -> Iterator[str]:
    declared = read_onnx(data)
    model = onnx.load_model_from_string(data)
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    yield ""
    yield f"{name}: opset {opset}, {len(model.graph.node)} nodes, {parameters:,} parameters"
    operators = Counter(declared.operators).most_common()
    yield "  operators  " + ", ".join(f"{operator} {count}" for operator, count in operators)
    for side, values in (("input", declared.inputs), ("output", declared.outputs)):
        for value, signature in values.items():
            yield f"  {side:<9}  {value}: {signature}"
    for entry in model.metadata_props:
        yield f"  metadata   {entry.key} = {entry.value}"
