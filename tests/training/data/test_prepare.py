"""Preparing crops: what lies in the store, what is skipped, and going on after a break."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dfd_edge.errors import UsageError
from dfd_edge.faces import CroppedFaces, FaceDetector, Tracker, crop_region, extract_crop
from dfd_edge.faces.crop import CROP_SCALE
from dfd_edge.faces.detector import box_overlap
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION, measure
from dfd_edge.sources import VideoFile, read_image
from dfd_edge.sources.frames import Sampler
from dfd_training.augment.jitter import NO_JITTER, to_input, work_crop
from dfd_training.cli import main
from dfd_training.data import croppers
from dfd_training.data.names import CropperName
from dfd_training.data.prepare import PrepareOptions, prepare
from dfd_training.data.store import CropStore, Shard, shard_name
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


def test_the_runtime_cuts_a_face_crop_as_prepare_did(tight_crops: Path, tmp_path: Path) -> None:
    """A face crop is cut alike for fitting and for judging."""
    table = read_table(tight_crops / "labels.csv")
    prepare(table, tight_crops, tmp_path, options=PrepareOptions(crop_scale=1.0))
    store = CropStore(tmp_path)
    for name in table["path"]:
        picture = read_image(tight_crops / name)
        finder = CroppedFaces(FaceDetector(), crop_scale=store.crop_scale)
        (face,) = finder.detect(picture)
        wanted = extract_crop(picture, crop_region(face.box, store.crop_scale), 160)
        stored = store.crop(shard_name(name), 0)
        seen = to_input(work_crop(stored, NO_JITTER).image, 160)
        assert np.abs(seen.astype(int) - wanted.astype(int)).mean() < 2.0, name


@pytest.mark.parametrize(
    ("cropped", "scale"), [(("yes", "yes", "yes"), 1.0), (("yes", "", "yes"), 1.5)]
)
def test_sets_of_face_crops_are_cut_tight(
    tight_crops: Path, tmp_path: Path, cropped: tuple[str, ...], scale: float
) -> None:
    """Where every row is one: else the crops of others would lose the head's outline."""
    table = read_table(tight_crops / "labels.csv").assign(cropped=cropped)
    table.to_csv(tmp_path / "labels.csv", index=False)
    arguments = ["prepare", str(tmp_path / "labels.csv"), "--root", str(tight_crops)]
    arguments += ["--workers", "1", "--out"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    assert CropStore(tmp_path / "store").crop_scale == scale
    assert ("face crops only, cut at 1 times the face" in result.stderr) is (scale == 1.0)
    wide = CliRunner().invoke(main, [*arguments, str(tmp_path / "wide"), "--crop-scale", "1.3"])
    assert wide.exit_code == 0, wide.output
    again = CliRunner().invoke(main, [*arguments, str(tmp_path / "wide")])
    assert again.exit_code == 0, again.output
    assert CropStore(tmp_path / "wide").crop_scale == 1.3, "a run goes on at the store's own"


@pytest.mark.parametrize(
    ("cropper", "name"), [("haar", "haar_frontalface_default"), ("dlib", "dlib_hog")]
)
def test_faces_can_be_cut_by_the_notebooks_detectors(
    small_data: Path, tmp_path: Path, cropper: str, name: str
) -> None:
    if cropper == "dlib":
        pytest.importorskip("dlib", reason="dlib is not installed")
    rows = read_table(small_data / "labels.csv")
    rows = rows[rows["path"].isin(["astronaut_0.png", "hopper_0.png", "clip0_real.mp4"])]
    rows.to_csv(tmp_path / "labels.csv", index=False)
    arguments = ["prepare", str(tmp_path / "labels.csv"), "--root", str(small_data)]
    arguments += ["--out", str(tmp_path / "store"), "--workers", "1"]
    result = CliRunner().invoke(main, [*arguments, "--detector", cropper])
    assert result.exit_code == 0, result.output
    store = CropStore(tmp_path / "store")
    assert store.detector == store.settings["detector"] == name
    assert len(str(store.settings["detector_sha256"])) == 64
    assert set(store.index["path"]) == set(rows["path"])
    for path in ("astronaut_0.png", "hopper_0.png"):
        crop = store.crop(shard_name(path), 0)
        (wanted, *_) = FaceDetector().detect(crop.image)
        assert box_overlap(crop.box, wanted.box) > 0.4, "the same face, by another box"
    other = CliRunner().invoke(main, arguments)
    assert other.exit_code == 2
    assert f"made with detector {name}, not blazeface_full_range: give another" in other.output


def test_a_cropper_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(croppers, "dlib_is_there", lambda: False)
    with pytest.raises(UsageError, match=r"dlib is not installed: pip install 'dfd-edge\[dlib\]'"):
        croppers.open_cropper(CropperName.DLIB)


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


def shard_of(store: Path, path: str) -> Shard:
    return Shard.load(store / "crops" / shard_name(path))


def test_clips_are_measured_by_their_consecutive_frames(small_store: CropStore) -> None:
    """The first due frame has none before it, and a photograph has no others at all."""
    for path in ("clip1_real.mp4", "clip2_fake.mp4"):
        signals = shard_of(small_store.path, path).signals
        assert signals.shape[1] == len(NAMES)
        assert np.isnan(signals[0]).all()
        assert np.isfinite(signals[1:]).all(axis=1).mean() > 0.5
    assert np.isnan(shard_of(small_store.path, "hopper_0.png").signals).all()
    assert small_store.settings["signals_version"] == SIGNALS_VERSION


def test_signals_of_a_stored_crop_are_the_runtime_s(
    small_data: Path, small_store: CropStore
) -> None:
    detector, tracker, position = FaceDetector(), Tracker(), 0
    signals = shard_of(small_store.path, "clip1_real.mp4").signals
    with VideoFile(small_data / "clip1_real.mp4") as video:
        for frame in video.frames(Sampler(5.0), bursts=True):
            faces = detector.detect(frame.image)
            (tracked,) = tracker.update(faces, frame.time_s, frame.image)
            if frame.burst is not None:
                shape = frame.image.shape[:2]
                wanted = measure(frame.burst, tracked.face.box, tracked.face.keypoints, shape)
                if wanted is not None:
                    np.testing.assert_array_equal(signals[position], wanted)
            position += 1
    assert position == len(signals)


def as_before_signals(store: Path, out: Path) -> Path:
    """A copy of a store as it was written before signals were measured."""
    shutil.copytree(store, out)
    settings = json.loads((out / "store.json").read_text())
    del settings["signals_version"]
    (out / "store.json").write_text(json.dumps(settings))
    for path in (out / "crops").iterdir():
        with np.load(path) as arrays:
            left = {name: arrays[name] for name in arrays if not name.startswith("signals")}
        np.savez(path, **left)
        os.utime(path, ns=(0, 0))
    return out


def test_an_older_store_has_its_clips_measured_and_keeps_its_photographs(
    small_data: Path, small_store: CropStore, tmp_path: Path
) -> None:
    out = as_before_signals(small_store.path, tmp_path / "store")
    clips = ["clip0_real.mp4", "clip0_fake.mp4"]
    assert np.isnan(CropStore(out).shard(shard_name(clips[0])).signals).all()
    rows = read_table(small_data / "labels.csv")
    rows[rows["path"].isin([*clips, "hopper_0.png"])].to_csv(tmp_path / "labels.csv", index=False)
    arguments = ["prepare", str(tmp_path / "labels.csv"), "--root", str(small_data)]
    arguments += ["--out", str(out), "--workers", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    note = "has no signals of consecutive frames, this program measures version 1: its clips are"
    assert note in result.stderr
    for path in clips:
        new, first = shard_of(out, path), shard_of(small_store.path, path)
        np.testing.assert_array_equal(new.signals, first.signals)
        assert (new.data == first.data).all()
    photograph = out / "crops" / shard_name("hopper_0.png")
    assert photograph.stat().st_mtime_ns == 0, "it was read again"
    assert CropStore(out).settings == small_store.settings
    assert list(CropStore(out).index) == list(small_store.index)
    assert "original_here" not in small_store.index, "the table's, of which a store may hold less"
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0
    assert "read again" not in again.stderr


def test_clips_of_an_older_store_that_are_gone_keep_their_crops(
    small_data: Path, small_store: CropStore, tmp_path: Path
) -> None:
    out = as_before_signals(small_store.path, tmp_path / "store")
    rows = read_table(small_data / "labels.csv")
    summary = prepare(rows[rows["path"] == "clip0_real.mp4"], tmp_path, out)
    (reason,) = summary
    assert reason.endswith("; its crops are kept, without signals")
    assert len(CropStore(out).index) == len(shard_of(out, "clip0_real.mp4"))


def test_signals_of_another_version_are_not_used(small_store: CropStore, tmp_path: Path) -> None:
    shard = shard_of(small_store.path, "clip1_real.mp4")
    older = dataclasses.replace(
        shard, signals=shard.signals[:, :5], signals_version=SIGNALS_VERSION - 1
    )
    older.save(tmp_path / "older.npz")
    loaded = Shard.load(tmp_path / "older.npz")
    assert loaded.signals.shape == shard.signals.shape
    assert np.isnan(loaded.signals).all()
    assert loaded.signals_version == SIGNALS_VERSION - 1
