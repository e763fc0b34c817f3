"""`index.html` of an archive: counts, distribution, suspicious clips, failures, throughput."""

from __future__ import annotations

import heapq
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dfd_edge.archive.dataset import read_clips
from dfd_edge.archive.ledger import MEMORY
from dfd_edge.archive.memory import MemoryRecord, read_memory
from dfd_edge.archive.rows import Clip
from dfd_edge.archive.settings import JudgeSettings
from dfd_edge.archive.storage import Store, fetch
from dfd_edge.judging.results import Label
from dfd_edge.report.figures import (
    FAKE_COLOUR,
    GREY,
    REAL_COLOUR,
    BarChart,
    Chart,
    Figure,
    Series,
    layout,
    line,
)
from dfd_edge.report.html import data_uri, render_page
from dfd_edge.report.words import Badge, count, spans

PAGE = "index.html"
REPORTS = "reports"
_TEMPLATE = Path(__file__).with_name("index.html")
_BINS = 20
_SHOWN = 100
_NO_VERDICT = "no verdict"
_COLUMNS = (
    *("source", "sha256", "label", "p_fake", "coverage", "intervals", "duration_s", "error"),
    *("failure", "duplicate_of", "seconds", "judged", "thumbnail"),
)
#: Widths of the bars of the chart of throughput; the first that gives few enough is taken.
_BUCKET_S = (60, 600, 3600, 6 * 3600, 24 * 3600)
_MOST_BUCKETS = 60


