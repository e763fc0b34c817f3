"""From a published model file to a verdict, by command: probabilities stay the published ones."""

from __future__ import annotations

from pathlib import Path

import av
import click
import cv2
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import PersonScore
from dfd_edge.errors import UsageError
from dfd_edge.inference.session import Session
from dfd_edge.judging.results import FrameResult, Label
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.video import VideoFile
from dfd_export.foreign.frame import open_frame
from dfd_export.foreign.model_file import ModelFile
from dfd_export.foreign.options import GivenOptions, ask, missing_options
from dfd_export.foreign.sequence import open_sequence
from dfd_training.models import build_frame_model, build_sequence_model, save_model
from notebooks import (
    SIZE,
    STEPS,
    WIDTH,
    cnn,
    pictures,
    predict,
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
from tiny_bundle import CARD, DECISION

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "real_astronaut.mp4"

pytestmark = pytest.mark.usefixtures("quick_gate", "seeded")


@pytest.fixture
def seeded() -> None:
    keras.utils.set_random_seed(7)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def judge(detector: Detector, clip: Path) -> tuple[list[np.ndarray], list[FrameResult]]:
    """The crops that a detector judges in a clip of one person, and its results."""
    results: list[FrameResult] = []
    verdict = detector.analyze(clip, on_frame=results.append)
    assert verdict.frames == len(results) >= 10
    assert verdict.label in (Label.REAL, Label.FAKE)
    stream = detector.stream()
    with VideoFile(str(clip)) as video:
        seen = [stream.observe(f.pixels, f.time_s).judged for f in video.frames(stream.sampler)]
    results = [result for result, judged in zip(results, seen, strict=True) if judged]
    return [judged[0].crop for judged in seen if judged], results


def classifier(*end: keras.layers.Layer) -> keras.Model:
    model = cnn(layers.GlobalAveragePooling2D(), layers.Dropout(0.3), *end)
    return shake(model, inputs=pictures(8) / 255)


def test_a_cnn_with_a_sigmoid_judges_the_faces_of_a_clip(tmp_path: Path, faces: Path):
    model = classifier(layers.Dense(1, activation="sigmoid"))
    path = save(model, tmp_path / "deepfake_cnn.h5")
    out = tmp_path / "bundle"
    told = ("--classes", "fake,real", "--scaling", "0..1", "--crop", "face", "--crop-scale", "1.3")
    result = export(path, "--crops", faces, "--out", out, *told)
    assert "frame     probability     1" in result.output
    assert "Nothing was calibrated and nothing was measured" in result.output

    bundle = Bundle.load(out)
    manifest = bundle.manifest
    assert manifest.frame.crop_scale == 1.3
    assert manifest.face.detector != "none"
    assert manifest.decision.person_score is PersonScore.FRAME
    for threshold in manifest.decision.thresholds.values():
        assert (threshold.probability, threshold.n, threshold.upper_bound) == (0.5, 0, 1.0)

    detector = Detector.load(out, provider="cpu")
    crops, results = judge(detector, SAMPLE)
    published = 1 - predict(model, np.stack(crops).astype(np.float32) / 255)[:, 0]
    found = [result.people[0].p_frame for result in results]
    np.testing.assert_allclose(found, published, atol=1e-5)
    logits = np.log(published / (1 - published))
    means = np.cumsum(logits) / np.arange(1, len(logits) + 1)
    steps = [result.people[0].p_step for result in results]
    np.testing.assert_allclose(steps, sigmoid(means), atol=1e-4)
    assert detector.analyze(SAMPLE).p_fake == pytest.approx(sigmoid(means[-1]), abs=1e-4)

    card = (out / "CARD.md").read_text("utf-8")
    for wanted in (
        f"Taken over from deepfake_cnn.h5 (written by Keras {keras.__version__})",
        "How often it is wrong is not known",
        "mean of the frame logits, not calibrated (P = sigmoid(logit))",
        "`fake` from 0.500 on: nobody measured how many real sources are called fake",
        "its classes were said to be fake,real",
    ):
        assert wanted in card


@pytest.mark.parametrize(
    "classes", ["real,fake", pytest.param("fake,real", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("units", [1, 2])
def test_a_saturated_verdict_is_exported(tmp_path: Path, faces: Path, units: int, classes: str):
    end = layers.Dense(units, activation="sigmoid" if units == 1 else "softmax")
    model = classifier(end)
    end.bias.assign(end.bias - np.linspace(0, -92, 2)[-units:])  # logits of some -90
    if units == 1:
        end.bias.assign(end.bias * 0 - 92)
    path = save(model, tmp_path / "sure.keras")
    told = ("--classes", classes, "--scaling", "0..1", "--crop", "face", "--crops", faces)
    result = export(path, "--out", tmp_path / "bundle", *told)
    assert "Warning" not in result.output


def test_a_normalization_of_the_pixels_is_exported(tmp_path: Path, faces: Path):
    norm = layers.Normalization()
    norm.adapt(pictures(8).astype(np.float32))
    image = keras.Input((SIZE, SIZE, 3))
    head = classifier(layers.Dense(1, activation="sigmoid"))
    path = save(keras.Model(image, head(norm(image))), tmp_path / "model.keras")
    told = ("--classes", "real,fake", "--crop", "face", "--crops", faces)
    export(path, "--out", tmp_path / "bundle", *told)


def test_a_folder_of_another_model_is_told_from_a_run(tmp_path: Path, faces: Path):
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("saved_model.pb", "keras_metadata.pb"):
        (folder / name).write_bytes(b"\x08\x01")
    result = run(folder, "--crops", faces, "--classes", "real,fake", "--out", tmp_path / "bundle")
    assert result.exit_code == 2
    assert f"{folder}: a SavedModel folder of Keras 2: save it as one file" in result.output


def square_clip(path: Path, frames: int = 40) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        for picture in pictures(frames, 96):
            smooth = cv2.GaussianBlur(picture, (7, 7), 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(smooth, format="bgr24")))
        container.mux(stream.encode())
    return path


def test_a_cnn_with_a_softmax_judges_whole_frames_read_by_opencv(tmp_path: Path, faces: Path):
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2), layers.Softmax()]
    model = shake(cnn(*head, size=None), inputs=pictures(8) / 127.5 - 1)
    out = tmp_path / "bundle"
    told = ("--classes", "real,fake", "--scaling", "-1..1", "--crop", "frame")
    told = (*told, "--channels", "bgr", "--size", 40, "--rate", 10)
    export(save(model, tmp_path / "model.keras"), "--crops", faces, "--out", out, *told)
    manifest = Bundle.load(out).manifest
    assert (manifest.face.detector, manifest.frame.crop_scale) == ("none", 1.0)
    assert manifest.sequence.rate_hz == 10

    clip = square_clip(tmp_path / "clip.mp4")
    crops, results = judge(Detector.load(out, provider="cpu"), clip)
    with VideoFile(str(clip)) as video:
        frames = [frame.image for frame in video.frames(Sampler(10.0))]
    assert len(frames) == len(crops)
    frames = [cv2.resize(frame, (40, 40), interpolation=cv2.INTER_LINEAR) for frame in frames]
    published = predict(model, np.stack(frames).astype(np.float32) / 127.5 - 1)[:, 1]
    found = [result.people[0].p_frame for result in results]
    np.testing.assert_allclose(found, published, atol=1e-4)
    assert np.ptp(published) > 0.01
    assert len(Detector.load(out, provider="cpu").analyze(SAMPLE).people) == 1
    assert "The middle square of each frame, resized to 40 x 40 px" in (out / "CARD.md").read_text(
        "utf-8"
    )


def extractor() -> keras.Model:
    """The features of the CNN-RNN recipe, at a smaller size: the preprocessing is inside."""
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.applications.inception_v3.preprocess_input(image)
    inside = cnn(layers.Conv2D(WIDTH, 1, activation="relu"), layers.GlobalAveragePooling2D())
    shake(inside, inputs=pictures(8) / 127.5 - 1)
    return keras.Model(image, inside(x), name="feature_extractor")


def after_each_step(model: keras.Model, features: np.ndarray, count: int) -> np.ndarray:
    """What the published model says of the first 1, 2, ... steps, padded as notebooks do."""
    padded = np.zeros((count, STEPS, features.shape[1]), np.float32)
    mask = np.zeros((count, STEPS), bool)
    for n in range(count):
        padded[n, : n + 1] = features[: n + 1]
        mask[n, : n + 1] = True
    return predict(model, [padded, mask])


@pytest.mark.parametrize("suffix", [".h5", pytest.param(".keras", marks=pytest.mark.slow)])
def test_an_extractor_and_a_masked_gru_judge_a_clip(tmp_path: Path, faces: Path, suffix: str):
    frame = extractor()
    sequence = shake(recurrent(verdict=layers.Dense(2, activation="softmax")))
    sequence.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    paths = save(frame, tmp_path / f"cnn{suffix}"), save(sequence, tmp_path / f"rnn{suffix}")
    out = tmp_path / "bundle"
    told = ("--classes", "real,fake", "--crop", "frame", "--rate", 8, "--frames-first", 0)
    result = export(*paths, "--crops", faces, "--out", out, *told)
    assert "published model, clips of 1 to 8 steps" in result.output
    assert "0..255 become -1..1" in result.output
    bundle = Bundle.load(out)
    assert bundle.manifest.decision.person_score is PersonScore.SEQUENCE
    assert bundle.manifest.sequence.first_frames is None
    assert bundle.manifest.frame.feature_width == WIDTH

    crops = pictures(STEPS)
    features = predict(frame, crops.astype(np.float32))
    published = after_each_step(sequence, features, STEPS)[:, 1]
    session = Session.open(bundle, provider="cpu")
    frames = session.run_frame(crops)
    np.testing.assert_allclose(frames.features, features, atol=1e-4)
    steps = session.run_sequence(
        frames.features[None], np.array([STEPS], np.int32), session.initial_state(1)
    )
    np.testing.assert_allclose(sigmoid(steps.fake_logit[0]), published, atol=1e-5)
    assert np.ptp(published) > 0.01
    np.testing.assert_allclose(sigmoid(frames.fake_logit[0]), published[0], atol=1e-5)

    clip = square_clip(tmp_path / "clip.mp4")
    crops, results = judge(Detector.load(out, provider="cpu"), clip)
    features = predict(frame, np.stack(crops).astype(np.float32))
    published = after_each_step(sequence, features, STEPS)[:, 1]
    found = [result.people[0].p_step for result in results[:STEPS]]
    np.testing.assert_allclose(found, published, atol=1e-5)


@pytest.mark.slow
def test_the_recipe_with_inceptionv3(tmp_path: Path, faces: Path):
    size = 75
    image = keras.Input((size, size, 3))
    inside = keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    shake(inside, inputs=pictures(16, size) / 127.5 - 1)
    x = keras.applications.inception_v3.preprocess_input(image)
    frame = keras.Model(image, inside(x), name="feature_extractor")
    features, mask = keras.Input((20, 2048)), keras.Input((20,), dtype="bool")
    x = layers.GRU(16, return_sequences=True)(features, mask=mask)
    x = layers.Dense(8, activation="relu")(layers.Dropout(0.4)(layers.GRU(8)(x)))
    sequence = keras.Model([features, mask], layers.Dense(1, activation="sigmoid")(x))
    paths = save(frame, tmp_path / "cnn.h5"), save(sequence, tmp_path / "rnn.h5")
    told = ("--classes", "real,fake", "--crop", "frame", "--rate", 25)
    result = export(*paths, "--crops", faces, "--out", tmp_path / "bundle", *told)
    assert "published model, clips of 1 to 20 steps" in result.output


def test_a_cnn_and_a_sequence_model_over_its_features(tmp_path: Path, faces: Path):
    frame = cnn(layers.Conv2D(WIDTH, 1), layers.GlobalAveragePooling2D(), layers.Dense(1))
    shake(frame, inputs=pictures(8) / 255)
    sequence = shake(recurrent(verdict=layers.Dense(1, activation="sigmoid")))
    paths = save(frame, tmp_path / "cnn.keras"), save(sequence, tmp_path / "rnn.keras")
    told = ("--classes", "fake,real", "--crop", "face", "--scaling", "0..1", "--rate", 5)
    export(*paths, "--crops", faces, "--out", tmp_path / "bundle", *told)
    session = Session.open(Bundle.load(tmp_path / "bundle"), provider="cpu")
    crops = pictures(4)
    wanted = -predict(frame, crops.astype(np.float32) / 255)[:, 0]
    np.testing.assert_allclose(session.run_frame(crops).fake_logit, wanted, atol=1e-4)


def test_features_of_another_width_are_refused(tmp_path: Path, faces: Path):
    frame = save(cnn(layers.GlobalAveragePooling2D()), tmp_path / "cnn.h5")
    sequence = save(recurrent(verdict=layers.Dense(1)), tmp_path / "rnn.h5")
    told = ("--classes", "real,fake", "--crop", "face", "--scaling", "none", "--rate", 5)
    result = run(frame, sequence, "--crops", faces, "--out", tmp_path / "out", *told)
    assert result.exit_code == 2
    assert "takes features of width 6, but" in result.stderr
    assert "gives 12: give as FRAME the model whose output it was trained on" in result.stderr
    result = run(frame, "--crops", faces, "--out", tmp_path / "out")
    assert "gives features and no verdict: give the sequence model" in result.stderr


def test_everything_that_a_file_cannot_tell_is_asked_for_at_once(tmp_path: Path, faces: Path):
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    frame = save(cnn(*head, size=None), tmp_path / "cnn.h5")
    result = run(frame, "--crops", faces, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()
    for wanted in (
        "--classes real,fake|fake,real (the model ends in a sigmoid: what 0 and what 1 stand for",
        "--scaling none|0..1|-1..1|torch|caffe (what was done to pixels of 0..255",
        "--size INTEGER (side of its pictures in pixels, since the model takes any)",
        "--crop face|frame (what its pictures showed",
    ):
        assert wanted in result.stderr
    told = ("--classes", "real,fake", "--scaling", "none", "--size", 40)
    result = run(frame, "--crops", faces, "--out", tmp_path / "out", *told)
    assert "--crop face|frame" in result.stderr
    assert "--classes" not in result.stderr


def test_only_what_is_open_is_asked(tmp_path: Path):
    frame = open_frame(ModelFile.read(save(extractor(), tmp_path / "cnn.keras")))
    model = recurrent(verdict=layers.Dense(2, activation="softmax"))
    sequence = open_sequence(ModelFile.read(save(model, tmp_path / "rnn.keras")))
    asked = missing_options(GivenOptions(), frame, sequence)
    assert [question.option for question in asked] == ["classes", "crop", "rate"]
    assert "which comes first" in asked[0].meaning
    asked = missing_options(
        GivenOptions(classes="real,fake", crop="face", rate=5.0), frame, sequence
    )
    assert asked == []
    asked = missing_options(GivenOptions(classes="real,fake", crop="frame"), frame, sequence)
    assert asked == [], "as many first frames are judged as the sequence model takes"
    asked = missing_options(GivenOptions(), None, sequence)
    assert [question.option for question in asked] == ["classes", "rate"]


def test_at_a_terminal_the_questions_are_put_one_by_one(tmp_path: Path):
    frame = open_frame(ModelFile.read(save(extractor(), tmp_path / "cnn.keras")))
    model = recurrent(verdict=layers.Dense(1, activation="sigmoid"))
    sequence = open_sequence(ModelFile.read(save(model, tmp_path / "rnn.keras")))
    asked = missing_options(GivenOptions(), frame, sequence)
    answers: dict[str, object] = {}

    @click.command()
    def question() -> None:
        answers.update(ask(asked, Path("cnn.keras"), interactive=True))

    typed = "\n".join(["what?", "fake,real", "face", "soon", "12.5", ""])
    shown = CliRunner().invoke(question, input=typed, catch_exceptions=False).output
    assert answers == {"classes": "fake,real", "crop": "face", "rate": 12.5}, shown
    answers.clear()
    typed = "\n".join(["fake,real", "frame", ""])
    shown_of_frames = CliRunner().invoke(question, input=typed, catch_exceptions=False).output
    assert answers == {"classes": "fake,real", "crop": "frame"}, shown_of_frames
    assert "not with --crop frame, which judges the first 8 frames of a clip" in str(asked[-1])
    assert "what 0 and what 1 stand for" in shown
    assert "'what?' is not one of 'real,fake', 'fake,real'" in shown
    with pytest.raises(UsageError, match=r"--classes .*; --crop .*; --rate FLOAT"):
        ask(asked, Path("cnn.keras"), interactive=False)


def own_files(folder: Path) -> tuple[Path, Path]:
    frame = build_frame_model(input_size=32, weights="none")
    shake(frame, inputs=pictures(8, 32).astype(np.float32))
    sequence = shake(build_sequence_model(feature_width=1280, head="gru_small"))
    save_model(frame, folder / "frame.keras")
    save_model(sequence, folder / "sequence.keras")
    return folder / "frame.keras", folder / "sequence.keras"


@pytest.mark.slow
def test_models_of_dfd_train_are_exported_without_a_decision_and_marked(
    tmp_path: Path, faces: Path
):
    frame, sequence = own_files(tmp_path)
    out = ("--crops", faces, "--out", tmp_path / "out")
    for option in ("--scaling", "0..1"), ("--resize", "area"), ("--frames-first", 4):
        result = run(frame, sequence, *out, *option)
        wanted = f"dfd-train wrote this model, which fixes {option[0]}: leave it out"
        assert wanted in result.stderr
    (tmp_path / "decision.json").write_text(DECISION.to_json(), "utf-8")
    (tmp_path / "card.json").write_text(CARD.to_json(), "utf-8")
    for one, other in (("--decision", "--card"), ("--card", "--decision")):
        result = run(frame, sequence, *out, one, tmp_path / f"{one[2:]}.json")
        assert result.exit_code == 2
        assert f"{one} goes with {other}: `dfd-train calibrate` writes both" in result.stderr

    result = export(frame, sequence, *out)
    assert "Nothing was calibrated and nothing was measured" in result.output
    assert "`dfd-export revise BUNDLE --decision" in result.output
    assert "published" not in result.output
    manifest = Bundle.load(tmp_path / "out").manifest
    assert manifest.decision.person_score is PersonScore.SEQUENCE
    assert [t.n for t in manifest.decision.thresholds.values()] == [0, 0]
    card = (tmp_path / "out" / "CARD.md").read_text("utf-8")
    assert "not calibrated (P = sigmoid(logit))" in card
    assert "exported without a decision of `dfd-train calibrate`" in card
    assert "published" not in card
    detector = Detector.load(tmp_path / "out", provider="cpu")
    _, results = judge(detector, SAMPLE)
    logits = [result.people[0].step_logit for result in results]
    assert detector.analyze(SAMPLE).p_fake == pytest.approx(sigmoid(np.mean(logits)), abs=1e-4)

    export(frame, *out)
    bundle = Bundle.load(tmp_path / "out")
    assert bundle.manifest.decision.person_score is PersonScore.FRAME
    session = Session.open(bundle, provider="cpu")
    outputs = session.run_frame(pictures(5, 32))
    steps = session.run_sequence(
        outputs.features[None], np.array([5], np.int32), session.initial_state(1)
    )
    wanted = np.cumsum(outputs.fake_logit) / np.arange(1, 6)
    np.testing.assert_allclose(steps.fake_logit[0], wanted, atol=1e-4)


def test_a_decision_and_a_card_that_are_given_are_taken(tmp_path: Path, faces: Path):
    model = save(classifier(layers.Dense(1, activation="sigmoid")), tmp_path / "cnn.h5")
    (tmp_path / "decision.json").write_text(DECISION.to_json(), "utf-8")
    (tmp_path / "card.json").write_text(CARD.to_json(), "utf-8")
    told = ("--classes", "real,fake", "--crop", "face", "--scaling", "0..1", "--max-gap", 3)
    papers = ("--decision", tmp_path / "decision.json", "--card", tmp_path / "card.json")
    result = export(model, "--crops", faces, "--out", tmp_path / "out", *told, *papers)
    assert "Nothing was calibrated" not in result.output
    manifest = Bundle.load(tmp_path / "out").manifest
    assert (manifest.decision, manifest.card) == (DECISION, CARD)
    assert manifest.sequence.max_gap_s == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--crops is missing: .*a folder with a dozen pictures of faces suffices"),
        (("--crops", "nowhere"), "nowhere: no such crops"),
        (("--crops", ".", "--size", "99"), "takes pictures of 48 px, not --size 99: leave it out"),
        (("--crops", ".", "--crop", "frame", "--crop-scale", "2"), "--crop-scale is about face"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options, message: str):
    model = save(classifier(layers.Dense(1)), tmp_path / "cnn.h5")
    result = run(model, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    with pytest.raises(UsageError, match=message):
        raise UsageError(result.stderr)


def test_the_help_keeps_the_two_kinds_of_options_apart():
    text = run("--help").output
    head, _, published = text.partition("Models that dfd-train did not write")
    assert "--decision" in head
    assert "--rate" in head
    for option in (
        *("--classes", "--scaling", "--channels", "--crop ", "--crop-scale", "--size"),
        *("--resize", "--frames-first"),
    ):
        assert option in published
        assert option not in head
