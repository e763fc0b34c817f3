"""The doctor finds what is planted, and nothing where nothing is."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from dfd_edge.errors import SourceError, UsageError
from dfd_training.cli import main
from dfd_training.data.store import CropStore, StoredCrop
from dfd_training.evaluation.crops.classifiers import linear, out_of_fold, paired_wins
from dfd_training.evaluation.crops.leak_samples import (
    Occlusion,
    Sample,
    face_area,
    measure,
    media_facts,
    occluded,
)
from dfd_training.evaluation.crops.leaks import Check, Finding, examine
from dfd_training.evaluation.crops.selection import JudgedFile
from dfd_training.evaluation.statistics import auc

ALL, OWN = "against all real clips", "against own originals"


def sample(
    *,
    bit_rate: float = 0.0,
    border: float = 0.0,
    face: float = 2.0,
    logit: float = 0.0,
    seed: int = 2,
) -> Sample:
    """24 pairs and 20 reals of noise; the arguments say by how much fakes differ, and where.

    `logit` is what the model gives fakes more when the face is blurred away.
    """
    rng = np.random.default_rng(seed)
    files = []
    for number in range(24):
        group = f"g{number}"
        real = JudgedFile(f"{group}.mp4", False, group, "tool", "", "", False, False, "", (0,))
        fake = replace(
            real, path=f"{group}_fake.mp4", fake=True, original=real.path, generator="tool"
        )
        files += [real, fake]
    files += [
        JudgedFile(f"r{n}.mp4", False, f"r{n}", "other", "", "", False, False, "", (0,))
        for n in range(20)
    ]
    fake = np.array([float(file.fake) for file in files])
    scene = {file.group: rng.normal(0, 1, 12) for file in files}
    noise = np.array([scene[file.group] for file in files]) + rng.normal(0, 0.3, (len(files), 12))

    def features(strength: float) -> NDArray[np.float64]:
        return noise + strength * fake[:, None]

    facts = {"bit rate": rng.normal(5, 1, len(files)) + bit_rate * fake, "length": noise[:, 0]}
    return Sample(
        files,
        pd.DataFrame(facts),
        {
            Occlusion.NOTHING: features(face),
            Occlusion.GREY: features(border),
            Occlusion.BLUR: features(border),
        },
        {
            Occlusion.NOTHING: noise[:, 0] + face * fake,
            Occlusion.GREY: noise[:, 1],
            Occlusion.BLUR: noise[:, 1] + logit * fake,
        },
    )


def found(checks: list[Check], name: str, by: str, case: str) -> Check:
    (check,) = [c for c in checks if c.name.startswith(name) and c.by == by and c.case == case]
    return check


@pytest.fixture(scope="module")
def healthy() -> list[Check]:
    return examine(sample(), draws=200)


def test_nothing_is_found_where_only_the_face_differs(healthy: list[Check]) -> None:
    judged = [c for c in healthy if c.finding is not Finding.REFERENCE and c.case != ALL]
    assert len(judged) == 6
    for check in judged:
        assert check.finding is Finding.CLEAN, check
    whole = found(healthy, "whole crop", "the model", OWN)
    assert whole.auc.low > 0.6, "the face itself is told apart"
    assert (whole.auc.n, whole.auc.groups, whole.won.n) == (48, 24, 24)


@pytest.mark.parametrize(
    ("planted", "name", "by"),
    [
        ({"bit_rate": 3.0}, "file facts", "logistic regression on differences"),
        pytest.param({"border": 1.5}, "border only", "ImageNet features", marks=pytest.mark.slow),
        pytest.param({"logit": 2.0}, "face blurred away", "the model", marks=pytest.mark.slow),
    ],
)
def test_a_planted_leak_is_found(planted: dict[str, float], name: str, by: str) -> None:
    check = found(examine(sample(**planted), draws=200), name, by, OWN)
    assert check.finding is Finding.TELLING
    assert check.won.low > 0.6
    if "bit_rate" in planted:
        assert "most in bit rate" in check.meaning


@pytest.mark.slow
def test_sources_that_differ_are_said_to(healthy: list[Check]) -> None:
    apart = sample()
    apart.facts.loc[[file.source == "other" for file in apart.files], "bit rate"] += 30
    check = found(examine(apart, draws=100), "file facts", "random forest", ALL)
    assert check.finding is Finding.TELLING
    assert "other sources" in check.meaning
    before = found(healthy, "file facts", "random forest", ALL)
    assert before.auc.value + 0.1 < check.auc.value


def test_shuffled_labels_are_not_learnt(healthy: list[Check]) -> None:
    (check,) = [c for c in healthy if c.name == "shuffled labels"]
    assert check.finding is Finding.CLEAN
    assert abs(check.auc.value - 0.5) < 0.1
    assert check.auc.n == 48, "the source without fakes is left out"


@pytest.mark.slow
def test_validation_rows_are_judged_by_what_training_rows_taught() -> None:
    """The leak points the other way there: only a classifier fitted on train is wrong about it."""
    checks = examine(sample(bit_rate=3.0), sample(bit_rate=-3.0, seed=5), draws=100)
    own = found(checks, "file facts", "logistic regression on differences", OWN)
    everyone = found(checks, "file facts", "random forest", ALL)
    assert own.won.value < 0.2
    assert everyone.auc.high < 0.5


@pytest.mark.slow
def test_without_a_model_its_checks_say_so() -> None:
    checks = examine(replace(sample(), logits={}), draws=50)
    missing = [check for check in checks if check.finding is Finding.NOT_CHECKED]
    assert {check.name for check in missing} == {"border only", "face blurred away"}
    assert all("no --frame was given" in check.meaning for check in missing)


@pytest.mark.slow
def test_few_groups_are_not_taken_for_proof() -> None:
    """Four pairs, all told apart by what is left without the face: that happens by chance."""
    whole = sample(logit=3.0)
    few = [*range(8), *range(48, 60)]
    small = Sample(
        [whole.files[i] for i in few],
        whole.facts.iloc[few].reset_index(drop=True),
        {cover: rows[few] for cover, rows in whole.features.items()},
        {cover: rows[few] for cover, rows in whole.logits.items()},
    )
    check = found(examine(small, draws=50), "face blurred away", "the model", OWN)
    assert check.won.low == 1.0
    assert check.finding is Finding.TOO_FEW


def test_reals_alone_are_refused() -> None:
    whole = sample()
    reals = [i for i, item in enumerate(whole.files) if not item.fake]
    alone = Sample(
        [whole.files[i] for i in reals],
        whole.facts.iloc[reals].reset_index(drop=True),
        {cover: rows[reals] for cover, rows in whole.features.items()},
        {},
    )
    with pytest.raises(UsageError, match="fakes or reals of one group only"):
        examine(alone, draws=5)
    with pytest.raises(UsageError, match="fakes only or reals only"):
        examine(whole, alone, draws=5)


def test_quick_classifiers_see_nothing_of_a_group_before_they_judge_it() -> None:
    """A classifier that remembers: rows of a group are copies, labels are by chance."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 60), 2)
    features = np.repeat(rng.normal(0, 1, (60, 3)), 2, axis=0)
    apart = np.repeat(np.arange(60), 2).astype(str)

    def remember(seed: int) -> KNeighborsClassifier:
        return KNeighborsClassifier(1)

    assert abs(auc(labels, out_of_fold(remember, features, labels, apart)) - 0.5) < 0.2
    mixed = np.arange(120).astype(str)
    assert auc(labels, out_of_fold(remember, features, labels, mixed)) > 0.8