@dataclass(slots=True)
class Totals:
    """Counts over all rows of an archive, from one pass.

    Attributes:
        clips: Rows.
        copies: Rows with the contents of another clip.
        labels: Rows by label, failures under "no verdict".
        bins: Rows with a score, by twentieths of P(fake).
        failures: Rows without a verdict by kind, and the first error of each.
        seconds: Seconds that workers spent.
        film_s: Seconds of film that were judged, copies left out.
        minutes: Rows judged in each minute since 1970.
        suspicious: The rows with the highest scores, copies left out.
    """

    clips: int = 0
    copies: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    bins: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    film_s: float = 0.0
    minutes: Counter[int] = field(default_factory=Counter)
    suspicious: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, store: Store, *, shown: int = _SHOWN) -> Totals:
        """Counts the rows of an archive.

        Raises:
            UsageError: There are none.
        """
        totals = cls()
        highest: list[tuple[float, int, dict[str, Any]]] = []
        for batch in read_clips(store, _COLUMNS):
            for row in batch.to_pylist():
                totals._add(row)
                if row["p_fake"] is None or row["duplicate_of"] is not None:
                    continue
                entry = (row["p_fake"], -totals.clips, row)
                if len(highest) < shown:
                    heapq.heappush(highest, entry)
                else:
                    heapq.heappushpop(highest, entry)
        totals.suspicious = [row for _, _, row in sorted(highest, reverse=True)]
        return totals

    def _add(self, row: dict[str, Any]) -> None:
        self.clips += 1
        self.labels[row["label"] or _NO_VERDICT] += 1
        self.minutes[int(row["judged"].timestamp() // 60)] += 1
        self.seconds += row["seconds"]
        if row["p_fake"] is not None:
            self.bins[min(_BINS - 1, int(row["p_fake"] * _BINS))] += 1
        if row["failure"] is not None:
            self.failures[row["failure"]] += 1
            self.examples.setdefault(row["failure"], row["error"])
        if row["duplicate_of"] is not None:
            self.copies += 1
        else:
            self.film_s += row["duration_s"]

    def per_bucket(self) -> tuple[int, list[tuple[str, int]]]:
        """Returns the clips judged by time: seconds of a bucket, and name and count of each."""
        first, last = min(self.minutes), max(self.minutes)
        wanted_s = 60 * (last - first + 1) / _MOST_BUCKETS
        bucket_s = next((s for s in _BUCKET_S if s >= wanted_s), _BUCKET_S[-1])
        counts: Counter[int] = Counter()
        for minute, number in self.minutes.items():
            counts[60 * minute // bucket_s] += number
        buckets = range(60 * first // bucket_s, 60 * last // bucket_s + 1)
        return bucket_s, [
            (
                datetime.fromtimestamp(bucket * bucket_s).astimezone().strftime("%m-%d %H:%M"),
                counts[bucket],
            )
            for bucket in buckets
        ]


def write_index(
    store: Store,
    settings: JudgeSettings,
    *,
    reports: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> str:
    """Writes the page, and reports of the most suspicious clips.

    Args:
        store: The folder of results.
        settings: How the clips were judged, for the reports.
        reports: Clips that get a report; those that have one keep it.
        note: Prints which reports could not be written.

    Returns:
        The address of the page.

    Raises:
        UsageError: There are no results.
        OutputError: The page cannot be written.
    """
    totals = Totals.of(store, shown=max(_SHOWN, reports))
    there = set(store.names(REPORTS))
    for row in totals.suspicious[:reports]:
        name = _report_name(row)
        if name not in there and _write_report(store, row["source"], name, settings, note):
            there.add(name)
    records = json.dumps(
        {
            "clips": totals.clips,
            "copies": totals.copies,
            "labels": totals.labels,
            "failures": totals.failures,
            "seconds": totals.seconds,
            "film_seconds": totals.film_s,
            "p_fake_counts": [totals.bins[number] for number in range(_BINS)],
        }
    )
    memory = list(read_memory(store, MEMORY))
    values = _values(store, totals, there, memory)
    page = render_page(_TEMPLATE, values, records=records, charts=True)
    store.write(PAGE, page.encode())
    return f"{store}/{PAGE}"


def _values(
    store: Store, totals: Totals, reports: set[str], memory: list[MemoryRecord]
) -> dict[str, Any]:
    judged = totals.clips - totals.copies
    words = [
        f"{number:,} {label.replace('_', ' ')}" for label, number in totals.labels.most_common()
    ]
    facts = {
        "Clips": f"{totals.clips:,}, {count(totals.copies, 'copy', 'copies')} of others among them",
        "Film judged": f"{totals.film_s / 3600:,.2f} h",
        "Time of workers": f"{totals.seconds / 3600:,.2f} h",
        "Clips per hour of a worker": f"{3600 * judged / max(totals.seconds, 1e-9):,.0f}",
    }
    suspicious = [
        {
            "source": row["source"],
            "badge": Badge.of(Label(row["label"])),
            "score": f"{row['p_fake']:.3f}",
            "coverage": f"{100 * row['coverage']:.0f} %",
            "spans": spans((i["start_s"], i["end_s"]) for i in row["intervals"]) or "-",
            "picture": None if row["thumbnail"] is None else data_uri(row["thumbnail"]),
            "report": name if (name := _report_name(row)) in reports else None,
        }
        for row in totals.suspicious[:_SHOWN]
    ]
    return {
        "title": Path(store.address).name or store.address,
        "summary": f"{totals.clips:,} clips: {', '.join(words)}.",
        "facts": facts,
        "drawings": [*(chart.chart() for chart in _charts(totals)), *_memory_charts(memory)],
        "suspicious": suspicious,
        "pictures": any(row["picture"] for row in suspicious),
        "total": f"{totals.clips:,}",
        "failures": [
            [kind.replace("_", " "), f"{number:,}", totals.examples[kind]]
            for kind, number in totals.failures.most_common()
        ],
    }


def _charts(totals: Totals) -> list[BarChart]:
    labels = [*(label.value for label in Label), _NO_VERDICT]
    scores = tuple(f"{number / _BINS:.2f}" for number in range(_BINS))
    bucket_s, buckets = totals.per_bucket()
    return [
        BarChart(
            "labels",
            "Clips by verdict",
            "",
            tuple(label.replace("_", " ") for label in labels),
            (Series("clips", tuple(totals.labels[label] for label in labels), REAL_COLOUR),),
            "clips",
        ),
        BarChart(
            "scores",
            "Distribution of P(fake)",
            f"Each bar stands for {1 / _BINS:g}, named by its lower end.",
            scores,
            (
                Series(
                    "clips",
                    tuple(totals.bins[number] for number in range(_BINS)),
                    FAKE_COLOUR,
                    texts=("",) * _BINS,
                ),
            ),
            "clips",
            upright=True,
        ),
        BarChart(
            "throughput",
            "Clips judged over time",
            f"Each bar stands for {bucket_s // 60} min.",
            tuple(name for name, _ in buckets),
            (
                Series(
                    "clips",
                    tuple(number for _, number in buckets),
                    GREY,
                    texts=("",) * len(buckets),
                ),
            ),
            "clips",
            upright=True,
        ),
    ]


def _memory_charts(records: list[MemoryRecord]) -> list[Chart]:
    """Returns the chart of memory over the time of all runs, one after the other, if there is one.

    Lines are broken between two runs.
    """
    minutes: list[float | None] = []
    main_mb: list[float | None] = []
    workers_mb: list[float | None] = []
    before_s = 0.0
    for record in records:
        if not record.seconds:
            continue
        minutes += [(before_s + at_s) / 60 for at_s in record.seconds] + [None]
        main_mb += [*record.main_mb, None]
        workers_mb += [*record.workers_mb, None]
        before_s += record.seconds[-1]
    if not minutes:
        return []
    highest = (max(mb for mb in column if mb is not None) for column in (main_mb, workers_mb))
    words = "The main process had {:,.0f} MB at most, its workers together {:,.0f} MB"
    figure: Figure = {
        "data": [
            line("main process", minutes, main_mb, 0),
            line("workers together", minutes, workers_mb, 1),
        ],
        "layout": layout("minutes of all runs", "resident memory, MB"),
    }
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    caption = f"{words.format(*highest)}; pages that they share count in each."
    return [Chart("figure-memory", "Memory over time", caption, figure)]


def _report_name(row: dict[str, Any]) -> str:
    return f"{REPORTS}/{row['sha256'][:16]}.html"


def _write_report(
    store: Store,
    source: str,
    name: str,
    settings: JudgeSettings,
    note: Callable[[str], None],
) -> bool:
    """Writes the report of a clip with `dfd-edge --report`; returns whether there is one."""
    with tempfile.TemporaryDirectory(prefix="dfd-archive-") as folder:
        fetched = fetch(Clip(source), folder)
        if fetched.path is None:
            note(f"no report: {fetched.error.error if fetched.error else source}")
            return False
        page = Path(folder) / "report.html"
        options = [f"--report={page}", "--no-window", *_options(settings)]
        done = subprocess.run(
            [sys.executable, "-m", "dfd_edge", *options, "--", fetched.path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if not page.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            note(f"no report of {source}: {lines[-1]}")
            return False
        text = re.sub(re.escape(fetched.path), lambda match: source, page.read_text("utf-8"))
        store.write(name, text.encode())
        return True


def _options(settings: JudgeSettings) -> list[str]:
    """Returns the options of `dfd-edge` for the settings of an archive."""
    given = {
        "--model": settings.model,
        "--precision": settings.precision,
        "--rate": settings.rate_hz,
        "--duration": settings.duration_s,
        "--frames": settings.max_frames,
        "--faces": settings.faces,
        "--max-pixels": settings.max_pixels,
        "--trust-list": settings.trust_list,
    }
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    options += ["--scan"] if settings.scan else []
    options += ["--provenance"] if settings.provenance else []
    return options + (["--sandbox"] if settings.sandbox else [])
