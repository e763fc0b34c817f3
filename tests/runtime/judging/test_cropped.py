"""Pictures that are face crops: judged as they are, never `no_face`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfd_edge import Detector, FrameResult, Label, UsageError
from dfd_edge.faces import CroppedFaces, FaceDetector
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Image, Sampler

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
SAMPLE = SAMPLES / "real_hopper.mp4"


@pytest.fixture(scope="module")
def inner() -> Image:
    """A picture that lies within a face: no detector sees one in it."""
    with VideoFile(SAMPLE) as video:
        frame = next(iter(video.frames(Sampler(5.0)))).image
    x0, y0, x1, y1 = FaceDetector().detect(frame)[0].box
    x, y, half = round((x0 + x1) / 2), round((y0 + y1) / 2), round(0.22 * (x1 - x0))
    return np.ascontiguousarray(frame[y - half : y + half, x - half : x + half])


def test_a_picture_without_a_seen_face_is_judged_as_it_is(inner: Image, tiny_bundle: Path) -> None:
    detector = Detector.load(tiny_bundle, provider="cpu")
    assert detector.analyze(inner).label is Label.NO_FACE
    results: list[FrameResult] = []
    verdict = detector.analyze(inner, on_frame=results.append, cropped=True)
    assert verdict.label is not Label.NO_FACE
    assert verdict.p_fake is not None
    assert verdict.coverage == 1.0
    ((person,),) = (result.people for result in results)
    height, width = inner.shape[:2]
    assert person.crop == pytest.approx((0, 0, max(height, width)), abs=1), "the whole picture"


def test_a_picture_with_a_face_is_cut_at_it(astronaut_picture: Image, tiny_bundle: Path) -> None:
    detector = Detector.load(tiny_bundle, provider="cpu")
    results: list[FrameResult] = []
    plain = detector.analyze(astronaut_picture, on_frame=results.append)
    cropped = detector.analyze(astronaut_picture, on_frame=results.append, cropped=True)
    assert results[0].people[0].crop == results[1].people[0].crop
    assert cropped.p_fake == plain.p_fake


@pytest.fixture
def astronaut_picture() -> Image:
    with VideoFile(SAMPLES / "real_astronaut.mp4") as video:
        frame = next(iter(video.frames(Sampler(5.0)))).image
    x0, y0, x1, y1 = (round(float(side)) for side in FaceDetector().detect(frame)[0].box)
    pad = (x1 - x0) // 4
    return np.ascontiguousarray(frame[max(0, y0 - pad) : y1 + pad, max(0, x0 - pad) : x1 + pad])


def test_what_is_no_face_in_a_crop_is_not_taken_for_one(astronaut_picture: Image) -> None:
    """A small face at the rim is not what a picture was cropped to."""
    picture = np.full((600, 600, 3), 90, np.uint8)
    picture[20:170, 20:170] = cv2.resize(
        astronaut_picture, (150, 150), interpolation=cv2.INTER_AREA
    )
    detector = FaceDetector()
    assert detector.detect(picture), "the detector sees it"
    (face,) = CroppedFaces(detector, crop_scale=1.5).detect(picture)
    assert face.score == 0.0
    assert face.box == pytest.approx([100, 100, 500, 500])


def test_a_video_is_no_face_crop(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"real_hopper\.mp4: cropped is for images, this is none"):
        Detector.load(tiny_bundle, provider="cpu").analyze(SAMPLE, cropped=True)


def test_the_command_takes_an_option_for_it(
    inner: Image, tiny_bundle: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "face.png"), inner)
    arguments = ["--model", tiny_bundle, "--json", tmp_path]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dfd_edge", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def label(*options: str) -> str:
        done = run(*arguments, *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])["label"]

    assert label() == "no_face"
    assert label("--cropped") != "no_face"
    refused = run("--model", tiny_bundle, "--cropped", SAMPLE)
    assert refused.returncode == 2
    assert "error: --cropped is for images that are face crops: give one" in refused.stderr


def test_no_real_face_crop_is_without_a_face(development_data: Path) -> None:
    """Crops of DFDC, and their middles, which the detector mostly sees no face in."""
    paths = sorted((development_data / "faces" / "dfdc").glob("*.jpg"))[:200:10]
    if not paths:
        pytest.skip("the development data have no crops of DFDC")
    detector, unseen = Detector.load(), 0
    for path in paths:
        picture = cv2.imread(str(path))
        quarter = picture.shape[0] // 4
        middle = np.ascontiguousarray(picture[quarter:-quarter, quarter:-quarter])
        unseen += detector.analyze(middle).label is Label.NO_FACE
        for shown in (picture, middle):
            verdict = detector.analyze(shown, cropped=True)
            assert verdict.label is not Label.NO_FACE, path.name
    assert unseen, "the option changes nothing on these"
