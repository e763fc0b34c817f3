"""Consecutive frames reach the sequence model, the results and the page in words."""

from __future__ import annotations

import json
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from clip_maker import portrait

import dfd_edge
from dfd_edge.bundle.manifest import Calibrator, DecisionSpec, PersonScore, Threshold
from dfd_edge.faces import FaceDetector
from dfd_edge.faces.signals import NAMES, measure
from dfd_edge.inference.names import Resize
from dfd_edge.inference.session import FrameOutputs, SequenceOutputs
from dfd_edge.judging.stream import FORGET_AFTER_S, Stream
from dfd_edge.report.words import signals_words
from dfd_edge.sources.frames import Burst

SPEC = DecisionSpec(
    person_score=PersonScore.SEQUENCE,
    calibrators={name: Calibrator(1.0, 0.0) for name in ("frame", "step", "person")},
    thresholds={
        "real": Threshold(0.3, 0.1, 0.071, 14, 0.297),
        "fake": Threshold(0.8, 0.02, 0.018, 165, 0.046),
    },
)
FACES = FaceDetector()


class FakeSession:
    """A model that remembers what its steps were given."""

    decision = SPEC
    provider = SimpleNamespace(actual="cpu")

    def __init__(self, *, signals: bool = True) -> None:
        sequence = SimpleNamespace(
            rate_hz=5.0,
            first_frames=None,
            max_gap_s=1.0,
            state_width=2,
            signals=SimpleNamespace(names=list(NAMES)) if signals else None,
        )
        frame = SimpleNamespace(input_size=32, crop_scale=1.5, resize=Resize.AREA)
        manifest = SimpleNamespace(name="fake", frame=frame, sequence=sequence)
        self.bundle = SimpleNamespace(path="fake", manifest=manifest)
        self.steps: list[dict[str, np.ndarray]] = []

    def run_frame(self, crops):
        return FrameOutputs(np.zeros((len(crops), 4), "f4"), np.zeros(len(crops), "f4"), None)

    def run_sequence(self, features, lengths, state, **more):
        self.steps.append(more)
        return SequenceOutputs(np.zeros((len(features), 1), "f4"), state)


def filmed(seed: int, *, people: int = 1, sigma: float = 2.0) -> tuple[np.ndarray, Burst]:
    """A picture with people side by side, and the burst that ends with it."""
    rng = np.random.default_rng(seed)
    one = portrait()[:360, 60:400]
    picture = np.hstack([one, one[:, ::-1]][:people]).astype(np.float32)
    noise = [sigma * rng.normal(size=picture.shape[:2]) for _ in range(3)]
    shown = [np.clip(picture + n[:, :, None], 0, 255).astype(np.uint8) for n in noise]
    planes = [np.ascontiguousarray(image[:, :, 1]) for image in shown]
    return shown[-1], Burst(tuple(planes))


def score(stream: Stream, seed: int, *, burst: bool = True, repeated: bool = False, **options):
    image, frames = filmed(seed, **options)
    if repeated:
        frames = Burst((frames.planes[-1],) * 3)
    time_s = seed / 5
    return stream.score([stream.observe(image, time_s, burst=frames if burst else None)])[0]


def valid(record, kind):
    schema = dfd_edge.records_schema()
    jsonschema.validate(
        json.loads(json.dumps(record)), {"$ref": f"#/$defs/{kind}", "$defs": schema["$defs"]}
    )
    return record


