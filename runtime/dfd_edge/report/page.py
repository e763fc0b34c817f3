"""Renders a report: one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dfd_edge.errors import OutputError, UsageError
from dfd_edge.judging.results import Event, FrameResult, Label, Record, Verdict
from dfd_edge.manifest import DecisionSpec, Manifest
from dfd_edge.report import words
from dfd_edge.report.collector import Collector
from dfd_edge.report.views import NOT_JUDGED, source_views
from dfd_edge.sinks.files import FileSink
from dfd_edge.sinks.sink import Images
from dfd_edge.sinks.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

    from dfd_edge.detector import Detector
    from dfd_edge.sources.expand import SourceItem
    from dfd_edge.view.overlay import Scene


FOLDER = Path(__file__).resolve().parent
"""Folder of the template, styles and script, which other pages of the project share."""
#: Escapes, valid in JSON, of the characters that could end or open a script element.
_IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_LIBRARIES = ("jinja2", "plotly")
_SUFFIXES = (".html", ".htm")


class Report(FileSink):
    """Collects what a run gives and writes the report when the block is left.

    Args:
        path: The file; after an error in the block it stays as it was.
        detector: What judges.
        items: The sources that are to be judged.
        run: The record that describes the run.
    """

    images = Images.JUDGED

    def __init__(
        self, path: Path, detector: Detector, items: Iterable[SourceItem], run: Record
    ) -> None:
        super().__init__(path)
        self.collector = Collector(items, run)
        self._detector = detector
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
        """Writes the page.

        Raises:
            OutputError: It cannot be written.
        """
        manifest, spec = self._detector.bundle.manifest, self._detector.decision.spec
        page = render(self.collector, manifest, spec)
        try:
            self._partial.write_text(page, encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error

    def discard(self) -> None:
        """Writes nothing."""


def render(collector: Collector, manifest: Manifest, spec: DecisionSpec) -> str:
    """Returns the page as text.

    Args:
        collector: Results of the run.
        manifest: Manifest of the bundle that judged.
        spec: Decision rules of that bundle.
    """
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    known = list(collector.sources.values())
    judged = [notes for notes in known if notes.verdict is not None]
    failed = [notes for notes in known if notes.verdict is None and notes.error is not None]
    undone = [notes for notes in known if notes.verdict is None and notes.error is None]
    step_s = 1.0 / float(collector.run.get("rate_hz") or manifest.sequence.rate_hz)
    sources = source_views(judged, spec, step_s=step_s)
    scripts = [(FOLDER / "page.js").read_text("utf-8")]
    if any(person.figure for source in sources for person in source.people):
        scripts.insert(0, str(get_plotlyjs()))
    verdicts = [Label(source.verdict["label"]) for source in sources]
    now = datetime.now().astimezone()
    template = page_environment(FOLDER).get_template("page.html")
    return template.render(
        title=_title(collector),
        summary=words.summary_words(verdicts, len(failed), len(undone)),
        policy=content_policy(scripts),
        css=Markup((FOLDER / "page.css").read_text("utf-8")),  # our own file
        scripts=[Markup(script) for script in scripts],  # ours and plotly's
        sources=sources,
        failed=failed,
        undone=undone,
        not_judged=NOT_JUDGED,
        spec=spec,
        limits={label.value: words.threshold(spec, label) for label in (Label.FAKE, Label.REAL)},
        limit_words={
            label.value: words.threshold_words(spec, label) for label in (Label.FAKE, Label.REAL)
        },
        reasons=words.REASONS,
        manifest=manifest,
        subject="Frame" if manifest.face.detector == "none" else "Person",
        run=collector.run,
        written=now.isoformat(sep=" ", timespec="seconds"),
        records=f"[{','.join(collector.records)}]",
        records_left_out=collector.frame_records_left_out,
        clock=words.clock,
        count=words.count,
    )


def in_script(text: str) -> str:
    """Returns JSON that is safe inside a script element.

    Args:
        text: JSON, in which the escaped characters occur only inside strings.
    """
    return text.translate(_IN_SCRIPT)


def page_environment(folder: Path) -> Environment:
    """Returns the templates of a folder; no value can become markup or a script.

    Args:
        folder: Folder of the templates.
    """
    import jinja2  # noqa: PLC0415
    from markupsafe import Markup  # noqa: PLC0415

    def spelt_out(value: object) -> object:
        """Escapes control characters, lone surrogates and changes of the writing direction."""
        if isinstance(value, str) and not isinstance(value, Markup):
            return printable(value)
        return value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        finalize=spelt_out,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["in_script"] = lambda text: Markup(in_script(text))
    return environment


def content_policy(scripts: list[str]) -> str:
    """Returns a content security policy: only these scripts run, and nothing is loaded.

    Args:
        scripts: Texts of the script elements of the page.
    """
    allowed = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


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
