"""Preparing crops: what lies in the store, what is skipped, and going on after a break."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dfd_edge.errors import UsageError
from dfd_edge.faces import FaceDetector, crop_region, extract_crop
from dfd_edge.faces.crop import CROP_SCALE
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Sampler
from dfd_training.augment.jitter import NO_JITTER, to_input, work_crop
from dfd_training.cli import main
from dfd_training.data.prepare import PrepareOptions, face_of_crop, prepare
from dfd_training.data.store import CropStore, shard_name
from dfd_training.data.table import read_table


def test_every_readable_file_with_a_face_gives_crops(small_store: CropStore) -> None:
    index = small_store.index
    assert index["shard"].nunique() == 8 + 12
    photographs = index[index["source"] == "photographs"]
    assert (photographs.groupby("shard").size() == 1).all()
    clips = index[index["source"] == "clips"].groupby("shard").size()
    assert clips.between(7, 9).all(), "1.6 s at 5 Hz"
    assert index["has_landmarks"].all()
    assert index["judged"].all()


def test_what_gave_no_crop_is_listed_with_its_reason(small_store: CropStore) -> None:
    skipped = pd.read_csv(small_store.path / "skipped.csv").set_index("path")["reason"]
    assert skipped["leaf.png"] == "no face found"
    assert "broken.mp4" in skipped["broken.mp4"]


def test_landmarks_lie_on_the_face(small_store: CropStore) -> None:
    for row in small_store.index.itertuples():
        crop = small_store.crop(str(row.shard), int(row.position))
        assert crop.landmarks is not None
        centre = crop.landmarks.mean(axis=0)
        assert (crop.box[:2] < centre).all()
        assert (centre < crop.box[2:]).all()


def test_training_sees_the_crop_that_the_runtime_sees(
    small_data: Path, small_store: CropStore
) -> None:
    """The stored crop, cut for training, is the runtime's own crop of the same frame."""
    with VideoFile(small_data / "clip1_real.mp4") as video:
        frame = next(iter(video.frames(Sampler(5.0))))
    face = FaceDetector().detect(frame.image)[0]
    wanted = extract_crop(frame.image, crop_region(face.box, CROP_SCALE), 160)
    stored = small_store.crop(shard_name("clip1_real.mp4"), 0)
    seen = to_input(work_crop(stored, NO_JITTER).image, 160)
    assert np.abs(seen.astype(int) - wanted.astype(int)).mean() < 2.0

    def sharpness(crop: np.ndarray) -> float:
        return float(cv2.Laplacian(crop, cv2.CV_32F).var())

    assert face.size > 160, "large enough that shrinking it twice would show"
    assert sharpness(seen) == pytest.approx(sharpness(wanted), rel=0.03)


def test_other_settings_are_refused_for_the_same_store(
    small_data: Path, small_store: CropStore
) -> None:
    table = read_table(small_data / "labels.csv").head(1)
    with pytest.raises(UsageError, match=r"made with rate_hz 5\.0, not 10\.0: give another --out"):
        prepare(table, small_data, small_store.path, options=PrepareOptions(rate_hz=10.0))


def test_a_broken_off_run_goes_on_where_it_stopped(small_data: Path, tmp_path: Path) -> None:
    table = read_table(small_data / "labels.csv").head(3)
    prepare(table.head(1), small_data, tmp_path)
    first = tmp_path / "crops" / shard_name(table["path"].iloc[0])
    written = first.stat().st_mtime_ns
    summary = prepare(table, small_data, tmp_path)
    assert summary["done"] == 3
    assert first.stat().st_mtime_ns == written, "the finished file was read again"
    assert len(CropStore(tmp_path).index) == 3


SAMPLES = Path(__file__).resolve().parents[3] / "samples"


@pytest.fixture(scope="module")
def tight_crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures cut from a sample clip that are faces only, one too tight to be seen as a face."""
    folder = tmp_path_factory.mktemp("tight")
    with VideoFile(SAMPLES / "real_hopper.mp4") as video:
        frame = next(iter(video.frames(Sampler(5.0))))
    box = FaceDetector().detect(frame.image)[0].box
    for name, scale in (("wide", 1.5), ("face", 0.9), ("inner", 0.45)):
        crop = extract_crop(frame.image, crop_region(box, scale), 224)
        cv2.imwrite(str(folder / f"{name}.png"), crop[:, :, ::-1])
    (folder / "labels.csv").write_text(
        "path,label,cropped\n" + "".join(f"{n}.png,REAL,yes\n" for n in ("wide", "face", "inner"))
    )
    return folder


def test_a_tight_face_crop_gives_a_crop(tight_crops: Path, tmp_path: Path) -> None:
    """Even where no face is found: the picture itself is then what the model sees."""
    table = read_table(tight_crops / "labels.csv")
    plain = prepare(table.assign(cropped=""), tight_crops, tmp_path / "plain")
    assert plain == {"done": 2, "no face found": 1}
    assert prepare(table, tight_crops, tmp_path / "cropped") == {"done": 3}
    store = CropStore(tmp_path / "cropped")
    assert set(store.index["cropped"]) == {"yes"}
    assert "cropped" not in CropStore(tmp_path / "plain").index
    sizes = store.index.set_index("path")["face_px"]
    assert sizes["wide.png"] == pytest.approx(224 / 1.5, rel=0.1)
    assert sizes["face.png"] == pytest.approx(224 / 0.9, rel=0.1)
    assert sizes["inner.png"] == pytest.approx(224 / CROP_SCALE, rel=0.01)
    picture = cv2.imread(str(tight_crops / "inner.png"))[:, :, ::-1]
    stored = store.crop(shard_name("inner.png"), 0)
    seen = to_input(work_crop(stored, NO_JITTER).image, 224)
    assert np.abs(seen.astype(int) - picture.astype(int)).mean() < 2.0, "the picture as it is"
    assert store.index["judged"].all()


def test_what_is_no_face_in_a_cropped_picture_is_not_taken_for_one(astronaut: np.ndarray) -> None:
    """A small face at the rim is not what a picture was cropped to."""
    picture = np.full((600, 600, 3), 90, np.uint8)
    picture[20:170, 20:170] = cv2.resize(astronaut, (150, 150), interpolation=cv2.INTER_AREA)
    detector = FaceDetector()
    assert detector.detect(picture), "the detector sees it"
    face = face_of_crop(picture, detector, crop_scale=1.5)
    assert face.score == 0.0
    assert face.box == pytest.approx([100, 100, 500, 500])


def test_test_rows_are_left_to_evaluation(small_data: Path, tmp_path: Path) -> None:
    rows = read_table(small_data / "labels.csv").head(2)
    rows.loc[1, "split"] = "test"
    rows["dataset"] = "faces"
    rows.to_csv(tmp_path / "labels.csv", index=False)
    out = tmp_path / "store"
    arguments = ["prepare", str(tmp_path / "labels.csv"), "--root", str(small_data)]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out), "--workers", "1"])
    assert result.exit_code == 0, result.output
    index = CropStore(out).index
    assert index["path"].tolist() == [rows["path"].iloc[0]]
    assert index["dataset"].tolist() == ["faces"]


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no crop store"):
        CropStore(tmp_path)
