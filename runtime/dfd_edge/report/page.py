"""From notes to one HTML file that holds all it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dfd_edge.errors import OutputError
from dfd_edge.manifest import DecisionSpec, Manifest
from dfd_edge.outputs.files import written_whole
from dfd_edge.report import words
from dfd_edge.report.collecting import Collector
from dfd_edge.report.html import render_page
from dfd_edge.report.views import NOT_JUDGED, source_views
from dfd_edge.results import Label

if TYPE_CHECKING:
    from dfd_edge.detector import Detector
    from dfd_edge.sources.expand import SourceItem


_TEMPLATE = Path(__file__).with_name("page.html")
_LIMITED = (Label.FAKE, Label.REAL)


@contextlib.contextmanager
def reported(path: Path, detector: Detector, items: Iterable[SourceItem]) -> Iterator[Collector]:
    """Gives a collector and writes the report when the block ends, whole or not at all.

    Args:
        path: The file; after an error in the block it stays as it was.
        detector: What judges.
        items: The sources that are to be judged.

    Raises:
        UsageError: The folder does not exist or cannot be written to.
        OutputError: The file cannot be written.
    """
    with written_whole(path) as partial:
        collector = Collector(items)
        yield collector
        page = render(collector, detector.bundle.manifest, detector.decision.spec)
        try:
            partial.write_text(page, encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def render(collector: Collector, manifest: Manifest, spec: DecisionSpec) -> str:
    """The page as text.

    Args:
        collector: What the run gave.
        manifest: That of the bundle that judged.
        spec: The rules that it judged by.
    """
    known = list(collector.sources.values())
    judged = [notes for notes in known if notes.verdict is not None]
    failed = [notes for notes in known if notes.verdict is None and notes.error is not None]
    undone = [notes for notes in known if notes.verdict is None and notes.error is None]
    step_s = 1.0 / float(collector.run.get("rate_hz") or manifest.sequence.rate_hz)
    sources = source_views(judged, spec, step_s=step_s)
    verdicts = [Label(source.verdict["label"]) for source in sources]
    values = {
        "title": _title(collector),
        "summary": words.summary_words(verdicts, len(failed), len(undone)),
        "sources": sources,
        "failed": failed,
        "undone": undone,
        "not_judged": NOT_JUDGED,
        "spec": spec,
        "limits": {label.value: words.threshold(spec, label) for label in _LIMITED},
        "limit_words": {label.value: words.threshold_words(spec, label) for label in _LIMITED},
        "reasons": words.REASONS,
        "manifest": manifest,
        "subject": "Frame" if manifest.face.detector == "none" else "Person",
        "run": collector.run,
        "records_left_out": collector.frame_records_left_out,
        "clock": words.clock,
        "count": words.count,
    }
    charts = any(person.chart for source in sources for person in source.people)
    records = f"[{','.join(collector.records)}]"
    return render_page(_TEMPLATE, values, records=records, charts=charts)


def _title(collector: Collector) -> str:
    names = list(collector.sources)
    if len(names) == 1:
        return PurePath(names[0]).name or names[0]
    return words.count(len(names), "source", "sources")
