"""Bundles whose sequence model takes signals of consecutive frames beside the features."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.graph_size import check_size
from dfd_edge.bundle.manifest import Calibrator, Manifest, StillSpec, Threshold
from dfd_edge.errors import BundleError, DfdError, UsageError
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION, UNITS
from dfd_edge.inference.session import Session
from dfd_edge.judging.decision import Decision, calibrated
from dfd_edge.judging.results import Label
from dfd_edge.schema import SchemaError
from dfd_export.bundles.bundle_writer import revise_bundle
from dfd_export.bundles.probe import check_probe
from small_bundle import CARD, DECISION, FEATURES, build_small_bundle, edit_manifest

WIDTH = len(NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_bundle(tmp_path_factory.mktemp("signals") / "bundle", signals=True)


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return Session.open(Bundle.load(folder), provider="cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The same model without signals."""
    bundle = build_small_bundle(tmp_path_factory.mktemp("plain") / "bundle")
    return Session.open(Bundle.load(bundle), provider="cpu")


def inputs_of(steps: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(2, steps, FEATURES)).astype(np.float32),
        "lengths": np.full(2, steps, np.int32),
        "state": np.zeros((2, 3), np.float32),
    }


def signals_of(steps: int = 3) -> dict[str, np.ndarray]:
    signals = np.random.default_rng(1).normal(size=(2, steps, WIDTH)).astype(np.float32)
    return {"signals": signals, "measured": np.ones((2, steps), np.float32)}


def test_the_manifest_names_the_signals_and_is_of_version_3(folder: Path):
    manifest = Bundle.load(folder).manifest
    assert manifest.schema_version == 3
    assert manifest.sequence.signals.version == SIGNALS_VERSION
    assert manifest.sequence.signals.names == list(NAMES)
    assert manifest.sequence.signals.units == list(UNITS)
    assert manifest.sequence.signals.width == WIDTH
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_of_version_1_names_nothing_that_older_programs_refuse(plain: Session):
    assert plain.bundle.manifest.schema_version == 1
    plain_json = json.loads(plain.bundle.manifest.to_json())
    assert "signals" not in plain_json["sequence"]
    assert "still" not in plain_json["decision"]


def test_signals_of_measured_steps_count_and_others_do_not(session: Session, plain: Session):
    given, signals = inputs_of(), signals_of()
    signals["measured"][0, 1] = 0.0
    found = session.run_sequence(**given, **signals).fake_logit
    added = signals["signals"].mean(axis=2) * signals["measured"]
    without = plain.run_sequence(**given).fake_logit
    np.testing.assert_allclose(found, without + added, atol=1e-6)


def test_without_signals_no_step_counts_as_measured(session: Session, plain: Session):
    given = inputs_of()
    found = session.run_sequence(**given)
    np.testing.assert_allclose(found.fake_logit, plain.run_sequence(**given).fake_logit, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"signals": None}, UsageError, "belong together: give both or neither"),
        ({"measured": None}, UsageError, "belong together: give both or neither"),
        ({"signals": np.zeros((2, 3, 5), np.float32)}, UsageError, r"signals are float32 \[2, 3"),
        ({"signals": np.zeros((2, 3, WIDTH))}, UsageError, "signals are float64"),
        ({"measured": np.ones((2, 4), np.float32)}, UsageError, r"measured are float32 \[2, 4\]"),
        ({"measured": np.ones((2, 3), bool)}, UsageError, "measured are bool"),
        ({"measured": np.full((2, 3), 0.5, np.float32)}, UsageError, "other values than 0 and 1"),
        ({"signals": np.full((2, 3, WIDTH), np.nan, np.float32)}, DfdError, "are not finite"),
    ],
)
def test_signals_that_do_not_fit_are_refused(session: Session, change, error, message: str):
    with pytest.raises(error, match=message):
        session.run_sequence(**inputs_of(), **(signals_of() | change))


def test_a_model_without_signals_is_given_none(plain: Session):
    with pytest.raises(UsageError, match="takes no signals"):
        plain.run_sequence(**inputs_of(), **signals_of())


