"""Pairs of real and fake: what differs is the forgery, not sharpness, colour or size."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from dfd_edge.errors import UsageError
from dfd_training.augment.synthesis import Forged, ForgeryKind, forge
from dfd_training.augment.synthesis.forgery import match_sharpness, sharpness
from dfd_training.augment.synthesis.geometry import move_points, points_box, similarity
from dfd_training.augment.synthesis.rebuild import Rebuild, Upsampling, rebuild
from dfd_training.augment.synthesis.reenact import ExpressionChange, Reenactment, express, reenact
from dfd_training.data.store import StoredCrop

WHOLE = (ForgeryKind.REENACTED, ForgeryKind.REBUILT)
STILL = ExpressionChange(jaw=0.0, smile=0.0, brows=0.0, lids=0.0, yaw=0.0, pitch=0.0, roll=0.0)


@pytest.fixture(scope="module")
def tilted_crop(astronaut_crop: StoredCrop) -> StoredCrop:
    """The portrait in another frame of its clip: the camera a little turned and nearer."""
    assert astronaut_crop.landmarks is not None
    turn = cv2.getRotationMatrix2D((150, 120), 4.0, 1.04)
    image = cv2.warpAffine(astronaut_crop.image, turn, (300, 300), borderMode=cv2.BORDER_REFLECT)
    marks = move_points(astronaut_crop.landmarks, turn)
    return StoredCrop(np.asarray(image, np.uint8), astronaut_crop.box, marks, 1.5)


@pytest.fixture(scope="module")
def forged(
    astronaut_crop: StoredCrop, hopper_crop: StoredCrop, tilted_crop: StoredCrop
) -> dict[ForgeryKind, list[Forged]]:
    """Two hundred self-blends of one portrait, and sixty of each other kind."""
    rng = np.random.default_rng(11)
    return {
        kind: [
            forge(kind, astronaut_crop, rng, donor=hopper_crop, neighbour=tilted_crop)
            for _ in range(200 if kind is ForgeryKind.SELF_BLEND else 60)
        ]
        for kind in ForgeryKind
    }


@pytest.mark.parametrize("kind", list(ForgeryKind))
def test_a_pair_is_two_pictures_of_the_targets_size_and_a_mask(
    astronaut_crop: StoredCrop, forged: dict[ForgeryKind, list[Forged]], kind: ForgeryKind
) -> None:
    for pair in forged[kind]:
        for picture in (pair.real, pair.fake):
            assert picture.shape == astronaut_crop.image.shape
            assert picture.dtype == np.uint8
        assert pair.mask.shape == astronaut_crop.image.shape[:2]
        assert pair.mask.dtype == np.float32
        assert 0.0 <= pair.mask.min() <= pair.mask.max() <= 1.0
        assert (pair.mask == 1.0).all() == (kind in WHOLE)
    changes = [np.abs(pair.real.astype(int) - pair.fake).mean() for pair in forged[kind]]
    assert np.median(changes) > 0.2, "the fakes are the real pictures"


@pytest.mark.parametrize("kind", list(ForgeryKind))
def test_the_same_seed_forges_the_same(
    astronaut_crop: StoredCrop,
    hopper_crop: StoredCrop,
    tilted_crop: StoredCrop,
    kind: ForgeryKind,
) -> None:
    before = astronaut_crop.image.copy()
    pairs = [
        forge(
            kind,
            astronaut_crop,
            np.random.default_rng(4),
            donor=hopper_crop,
            neighbour=tilted_crop,
        )
        for _ in range(2)
    ]
    assert (pairs[0].real == pairs[1].real).all()
    assert (pairs[0].fake == pairs[1].fake).all()
    assert (astronaut_crop.image == before).all(), "the input was changed"


@pytest.mark.parametrize("kind", list(ForgeryKind))
def test_real_and_fake_faces_are_about_equally_sharp(
    astronaut_crop: StoredCrop, forged: dict[ForgeryKind, list[Forged]], kind: ForgeryKind
) -> None:
    assert astronaut_crop.landmarks is not None
    box = points_box(astronaut_crop.landmarks, astronaut_crop.image.shape[:2])
    logs = [np.log(sharpness(p.real, box) / sharpness(p.fake, box)) for p in forged[kind]]
    ratio = float(np.exp(np.mean(logs)))
    tolerance = 1.12 if kind is ForgeryKind.SELF_BLEND else 1.3
    assert 1 / tolerance < ratio < tolerance
    assert 0.3 < np.mean(np.array(logs) > 0) < 0.7, "sharpness tells the label"


def test_real_and_fake_have_the_same_colours_on_average(
    forged: dict[ForgeryKind, list[Forged]],
) -> None:
    pairs = forged[ForgeryKind.SELF_BLEND]
    differences = np.array(
        [pair.real.mean(axis=(0, 1)) - pair.fake.mean(axis=(0, 1)) for pair in pairs]
    )
    deviation = differences.std(axis=0) / np.sqrt(len(pairs))
    assert (np.abs(differences.mean(axis=0)) < 4 * deviation + 0.1).all()


def test_a_forgery_that_lacks_what_it_needs_says_so(astronaut_crop: StoredCrop) -> None:
    rng = np.random.default_rng(0)
    blind = dataclasses.replace(astronaut_crop, landmarks=None)
    for kind in ForgeryKind:
        with pytest.raises(UsageError, match="landmarks"):
            forge(kind, blind, rng)
    with pytest.raises(UsageError, match="donor"):
        forge(ForgeryKind.FACE_SWAP, astronaut_crop, rng)
    with pytest.raises(UsageError, match="donor"):
        forge(ForgeryKind.FACE_SWAP, astronaut_crop, rng, donor=blind)


@pytest.mark.parametrize(
    "kind", [ForgeryKind.PART_SWAP, ForgeryKind.REENACTED, ForgeryKind.REBUILT]
)
def test_a_photograph_alone_can_be_forged(astronaut_crop: StoredCrop, kind: ForgeryKind) -> None:
    pair = forge(kind, astronaut_crop, np.random.default_rng(1))
    assert (pair.real != pair.fake).any()


def test_a_donor_seen_from_the_side_is_not_bent_to_the_front(astronaut_crop: StoredCrop) -> None:
    assert astronaut_crop.landmarks is not None
    sideways = express(astronaut_crop.landmarks, dataclasses.replace(STILL, yaw=60.0))
    white = np.full_like(astronaut_crop.image, 255)
    donor = StoredCrop(white, astronaut_crop.box, sideways, 1.5)
    pairs = [
        forge(ForgeryKind.FACE_SWAP, astronaut_crop, np.random.default_rng(seed), donor=donor)
        for seed in range(10)
    ]
    brightest = astronaut_crop.image.mean() + 40
    assert all(pair.fake.mean() < brightest for pair in pairs)
    faces = [pair.fake[pair.mask > 0.9] for pair in pairs if (pair.mask > 0.9).any()]
    assert all(face.std() > 10 for face in faces), "the white donor shows"


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.3])
def test_a_picture_is_brought_to_a_sharpness(astronaut_crop: StoredCrop, factor: float) -> None:
    assert astronaut_crop.landmarks is not None
    box = points_box(astronaut_crop.landmarks, astronaut_crop.image.shape[:2])
    wanted = factor * sharpness(astronaut_crop.image, box)
    for seed in range(4):
        changed = match_sharpness(astronaut_crop.image, box, wanted, np.random.default_rng(seed))
        assert sharpness(changed, box) == pytest.approx(wanted, rel=0.1)


def test_an_opened_mouth_is_open(astronaut_crop: StoredCrop) -> None:
    marks = astronaut_crop.landmarks
    assert marks is not None
    driven = express(marks, dataclasses.replace(STILL, jaw=0.08))
    height = float(np.hypot(*(marks[152] - marks[10])))
    gap = [float(points[14, 1] - points[13, 1]) for points in (marks, driven)]
    assert 0.05 * height < gap[1] - gap[0] < 0.12 * height
    assert np.abs(driven[10] - marks[10]).max() < 0.01 * height, "the forehead moved"


def test_a_reenacted_face_lies_where_it_was_driven(astronaut_crop: StoredCrop) -> None:
    """The pixel at an eye's corner is found again where the corner was driven to."""
    marks = astronaut_crop.landmarks
    assert marks is not None
    plain = Reenactment(
        reach=0.04,
        fade=1.0,
        repair=0.0,
        rendered_side=512,
        smear=0.0,
        sharpen=0.0,
        inside_mouth=0.5,
    )
    same = reenact(astronaut_crop.image, marks, marks, plain)
    assert np.abs(same.astype(int) - astronaut_crop.image).mean() < 0.5
    driven = express(marks, dataclasses.replace(STILL, yaw=8.0, brows=0.02))
    fake = reenact(astronaut_crop.image, marks, driven, plain)
    for corner in (33, 263, 1):
        x, y = np.round(marks[corner]).astype(int)
        patch = astronaut_crop.image[y - 6 : y + 7, x - 6 : x + 7]
        found = cv2.matchTemplate(fake, patch, cv2.TM_CCOEFF_NORMED)
        where = np.array(cv2.minMaxLoc(found)[3]) + 6
        assert np.hypot(*(where - driven[corner])) < np.hypot(*(marks[corner] - driven[corner]))


def test_a_similarity_is_found_again() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (20, 2)).astype(np.float32)
    matrix = np.array([[0.8, -0.6, 12.0], [0.6, 0.8, -5.0]]) * 1.5
    assert similarity(points, move_points(points, matrix)) == pytest.approx(matrix, abs=1e-4)


def test_a_rebuilt_picture_has_the_period_of_its_grid(astronaut_crop: StoredCrop) -> None:
    grid = np.ones((4, 4, 3), np.float32)
    grid[0, 0] = 1.05
    parameters = Rebuild(
        side=1.0,
        upsampling=Upsampling.NONE,
        grid=grid,
        smear=0.0,
        sharpen=0.0,
        grain=0.0,
        grain_px=1.0,
        chroma=1.0,
        fringe=(0.0, 0.0),
    )
    rng = np.random.default_rng(0)

    def peak(picture: np.ndarray) -> float:
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)[:300, :300]
        spectrum = np.abs(np.fft.fft2(grey - cv2.GaussianBlur(grey, (0, 0), 2)))
        return float(spectrum[75, 75] / np.median(spectrum[70:80, 70:80]))

    assert peak(rebuild(astronaut_crop.image, parameters, rng)) > 4 * peak(astronaut_crop.image)
