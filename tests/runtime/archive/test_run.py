"""A run on an archive: one row for each clip, the same as `Detector.analyze`, exactly once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is of the extra `archive`")
pytest.importorskip("fsspec", reason="fsspec is not installed: it is of the extra `archive`")

import pyarrow.parquet as pq
from archive_campaign import rows_of

from dfd_edge import Detector
from dfd_edge.archive import engine as engine_module
from dfd_edge.archive.cluster import blocks
from dfd_edge.archive.dataset import CLIP_COLUMNS, FRAME_COLUMNS, schema_of
from dfd_edge.archive.engine import Claims, LocalEngine, contents_key, groups, judge_clip
from dfd_edge.archive.ledger import Ledger, RunFacts
from dfd_edge.archive.rows import Clip, ClipRow, Failure, Judgement
from dfd_edge.archive.run import ArchiveRequest, bundle_hash, run_archive
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
from dfd_edge.archive.storage import Store, fetch
from dfd_edge.archive.worker import LIVES, Worker
from dfd_edge.errors import BundleError, UnreachableError, UsageError
from dfd_edge.schema import to_plain

STILLS = JudgeSettings()


def request(inputs: Path | str, out: Path, **options) -> ArchiveRequest:
    return ArchiveRequest(inputs=(str(inputs),), out=str(out), **options)


def by_name(out: Path, media: Path) -> dict[str, dict]:
    return {str(Path(source).relative_to(media)): row for source, row in rows_of(out).items()}


class FakeEngine:
    """Gives rows without judging: for tests of what is done with them."""

    def __init__(self, judge) -> None:
        self.judge = judge
        self.asked: list[str] = []

    def workers_mb(self):
        return 0.0

    def rows(self, clips, known, stop):
        for clip in clips:
            self.asked.append(clip.source)
            yield self.judge(clip)


def instant(clip: Clip) -> ClipRow:
    """A row as of a judged clip whose contents are its name."""
    sha256 = clip.source.encode().hex().zfill(64)[-64:]
    return ClipRow(clip=clip, sha256=sha256, judgement=Judgement(p_fake=0.5), judged_s=time.time())


def unreachable(clip: Clip) -> ClipRow:
    error = Judgement.failed("cut off", Failure.UNREACHABLE)
    return ClipRow(clip=clip, sha256=None, judgement=error, judged_s=time.time())


class FakeWorker:
    """Judges at once, in no process."""

    pid = None

    def __init__(self, judge, limits) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None: ...

    def judge(self, path: str, name: str, *, struck: int, on_strike):
        return Judgement(p_fake=0.5), ()

    def read_provenance(self, path: str, name: str) -> None: ...


def test_pictures_are_handed_on_in_groups_and_films_alone():
    names = [*(f"{number}.jpg" for number in range(19)), "a.mp4", "b.mkv", "c.PNG"]
    clips = [Clip(f"s3://bucket/{name}") for name in names]
    assert [clip for group in groups(clips) for clip in group] == clips
    assert [len(group) for group in groups(clips)] == [8, 8, 3, 1, 1, 1]
    assert [len(block) for block in blocks(clips * 2, most=40)] == [40, 4]
    films = [Clip(f"{number}.mp4") for number in range(40)]
    assert [len(block) for block in blocks(films, most=100)] == [16, 16, 8]


def test_a_stop_leaves_the_rest_of_a_group_for_the_next_run(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "Worker", FakeWorker)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(50):
        (folder / f"{number:02d}.png").write_bytes(number.to_bytes(2, "big"))
    clips = [Clip(str(path)) for path in sorted(folder.iterdir())]
    stop = threading.Event()
    rows = LocalEngine(STILLS, WorkerSettings(), jobs=2).rows(iter(clips), (), stop)
    first = next(rows)
    stop.set()
    judged = [first, *rows]
    assert len(judged) < len(clips)
    assert len({row.clip.source for row in judged}) == len(judged)
    again = LocalEngine(STILLS, WorkerSettings(), jobs=2)
    assert len(list(again.rows(iter(clips), (), threading.Event()))) == len(clips)


def test_contents_are_claimed_once_whoever_asks_how_often():
    claims = Claims([contents_key("ab" * 32)])
    asked = [("cd" * 32, "one"), ("cd" * 32, "two"), ("ab" * 32, "three")]
    assert claims.claim(asked) == [True, False, False]
    assert claims.claim(asked) == [True, False, False], "as after the loss of an actor"


def test_every_clip_has_one_row_with_the_verdict_of_the_detector(
    archived: Path, media: Path, sources
):
    rows = by_name(archived, media)
    assert set(rows) == sources
    detector = Detector.load()
    for name in ("face0.png", "more/film.mp4", "more/plain.jpg"):
        verdict = detector.analyze(media / name, duration_s=1.0 if name.endswith("mp4") else None)
        row = rows[name]
        assert row["label"] == verdict.label
        assert row["p_fake"] == pytest.approx(verdict.p_fake, abs=1e-6)
        assert row["frames"] == verdict.frames
        assert row["complete"] == verdict.complete
        assert [person["track"] for person in row["people"]] == [p.track for p in verdict.people]
        assert row["bundle"] == detector.bundle.sha256
        assert row["size"] == (media / name).stat().st_size
        assert row["error"] is None


def test_failures_are_rows_with_their_reason(archived: Path, media: Path):
    row = by_name(archived, media)["broken.mp4"]
    assert row["label"] is None
    assert row["failure"] in ("not_media", "unreadable")
    assert row["error"].startswith(str(media / "broken.mp4"))


def test_copies_are_judged_once(archived: Path, media: Path):
    rows = by_name(archived, media)
    pair = [rows["face0.png"], rows["more/copy.png"]]
    first, copy = sorted(pair, key=lambda row: row["duplicate_of"] is not None)
    assert first["duplicate_of"] is None
    assert copy["duplicate_of"] == first["source"]
    assert copy["seconds"] == 0.0
    assert (copy["p_fake"], copy["people"]) == (first["p_fake"], first["people"])


def test_frames_and_thumbnails_are_kept_where_asked_for(archived: Path, media: Path):
    rows = by_name(archived, media)
    film = rows["more/film.mp4"]
    assert film["thumbnail"].startswith(b"\xff\xd8")
    assert rows["more/plain.jpg"]["thumbnail"] is None
    frames = [
        row
        for part in (archived / "frames").glob("*.parquet")
        for row in pq.read_table(part).to_pylist()
        if row["sha256"] == film["sha256"]
    ]
    assert len(frames) == film["frames"]
    assert all(0.0 < frame["p_frame"] < 1.0 for frame in frames if frame["judged"])


def test_parts_have_the_documented_schema(archived: Path):
    for folder, columns in (("clips", CLIP_COLUMNS), ("frames", FRAME_COLUMNS)):
        for part in (archived / folder).glob("*.parquet"):
            found, wanted = pq.read_schema(part), schema_of(columns)
            assert found.metadata == wanted.metadata
            # Parquet calls the items of lists elements.
            types = [str(field.type).replace("element:", "item:") for field in found]
            assert dict(zip(found.names, types, strict=True)) == {
                field.name: str(field.type).replace("element:", "item:") for field in wanted
            }


def test_a_second_run_judges_nothing(archived: Path, media: Path, tmp_path: Path, sources):
    out = shutil.copytree(archived, tmp_path / "out")
    settings = JudgeSettings(frame_rows=True, thumbnails=True, duration_s=1.0)
    engine = FakeEngine(instant)
    outcome = run_archive(
        request(media, out, judge=settings), threading.Event(), engine=lambda ledger: engine
    )
    assert engine.asked == []
    assert (outcome.before, outcome.judged) == (len(sources), 0)


def test_a_copy_that_comes_later_takes_the_judgement_from_the_results(
    archived: Path, media: Path, tmp_path: Path
):
    out = shutil.copytree(archived, tmp_path / "out")
    shutil.copy(media / "face1.png", tmp_path / "later.png")
    settings = JudgeSettings(frame_rows=True, thumbnails=True, duration_s=1.0)
    run_archive(request(tmp_path / "later.png", out, judge=settings), threading.Event())
    rows = rows_of(out)
    later, first = rows[str(tmp_path / "later.png")], rows[str(media / "face1.png")]
    assert later["duplicate_of"] == first["source"]
    for name in ("label", "p_fake", "people", "thumbnail", "intervals"):
        assert later[name] == first[name]


def test_an_archive_from_before_a_setting_and_its_column_is_resumed(
    archived: Path, media: Path, tmp_path: Path
):
    out = shutil.copytree(archived, tmp_path / "out")
    for part in (out / "clips").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(["provenance"]), part)
    begun = json.loads((out / "_ledger" / "run.json").read_text())
    for name in ("provenance", "trust_list"):
        del begun["settings"][name]
    (out / "_ledger" / "run.json").write_text(json.dumps(begun))
    later = shutil.copy(media / "face1.png", tmp_path / "later.png")
    idle = Worker(STILLS, WorkerSettings())
    copies = FakeEngine(lambda clip: judge_clip(replace(fetch(clip, ""), repeated=True), idle))
    settings = JudgeSettings(frame_rows=True, thumbnails=True, duration_s=1.0)
    asked = request(later, out, judge=settings)
    run_archive(asked, threading.Event(), engine=lambda ledger: copies)
    rows = rows_of(out)
    assert rows[str(later)]["duplicate_of"] == str(media / "face1.png")
    assert rows[str(later)]["p_fake"] == rows[str(media / "face1.png")]["p_fake"]
    with pytest.raises(UsageError, match="begun with provenance False, now True"):
        run_archive(replace(asked, judge=replace(settings, provenance=True)), threading.Event())


def test_other_settings_are_refused(archived: Path, media: Path, tmp_path: Path):
    out = shutil.copytree(archived, tmp_path / "out")
    with pytest.raises(UsageError, match=r"begun with duration_s 1\.0, now None: resume with"):
        run_archive(
            request(media, out, judge=JudgeSettings(frame_rows=True, thumbnails=True)),
            threading.Event(),
        )


def test_two_runs_on_one_output_are_refused(media: Path, tmp_path: Path):
    facts = RunFacts(bundle_hash(STILLS), to_plain(STILLS), 1)
    with (
        Ledger(Store(str(tmp_path)), facts),
        pytest.raises(UsageError, match="another run writes to it"),
    ):
        run_archive(request(media, tmp_path), threading.Event())


def test_limit_and_resume_judge_each_clip_once(media: Path, tmp_path: Path, sources):
    engine = FakeEngine(instant)
    for _ in range(4):
        run_archive(
            request(media, tmp_path / "out", limit=3),
            threading.Event(),
            engine=lambda ledger: engine,
        )
    assert len(engine.asked) == len(set(engine.asked)) == len(sources)
    assert len(rows_of(tmp_path / "out")) == len(sources)


def test_labels_of_a_manifest_come_into_the_rows(media: Path, tmp_path: Path):
    manifest = tmp_path / "labels.csv"
    manifest.write_text(f"path,label\n{media}/face0.png,REAL\n{media}/more/plain.jpg,FAKE\n")
    run_archive(
        request(manifest, tmp_path / "out"),
        threading.Event(),
        engine=lambda ledger: FakeEngine(instant),
    )
    labels = {source: row["expected"] for source, row in rows_of(tmp_path / "out").items()}
    assert labels == {f"{media}/face0.png": "real", f"{media}/more/plain.jpg": "fake"}


def test_failed_clips_are_judged_again_on_request(media: Path, tmp_path: Path, sources):
    def failing(clip: Clip) -> ClipRow:
        row = instant(clip)
        if "face" not in clip.source:
            return row
        return replace(row, judgement=Judgement.failed("no", Failure.TIME))

    out = tmp_path / "out"
    run_archive(request(media, out), threading.Event(), engine=lambda ledger: FakeEngine(failing))
    again = FakeEngine(instant)
    run_archive(
        request(media, out, retry_failed=True), threading.Event(), engine=lambda ledger: again
    )
    assert sorted(Path(source).name for source in again.asked) == [
        f"face{number}.png" for number in range(4)
    ]
    assert len(rows_of(out)) == len(sources)
    assert all(row["error"] is None for row in rows_of(out).values())


def test_a_storage_that_is_gone_ends_the_run_and_not_the_clips(tmp_path: Path):
    manifest = tmp_path / "many.csv"
    manifest.write_text("path\n" + "\n".join(f"{number}.mp4" for number in range(100)))

    def cut_off(clip: Clip) -> ClipRow:
        return instant(clip) if clip.source.endswith("/0.mp4") else unreachable(clip)

    with pytest.raises(UnreachableError, match="20 clips in a row could not be reached"):
        run_archive(
            request(manifest, tmp_path / "out"),
            threading.Event(),
            engine=lambda ledger: FakeEngine(cut_off),
        )
    assert len(rows_of(tmp_path / "out")) == 1, "the clips that were not reached are still to do"


def test_a_few_unreachable_clips_are_rows(media: Path, tmp_path: Path):
    def one(clip: Clip) -> ClipRow:
        return unreachable(clip) if "face2" in clip.source else instant(clip)

    run_archive(request(media, tmp_path), threading.Event(), engine=lambda ledger: FakeEngine(one))
    assert by_name(tmp_path, media)["face2.png"]["failure"] == "unreachable"


def test_a_torn_part_of_frames_is_removed_when_resumed(media: Path, tmp_path: Path):
    store = Store(str(tmp_path))
    store.write("frames/part-1of1-000000.parquet", b"of clips that were never committed")
    run_archive(
        request(media, tmp_path), threading.Event(), engine=lambda ledger: FakeEngine(instant)
    )
    assert store.names("frames") == []


def test_a_part_of_another_version_is_refused(archived: Path, media: Path, tmp_path: Path):
    out = shutil.copytree(archived, tmp_path / "out")
    part = next((out / "clips").glob("*.parquet"))
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({"dfd_edge_archive_schema": "99"}), part)
    settings = JudgeSettings(frame_rows=True, thumbnails=True, duration_s=1.0)
    with pytest.raises(UsageError, match="schema version 99, this program reads 1"):
        run_archive(request(media, out, judge=settings), threading.Event())


def test_a_missing_bundle_is_refused(media: Path, tmp_path: Path):
    settings = JudgeSettings(model=str(tmp_path / "none"))
    with pytest.raises(BundleError):
        run_archive(request(media, tmp_path / "out", judge=settings), threading.Event())


def test_a_clip_that_ends_its_workers_is_a_row_after_three(media: Path):
    strikes: list[int] = []
    with Worker(STILLS, WorkerSettings()) as worker:
        worker.start()
        over = threading.Event()

        def kill() -> None:
            """Kills each worker as soon as it has loaded its bundle, as a poison clip would."""
            asked = worker._ask

            def poisoned(path: str, name: str):
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                return asked(path, name)

            worker._ask = poisoned
            over.set()

        kill()
        judgement, _ = worker.judge(
            str(media / "face0.png"), "poison.png", on_strike=strikes.append
        )
    assert over.is_set()
    assert strikes == [1, 2, 3]
    assert (judgement.failure, judgement.attempts) == (Failure.CRASH, LIVES)
    assert judgement.error == "poison.png: ended 3 workers, the last with SIGKILL"


def test_a_clip_that_ended_three_workers_before_is_not_tried_again(media: Path, tmp_path: Path):
    facts = RunFacts(bundle_hash(STILLS), to_plain(STILLS), 1)
    poison = str(media / "face0.png")
    with Ledger(Store(str(tmp_path)), facts) as ledger:
        ledger.strike(poison, LIVES)
    run_archive(request(poison, tmp_path), threading.Event())
    row = rows_of(tmp_path)[poison]
    assert (row["failure"], row["error"]) == (
        "crash",
        f"{poison}: ended 3 workers, in an earlier run",
    )
    run_archive(request(poison, tmp_path, retry_failed=True), threading.Event())
    assert rows_of(tmp_path)[poison]["error"] is None, "unless that is asked for"


@pytest.mark.parametrize(
    ("limits", "failure"),
    [
        (WorkerSettings(clip_time_s=0.01), Failure.TIME),
        (WorkerSettings(memory_mb=256), Failure.MEMORY),
    ],
    ids=["time", "memory"],
)
def test_a_clip_beyond_its_limits_is_a_row_and_the_worker_goes_on(
    media: Path, limits: WorkerSettings, failure: Failure
):
    film = str(media / "more" / "film.mp4")
    with Worker(STILLS, limits) as worker:
        judgement, _ = worker.judge(film, "film.mp4")
        assert judgement.failure is failure
        assert judgement.error is not None
        assert judgement.error.startswith("film.mp4: ")
        assert worker.pid is None, "it starts anew"


def test_a_worker_gets_no_credentials(monkeypatch: pytest.MonkeyPatch, media: Path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with Worker(STILLS, WorkerSettings()) as worker:
        worker.start()
        environment = Path(f"/proc/{worker.pid}/environ")
        if not environment.is_file():
            pytest.skip("no /proc on this system")
        assert b"AWS_" not in environment.read_bytes()


@pytest.mark.parametrize("first_name", ["face0.png", "more/copy.png"])
def test_rows_carry_provenance_where_asked_for_and_copies_have_their_own(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_name: str
):
    pytest.importorskip("c2pa", reason="c2pa is not installed: extra `provenance`")
    from dfd_edge.provenance import beside
    from dfd_edge.provenance.record import Manifest, Mark, Outcome, Provenance, Signature

    signature = Signature("a signer", None, None, False, True, True, False, "a list")
    marks = (Mark("png.parameters", "steps: 20", generator="a generator"),)
    plain = Provenance(Outcome.MARKS, "A mark.", marks=marks)
    signed = replace(
        plain, outcome=Outcome.OTHER, manifest=Manifest("sidecar", None, None, signature)
    )
    found = {"face0.png": signed, "copy.png": plain}
    monkeypatch.setattr(beside, "read_provenance", lambda path, *, trust_list: found[path.name])
    settings = JudgeSettings(provenance=True)
    worker = Worker(settings, WorkerSettings())
    monkeypatch.setattr(worker, "judge", lambda *given, **options: (Judgement(p_fake=0.5), ()))

    def judge(clip: Clip) -> ClipRow:
        fetched = fetch(clip, str(tmp_path))
        return judge_clip(replace(fetched, repeated=not clip.source.endswith(first_name)), worker)

    manifest = tmp_path / "copies.csv"
    manifest.write_text(f"path\n{media}/face0.png\n{media}/more/copy.png\n")
    asked = request(manifest, tmp_path / "out", judge=settings)
    outcome = run_archive(asked, threading.Event(), engine=lambda ledger: FakeEngine(judge))
    assert (outcome.judged, outcome.duplicates) == (2, 1)
    rows = by_name(tmp_path / "out", media)
    assert rows[first_name]["duplicate_of"] is None
    assert {row["p_fake"] for row in rows.values()} == {0.5}
    beside_it, without = rows["face0.png"]["provenance"], rows["more/copy.png"]["provenance"]
    assert (beside_it["outcome"], beside_it["signer"]) == ("signed_other", "a signer")
    assert (without["outcome"], without["signer"]) == ("unsigned_marks", None)
    assert without["generators"] == ["a generator"]
    assert without["trusted"] is None
    assert json.loads(without["record"])["marks"][0]["value"] == "steps: 20"


def test_without_it_no_row_has_a_provenance(archived: Path, media: Path):
    assert {row["provenance"] is None for row in by_name(archived, media).values()} == {True}
    assert Worker(JudgeSettings(), WorkerSettings()).read_provenance("gone.mp4", "gone.mp4") is None
