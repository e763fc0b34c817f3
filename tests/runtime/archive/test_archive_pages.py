"""The index page, drift between two runs, the estimate, and the documentation of the results."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is of the extra `archive`")
pytest.importorskip("fsspec", reason="fsspec is not installed: it is of the extra `archive`")

import pyarrow as pa
import pyarrow.parquet as pq
from archive_campaign import rows_of

from dfd_edge.archive.compare import compare, drift_of
from dfd_edge.archive.dataset import CLIP_COLUMNS, FRAME_COLUMNS
from dfd_edge.archive.estimate import estimate
from dfd_edge.archive.ledger import MEMORY
from dfd_edge.archive.memory import read_memory
from dfd_edge.archive.page import Totals, write_index
from dfd_edge.archive.run import ArchiveRequest
from dfd_edge.archive.settings import JudgeSettings
from dfd_edge.archive.storage import Store
from dfd_edge.errors import UsageError
from dfd_edge.schema import to_plain

PAGE = Path(__file__).resolve().parents[3] / "docs" / "archive.md"


@pytest.fixture
def copied(archived: Path, tmp_path: Path) -> Path:
    return shutil.copytree(archived, tmp_path / "copied")


def changed(out: Path, name: str, value: object) -> None:
    """Sets the label or the score of the clip of that name."""
    for part in (out / "clips").glob("*.parquet"):
        table = pq.read_table(part)
        rows = table.to_pylist()
        for row in rows:
            if row["source"].endswith("film.mp4"):
                row[name] = value
        pq.write_table(pa.Table.from_pylist(rows, table.schema), part)


def test_the_index_shows_counts_suspicious_clips_and_failures(copied: Path):
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    write_index(Store(str(copied)), JudgeSettings())
    page = (copied / "index.html").read_text("utf-8")
    assert "8 clips:" in page
    assert "1 copy of others among them" in page
    broken = next(row for row in rows_of(copied).values() if row["error"])
    assert str(broken["failure"]).replace("_", " ") in page
    scored = [row for row in rows_of(copied).values() if row["p_fake"] and not row["duplicate_of"]]
    places = [
        page.index(f'<th scope="row">{row["source"]}</th>')
        for row in sorted(scored, key=lambda row: -row["p_fake"])
    ]
    assert places == sorted(places), "the most suspicious comes first"
    assert "data:image/jpeg" in page


def test_the_index_draws_the_memory_of_the_main_process_and_of_the_workers(copied: Path):
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    store = Store(str(copied))
    (record,) = read_memory(store, MEMORY)
    if not any(record.main_mb):
        pytest.skip("no /proc on this system")
    assert len(record.seconds) == len(record.main_mb) == len(record.workers_mb)
    assert min(record.main_mb) > 20.0
    assert max(record.workers_mb) > 50.0, "a worker holds the bundle"
    later = replace(record, seconds=(1.0, 61.0), main_mb=(70.0, 4321.0), workers_mb=(1.0, 2.0))
    store.write(f"{MEMORY}/9{record.began_s:.0f}-1-1.json", json.dumps(to_plain(later)).encode())
    store.write(f"{MEMORY}/torn.json", b"{")
    empty = replace(record, seconds=(), main_mb=(), workers_mb=())
    store.write(f"{MEMORY}/empty.json", json.dumps(to_plain(empty)).encode())
    write_index(store, JudgeSettings())
    page = (copied / "index.html").read_text("utf-8")
    assert "The main process had 4,321 MB at most" in page
    text = page.partition('id="figure-memory">')[2].partition("</script>")[0]
    main, workers = json.loads(text)["data"]
    assert main["y"] == [*record.main_mb, None, 70.0, 4321.0, None]
    assert main["x"] == workers["x"]
    assert main["x"][-2] == pytest.approx((record.seconds[-1] + 61.0) / 60, abs=1e-3)


def test_reports_of_the_most_suspicious_are_linked(copied: Path):
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    notes: list[str] = []
    readable = find_spec("c2pa") is not None
    settings = JudgeSettings(duration_s=0.4, provenance=readable)
    write_index(Store(str(copied)), settings, reports=1, note=notes.append)
    assert notes == []
    (report,) = (copied / "reports").glob("*.html")
    first = Totals.of(Store(str(copied))).suspicious[0]["source"]
    text = report.read_text("utf-8")
    assert Path(first).name in text
    assert ("Where the file says it comes from" in text) == readable
    assert f'<a href="reports/{report.name}">' in (copied / "index.html").read_text("utf-8")


def test_two_runs_that_agree_have_no_drift(archived: Path):
    store = Store(str(archived))
    drift = drift_of(store, store)
    assert drift.only == (0, 0)
    assert {change.shift for change in drift.both} <= {0.0, None}
    assert "0 labels changed" in compare(store, store)


def test_drift_names_changed_labels_and_shifts_by_source(archived: Path, copied: Path):
    changed(copied, "p_fake", 0.9)
    changed(copied, "label", "fake")
    before = next(row for row in rows_of(archived).values() if row["source"].endswith("film.mp4"))
    text = compare(Store(str(archived)), Store(str(copied)))
    assert "1 labels changed" in text
    assert f"| {before['label']} | fake | 1 |" in text
    shift = 0.9 - before["p_fake"]
    assert re.search(rf" /\S+/more \| 2 \| 1 \| \{shift:+.4f} \| \{shift:+.4f} \|", text), text


def test_no_results_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no results"):
        Totals.of(Store(str(tmp_path)))


def test_an_estimate_writes_nothing_and_counts_what_is_left(media: Path, tmp_path: Path, sources):
    out = tmp_path / "out"
    settings = JudgeSettings(max_frames=2)
    request = ArchiveRequest(inputs=(str(media),), out=str(out), judge=settings)
    text = estimate(request, sample=3, price=2.0)
    assert f"clips to judge: {len(sources)} (0 done before)" in text
    assert "3 clips timed" in text
    hours, cost = (
        float(re.search(rf"^{name}: ([\d.e-]+)", text, re.MULTILINE)[1])
        for name in ("worker hours", "cost")
    )
    assert cost == pytest.approx(2.0 * hours, rel=0.02)
    assert not out.exists()


def documented(title: str) -> dict[str, str]:
    """The columns of the table below a line of the page, with their meanings."""
    text = PAGE.read_text("utf-8").partition(title)[2]
    table = text[text.index("| column |") :].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", table, re.MULTILINE))


@pytest.mark.parametrize(
    ("title", "columns"),
    [("`results/clips/*.parquet`", CLIP_COLUMNS), ("`results/frames/*.parquet`", FRAME_COLUMNS)],
)
def test_the_page_documents_every_column(title: str, columns):
    assert documented(title) == {column.name: column.meaning for column in columns}


def queries() -> list[str]:
    return re.findall(r"^```sql\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_duckdb_runs_the_queries_of_the_page(copied: Path):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    changed(copied, "label", "fake")
    changed(copied, "intervals", [{"start_s": 0.0, "end_s": 1.0}, {"start_s": 2.0, "end_s": 3.0}])
    suspicious, folders, passages = (
        duckdb.sql(query.replace("'results/", f"'{copied}/")).fetchall() for query in queries()
    )
    rows = rows_of(copied)
    wanted = [
        (source, row["label"])
        for source, row in rows.items()
        if row["label"] in ("fake", "unsure") and row["duplicate_of"] is None
    ]
    assert sorted((source, label) for source, label, *_ in suspicious) == sorted(wanted)
    assert sum(count for _, count, *_ in folders) == len(rows)
    assert sum(failed for *_, failed in folders) == 1
    (film,) = (source for source in rows if source.endswith("film.mp4"))
    assert [row for row in passages if row[0] == film] == [(film, 0.0, 1.0), (film, 2.0, 3.0)]


def test_pandas_reads_the_folder(archived: Path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.read_parquet(archived / "clips")
    assert list(table.columns) == [column.name for column in CLIP_COLUMNS]
