"""Differences between two bundles: manifest, files, graphs, and logits on one bundle's probe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dfd_edge.bundle import METADATA_PREFIX, Bundle
from dfd_edge.errors import BundleError, DfdError, ProviderError
from dfd_edge.inference.session import Session
from dfd_edge.schema import to_plain
from dfd_export.bundles.card import CARD_FILE
from dfd_export.bundles.probe import read_probe, run_probe
from dfd_export.inspect.inspection import GraphReport, flatten, inspect_graph, printable_lines

_DATE_KEY = METADATA_PREFIX + "created"

Value = object
"""A leaf of the manifest: a text, a number, a truth value, or None where it is not there."""


@dataclass(frozen=True, slots=True)
class Change:
    """A fact that differs: its name, and what it is in the first and in the second bundle."""

    name: str
    first: Value
    second: Value


@dataclass(frozen=True, slots=True)
class TensorChange:
    """Weights of one name and shape that differ, and by how much at most."""

    name: str
    largest_difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDiff:
    """Differences between two graphs of one role.

    Attributes:
        role: "sequence", or "frame" with the precision, and "optimized" where it is that graph.
        changes: Opset, operators, parameters, multiply-accumulates, axes, metadata.
        nodes_equal: The operators, what they read and their attributes are the same, in order;
            names inside a graph do not count.
        weights: Number of weights that were compared: by place where the nodes are equal, else and
            where no node reads them by name, of one shape and type.
        changed: Those that differ, the largest difference first, by the first graph's names.
        only_first: Weights of the first graph that were not compared.
        only_second: Weights of the second graph that were not compared.
    """

    role: str
    changes: tuple[Change, ...]
    nodes_equal: bool
    weights: int
    changed: tuple[TensorChange, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether graphs and manifests are the same, except for the dates."""
        dated = all(change.name == f"metadata {_DATE_KEY}" for change in self.changes)
        weights = self.changed or self.only_first or self.only_second
        return self.nodes_equal and dated and not weights