def test_the_probe_runs_with_nothing_measured(session: Session):
    result = check_probe(session)
    assert result.compared == ("fake_logit", "step_logit")
    assert result.difference < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": SIGNALS_VERSION + 1}, r"version 2, .* measures version 1: upgrade dfd-edge"),
        ({"names": [*NAMES[:-1], "face_colour"]}, r"signal 32 .* is 'face_colour', .* measures"),
        ({"names": [*NAMES, "more"], "units": [*UNITS, ""]}, r"is 'more', .* measures None"),
        ({"names": list(NAMES[:-1]), "units": list(UNITS[:-1])}, r"signal 32 .* 'face_contrast'"),
        ({"names": list(NAMES[:-1])}, r"sequence\.signals\.units has 33 entries, names 32"),
        ({"names": [NAMES[0], *NAMES[:-1]]}, r"signals\.names has 'eyes_noise' twice"),
        ({"names": [], "units": []}, r"signals\.names is empty"),
        ({"version": 0}, r"signals\.version is 0, not 1 or more"),
    ],
)
def test_other_signals_are_refused(folder: Path, tmp_path: Path, change: dict, message: str):
    other = shutil.copytree(folder, tmp_path / "other")
    edit_manifest(other, lambda manifest: manifest["sequence"]["signals"].update(change))
    with pytest.raises(BundleError, match=message):
        Bundle.load(other)


def test_signals_in_a_manifest_of_an_older_version_are_refused(folder: Path, tmp_path: Path):
    other = shutil.copytree(folder, tmp_path / "other")
    edit_manifest(other, lambda manifest: manifest.update(schema_version=2))
    with pytest.raises(BundleError, match=r"sequence\.signals is of version 3, not 2"):
        Bundle.load(other)


def test_the_graph_has_to_take_the_manifest_s_signals(plain: Session, tmp_path: Path):
    other = shutil.copytree(plain.bundle.path, tmp_path / "other")
    spec = {"version": SIGNALS_VERSION, "names": list(NAMES), "units": list(UNITS)}

    def edit(manifest: dict) -> None:
        manifest["schema_version"] = 3
        manifest["sequence"]["signals"] = spec

    edit_manifest(other, edit)
    with pytest.raises(BundleError, match=r"inputs are features, .* contract has .* measured"):
        Bundle.load(other)


def test_the_graph_s_cost_is_known_without_a_trial(folder: Path):
    data = (folder / "sequence.onnx").read_bytes()
    shapes = {"features": (8, 2, 4), "signals": (8, 2, WIDTH), "measured": (8, 2)}
    assert check_size(data, {**shapes, "lengths": (8,), "state": (8, 3)})


STILL = StillSpec(
    Calibrator(2.0, -0.5),
    {
        "real": Threshold(0.2, 0.1, 0.08, 50, 0.15),
        "fake": Threshold(0.9, 0.03, 0.02, 60, 0.06),
    },
)


def test_stills_have_a_decision_of_their_own():
    clips, stills = Decision(DECISION), Decision(dataclasses.replace(DECISION, still=STILL))
    logit = 1.0
    assert clips.for_stills().p_frame(logit) == calibrated(logit, DECISION.calibrators["frame"])
    assert stills.for_stills().p_frame(logit) == calibrated(logit, STILL.calibrator)
    p_fake = 0.7
    assert clips.for_stills().label(p_fake) is Label.FAKE
    assert stills.for_stills().label(p_fake) is Label.UNSURE
    assert stills.label(p_fake) is Label.FAKE, "clips keep theirs"


def test_a_decision_on_stills_makes_the_manifest_version_3(plain: Session, tmp_path: Path):
    decided = {"fp32": dataclasses.replace(DECISION, still=STILL)}
    revise_bundle(plain.bundle, out=tmp_path / "new", decisions=decided, card=CARD)
    manifest = Bundle.load(tmp_path / "new").manifest
    assert (manifest.schema_version, manifest.decision.still) == (3, STILL)
    revise_bundle(
        Bundle.load(tmp_path / "new"),
        out=tmp_path / "old",
        decisions={"fp32": DECISION},
        card=None,
    )
    assert Bundle.load(tmp_path / "old").manifest.schema_version == 1


def test_a_decision_on_stills_is_checked():
    real, fake = (dataclasses.replace(STILL.thresholds[k], probability=p) for k, p in
                  (("real", 0.6), ("fake", 0.5)))  # fmt: skip
    with pytest.raises(SchemaError, match=r"thresholds: real \(0\.6\) lies above fake"):
        StillSpec(STILL.calibrator, {"real": real, "fake": fake})
    with pytest.raises(SchemaError, match=r"thresholds has nothing"):
        StillSpec(STILL.calibrator, {})