def test_a_step_is_given_what_was_measured():
    session = FakeSession()
    result = score(Stream(session, FACES), 0)
    (person,) = result.people
    (given,) = session.steps
    image, burst = filmed(0)
    (face,) = FACES.detect(image)
    expected = measure(burst, face.box, face.keypoints, image.shape[:2])
    assert given["signals"].shape == (1, 1, len(NAMES))
    assert given["measured"].tolist() == [[1.0]]
    assert (given["signals"].dtype, given["measured"].dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(given["signals"][0, 0], expected)
    assert list(person.signals) == list(NAMES)
    assert list(person.signals.values()) == expected.tolist()


@pytest.mark.parametrize("kind", [{"burst": False}, {"repeated": True}])
def test_a_step_without_is_marked_and_finite(kind):
    session = FakeSession()
    (person,) = score(Stream(session, FACES), 0, **kind).people
    (given,) = session.steps
    assert given["measured"].tolist() == [[0.0]]
    assert np.isfinite(given["signals"]).all()
    assert person.judged
    assert person.signals is None
    assert valid(person.to_record(), "person_in_frame")["signals"] is None


def test_each_person_has_their_own():
    session = FakeSession()
    result = score(Stream(session, FACES), 0, people=2)
    assert [person.judged for person in result.people] == [True, True]
    (given,) = session.steps
    assert given["measured"].tolist() == [[1.0], [1.0]]
    for row, person in enumerate(result.people):
        assert list(person.signals.values()) == given["signals"][row, 0].tolist()
    assert result.people[0].signals != result.people[1].signals


def test_a_model_that_takes_none_is_given_none(monkeypatch):
    def refuse(*_):
        raise AssertionError("measured for nothing")

    monkeypatch.setattr("dfd_edge.judging.people.measure", refuse)
    session = FakeSession(signals=False)
    stream = Stream(session, FACES)
    (person,) = score(stream, 0).people
    assert session.steps == [{}]
    assert person.signals is None
    (verdict,) = stream.verdict().people
    assert verdict.signals is None
    assert valid(verdict.to_record(), "person_verdict")["signals"] is None
    assert signals_words(verdict.to_record()) == []


def test_models_of_whole_frames_have_no_face_to_measure():
    session = FakeSession()
    (person,) = score(Stream(session, None), 0).people
    assert person.judged
    assert person.signals is None
    assert session.steps[0]["measured"].tolist() == [[0.0]]


def test_faces_that_are_not_judged_are_not_measured(monkeypatch):
    measured = []
    monkeypatch.setattr("dfd_edge.judging.people.measure", lambda *a: measured.append(a))
    stream = Stream(FakeSession(), FACES, judged_faces="largest")
    result = score(stream, 0, people=2)
    assert sorted(person.judged for person in result.people) == [False, True]
    assert len(measured) == 1


@pytest.fixture(scope="module")
def run():
    """A stream after eight steps, and the measurements of each."""
    stream = Stream(FakeSession(), FACES)
    results = [score(stream, n, burst=n > 1, repeated=n == 4) for n in range(8)]
    return stream, [result.people[0].signals for result in results]


class TestTheVerdict:
    def test_has_means_and_how_many_steps_they_are_of(self, run):
        stream, signals = run
        (person,) = stream.verdict().people
        measured = [found for found in signals if found is not None]
        assert person.judged_steps == 8
        assert (person.signals.measured_steps, person.signals.without_burst) == (5, 2)
        assert len(measured) == 5
        for name in NAMES:
            mean = np.mean([found[name] for found in measured])
            assert person.signals.means[name] == pytest.approx(mean, abs=1e-6)

    def test_is_a_record_of_the_schema(self, run):
        (person,) = run[0].verdict().people
        record = valid(person.to_record(), "person_verdict")["signals"]
        assert (record["measured_steps"], record["without_burst"]) == (5, 2)
        assert list(record["means"]) == list(NAMES)
        assert all(round(value, 3) == value for value in record["means"].values())

    def test_in_words(self, run):
        (person,) = run[0].verdict().people
        words = " ".join(signals_words(person.to_record()))
        assert "Consecutive frames were compared in 5 of 8 judged frames." in words
        assert "2 came without consecutive frames" in words
        assert "In 1 the consecutive frames repeat one picture" in words
        assert "The noise in the face is 1.0 of that of the background" in words
        assert "proves nothing" in words

    def test_stays_with_people_who_left(self, run):
        stream, _ = run
        before = stream.verdict().people[0].signals
        score(stream, round((FORGET_AFTER_S + 10) * 5))
        assert stream.verdict().people[0].signals == before


def test_words_without_consecutive_frames_compare_nothing():
    stream = Stream(FakeSession(), FACES)
    for number in range(3):
        score(stream, number, burst=False)
    (person,) = stream.verdict().people
    assert valid(person.to_record(), "person_verdict")["signals"]["means"] is None
    (compared, why) = signals_words(person.to_record())
    assert compared == "Consecutive frames were compared in 0 of 3 judged frames."
    assert "slower than 14 frames a second" in why


def test_a_quieter_face_is_said_to_be_quieter():
    means = dict.fromkeys(NAMES, 0.0) | {"face_noise": np.log(0.4), "face_fine_detail": np.log(0.7)}
    record = {
        "judged_steps": 4,
        "signals": {"measured_steps": 4, "without_burst": 0, "means": means},
    }
    words = " ".join(signals_words(record))
    assert "noise in the face is 0.4 of that of the background, its fine detail 0.7." in words
