"""Bundles that judge whole frames, and the first of a clip alone."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from clip_maker import face_frames, write_clip

from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import PersonScore
from dfd_edge.cli.command import command
from dfd_edge.errors import BundleError, UsageError
from dfd_edge.faces import middle_square
from dfd_edge.inference.names import Resize
from dfd_edge.judging.decision import Decision, StepSums
from dfd_edge.sources.frames import FirstFrames
from small_bundle import build_small_bundle, edit_graph, edit_manifest

FIRST = 20


def whole_frames(folder: Path, *, first: int | None = FIRST) -> Path:
    """Makes a small bundle one for whole frames, with a limit or without."""

    def edit(manifest: dict) -> None:
        manifest["face"] = {"detector": "none", "sha256": "", "options": {}}
        if first is not None:
            manifest["schema_version"] = 2
            manifest["sequence"]["first_frames"] = first
            manifest["decision"]["person_score"] = "last"

    def edit_metadata(model) -> None:
        for entry in model.metadata_props:
            if entry.key.endswith("face_detector"):
                entry.value = "none"
            if entry.key.endswith("face_detector_sha256"):
                entry.value = ""

    edit_manifest(folder, edit)
    for name in ("frame.onnx", "sequence.onnx"):
        edit_graph(folder, name, edit_metadata)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_frames(build_small_bundle(tmp_path_factory.mktemp("small") / "bundle"))


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Detector:
    return Detector.load(bundle, provider="cpu")


@pytest.mark.parametrize(
    ("width", "height", "region"),
    [(320, 240, (40, 0, 240)), (241, 320, (0, 40, 241)), (100, 100, (0, 0, 100))],
)
def test_the_middle_square(width: int, height: int, region: tuple[int, int, int]):
    square = middle_square(np.zeros((height, width, 3), np.uint8))
    assert (square.x0, square.y0, square.side) == region


def test_the_first_frames_are_picked_whatever_their_times():
    sampler = FirstFrames(3)
    assert [sampler.is_due(t) for t in (5.0, 5.0, 90.0, 91.0, 0.0)] == [True] * 3 + [False] * 2
    assert sampler.is_done


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_frames_that_is_none_is_refused(count: int):
    with pytest.raises(UsageError, match="give a whole number from 1"):
        FirstFrames(count)


class TestAFile:
    def test_has_its_first_frames_judged_every_one(self, detector: Detector, face_clip: Path):
        results = []
        verdict = detector.analyze(face_clip, on_frame=results.append)
        assert [round(result.time_s * 25) for result in results] == list(range(FIRST))
        assert verdict.frames == FIRST
        assert verdict.coverage == 1.0
        assert verdict.complete
        assert verdict.duration_s == pytest.approx(FIRST / 25, abs=0.2)
        (person,) = verdict.people
        assert person.judged_steps == FIRST
        assert verdict.p_fake == pytest.approx(results[-1].people[0].p_step, abs=1e-9)

    def test_is_one_person_throughout_cuts_and_long_gaps(self, detector, tmp_path: Path):
        frames = face_frames(3) + [255 - frame for frame in face_frames(3)]
        path = write_clip(
            tmp_path / "slow.mkv", frames, times_s=[0.0, 0.1, 3.0, 6.0, 9.0, 30.0], rate=10
        )
        verdict = detector.analyze(path)
        assert [person.judged_steps for person in verdict.people] == [6]

    def test_is_decoded_no_further_than_needed(self, detector, face_clip, monkeypatch):
        from dfd_edge.sources.video import VideoFile

        decoded = []
        whole = VideoFile._whole_pictures

        def counted(self):
            for picture in whole(self):
                decoded.append(picture)
                yield picture

        monkeypatch.setattr(VideoFile, "_whole_pictures", counted)
        detector.analyze(face_clip)
        assert len(decoded) == FIRST

    def test_gives_every_frame_to_those_who_draw(self, detector: Detector, face_clip: Path):
        drawn = []
        verdict = detector.analyze(face_clip, on_image=lambda *_: drawn.append(1))
        assert (len(drawn), verdict.frames) == (75, FIRST)
        assert verdict.p_fake == detector.analyze(face_clip).p_fake

    def test_says_in_its_records_what_was_judged(self, bundle: Path, face_clip: Path):
        result = CliRunner().invoke(command, ["--model", str(bundle), "--json", str(face_clip)])
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        run = rows[0]
        assert run["provider"]["faces"] is None
        assert run["first_frames"] == FIRST
        frames = [row for row in rows if row["record"] == "frame"]
        assert len(frames) == FIRST
        assert frames[0]["people"][0]["box"] == [40.0, 0.0, 280.0, 240.0]


class TestAStream:
    def test_judges_the_first_frames_that_are_pushed(self, detector: Detector):
        stream = detector.stream()
        frames = face_frames(FIRST + 5)
        results = [stream.push(frame, n / 25) for n, frame in enumerate(frames)]
        assert [result is not None for result in results] == [True] * FIRST + [False] * 5
        assert stream.verdict().frames == FIRST

    def test_takes_no_rate(self, detector: Detector):
        with pytest.raises(UsageError, match="first 20 frames: leave the rate out"):
            detector.stream(rate_hz=5.0)


class TestALiveSource:
    def test_is_refused_in_one_line(self, detector: Detector):
        with pytest.raises(UsageError, match=r"first 20 frames of a clip.*record a clip"):
            detector.watch(0)

    def test_is_refused_on_the_command_line(self, bundle: Path):
        result = CliRunner().invoke(command, ["--model", str(bundle), "--webcam"])
        assert result.exit_code == 2
        assert "first 20 frames" in result.output


class TestTheManifest:
    def test_survives_being_written(self, bundle: Path):
        manifest = Bundle.load(bundle).manifest
        assert type(manifest).from_json(manifest.to_json()) == manifest

    def test_of_version_1_does_not_name_what_older_programs_refuse(self, tmp_path: Path):
        manifest = Bundle.load(build_small_bundle(tmp_path / "plain")).manifest
        assert manifest.schema_version == 1
        assert "first_frames" not in manifest.to_json()
        assert "resize" not in manifest.to_json()

    @pytest.mark.parametrize(
        ("where", "value", "message"),
        [
            (("sequence", "first_frames"), 0, "first_frames is 0, not 1 or more"),
            (("sequence", "first_frames"), 2.5, "first_frames is 2.5, not a whole number"),
            (("sequence", "first_frames"), None, "'last' without sequence.first_frames"),
            (("schema_version",), 1, "first_frames is of version 2, not 1"),
            (("face", "detector"), "blazeface_full_range", "face.detector must be 'none'"),
            (("decision", "settle_steps"), 2.0, "settle_steps is for means"),
            (("frame", "resize"), "bilinear", "frame.resize is of version 4, not 2"),
            (("frame", "resize"), "bicubic", "'bicubic', not one of area, bilinear, nearest"),
        ],
    )
    def test_is_refused_where_it_does_not_fit(self, tmp_path, where, value, message):
        folder = whole_frames(build_small_bundle(tmp_path / "bundle"))

        def edit(manifest: dict) -> None:
            for key in where[:-1]:
                manifest = manifest[key]
            manifest[where[-1]] = value

        edit_manifest(folder, edit)
        with pytest.raises(BundleError, match=message):
            Bundle.load(folder)

    @pytest.mark.parametrize("method", ["bilinear", "nearest"])
    def test_says_how_pictures_are_resized(self, tmp_path: Path, method: str):
        folder = whole_frames(build_small_bundle(tmp_path / "bundle"))

        def edit(manifest: dict) -> None:
            manifest["schema_version"] = 4
            manifest["frame"]["resize"] = method

        edit_manifest(folder, edit)
        manifest = Bundle.load(folder).manifest
        assert manifest.frame.resize is Resize(method)
        assert type(manifest).from_json(manifest.to_json()) == manifest
        picture = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
        stream = Detector.load(folder, provider="cpu").stream()
        (judged,) = stream.observe(picture, 0.0).judged
        size = manifest.frame.input_size
        kind = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST_EXACT}[method]
        wanted = cv2.resize(picture[:, 25:175, ::-1], (size, size), interpolation=kind)
        np.testing.assert_array_equal(judged.crop, wanted)

    def test_whole_frames_may_also_be_judged_on_and_on(self, tmp_path: Path, face_clip: Path):
        folder = whole_frames(build_small_bundle(tmp_path / "bundle"), first=None)
        verdict = Detector.load(folder, provider="cpu").analyze(face_clip)
        assert verdict.frames == 15, "three seconds at 5 Hz"
        assert len(verdict.people) == 1


def test_the_last_logit_is_the_score_whatever_came_before(detector: Detector):
    decision = detector.decision
    assert decision.spec.person_score is PersonScore.LAST
    sums = StepSums().and_one(-8.0, 1.0).and_one(3.0, 1.0)
    assert decision.p_person(sums) == Decision(decision.spec).p_step(3.0)
