"""The report of `dfd-export diff` as text."""

from __future__ import annotations

from collections.abc import Iterator

from dfd_edge.bundle import Bundle
from dfd_export.inspect.diff import BundleDiff, Change, GraphDiff, LogitDiff, Value
from dfd_export.inspect.inspection_text import printable_lines

_SHOWN = 5
"""As many weights of a graph are listed; the rest are in the JSON."""
_LONGEST = 60
"""Texts are cut off after as many characters; the JSON has them whole."""


def diff_text(first: Bundle, second: Bundle, diff: BundleDiff) -> str:
    """What differs, part by part; parts that are the same are not shown."""
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
