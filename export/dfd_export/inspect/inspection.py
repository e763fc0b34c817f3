"""Contents of a bundle or a single graph: files, graphs, costs, metadata, card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from dfd_edge.bundle import METADATA_PREFIX, Bundle
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.errors import BundleError
from dfd_edge.text import printable
from dfd_export.bundles.card import render_card
from dfd_training.evaluation.graph_cost import LayerCost, Stored, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphReport:
    """An ONNX file.

    Attributes:
        file: Its name.
        bytes: Its size.
        sha256: Its hash, hexadecimal.
        ir_version: Version of the file format.
        opsets: By domain, the version of the operators.
        nodes: Number of operators, without those of subgraphs.
        operators: How often each occurs, the commonest first.
        inputs: By name, type and axes.
        outputs: By name, type and axes.
        parameters: Weights of all layers.
        stored: By element type, the numbers that the file stores.
        macs: Multiply-accumulates with 1 for every named axis: of one crop, or of one step.
        unknown_macs: The operators whose part in `macs` is not known.
        layers: The operators that multiply and accumulate, the largest first.
        external_data: Other files that hold weights of the graph.
        metadata: The file's metadata.
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
        """Returns the file's metadata under one of `dfd-export`'s keys."""
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


_UNIT = {"frame": "a crop", "sequence": "a step"}


def bundle_text(bundle: Bundle, report: BundleReport, *, layers: int = 0) -> str:
    """Files with hashes, variants, graphs and the card.

    Args:
        bundle: The bundle.
        report: Its report by `inspect_bundle`.
        layers: Number of each graph's largest layers to list.
    """
    manifest = bundle.manifest
    lines = [f"{manifest.name}  {bundle.hash}  written {manifest.created}  {bundle.path}"]
    width = max(len(name) for name in manifest.files)
    for name, entry in manifest.files.items():
        lines.append(f"  {name:<{width}}  {entry.size:>10,} bytes  sha256 {entry.sha256}")
    for precision, variant in report.manifest["frame"]["variants"].items():
        said = flatten({k: v for k, v in variant.items() if k not in ("file", "probe_logit")})
        shown = {name: value for name, value in said.items() if value is not None}
        if shown:
            lines += ["", f"variant {precision}: {variant['file']}"]
            lines += [f"  {name} = {_value(value)}" for name, value in shown.items()]
    for graph in report.graphs:
        lines += ["", graph_text(graph, layers=layers)]
    return printable_lines("\n".join([*lines, "", render_card(manifest)]))


def graph_text(report: GraphReport, *, layers: int = 0) -> str:
    """One graph: what it is, size, work, operators, axes, metadata.

    Args:
        report: Its report by `inspect_graph`.
        layers: Number of its largest layers to list.
    """
    return printable_lines("\n".join(_graph_lines(report, layers)))


def printable_lines(text: str) -> str:
    """The text with control characters but line ends spelt out: files can say anything."""
    return "\n".join(printable(line) for line in text.split("\n"))


def flatten(value: object, name: str = "") -> dict[str, object]:
    """The leaves of nested objects and lists by dotted names; empty ones have none."""
    if isinstance(value, Mapping):
        parts = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{name}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for part, item in parts for key, leaf in flatten(item, part).items()}


def _graph_lines(report: GraphReport, layers: int) -> Iterator[str]:
    opsets = ", ".join(
        f"opset {version}" if domain == "ai.onnx" else f"{domain} {version}"
        for domain, version in report.opsets.items()
    )
    yield f"{report.file}: {opsets}, IR version {report.ir_version}, {report.nodes} nodes"
    yield f"  is          {_identity(report)}"
    stored = ", ".join(
        f"{dtype} {entry.numbers:,} ({entry.bytes:,} bytes)"
        for dtype, entry in report.stored.items()
    )
    yield f"  size        {report.bytes:,} bytes; stored: {stored or 'nothing'}"
    yield f"  parameters  {report.parameters:,}"
    unit = _UNIT.get(report.says("graph") or "", "with 1 for every named axis")
    yield f"  MACs        {report.macs:,} ({_short(report.macs)}) {unit}{_unknown(report)}"
    operators = ", ".join(f"{operator} {count}" for operator, count in report.operators.items())
    yield f"  operators   {operators}"
    for side, values in (("input", report.inputs), ("output", report.outputs)):
        for name, signature in values.items():
            yield f"  {side:<10}  {name}: {signature}"
    for path in report.external_data:
        yield f"  weights in  {path!r:.80}, another file: no bundle takes this graph"
    for key, value in report.metadata.items():
        yield f"  metadata    {key} = {value}"
    if layers:
        yield f"  largest {min(layers, len(report.layers))} of {len(report.layers)} layers, by MACs"
        yield f"    {'MACs':>13}  {'parameters':>10}  {'operator':<12}  {'output':<20}  weight"
    for layer in report.layers[:layers]:
        macs = "unknown" if layer.macs is None else f"{layer.macs:,}"
        shape = "unknown" if layer.shape is None else f"{list(layer.shape)}"
        yield (
            f"    {macs:>13}  {layer.parameters:>10,}  {layer.operator:<12}  {shape:<20}  "
            f"{layer.weight or layer.name}"
        )


def _identity(report: GraphReport) -> str:
    role, bundle = report.says("graph"), report.says("bundle")
    if role is None or bundle is None:
        return "not written by dfd-export: its metadata names no bundle"
    precision = report.says("precision")
    written = report.says("created") or "at an unknown time"
    return (
        f"the {role} graph{f' ({precision})' if precision else ''} of {bundle}, written {written}"
    )


def _unknown(report: GraphReport) -> str:
    count = len(report.unknown_macs)
    if not count:
        return ""
    names = ", ".join(report.unknown_macs[:3]) + (", …" if count > 3 else "")
    return f", without {count} operators whose work is not known ({names})"


def _short(macs: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= size / 10:
            return f"{macs / size:.3g} {unit}"
    return f"{macs}"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