def test_one_group_cannot_be_held_against_others() -> None:
    with pytest.raises(UsageError, match="fakes or reals of one group only"):
        out_of_fold(linear, np.zeros((4, 2)), np.array([0, 1, 0, 1]), np.array(list("aaaa")))
    with pytest.raises(UsageError, match="pairs of one group only"):
        paired_wins(np.ones((2, 1)), np.array(["a", "a"]))


def test_pairs_without_a_difference_are_a_toss() -> None:
    groups = np.arange(6).astype(str)
    assert paired_wins(np.zeros((6, 2)), groups).tolist() == [0.5] * 6
    always = np.array([[0.1, 5.0]] * 6) * np.array([[1.0, 0.0]])
    assert paired_wins(always, groups).tolist() == [1.0] * 6
    assert paired_wins(always, groups, guide=-always).tolist() == [0.0] * 6


@pytest.mark.parametrize("cover", [Occlusion.GREY, Occlusion.BLUR])
def test_the_face_is_hidden_and_the_rest_is_not(
    cover: Occlusion, astronaut_crop: StoredCrop
) -> None:
    area = face_area(astronaut_crop)
    assert astronaut_crop.landmarks is not None
    for x, y in astronaut_crop.landmarks:
        assert area[round(float(y)), round(float(x))]
    picture = occluded(astronaut_crop, cover)
    far = ~np.asarray(area)
    size = float(np.ptp(astronaut_crop.landmarks, axis=0).max())
    reach = int(0.1 * size)
    for axis in (0, 1):
        for step in range(1, reach):
            far &= ~np.roll(area, step, axis) & ~np.roll(area, -step, axis)
    assert (picture[far] == astronaut_crop.image[far]).all()
    before, after = (
        np.abs(np.diff(image[area].astype(float), axis=0)).mean()
        for image in (astronaut_crop.image, picture)
    )
    assert after < 0.2 * before, "no texture of the face is left"


