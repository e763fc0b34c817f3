"""JSON Lines on standard output, and the schema of the records."""

from __future__ import annotations

import json
from typing import Any

from dfd_edge.judging.results import Event, FrameResult, Record, Verdict
from dfd_edge.sinks.console import Printer
from dfd_edge.sinks.sink import Sink
from dfd_edge.text import json_line


class JsonLines(Sink):
    """Prints a JSON object a line for each frame, event and verdict.

    Args:
        printer: Standard output.
        run: The record that describes the run, printed first; None prints none.
    """

    def __init__(self, printer: Printer, run: Record | None = None) -> None:
        self._printer = printer
        if run is not None:
            printer.print(json_line(run))

    def frame(self, result: FrameResult) -> None:
        """Prints the result of a frame."""
        self._printer.print(json_line(result.to_record()))

    def event(self, event: Event) -> None:
        """Prints an event."""
        self._printer.print(json_line(event.to_record()))

    def verdict(self, verdict: Verdict) -> None:
        """Prints a verdict."""
        self._printer.print(json_line(verdict.to_record()))


def records_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of every object that `dfd-edge` writes or posts.

    It covers the four records of `--json` and the body that `--webhook` posts, distinguished by
    `record`. It is the file `records.schema.json` in this package.

    Example:
        >>> schema = records_schema()
        >>> sorted(schema["$defs"]["event"]["required"])
        ['detail', 'kind', 'record', 'source', 'time_s']
    """
    from importlib import resources  # noqa: PLC0415 - it takes a while to load

    text = resources.files("dfd_edge").joinpath("records.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
