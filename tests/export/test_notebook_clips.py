"""An imported notebook judges as its notebook does: its own code on clips, against `analyze`.

`load_video`, `crop_center_square` and `predict_clip` are those of Keras' example "Video
classification with a CNN-RNN architecture", as notebooks on deepfake videos copy them.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import layers
from skimage import data

from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import PersonScore
from dfd_edge.errors import UsageError
from dfd_edge.faces import extract_crop, middle_square
from dfd_edge.inference.names import Resize
from dfd_export.foreign.frame import open_frame
from dfd_export.foreign.model_file import ModelFile
from dfd_export.foreign.options import GivenOptions, missing_options
from dfd_training.recipes.clip_reading import first_crops
from notebooks import (
    WIDTH,
    cnn,
    pictures,
    recurrent,
    save,
    shake,
)
from notebooks import (
    export_bundle as export,
)
from notebooks import (
    run_bundle as run,
)
from sample_clips import moving, write_clip

pytestmark = pytest.mark.usefixtures("quick_gate")

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "samples").glob("*.mp4"))
IMG_SIZE = 64
MAX_SEQ_LENGTH = 20
ALLOWED = 1e-3
"""Largest difference of P(fake) to the notebook's own `predict`."""


def crop_center_square(frame):
    y, x = frame.shape[0:2]
    min_dim = min(y, x)
    start_x = (x // 2) - (min_dim // 2)
    start_y = (y // 2) - (min_dim // 2)
    return frame[start_y : start_y + min_dim, start_x : start_x + min_dim]


def load_video(path, max_frames=0, resize=(IMG_SIZE, IMG_SIZE)):
    cap = cv2.VideoCapture(str(path))
    frames = []
    try:
        while True:
            ret, frame = cap.read()
            if not ret:
                break
            frame = crop_center_square(frame)
            frame = cv2.resize(frame, resize)
            frame = frame[:, :, [2, 1, 0]]
            frames.append(frame)
            if len(frames) == max_frames:
                break
    finally:
        cap.release()
    return np.array(frames)


def predict_clip(feature_extractor, sequence_model, path) -> float:
    """`prepare_single_video` and `sequence_prediction` of the notebook: P(fake)."""
    frames = load_video(path)[None, ...]
    frame_mask = np.zeros(shape=(1, MAX_SEQ_LENGTH), dtype="bool")
    frame_features = np.zeros(shape=(1, MAX_SEQ_LENGTH, WIDTH), dtype="float32")
    for i, batch in enumerate(frames):
        video_length = batch.shape[0]
        length = min(MAX_SEQ_LENGTH, video_length)
        for j in range(length):
            frame_features[i, j, :] = feature_extractor.predict(batch[None, j, :], verbose=0)
        frame_mask[i, :length] = 1
    return float(sequence_model.predict([frame_features, frame_mask], verbose=0)[0, -1])


def build_feature_extractor() -> keras.Model:
    """The notebook's, with a small CNN in place of InceptionV3; the preprocessing is inside."""
    image = keras.Input((IMG_SIZE, IMG_SIZE, 3))
    x = keras.applications.inception_v3.preprocess_input(image)
    last = layers.Conv2D(WIDTH, 1, activation="relu")
    inside = cnn(last, layers.GlobalAveragePooling2D(), size=IMG_SIZE)
    shake(inside, inputs=pictures(8, IMG_SIZE) / 127.5 - 1)
    last.kernel.assign(40.0 * last.kernel)  # so that clips get different features
    return keras.Model(image, inside(x), name="feature_extractor")


@pytest.fixture(scope="module")
def networks() -> tuple[keras.Model, keras.Model]:
    keras.utils.set_random_seed(7)
    verdict = layers.Dense(1, activation="sigmoid")
    sequence = shake(recurrent(verdict=verdict, steps=MAX_SEQ_LENGTH))
    verdict.kernel.assign(4.0 * verdict.kernel)  # so that they get different verdicts
    return build_feature_extractor(), sequence


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    frame, sequence = networks
    return save(frame, folder / "cnn.h5"), save(sequence, folder / "gru.h5")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Five clips: landscape, portrait, square, enlarged, and one shorter than the network takes."""
    folder = tmp_path_factory.mktemp("clips")
    people = np.ascontiguousarray(data.astronaut()[..., ::-1])
    cat = np.ascontiguousarray(data.chelsea()[..., ::-1])
    sources = [
        ("landscape", people[:240, 60:486], 30),
        ("portrait", people[:330, 140:340], 45),
        ("square", cat[:300, 100:400], 24),
        ("small", cv2.resize(people, (52, 48)), 26),
        ("short", 255 - cat[40:200, 60:260], 11),
    ]
    paths = []
    for seed, (name, image, count) in enumerate(sources):
        paths.append(folder / f"{name}.mp4")
        write_clip(paths[-1], moving(np.ascontiguousarray(image), seed, count), fps=30)
    return paths


def differences(bundle: Path, networks, clips: list[Path]) -> np.ndarray:
    detector = Detector.load(bundle, provider="cpu")
    found = [detector.analyze(clip).p_fake for clip in clips]
    wanted = [predict_clip(*networks, clip) for clip in clips]
    assert np.ptp(wanted) > 50 * ALLOWED, "else any verdict would do"
    return np.abs(np.array(found) - wanted)


def test_a_clip_gets_the_verdict_of_the_notebook_itself(
    tmp_path: Path, networks, files, clips: list[Path], faces: Path
):
    out = tmp_path / "bundle"
    told = ("--classes", "real,fake", "--crop", "frame", "--crops", faces)
    result = export(*files, *told, "--out", out)
    assert "published model, clips of 1 to 20 steps" in result.output
    manifest = Bundle.load(out).manifest
    assert manifest.sequence.first_frames == MAX_SEQ_LENGTH
    assert manifest.frame.resize is Resize.BILINEAR
    assert manifest.decision.person_score is PersonScore.LAST
    assert manifest.schema_version == 4
    assert differences(out, networks, clips).max() <= ALLOWED

    detector = Detector.load(out, provider="cpu")
    frames = [detector.analyze(clip).frames for clip in clips]
    assert frames == [20, 20, 20, 20, 11]
    with pytest.raises(UsageError, match="judges the first 20 frames of a clip"):
        detector.watch(0)
    card = (out / "CARD.md").read_text("utf-8")
    assert "The first 20 frames of a clip, every one, and none after them" in card
    assert "resized to 64 x 64 px (bilinear)" in card
    assert "Pictures are resized bilinearly, as most notebooks do it." in card


def test_the_frames_are_those_that_the_notebook_reads(clips: list[Path]):
    for clip in [*clips, *SAMPLES]:
        crops, _ = first_crops(clip, frames=MAX_SEQ_LENGTH, size=IMG_SIZE)
        wanted = load_video(clip, MAX_SEQ_LENGTH)
        assert crops.shape == wanted.shape
        assert np.abs(crops.astype(int) - wanted).max() <= 1, "grey levels"


def test_another_resizing_gives_other_verdicts(
    tmp_path: Path, networks, files, clips: list[Path], faces: Path
):
    out = tmp_path / "bundle"
    told = ("--classes", "real,fake", "--crop", "frame", "--crops", faces, "--resize", "area")
    export(*files, *told, "--out", out)
    manifest = Bundle.load(out).manifest
    assert manifest.frame.resize is Resize.AREA
    assert manifest.schema_version == 2, "older programs judge it too"
    assert differences(out, networks, clips).max() > ALLOWED
    assert "softer than most notebooks do it" in (out / "CARD.md").read_text("utf-8")


def test_fewer_frames_are_judged_where_that_is_asked_for(
    tmp_path: Path, networks, files, clips: list[Path], faces: Path
):
    out = tmp_path / "bundle"
    told = ("--classes", "real,fake", "--crop", "frame", "--crops", faces, "--frames-first", 9)
    export(*files, *told, "--rate", 24, "--out", out)
    sequence = Bundle.load(out).manifest.sequence
    assert (sequence.first_frames, sequence.rate_hz) == (9, 24.0)
    assert Detector.load(out, provider="cpu").analyze(clips[0]).frames == 9


def test_a_cnn_alone_judges_the_mean_of_the_first_frames(
    tmp_path: Path, clips: list[Path], faces: Path
):
    keras.utils.set_random_seed(3)
    end = [layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    model = shake(cnn(*end, size=IMG_SIZE), inputs=pictures(8, IMG_SIZE) / 255)
    out = tmp_path / "bundle"
    told = ("--classes", "fake,real", "--crop", "frame", "--scaling", "0..1", "--crops", faces)
    export(save(model, tmp_path / "cnn.h5"), *told, "--frames-first", 10, "--out", out)
    assert Bundle.load(out).manifest.sequence.first_frames == 10
    frames = load_video(clips[1], max_frames=10)
    real = model.predict(frames / 255.0, verbose=0)[:, 0]
    logit = np.log((1 - real) / real).mean()
    found = Detector.load(out, provider="cpu").analyze(clips[1])
    assert found.frames == 10
    assert found.p_fake == pytest.approx(1 / (1 + np.exp(-logit)), abs=ALLOWED)


def test_pictures_in_folders_get_the_verdict_of_image_dataset_from_directory(
    tmp_path: Path, faces: Path
):
    keras.utils.set_random_seed(5)
    end = [layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax")]
    model = shake(cnn(*end, size=IMG_SIZE), inputs=pictures(8, IMG_SIZE) / 255)
    for number, picture in enumerate(pictures(6, 150, seed=1)):
        folder = tmp_path / "data" / ("Fake" if number % 2 else "Real")
        folder.mkdir(parents=True, exist_ok=True)
        smooth = cv2.GaussianBlur(picture, (5, 5), 0)
        assert cv2.imwrite(str(folder / f"{number}.png"), smooth)
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path / "data", image_size=(IMG_SIZE, IMG_SIZE), shuffle=False, batch_size=6
    )
    assert dataset.class_names == ["Fake", "Real"]
    wanted = model.predict(dataset.map(lambda x, _: x / 255.0), verbose=0)[:, 0]
    told = ("--classes", "fake,real", "--crop", "frame", "--scaling", "0..1", "--crops", faces)
    export(save(model, tmp_path / "cnn.keras"), *told, "--out", tmp_path / "bundle")
    detector = Detector.load(tmp_path / "bundle", provider="cpu")
    found = [detector.analyze(path).p_fake for path in dataset.file_paths]
    assert np.ptp(wanted) > 0.01
    np.testing.assert_allclose(found, wanted, atol=ALLOWED)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_a_resizing_layer_answers_size_and_resizing(tmp_path: Path, method: str):
    inside = cnn(layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid"), size=None)
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Rescaling(1 / 255),
            layers.Resizing(56, 56, interpolation=method),
            inside,
        ]
    )
    frame = open_frame(ModelFile.read(save(model, tmp_path / "cnn.keras")))
    assert frame.resizing is not None
    assert (frame.resizing.size, frame.resizing.resize) == (56, Resize(method))
    asked = missing_options(GivenOptions(classes="real,fake", crop="frame"), frame, None)
    assert asked == []


def test_a_model_of_one_size_does_not_say_how_pictures_came_to_it(tmp_path: Path):
    model = cnn(layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid"))
    assert open_frame(ModelFile.read(save(model, tmp_path / "cnn.keras"))).resizing is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--crop", "face", "--rate", 5, "--frames-first", 20), "is for models of whole frames"),
        (("--crop", "frame", "--frames-first", 21), "takes clips of 20 steps: give at most 20"),
        (("--crop", "frame", "--frames-first", 0), "--rate FLOAT"),
        (("--frames-first", 4), "--crop face|frame"),
    ],
)
def test_frames_that_do_not_fit_are_refused(
    tmp_path: Path, files, faces: Path, options: tuple[object, ...], message: str
):
    told = ("--classes", "real,fake", "--crops", faces, *options)
    result = run(*files, *told, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_the_middle_square_is_that_of_the_notebook():
    rng = np.random.default_rng(0)
    for shape in [(48, 64), (64, 48), (47, 64), (48, 65), (47, 65), (65, 47), (50, 50)]:
        frame = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        region = middle_square(frame)
        wanted = crop_center_square(frame)[:, :, ::-1]
        np.testing.assert_array_equal(extract_crop(frame, region, region.side), wanted)


@pytest.mark.parametrize(("side", "size"), [(90, 64), (50, 64), (131, 32)])
def test_the_nearest_pixel_is_that_of_keras(side: int, size: int):
    picture = pictures(1, side)[0]
    wanted = keras.ops.image.resize(picture, (size, size), interpolation="nearest")
    region = middle_square(picture)
    found = extract_crop(np.ascontiguousarray(picture[..., ::-1]), region, size, Resize.NEAREST)
    np.testing.assert_array_equal(found, keras.ops.convert_to_numpy(wanted))
