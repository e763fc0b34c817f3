"""`--report`: one page that holds all it shows, says what was found, and cannot be hijacked."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from clip_maker import face_frames, portrait, write_clip

pytest.importorskip("jinja2", reason="the extra `report` is not installed: no jinja2")
pytest.importorskip("plotly", reason="the extra `report` is not installed: no plotly")

from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.cli.run import Run, RunRequest
from dfd_edge.errors import OutputError
from dfd_edge.judging.results import Event, EventKind, Interval, Label, PersonVerdict, Verdict
from dfd_edge.report.collector import Collector
from dfd_edge.report.page import Report, render
from dfd_edge.report.pictures import PICTURE_PX
from dfd_edge.sinks.console import Printer
from dfd_edge.sinks.sink import Images, Sink
from dfd_edge.sources import Frame, SourceItem, SourceKind
from dfd_edge.text import valid_text
from dfd_edge.view.overlay import Scene
from html_page import HOSTILE, Page

COMMAND = [sys.executable, "-m", "dfd_edge"]
ROOT = Path(__file__).resolve().parents[3]


def report_of(path, bundle):
    """A report on no sources."""
    detector = Detector.load(bundle)
    return Report(path, detector, [], detector.run_record())


@pytest.fixture(scope="module")
def dfd(tiny_bundle):
    """Runs `dfd-edge --model <test bundle> ...`; gives the finished process."""

    def run(*arguments):
        return subprocess.run(
            [*COMMAND, "--model", str(tiny_bundle), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def sources(face_clip, plain_clip, tmp_path_factory):
    """A clip with a face, one without, a picture, a broken file and one that is missing."""
    folder = tmp_path_factory.mktemp("sources")
    cv2.imwrite(str(folder / "portrait.png"), portrait())
    (folder / "broken.mp4").write_text("no video\n" * 50)
    return [
        *(face_clip, plain_clip, folder / "portrait.png"),
        *(folder / "broken.mp4", folder / "gone.mp4"),
    ]


@pytest.fixture(scope="module")
def done(dfd, sources, tmp_path_factory):
    """The page on those sources, and the records that the same run printed."""
    path = tmp_path_factory.mktemp("pages") / "out.html"
    process = dfd("--json", "--report", path, *sources)
    assert process.returncode == 1, process.stderr
    records = [json.loads(line) for line in process.stdout.splitlines()]
    assert [p.name for p in path.parent.iterdir()] == ["out.html"]
    return Page(path.read_text("utf-8")), records


class TestContents:
    def test_every_source_is_there_with_its_verdict(self, done, sources):
        page, records = done
        verdicts = [record for record in records if record["record"] == "verdict"]
        assert len(verdicts) == 3
        for source in sources:
            assert str(source) in page.text
        for verdict in verdicts:
            assert verdict["p_fake"] is None or f"{verdict['p_fake']:.2f}" in page.text
        assert "3 sources judged" in page.text
        assert "2 could not be judged." in page.text
        assert "No face was found, so there was nothing to judge." in page.text
        assert "No face was found in 10 of 10 frames." in page.text
        assert "No face - 0 % 0 2.0 s" in page.text

    def test_what_it_rests_on(self, done):
        page, records = done
        run = records[0]
        for part in (
            f"{run['bundle']['name']}, hash {run['bundle']['hash']}",
            "cpu, asked for auto",
            run["precision"],
            f"onnxruntime {run['versions']['onnxruntime']}",
            "Fake starts at 0.6: set so that at most 5 % of real clips are called fake",
            "Real ends at 0.4",
            "Frames with a judged face 100 % of 15",
            "over 15 judged frames",
            "It knows nothing.",
            "blazeface_full_range",
        ):
            assert part in page.text

    def test_failures_say_why(self, done):
        page, _ = done
        assert "gone.mp4: no such file or folder" in page.text
        assert "broken.mp4: not a video" in page.text

    def test_all_records_are_in_it(self, done):
        page, records = done
        assert page.data("records") == [records]

    def test_one_timeline_for_the_one_clip_with_a_face(self, done):
        import plotly.graph_objects as go

        page, records = done
        (figure,) = page.data("figure")
        checked = go.Figure(figure)  # refuses what plotly's schema does not have
        lines = [shape for shape in checked.layout.shapes if shape.type == "line"]
        assert [line.y0 for line in lines] == [0.6, 0.4]
        (verdict,) = [r for r in records if r["record"] == "verdict" and r["duration_s"] == 3.0]
        shaded = [(s.x0, s.x1) for s in checked.layout.shapes if s.type == "rect"]
        assert shaded == [tuple(span) for span in verdict["people"][0]["intervals"]]
        frames = [r for r in records if r["record"] == "frame" and r["people"]]
        expected = [r["people"][0]["p_fake"] for r in frames if r["source"] == verdict["source"]]
        drawn = next(trace for trace in checked.data if "together" in trace.name)
        assert list(drawn.y) == pytest.approx(expected, abs=1e-4)

    def test_plotly_is_there_once_and_nothing_is_loaded(self, done):
        page, _ = done
        assert sum("plotly.js v" in program for program in page.programs) == 1
        assert len(page.programs) == 2
        assert not [a for _, a in page.tags if (a.get("src") or "data:")[:5] != "data:"]
        assert not page.all("link")
        assert not [a for a in page.all("a") if not (a["href"] or "").startswith("#")]
        targets = {attributes.get("id") for _, attributes in page.tags}
        assert {(a["href"] or "")[1:] for a in page.all("a")} <= targets

    def test_pictures_are_small_few_and_described(self, done):
        page, _ = done
        pictures = page.all("img")
        assert 4 <= len(pictures) <= 12 + 2, "one person in the clip, one in the picture"
        for picture in pictures:
            assert picture["alt"]
            data = base64.b64decode((picture["src"] or "").partition(",")[2])
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert decoded.shape == (PICTURE_PX, PICTURE_PX, 3)
            assert len(data) < 30_000

    def test_headings_do_not_skip_a_level(self, done):
        page, _ = done
        levels = [int(tag[1]) for tag, _ in page.tags if len(tag) == 2 and tag[1].isdigit()]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))

    def test_ids_are_given_once(self, done):
        page, _ = done
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))


def test_asking_for_a_report_changes_no_score(dfd, done, face_clip):
    _, with_report = done
    without = [json.loads(line) for line in dfd("--json", face_clip).stdout.splitlines()]
    for record in (*with_report, *without):
        record.pop("realtime_factor", None)
    wanted = [record for record in with_report if record.get("source") == str(face_clip)]
    assert without[1:] == wanted
    assert len(wanted) == 16


def test_the_crops_shown_are_those_that_scored_highest_and_lowest(tiny_bundle, face_clip):
    detector = Detector.load(tiny_bundle)
    collector = Collector([SourceItem.of(face_clip)])
    scores, pictures = {}, {}

    def see(frame, result):
        collector.image(Scene(str(face_clip), frame.image, frame.time_s, result))
        if result is not None and result.time_s == frame.time_s:
            (person,) = result.people
            scores[frame.time_s] = person.p_frame
            x0, y0, side = person.crop
            pictures[frame.time_s] = (frame.image, x0, y0, side)

    detector.analyze(face_clip, on_frame=collector.frame, on_image=see)
    (notes,) = collector.sources.values()
    crops = notes.people[1].crops
    assert crops.suspicious[0].p_frame == max(scores.values())
    assert crops.ordinary[0].p_frame == min(scores.values())
    assert min(c.p_frame for c in crops.suspicious) > max(c.p_frame for c in crops.ordinary)
    for crop in (*crops.suspicious, *crops.ordinary):
        assert scores[crop.time_s] == crop.p_frame
        image, x0, y0, side = pictures[crop.time_s]
        if x0 < 0 or y0 < 0 or y0 + side > image.shape[0] or x0 + side > image.shape[1]:
            continue
        expected = cv2.resize(image[y0 : y0 + side, x0 : x0 + side], (PICTURE_PX, PICTURE_PX))
        shown = cv2.imdecode(np.frombuffer(crop.plain, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(shown.astype(int) - expected).mean() < 5


class TestAskedForWrongly:
    @pytest.mark.parametrize("library", ["jinja2", "plotly"])
    def test_without_the_extra_one_line_names_it_before_anything_is_judged(
        self, library, tiny_bundle, face_clip, tmp_path
    ):
        code = f"import sys; sys.modules['{library}'] = None; from dfd_edge.cli import main; main()"
        command = [sys.executable, "-c", code, "--model", str(tiny_bundle)]
        path = tmp_path / "out.html"

        def run(*arguments):
            return subprocess.run(
                [*command, *map(str, arguments)], capture_output=True, text=True, check=False
            )

        done = run("--report", path, face_clip)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert "pip install 'dfd-edge[report]'" in line
        assert library in line
        assert not list(tmp_path.iterdir())
        assert run(face_clip).returncode == 0, "nothing else needs it"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("out.pdf", "a report is written as .html or .htm"),
            ("gone/out.html", "cannot be written"),
            ("", "is no file name"),
        ],
    )
    def test_names_that_do_not_do(self, name, message, dfd, face_clip, tmp_path):
        done = dfd("--report", tmp_path / name, face_clip)
        assert done.returncode == 2
        assert message in done.stderr or "is a directory" in done.stderr
        assert done.stdout == ""
        assert not list(tmp_path.iterdir())

    def test_a_source_is_not_overwritten(self, dfd, face_clip, tmp_path):
        clip = tmp_path / "clip.html"
        shutil.copy(face_clip, clip)
        before = clip.read_bytes()
        assert "is a file that is read" in dfd("--report", clip, clip).stderr
        assert clip.read_bytes() == before


def test_importing_the_program_loads_neither_library():
    code = (
        "import sys, dfd_edge, dfd_edge.cli.command, dfd_edge.cli.run, dfd_edge.report\n"
        "print({'jinja2', 'plotly', 'markupsafe'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class TestWrittenWhole:
    @pytest.mark.slow
    def test_after_ctrl_c_it_says_how_far_it_came(self, tiny_bundle, face_clip, tmp_path):
        clip = write_clip(tmp_path / "long.mp4", face_frames(1500))
        path = tmp_path / "out.html"
        options = ["--model", str(tiny_bundle), "--json", "--rate", "25", "--jobs", "1"]
        options += ["--report", str(path)]
        process = subprocess.Popen(
            [*COMMAND, *options, str(clip), str(face_clip)], stdout=subprocess.PIPE, text=True
        )
        while '"frame"' not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(timeout=60) == 1
        process.stdout.close()
        page = Page(path.read_text("utf-8"))
        assert "Not the whole source was judged: stopped before its end." in page.text
        assert "1 not reached before the run was stopped." in page.text
        assert sorted(p.name for p in tmp_path.iterdir()) == ["long.mp4", "out.html"]

    def test_ctrl_c_while_the_page_is_written_does_not_lose_it(
        self, tiny_bundle, face_clip, tmp_path
    ):
        path = tmp_path / "out.html"
        program = (
            "import signal, sys\n"
            "from dfd_edge.cli.command import command\n"
            "from dfd_edge.report import page\n"
            "whole = page.render\n"
            "def interrupted(*arguments):\n"
            "    signal.raise_signal(signal.SIGINT)\n"
            "    return whole(*arguments)\n"
            "page.render = interrupted\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "command()\n"
        )
        options = ["--model", str(tiny_bundle), "--report", str(path), str(face_clip)]
        done = subprocess.run(
            [sys.executable, "-c", program, *options], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Aborted" not in done.stderr
        assert Page(path.read_text("utf-8")).data("figure")

    def test_after_a_fault_the_page_of_before_stays(self, tiny_bundle, tmp_path):
        path = tmp_path / "out.html"
        path.write_text("before")
        with pytest.raises(RuntimeError), report_of(path, tiny_bundle):
            raise RuntimeError
        assert path.read_text() == "before"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_disk_that_is_full(self, tiny_bundle, tmp_path, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        path = tmp_path / "out.html"
        with pytest.raises(OutputError, match=r"out\.html: cannot be written \(No space left"):  # noqa: SIM117
            with report_of(path, tiny_bundle):
                monkeypatch.setattr(Path, "write_text", full)
        assert not path.exists()


@pytest.fixture
def rendered(tiny_bundle):
    """Renders the records given, as a run of the test bundle."""
    detector = Detector.load(tiny_bundle)

    def render_records(*records, items=()):
        collector = Collector(items, detector.run_record())
        for record in records:
            collector.record(record.to_record())
        manifest = Bundle.load(tiny_bundle).manifest
        return render(collector, manifest, detector.decision.spec)

    return render_records


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:12]))
def test_names_of_files_stay_text(name, rendered):
    person = PersonVerdict(1, Label.FAKE, 0.9, 9, (Interval(0.0, 1.8),))
    text = rendered(
        Verdict(name, Label.FAKE, 0.9, 1.0, 9, 1.8, (person,), "cpu", 3.0, False, name),
        Event(name, 1.0, EventKind.GAP, name),
        Event("x" + name, 0.0, EventKind.ERROR, f"{name}: no video"),
    )
    text.encode("utf-8")
    page = Page(text)
    plain = Page(
        rendered(
            Verdict("a", Label.FAKE, 0.9, 1.0, 9, 1.8, (person,), "cpu", 3.0, False, "a"),
            Event("a", 1.0, EventKind.GAP, "a"),
            Event("xa", 0.0, EventKind.ERROR, "a: no video"),
        )
    )
    different = [tag for tag, _ in page.tags if tag != "p"], [t for t, _ in plain.tags if t != "p"]
    assert different[0] == different[1], "the same elements, whatever the name"
    attributes = {key for _, found in page.tags for key in found}
    assert attributes == {key for _, found in plain.tags for key in found}
    (records,) = page.data("records")
    assert records[1]["source"] == valid_text(name), "in the records it stands as in --json"
    assert page.programs == plain.programs
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def test_a_name_that_says_something_to_the_template_is_shown_as_it_is(rendered):
    name = "{{ 7 * 7 }}.mp4"
    page = Page(rendered(Verdict(name, Label.UNSURE, None, 0.0, 3, 1.0, (), "cpu")))
    assert name in page.text


def test_faces_that_were_not_judged_are_counted_by_reason(dfd, tmp_path):
    dark = [np.asarray(frame // 12, np.uint8) for frame in face_frames(40, size=(640, 480))]
    clip = write_clip(tmp_path / "dark.mp4", dark, options={"g": "25", "crf": "10"})
    path = tmp_path / "out.html"
    done = dfd("--json", "--report", path, clip)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    reasons = [
        person["reason"] for r in records if r["record"] == "frame" for person in r["people"]
    ]
    assert "dark" in reasons, "the clip is dark enough for this test, and not too dark"
    page = Page(path.read_text("utf-8"))
    expected = f"{reasons.count('dark')} of {len(reasons)} faces: dark (the picture is too dark"
    assert expected in page.text
    assert "Too little was seen" in page.text
    assert not page.data("figure")


class Device:
    """Shows two seconds of pictures as a camera does, then ends."""

    finite = True
    reason = None

    def frames(self, sampler, *, every=False, bursts=False):
        for index, picture in enumerate(face_frames(50)):
            due = sampler.is_due(index / 25)
            if due or every:
                yield Frame(picture, index / 25, index, due)

    def close(self):
        pass


class DeviceDetector(Detector):
    def _connect(self, item, stop):
        return Device()


def test_live_sources_are_reported_too(tiny_bundle, tmp_path):
    detector = DeviceDetector.load(tiny_bundle)
    path = tmp_path / "out.html"
    items = [SourceItem(SourceKind.CAMERA, 0, "camera 0")]
    with Report(path, detector, items, detector.run_record()) as report:
        Run(detector, RunRequest(), report, Printer()).live(items)
    page = Page(path.read_text("utf-8"))
    assert "camera 0" in page.text
    assert len(page.data("figure")) == 1
    assert len(page.all("img")) >= 4


def test_drawing_and_collecting_go_together(tiny_bundle, face_clip, tmp_path):
    detector = Detector.load(tiny_bundle)
    items = [SourceItem.of(face_clip)]
    seen = []

    class Seeing(Sink):
        images = Images.JUDGED

        def image(self, scene):
            seen.append(scene)

    request = RunRequest(save_video=tmp_path / "out.mp4")
    Run(detector, request, Seeing(), Printer()).files(items)
    assert len(seen) == 75
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_the_wheel_carries_what_the_page_is_made_of(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling is not installed: it builds the wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = ("base.html", "macros.html", "page.html", "provenance.html", "page.css", "page.js")
        for name in names:
            source = ROOT / "runtime" / "dfd_edge" / "report" / name
            assert wheel.read(f"dfd_edge/report/{name}") == source.read_bytes()
