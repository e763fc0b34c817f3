"""What is in a bundle, or in a single graph: files, graphs, costs, metadata, card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from dfd_edge.bundle import METADATA_PREFIX, Bundle
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.errors import BundleError
from dfd_export.inspect.macs import LayerCost, Stored, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphReport:
    """An ONNX file.

    Attributes:
        file: Its name.
        bytes: Its size.
        sha256: Its hash, hexadecimal.
        ir_version: Version of the file format.
        opsets: By domain, the version of the operators.
        nodes: How many operators the graph has, without those of subgraphs.
        operators: How often each occurs, the commonest first.
        inputs: By name, type and axes.
        outputs: By name, type and axes.
        parameters: Weights of all layers.
        stored: By element type, the numbers that the file stores.
        macs: Multiply-accumulates with 1 for every named axis: of one crop, or of one step.
        unknown_macs: The operators whose part in `macs` is not known.
        layers: The operators that multiply and accumulate, the largest first.
        external_data: Other files that hold weights of the graph.
        metadata: What the file says of itself.
    """

    file: str
    bytes: int
    sha256: str
    ir_version: int
    opsets: dict[str, int]
    nodes: int
    operators: dict[str, int]
    inputs: dict[str, str]
    outputs: dict[str, str]
    parameters: int
    stored: dict[str, Stored]
    macs: int
    unknown_macs: tuple[str, ...]
    layers: tuple[LayerCost, ...]
    external_data: tuple[str, ...]
    metadata: dict[str, str]

    def says(self, key: str) -> str | None:
        """What the file's metadata says under one of `dfd-export`'s keys."""
        return self.metadata.get(METADATA_PREFIX + key)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """A bundle.

    Attributes:
        path: Its folder.
        sha256: Hash of its manifest, hexadecimal.
        manifest: All that the manifest says, as in the file.
        graphs: Its graphs, the frame model's variants first.
    """

    path: str
    sha256: str
    manifest: dict[str, Any]
    graphs: tuple[GraphReport, ...]


def inspect_bundle(bundle: Bundle) -> BundleReport:
    """Examines a bundle.

    Raises:
        BundleError: A file changed since the bundle was loaded, or a graph is damaged.
    """
    return BundleReport(
        path=str(bundle.path),
        sha256=bundle.sha256,
        manifest=json.loads(bundle.manifest.to_json()),
        graphs=tuple(
            inspect_graph(bundle.path / name, bundle.read(name))
            for name in bundle.manifest.graphs()
        ),
    )


def inspect_graph(path: Path, data: bytes | None = None) -> GraphReport:
    """Examines an ONNX file, of a bundle or of anything else.

    Args:
        path: The file.
        data: Its bytes, where they have been read.

    Raises:
        BundleError: It cannot be read, is no ONNX file, or is a damaged one.
    """
    if data is None:
        data = _read(path)
    try:
        declared = read_onnx(data)
        model = onnx.load_model_from_string(data)
    except (ValueError, RecursionError, DecodeError) as error:
        raise BundleError(f"{path}: not an ONNX graph ({error})") from error
    try:
        cost = measure(model)
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise BundleError(f"{path}: a damaged graph ({error}): export it again") from error
    return GraphReport(
        file=path.name,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        ir_version=declared.ir_version,
        opsets=declared.opsets,
        nodes=len(model.graph.node),
        operators=dict(sorted(declared.operators.items(), key=lambda item: -item[1])),
        inputs={name: str(signature) for name, signature in declared.inputs.items()},
        outputs={name: str(signature) for name, signature in declared.outputs.items()},
        parameters=cost.parameters,
        stored=cost.stored,
        macs=cost.macs,
        unknown_macs=cost.unknown,
        layers=tuple(sorted(cost.layers, key=lambda layer: -(layer.macs or 0))),
        external_data=declared.external_data,
        metadata=declared.metadata,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
