"""Measurements of consecutive frames say of made media what was put into them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clip_maker import portrait, write_clip

from dfd_edge.faces import Face, FaceDetector
from dfd_edge.faces.signals import NAMES, REGIONS, UNITS, measure
from dfd_edge.sources.frames import Burst

SIGMA = 3.0
#: Mean absolute values of a difference of two frames of noise with a standard deviation of 1, and
#: of its high-pass, which keeps 8 / 9 of the power.
CHANGE = math.sqrt(2) * math.sqrt(2 / math.pi)
NOISE = CHANGE * math.sqrt(8 / 9)


@pytest.fixture(scope="module")
def face() -> Face:
    (found,) = FaceDetector().detect(portrait())
    return found


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Luma of the portrait with room for noise below and above: float [512, 512]."""
    grey = cv2.cvtColor(portrait(), cv2.COLOR_BGR2GRAY)
    return cv2.GaussianBlur(30.0 + grey * 0.75, (0, 0), 1.0)


def noisy(picture: np.ndarray, sigma: float | np.ndarray, seed: int, count: int = 3) -> Burst:
    """The picture with noise that is drawn anew for each frame."""
    rng = np.random.default_rng(seed)
    frames = (picture + sigma * rng.normal(size=picture.shape) for _ in range(count))
    return Burst(tuple(np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in frames))


def values(burst: Burst, face: Face, shape: tuple[int, int] | None = None) -> dict[str, float]:
    measured = measure(burst, face.box, face.keypoints, shape or burst.planes[-1].shape)
    assert measured is not None
    assert (measured.dtype, measured.shape) == (np.float32, (len(NAMES),))
    assert np.isfinite(measured).all()
    return dict(zip(NAMES, measured.tolist(), strict=True))


def encoded(path: Path, frames: list[np.ndarray], rate: int, crf: int = 12) -> list[Burst]:
    """All bursts of a film of these luma pictures, as a decoder gives them."""
    images = [np.repeat(frame[:, :, None], 3, axis=2) for frame in frames]
    write_clip(path, images, rate=rate, options={"g": "250", "crf": str(crf), "bf": "0"})
    with av.open(str(path)) as container:
        planes = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    return [Burst(tuple(planes[i : i + 3])) for i in range(len(planes) - 2)]


def test_each_measurement_has_a_name_and_a_unit():
    assert len(NAMES) == len(set(NAMES)) == len(UNITS) == 33
    assert {name.split("_")[0] for name in NAMES} == set(REGIONS)


def test_a_still_picture_as_film_gives_nothing(picture, face, tmp_path):
    still = np.rint(picture).astype(np.uint8)
    assert measure(Burst((still,) * 3), face.box, face.keypoints, still.shape) is None
    bursts = encoded(tmp_path / "still.mp4", [still] * 30, 30)
    assert [measure(b, face.box, face.keypoints, still.shape) for b in bursts[20:]] == [None] * 8


def test_frames_that_repeat_once_are_measured_where_they_change(picture, face):
    first, second, _ = noisy(picture, SIGMA, 1).planes
    repeated = values(Burst((first, first, second)), face)
    assert repeated["face_noise_correlation"] == repeated["background_noise_correlation"] == 0.0
    assert repeated["face_noise"] == pytest.approx(math.log(NOISE * SIGMA), abs=0.1)


@pytest.mark.parametrize("sigma", [1.0, 3.0, 8.0])
def test_new_noise_is_measured_at_its_level(picture, face, sigma):
    found = values(noisy(picture, sigma, 2), face)
    for region in REGIONS:
        level = math.log(NOISE * math.hypot(sigma, math.sqrt(1 / 12)))
        assert found[f"{region}_noise"] == pytest.approx(level, abs=0.1), region
        level = math.log(CHANGE * math.hypot(sigma, math.sqrt(1 / 12)))
        assert found[f"{region}_change"] == pytest.approx(level, abs=0.1), region
    for region in ("face", "background"):
        assert found[f"{region}_noise_correlation"] == pytest.approx(-0.5, abs=0.05)
    share = math.erfc(8.5 / (sigma * 2))  # differences of 9 grey levels and more
    assert found["background_moving"] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("inside", [0.0, 1.0, 9.0])
