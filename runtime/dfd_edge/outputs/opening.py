"""Opens what the command line was asked to write."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from dfd_edge.errors import SourceError
from dfd_edge.outputs.csv_file import opened_csv
from dfd_edge.outputs.reporter import Reporter

if TYPE_CHECKING:
    from dfd_edge.detector import Detector, OnImage
    from dfd_edge.results import Event
    from dfd_edge.sources import SourceItem


def report_missing(errors: list[SourceError], events: list[Event], *, as_json: bool) -> None:
    """Tells what could not be found, where nothing else is to be judged."""
    Reporter(as_json=as_json).failures_of(errors, events)


def open_reporter(
    outputs: contextlib.ExitStack,
    detector: Detector,
    items: list[SourceItem],
    *,
    as_json: bool,
    csv_path: Path | None,
    report_path: Path | None,
    webhook: str | None,
) -> tuple[Reporter, OnImage | None]:
    """What takes the results, and what takes the frames where something is made of them.

    The files are finished when `outputs` is left, or thrown away after an error; then the webhook
    gets the time it needs, within bounds.

    Raises:
        UsageError: A file cannot be written, or the webhook is no http or https address.
    """
    hook = None
    if webhook is not None:
        from dfd_edge.outputs.endpoint import Endpoint  # noqa: PLC0415 - few runs need it
        from dfd_edge.outputs.webhook import Webhook  # noqa: PLC0415

        hook = outputs.enter_context(Webhook(Endpoint.parse(webhook)))
    csv_file = None
    if csv_path is not None:
        csv_file = outputs.enter_context(opened_csv(csv_path))
    if report_path is None:
        return Reporter(as_json=as_json, csv_file=csv_file, webhook=hook), None
    from dfd_edge.report import CollectingReporter, reported  # noqa: PLC0415 - it imports Reporter

    collector = outputs.enter_context(reported(report_path, detector, items))
    reporter = CollectingReporter(collector, as_json=as_json, csv_file=csv_file, webhook=hook)
    return reporter, collector.image