@dataclass(frozen=True)
class Brightness:
    """A frame model that takes bright crops for fake."""

    input_size: int = 32

    def score(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits = crops.mean(axis=(1, 2, 3), dtype=np.float32)
        return logits[:, None], logits


def colours(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    return crops.mean(axis=(1, 2), dtype=np.float64)


def test_what_is_measured_of_a_store(small_store: CropStore, small_data: Path) -> None:
    seen = measure(small_store, "train", root=small_data, embed=colours, model=Brightness())
    assert len(seen.files) == 12
    assert len(seen.pairs) == 6
    assert {"face size", "brightness", "width", "bit rate", "codec_h264 yuv420p"} <= set(seen.facts)
    assert (seen.facts["frame rate"] == 25).all()
    np.testing.assert_allclose(seen.facts["length"], 1.6, atol=0.11)
    grey = seen.features[Occlusion.GREY]
    assert grey.shape == (12, 3)
    assert (np.abs(grey - seen.features[Occlusion.NOTHING]) > 1).any(axis=1).all()
    np.testing.assert_allclose(
        seen.logits[Occlusion.BLUR], seen.features[Occlusion.BLUR].mean(axis=1), atol=1.0
    )


def test_media_that_are_not_there_are_named(small_store: CropStore, tmp_path: Path) -> None:
    seen = measure(small_store, "train", root=None, embed=colours, model=None)
    assert "width" not in seen.facts
    with pytest.raises(SourceError, match=r"clip0_fake\.mp4: no facts of this clip .*give --root"):
        media_facts(tmp_path, seen.files)


@pytest.mark.slow
def test_the_doctor_command(small_store: CropStore, small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "doctor.json"
    arguments = ["doctor-data", str(small_store.path), "--root", str(small_data)]
    result = CliRunner().invoke(main, [*arguments, "--draws", "50", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "| shuffled labels | ImageNet features |" in result.stdout
    assert "not checked: no --frame was given" in result.stdout
    stored = json.loads(out.read_text())
    assert {check["finding"] for check in stored["checks"]} >= {"reference", "not checked"}
    refused = CliRunner().invoke(main, [*arguments, "--split", "val"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: ")
    assert "no judged clip in split val" in refused.stderr