def test_a_patch_over_the_face_has_other_noise_than_the_background(picture, face, inside):
    x0, y0, x1, y1 = face.box.astype(int)
    sigma = np.full(picture.shape, SIGMA)
    sigma[y0 - 30 : y1 + 20, x0 - 10 : x1 + 10] = inside
    found = values(noisy(picture, sigma, 3), face)
    for region in ("eyes", "mouth", "skin", "face"):
        apart = found[f"{region}_noise"] - found["background_noise"]
        expected = math.log((NOISE * inside + 0.02) / (NOISE * SIGMA + 0.02))
        assert apart == pytest.approx(expected, abs=0.15), region


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_a_moving_camera_at_any_rate(picture, face, tmp_path, rate):
    """Noise is the same at any rate; there is less change where less time passes."""
    rng = np.random.default_rng(rate)
    frames = []
    for number in range(8):
        move = np.float32([[1, 0, 60.0 * number / rate], [0, 1, 0]])  # 60 pixels a second
        moved = cv2.warpAffine(picture, move, (512, 512), borderMode=cv2.BORDER_REFLECT)
        frames.append(np.clip(moved + SIGMA * rng.normal(size=moved.shape), 0, 255).astype("u1"))
    burst = encoded(tmp_path / "moving.mp4", frames, rate, crf=4)[-1]
    shift = np.float32([60.0 * 7 / rate, 0])
    moved = Face(face.box + np.tile(shift, 2), face.keypoints + shift, 1.0)
    found = values(burst, moved)
    assert found["skin_noise"] == pytest.approx(math.log(NOISE * SIGMA), abs=0.35)
    assert found["face_change"] > found["background_noise"]
    still = values(
        encoded(tmp_path / "still.mp4", list(noisy(picture, 3.0, 1, 8).planes), rate, 4)[-1], face
    )
    assert found["face_change"] - still["face_change"] > {24: 0.35, 30: 0.25, 60: 0.05}[rate]


def test_strong_compression_takes_the_noise(picture, face, tmp_path):
    frames = list(noisy(picture, SIGMA, 4, count=20).planes)
    fine = values(encoded(tmp_path / "fine.mp4", frames, 30, crf=8)[-1], face)
    coarse = [
        measured[NAMES.index("face_noise")]
        for burst in encoded(tmp_path / "coarse.mp4", frames, 30, crf=38)
        if (measured := measure(burst, face.box, face.keypoints, (512, 512))) is not None
    ]
    assert all(level < fine["face_noise"] - 1.0 for level in coarse)


def test_the_dark_gives_finite_numbers(picture, face):
    found = values(noisy(picture * 0.02, 1.0, 5), face)
    assert found["face_contrast"] < math.log(4.0)
    black = np.zeros((512, 512), np.uint8)
    assert measure(Burst((black,) * 3), face.box, face.keypoints, black.shape) is None


def test_a_face_that_fills_the_picture_has_its_ring_for_a_background(picture, face):
    x0, y0, x1, y1 = (face.box + [-15, -20, 15, 15]).astype(int)
    corner = np.float32([x0, y0])
    close = Face(face.box - np.tile(corner, 2), face.keypoints - corner, 1.0)
    found = values(noisy(picture[y0:y1, x0:x1], SIGMA, 6), close)
    for name in ("noise", "change", "moving", "fine_detail", "detail"):
        assert found[f"background_{name}"] == found[f"ring_{name}"]
    assert found["face_noise"] == pytest.approx(math.log(NOISE * SIGMA), abs=0.1)


def test_tiny_faces_and_faces_half_outside_are_not_measured(picture, face):
    burst = noisy(picture, SIGMA, 7)
    shape = burst.planes[-1].shape
    assert measure(burst, face.box / 10, face.keypoints / 10, shape) is None
    for across, down in ((-260, 0), (320, 0), (0, -190), (0, 420)):
        move = np.float32([across, down])
        box, keypoints = face.box + np.tile(move, 2), face.keypoints + move
        assert measure(burst, box, keypoints, shape) is None


def test_coordinates_are_those_of_the_image_and_not_of_the_planes(picture, face):
    burst = noisy(picture, SIGMA, 8)
    larger = Face(face.box * [2, 3, 2, 3], face.keypoints * [2, 3], 1.0)
    assert values(burst, larger, (1536, 1024)) == pytest.approx(values(burst, face), abs=1e-6)


def test_it_is_the_same_each_time_and_leaves_the_frames_alone(picture, face):
    burst = noisy(picture, SIGMA, 9)
    before = [plane.copy() for plane in burst.planes]
    assert values(burst, face) == values(burst, face)
    assert all((one == other).all() for one, other in zip(burst.planes, before, strict=True))


def test_any_box_gives_finite_numbers_or_none(picture, face):
    burst = noisy(picture, SIGMA, 10)
    rng = np.random.default_rng(11)
    seen = {True: 0, False: 0}
    for _ in range(150):
        scale, move = np.exp(rng.uniform(-3, 2)), rng.uniform(-500, 500, 2)
        box = (face.box * scale + np.tile(move, 2)).astype(np.float32)
        keypoints = (face.keypoints * scale + move).astype(np.float32)
        found = measure(burst, box, keypoints, (512, 512))
        seen[found is None] += 1
        assert found is None or np.isfinite(found).all()
    assert min(seen.values()) > 5
    for wrong in (np.nan, np.inf, -np.inf):
        assert measure(burst, np.full(4, wrong, "f4"), face.keypoints, (512, 512)) is None


def test_a_large_face_is_measured_in_milliseconds(picture, face):
    """A few of them; the bound leaves room for busy machines."""
    planes = cv2.resize(picture, (720, 720))
    burst = noisy(planes, SIGMA, 12)
    elapsed = []
    for _ in range(10):
        start = time.thread_time()
        values(burst, face, (512, 512))
        elapsed.append(time.thread_time() - start)
    assert min(elapsed) < 0.02
