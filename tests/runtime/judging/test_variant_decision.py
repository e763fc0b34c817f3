"""Each precision is judged by the thresholds that were set on its own logits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dfd_edge import Detector, Stream
from dfd_edge.bundle import Bundle
from dfd_edge.errors import BundleError
from dfd_edge.inference.session import Session
from dfd_edge.judging.results import Label
from small_bundle import DECISION, build_small_bundle, edit_manifest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose two variants share a decision. Not to be written to."""
    out = tmp_path_factory.mktemp("decisions") / "bundle"
    return build_small_bundle(out, precisions=("fp32", "int8"))


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def decide(folder: Path, precision: str, *, real: float, fake: float, **others: object) -> None:
    """Give a variant a decision of its own."""
    decision = {**json.loads(DECISION.to_json()), **others}
    decision["thresholds"]["real"]["probability"] = real
    decision["thresholds"]["fake"]["probability"] = fake

    def edit(manifest: dict) -> None:
        manifest["frame"]["variants"][precision]["decision"] = decision

    edit_manifest(folder, edit)


def judged(session: Session) -> Label:
    """The verdict on six frames of noise."""
    stream = Stream(session, None)
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3)).astype(np.uint8)
    for number, frame in enumerate(frames):
        stream.push(frame, number / 5)
    return stream.verdict().label


def test_the_label_comes_from_the_thresholds_of_the_precision_that_runs(bundle: Path):
    decide(bundle, "int8", real=1.0, fake=1.0)
    loaded = Bundle.load(bundle)
    sessions = {p: Session.open(loaded, provider="cpu", precision=p) for p in ("fp32", "int8")}
    assert judged(sessions["int8"]) is Label.REAL, "no score reaches 1"
    assert judged(sessions["fp32"]) is not Label.REAL
    for precision, threshold in (("fp32", 0.6), ("int8", 1.0)):
        detector = Detector(sessions[precision], None)
        assert detector.decision.fake_threshold == threshold
        assert detector.stream().verdict().p_fake is None


def test_steps_needed_come_from_there_too(bundle: Path):
    decide(bundle, "int8", real=0.0, fake=0.0, min_steps=7)
    loaded = Bundle.load(bundle)
    assert judged(Session.open(loaded, provider="cpu", precision="int8")) is Label.UNSURE


def test_a_variant_without_a_decision_shares_the_bundle_s(bundle: Path):
    """As in bundles that were written before variants had decisions of their own."""

    def edit(manifest: dict) -> None:
        for variant in manifest["frame"]["variants"].values():
            del variant["decision"]
        del manifest["decision"]["settle_steps"]

    edit_manifest(bundle, edit)
    loaded = Bundle.load(bundle)
    for precision in ("fp32", "int8"):
        session = Session.open(loaded, provider="cpu", precision=precision)
        assert session.decision == loaded.manifest.decision == DECISION


def test_fp32_has_no_decision_beside_the_bundle_s(bundle: Path):
    decide(bundle, "fp32", real=0.1, fake=0.9)
    with pytest.raises(BundleError, match=r"frame\.variants\.fp32 has a decision of its own"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real": 0.9, "fake": 0.5}, r"variants\.int8\.decision\.thresholds: real \(0\.9\) lies"),
        ({"real": 0.1, "fake": 0.9, "settle_steps": -1.0}, r"settle_steps is -1\.0, not 0 or more"),
        ({"real": 0.1, "fake": 0.9, "mood": 1}, r"variants\.int8\.decision\.mood is unknown"),
    ],
)
def test_a_bad_decision_of_a_variant_is_refused(bundle: Path, changes: dict, message: str):
    decide(bundle, "int8", **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.load(bundle)
