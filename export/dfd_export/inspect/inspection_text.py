"""The reports of `dfd-export inspect` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dfd_edge.bundle import Bundle
from dfd_edge.sinks.text import printable
from dfd_export.bundles.card import render_card
from dfd_export.inspect.inspection import BundleReport, GraphReport

_UNIT = {"frame": "a crop", "sequence": "a step"}


def bundle_text(bundle: Bundle, report: BundleReport, *, layers: int = 0) -> str:
    """Files with hashes, variants, graphs and the card.

    Args:
        bundle: The bundle.
        report: What `inspect_bundle` made of it.
        layers: How many of each graph's largest layers to list.
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
        report: What `inspect_graph` made of it.
        layers: How many of its largest layers to list.
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
