"""Renders a report: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dfd_edge.bundle.manifest import DecisionSpec, Manifest
from dfd_edge.errors import DfdError, OutputError, UsageError
from dfd_edge.judging.results import Event, FrameResult, Label, Record, Verdict
from dfd_edge.report import words
from dfd_edge.report.collector import Collector
from dfd_edge.report.html import render_page
from dfd_edge.report.views import NOT_JUDGED, failed_views, source_views
from dfd_edge.sinks.files import FileSink, written_whole
from dfd_edge.sinks.note import program
from dfd_edge.sinks.sink import Images

if TYPE_CHECKING:
    from dfd_edge.detector import Detector
    from dfd_edge.provenance.signing import Signer
    from dfd_edge.sinks.note import SourceHashes
    from dfd_edge.sources.expand import SourceItem
    from dfd_edge.view.overlay import Scene


_TEMPLATE = Path(__file__).with_name("page.html")
_LIMITED = (Label.FAKE, Label.REAL)
_LIBRARIES = ("jinja2", "plotly")
_SUFFIXES = (".html", ".htm")


class Report(FileSink):
    """Collects what a run gives and writes the report when the block is left.

    Args:
        path: The file; after an error in the block it stays as it was.
        detector: What judges.
        items: The sources that are to be judged.
        run: The record that describes the run.
        hashes: Hashes of the judged files, which the page shows; None for none.
        signer: Signs the page, in a file beside it; None leaves it unsigned.
    """

    images = Images.JUDGED

    def __init__(
        self,
        path: Path,
        detector: Detector,
        items: Iterable[SourceItem],
        run: Record,
        *,
        hashes: SourceHashes | None = None,
        signer: Signer | None = None,
    ) -> None:
        super().__init__(path)
        self.collector = Collector(items, run)
        self._detector = detector
        self._hashes = hashes
        self._signer = signer
        self._partial = path

    def frame(self, result: FrameResult) -> None:
        """Receives the result of a frame."""
        self.collector.frame(result)

    def image(self, scene: Scene) -> None:
        """Receives a decoded frame with the newest result."""
        self.collector.image(scene)

    def event(self, event: Event) -> None:
        """Receives an event."""
        self.collector.event(event)

    def verdict(self, verdict: Verdict) -> None:
        """Receives a verdict."""
        self.collector.verdict(verdict)

    def start(self, partial: Path) -> None:
        """Notes the temporary name; the page is written at the end."""
        self._partial = partial

    def finish(self) -> None:
        """Writes the page, and its manifest where there is a signer.

        Raises:
            OutputError: It cannot be written.
            DfdError: It cannot be signed.
        """
        manifest, spec = self._detector.bundle.manifest, self._detector.decision.spec
        if self._hashes is not None:
            for name, notes in self.collector.sources.items():
                notes.sha256 = self._hashes.get(name)
        page = render(self.collector, manifest, spec)
        try:
            self._partial.write_text(page, encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
        if self._signer is not None:
            self._sign(self._signer, page.encode("utf-8"))

    def _sign(self, signer: Signer, page: bytes) -> None:
        """Writes the manifest of the page to a file beside it."""
        from dfd_edge.provenance.signing import sidecar_for  # noqa: PLC0415 - few runs sign

        sidecar = sidecar_for(self.path)
        try:
            manifest = signer.sign_page(page, self.path.name, note_of(self.collector))
        except DfdError as error:
            raise DfdError(f"{self.path}: the report cannot be signed ({error})") from error
        with written_whole(sidecar) as partial:
            try:
                partial.write_bytes(manifest)
            except OSError as error:
                raise OutputError(f"{sidecar}: cannot be written ({error.strerror})") from error

    def discard(self) -> None:
        """Writes nothing."""


def render(collector: Collector, manifest: Manifest, spec: DecisionSpec) -> str:
    """Returns the page as text.

    Args:
        collector: Results of the run.
        manifest: Manifest of the bundle that judged.
        spec: Decision rules of that bundle.
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
        "stated": any(notes.provenance for notes in known),
        "failed": failed_views(failed),
        "undone": undone,
        "not_judged": NOT_JUDGED,
        "spec": spec,
        "limits": {label.value: words.threshold(spec, label) for label in _LIMITED},
        "limit_words": {label.value: words.threshold_words(spec, label) for label in _LIMITED},
        "reasons": words.REASONS,
        "manifest": manifest,
        "subject": "Frame" if manifest.face.detector == "none" else "Person",
        "run": collector.run,
        "note": note_of(collector),
        "records_left_out": collector.frame_records_left_out,
        "clock": words.clock,
        "count": words.count,
    }
    charts = any(person.chart for source in sources for person in source.people)
    records = f"[{','.join(collector.records)}]"
    return render_page(_TEMPLATE, values, records=records, charts=charts)


def note_of(collector: Collector) -> str:
    """Returns the note on what the page is, in one line."""
    name, version = program()
    bundle = collector.run["bundle"]["hash"]
    only = next(iter(collector.sources.values())) if len(collector.sources) == 1 else None
    if only is not None and only.sha256 is not None:
        sources = f"source SHA-256 {only.sha256}"
    else:
        sources = words.count(len(collector.sources), "source", "sources")
    return f"report by {name} {version}; not the judged material; {sources}; bundle {bundle}"


def _title(collector: Collector) -> str:
    names = list(collector.sources)
    if len(names) == 1:
        return PurePath(names[0]).name or names[0]
    return words.count(len(names), "source", "sources")


def check_report(path: Path) -> None:
    """Refuses a report that could not be written or would not be opened as a page.

    Raises:
        UsageError: The suffix is not that of a page, or jinja2 or plotly cannot be imported.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--report: {path}: a report is written as {' or '.join(_SUFFIXES)}")
    for library in _LIBRARIES:
        try:
            import_module(library)
        except ImportError as error:
            raise UsageError(
                f"--report needs {' and '.join(_LIBRARIES)}, but {library} cannot be imported "
                f"({error}): run `pip install 'dfd-edge[report]'`"
            ) from error