@dataclass(frozen=True, slots=True)
class LogitDiff:
    """Differences of the logits of two bundles on the first one's probe.

    Attributes:
        precision: The variant of both.
        output: "fake_logit" of the frame graph, or "step_logit" of both graphs as one clip.
        mean: Mean difference without sign, in logits; None where a logit is not finite.
        largest: Largest difference; None likewise.
    """

    precision: str
    output: str
    mean: float | None
    largest: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleDiff:
    """Differences between two bundles.

    Attributes:
        manifest: Fields by dotted names, without those of the files.
        added: Files that only the second has.
        removed: Files that only the first has.
        changed: Files that both have with other bytes.
        graphs: The graphs that both have, by role.
        logits: Logits on the first bundle's probe crops; None where the crops do not fit.
        not_run: By precision, why its logits could not be compared.
        identical: All bytes are the same.
        same: All is the same but when it was written.
    """

    manifest: tuple[Change, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    graphs: tuple[GraphDiff, ...]
    logits: tuple[LogitDiff, ...] | None
    not_run: dict[str, str]
    identical: bool
    same: bool


def diff_bundles(first: Bundle, second: Bundle) -> BundleDiff:
    """Compares two bundles.

    Raises:
        BundleError: A file changed since its bundle was loaded, or a graph or the probe is damaged.
        ProviderError: onnxruntime is not usable.
    """
    manifest = _changes(_facts(first), _facts(second))
    files = first.manifest.files, second.manifest.files
    changed = tuple(n for n in files[0] if n in files[1] and files[0][n] != files[1][n])
    graphs = tuple(_diff_graphs(first, second))
    added = tuple(name for name in files[1] if name not in files[0])
    removed = tuple(name for name in files[0] if name not in files[1])
    dated = {graph for bundle in (first, second) for graph in bundle.manifest.graphs()}
    explained = all(name in dated or _only_dates(first, second, name) for name in changed)
    identical = first.sha256 == second.sha256
    logits, not_run = _diff_logits(first, second)
    return BundleDiff(
        manifest=manifest,
        added=added,
        removed=removed,
        changed=changed,
        graphs=graphs,
        logits=logits,
        not_run=not_run,
        identical=identical,
        same=identical
        or (
            explained
            and not (added or removed)
            and all(change.name == "created" for change in manifest)
            and all(graph.same for graph in graphs)
        ),
    )


def _facts(bundle: Bundle) -> dict[str, Value]:
    plain = to_plain(bundle.manifest)
    del plain["files"]
    if (signals := plain["sequence"].get("signals")) is not None:
        for names in ("names", "units"):  # one line each in place of one a measurement
            signals[names] = ", ".join(signals[names])
    return flatten(plain)


def _changes(first: dict[str, Value], second: dict[str, Value]) -> tuple[Change, ...]:
    names = [*first, *(name for name in second if name not in first)]
    return tuple(
        Change(name, first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name)
    )


def _only_dates(first: Bundle, second: Bundle, name: str) -> bool:
    """Returns whether the card differs by nothing but the date in it."""
    if name != CARD_FILE:
        return False
    date = first.manifest.created.encode(), second.manifest.created.encode()
    return first.read(name).replace(date[0], date[1]) == second.read(name)


def _roles(bundle: Bundle) -> dict[str, str]:
    roles = {}
    for precision, variant in bundle.manifest.frame.variants.items():
        roles[f"frame {precision}"] = variant.file
        if variant.optimized is not None:
            roles[f"frame {precision} optimized"] = variant.optimized.file
    return {**roles, "sequence": bundle.manifest.sequence.file}


def _diff_graphs(first: Bundle, second: Bundle) -> list[GraphDiff]:
    roles = _roles(first), _roles(second)
    return [
        _diff_graph(role, first, roles[0][role], second, roles[1][role])
        for role in roles[0]
        if role in roles[1]
    ]


def _diff_graph(
    role: str, first: Bundle, first_file: str, second: Bundle, second_file: str
) -> GraphDiff:
    data = first.read(first_file), second.read(second_file)
    reports = (
        inspect_graph(first.path / first_file, data[0]),
        inspect_graph(second.path / second_file, data[1]),
    )
    models = onnx.load_model_from_string(data[0]), onnx.load_model_from_string(data[1])
    weights = (
        _weights(first.path / first_file, models[0]),
        _weights(second.path / second_file, models[1]),
    )
    nodes, places = zip(*(_structure(model.graph) for model in models), strict=True)
    nodes_equal = nodes[0] == nodes[1]
    twins = dict(zip(*places, strict=True)) if nodes_equal else {}
    placed = set(twins.values())
    twins = {n: n for n in weights[0] if n not in twins and n not in placed} | twins
    pairs = {
        name: twins[name]
        for name, weight in weights[0].items()
        if twins.get(name) in weights[1] and _alike(weight, weights[1][twins[name]])
    }
    differences = [(n, _largest_difference(weights[0][n], weights[1][t])) for n, t in pairs.items()]
    changed = [TensorChange(name, largest) for name, largest in differences if largest]
    return GraphDiff(
        role=role,
        changes=_changes(_graph_facts(reports[0]), _graph_facts(reports[1])),
        nodes_equal=nodes_equal,
        weights=len(pairs),
        changed=tuple(sorted(changed, key=lambda change: -change.largest_difference)),
        only_first=tuple(name for name in weights[0] if name not in pairs),
        only_second=tuple(name for name in weights[1] if name not in pairs.values()),
    )


def _graph_facts(report: GraphReport) -> dict[str, Value]:
    facts: dict[str, Value] = {
        "IR version": report.ir_version,
        "parameters": report.parameters,
        "MACs": report.macs,
    }
    for title, entries in (
        ("opset", report.opsets),
        ("operator", report.operators),
        ("input", report.inputs),
        ("output", report.outputs),
        ("metadata", report.metadata),
    ):
        facts |= {f"{title} {name}": value for name, value in entries.items()}
    return facts


def _structure(graph: onnx.GraphProto) -> tuple[list[bytes], list[str]]:
    """The nodes with values numbered in order of appearance, and the values' own names.

    Keras and tf2onnx count their names up, so that a second export has others than the first.
    """
    numbers = {value.name: value.name for value in (*graph.input, *graph.output)}
    nodes = []
    for node in graph.node:
        plain = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
        for names, found in ((plain.input, node.input), (plain.output, node.output)):
            names.extend(name and numbers.setdefault(name, f"{len(numbers)}") for name in found)
        plain.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
        nodes.append(plain.SerializeToString(deterministic=True))
    return nodes, list(numbers)


def _weights(path: Path, model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    tensors = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for sparse in model.graph.sparse_initializer:
        tensors += [(sparse.values.name, sparse.values)]
        tensors += [(f"indices of {sparse.values.name}", sparse.indices)]
    arrays = {}
    for name, tensor in tensors:
        try:
            arrays[name] = numpy_helper.to_array(tensor)
        except (ValueError, LookupError, TypeError) as error:
            raise BundleError(
                f"{path}: the weight {name!r:.80} is damaged ({error}): export the bundle again"
            ) from error
    return arrays


def _alike(first: NDArray[np.generic], second: NDArray[np.generic]) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype


def _largest_difference(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    if first.dtype.hasobject:  # texts, which are equal or as far as can be
        return 0.0 if np.array_equal(first, second) else float(np.finfo(np.float64).max)
    if not first.size or first.tobytes() == second.tobytes():
        return 0.0
    difference = np.abs(first.astype(np.float64) - second.astype(np.float64))
    largest = float(difference.max())
    # NaN and infinities have no difference in JSON; they are as far as can be.
    return largest if math.isfinite(largest) else float(np.finfo(np.float64).max)


def _diff_logits(
    first: Bundle, second: Bundle
) -> tuple[tuple[LogitDiff, ...] | None, dict[str, str]]:
    """The differences by precision, and why others could not be measured."""
    sizes = [bundle.manifest.frame.input_size for bundle in (first, second)]
    if sizes[0] != sizes[1]:
        return None, {}
    crops = read_probe(first)
    diffs: list[LogitDiff] = []
    not_run = {}
    for precision in first.manifest.frame.variants:
        if precision not in second.manifest.frame.variants:
            continue
        try:
            diffs += _diff_variant(first, second, precision, crops)
        except ProviderError:
            raise
        except DfdError as error:
            not_run[precision] = str(error)
    return tuple(diffs), not_run


def _diff_variant(
    first: Bundle, second: Bundle, precision: str, crops: NDArray[np.uint8]
) -> Iterator[LogitDiff]:
    runs = [
        run_probe(Session.open(bundle, provider="cpu", precision=precision), crops)
        for bundle in (first, second)
    ]
    for output, one, other in zip(("fake_logit", "step_logit"), *runs, strict=True):
        if np.isfinite(one).all() and np.isfinite(other).all():
            difference = np.abs(one.astype(np.float64) - other)
            yield LogitDiff(precision, output, float(difference.mean()), float(difference.max()))
        else:
            yield LogitDiff(precision, output, None, None)


_SHOWN = 5
"""As many weights of a graph are listed; the rest are in the JSON."""
_LONGEST = 60
"""Texts are cut off after as many characters; the JSON has them whole."""


def diff_text(first: Bundle, second: Bundle, diff: BundleDiff) -> str:
    """Formats the differences part by part; parts that are the same are not shown."""
    return printable_lines("\n".join(_lines(first, second, diff)))


def _lines(first: Bundle, second: Bundle, diff: BundleDiff) -> Iterator[str]:
    for sign, bundle in (("-", first), ("+", second)):
        manifest = bundle.manifest
        yield f"{sign} {manifest.name}  {bundle.hash}  written {manifest.created}  {bundle.path}"
    if diff.identical:
        yield "the same bundle, byte for byte"
        return
    if diff.same:
        yield "the same but for the time when they were written"
        return
    yield from _section("manifest", [_change(change) for change in diff.manifest])
    yield from _section("files", _files(first, second, diff))
    for graph in diff.graphs:
        yield from _section(graph.role, _graph(graph))
    if diff.logits is None:
        sizes = [bundle.manifest.frame.input_size for bundle in (first, second)]
        yield ""
        yield (
            f"logits were not compared: the first takes crops of {sizes[0]} px, the second of "
            f"{sizes[1]} px"
        )
    else:
        count = len(first.manifest.probe.fake_logit)
        title = f"logits on the first one's {count} probe crops, differences"
        yield from _section(title, [_logits(entry) for entry in diff.logits])
        failures = [f"{precision}: {reason}" for precision, reason in diff.not_run.items()]
        yield from _section("logits were not compared", failures)


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield title
        yield from (f"  {line}" for line in lines)


def _change(change: Change) -> str:
    return f"{change.name}: {_value(change.first)} -> {_value(change.second)}"


def _files(first: Bundle, second: Bundle, diff: BundleDiff) -> list[str]:
    sizes = [
        {name: entry.size for name, entry in bundle.manifest.files.items()}
        for bundle in (first, second)
    ]
    return [
        *(f"- {name}  {sizes[0][name]:,} bytes" for name in diff.removed),
        *(f"+ {name}  {sizes[1][name]:,} bytes" for name in diff.added),
        *(f"! {name}  {sizes[0][name]:,} -> {sizes[1][name]:,} bytes" for name in diff.changed),
    ]


def _graph(graph: GraphDiff) -> list[str]:
    if graph.same:
        return []
    lines = [] if graph.nodes_equal else ["its nodes differ"]
    lines += [_change(change) for change in graph.changes]
    for sign, names in (("-", graph.only_first), ("+", graph.only_second)):
        lines += [f"{sign} weight {name}" for name in names[:_SHOWN]]
        lines += _rest(len(names), "weights")
    if graph.changed:
        lines.append(f"{len(graph.changed)} of {graph.weights} weights differ, at most by")
        lines += [f"  {c.largest_difference:<10.4g} {c.name}" for c in graph.changed[:_SHOWN]]
        lines += _rest(len(graph.changed), "weights that differ less")
    elif graph.weights:
        lines.append(f"{graph.weights} weights are equal")
    return lines


def _rest(count: int, of_what: str) -> list[str]:
    return [f"… and {count - _SHOWN} more {of_what}"] if count > _SHOWN else []


def _logits(entry: LogitDiff) -> str:
    if entry.mean is None or entry.largest is None:
        return f"{entry.precision} {entry.output}: not finite"
    return f"{entry.precision} {entry.output}: mean {entry.mean:.4g}, largest {entry.largest:.4g}"


def _value(value: Value) -> str:
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else f"{value}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
