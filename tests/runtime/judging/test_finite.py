"""Numbers that are not finite never become a score, and whose they are is said."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from clip_maker import portrait
from onnx import helper, numpy_helper

from dfd_edge import Detector
from dfd_edge.errors import DfdError
from dfd_edge.faces import FaceDetector, FaceMesh
from dfd_edge.judging.results import Label
from dfd_edge.judging.stream import NOT_FINITE
from small_bundle import edit_graph, edit_manifest

OUTPUTS = [
    ("frame.onnx", "features"),
    ("frame.onnx", "fake_logit"),
    ("frame.onnx", "evidence"),
    ("sequence.onnx", "fake_logit"),
    ("sequence.onnx", "next_state"),
]


def poisoned(whole: Path, out: Path, graph: str, output: str, value: float) -> Path:
    """A copy of a bundle, one output of which has this added to it."""

    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = "sound" if name == output else name
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), "poison"))
        model.graph.node.append(helper.make_node("Add", ["sound", "poison"], [output]))

    shutil.copytree(whole, out)
    edit_manifest(out, lambda m: m["frame"]["variants"]["fp32"].update(optimized=None))
    edit_graph(out, graph, edit)
    return out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("graph", "output"), OUTPUTS)
def test_a_face_without_a_number_is_not_judged(
    tiny_bundle, tmp_path, face_clip, caplog, graph, output, value
):
    bundle = poisoned(tiny_bundle, tmp_path / "bundle", graph, output, value)
    detector = Detector.load(bundle, precision="fp32")
    people = []
    verdict = detector.analyze(
        face_clip, on_frame=lambda result: people.extend(result.people), duration_s=1.0
    )
    assert people
    assert {(p.judged, p.reason) for p in people} == {(False, NOT_FINITE)}
    assert all(p.p_frame is p.p_step is p.p_fake is p.evidence is None for p in people)
    assert verdict.label is Label.UNSURE
    assert verdict.p_fake is None
    assert verdict.coverage == 0.0
    assert not verdict.complete
    assert "bundle tiny gave numbers that are not finite for 5 faces" in str(verdict.reason)
    (warning,) = [r.getMessage() for r in caplog.records if "not finite" in r.getMessage()]
    assert str(bundle) in warning


def test_a_picture_too(tiny_bundle, tmp_path):
    bundle = poisoned(tiny_bundle, tmp_path / "bundle", "frame.onnx", "fake_logit", np.nan)
    cv2.imwrite(str(tmp_path / "picture.png"), portrait())
    verdict = Detector.load(bundle).analyze(tmp_path / "picture.png")
    assert (verdict.label, verdict.p_fake, verdict.complete) == (Label.UNSURE, None, False)
    assert "not finite for 1 face" in str(verdict.reason)


def test_no_record_or_file_holds_such_a_number(tiny_bundle, tmp_path, face_clip):
    bundle = poisoned(tiny_bundle, tmp_path / "bundle", "sequence.onnx", "fake_logit", np.nan)
    page, rows = tmp_path / "page.html", tmp_path / "rows.csv"
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", "--model", str(bundle), "--json"]
        + ["--report", str(page), "--csv", str(rows), str(face_clip)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(bundle) in done.stderr

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    records = [json.loads(line, parse_constant=refuse) for line in done.stdout.splitlines()]
    assert records[-1]["label"] == "unsure"
    for row in csv.DictReader(rows.open()):
        assert (row["judged"], row["reason"], row["p_fake"]) == ("0", NOT_FINITE, "")
    assert "its bundle does not work here" in page.read_text("utf-8")


def test_one_person_s_fault_is_not_another_s(tiny_bundle, tmp_path):
    """Where the left half of a crop is black the logit is no number; the other person is judged."""

    def edit(model: onnx.ModelProto) -> None:
        """The logit is divided by the crop's smallest value where that is 0: 0 / 0."""
        model.graph.node[-1].output[0] = "sound"
        for name, value in (("zero", 0.0), ("hundred", 100.0)):
            model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
        model.graph.node.extend(
            [
                helper.make_node("Cast", ["image"], ["whole"], to=onnx.TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["whole"], ["mean"], axes=[1, 2, 3], keepdims=0),
                helper.make_node("Sub", ["mean", "hundred"], ["over"]),
                helper.make_node("Relu", ["over"], ["light"]),
                helper.make_node("Div", ["light", "light"], ["one_or_none"]),
                helper.make_node("Mul", ["sound", "one_or_none"], ["fake_logit"]),
            ]
        )

    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    model = onnx.load(bundle / "frame.onnx")
    if model.graph.node[-1].output[0] != "fake_logit":
        last = next(n for n in model.graph.node if "fake_logit" in n.output)
        model.graph.node.remove(last)
        model.graph.node.append(last)
        onnx.save(model, bundle / "frame.onnx")
    edit_graph(bundle, "frame.onnx", edit)
    face = portrait()[:300, 80:380]
    wide = np.concatenate([face, (face * 0.45).astype(np.uint8)], axis=1)
    with Detector.load(bundle).stream(faces="all") as stream:
        people = [p for n in range(5) for p in stream.push(wide, n / 5).people]
        verdict = stream.verdict()
    assert {p.reason for p in people} == {None, NOT_FINITE}
    judged = {p.track for p in people if p.judged}
    assert len(judged) == 1
    (person,) = [p for p in verdict.people if p.track in judged]
    assert person.judged_steps == 5
    assert verdict.p_fake is not None
    assert not verdict.complete


@pytest.mark.parametrize("model", [FaceDetector, FaceMesh])
def test_the_face_models_too(model):
    """On a machine where onnxruntime computes wrongly, which no file of ours can bring about."""
    opened = model()

    class Broken:
        def __init__(self, session):
            self._session = session

        def run(self, names, inputs):
            return [np.full_like(output, np.nan) for output in self._session.run(names, inputs)]

    face = FaceDetector().detect(portrait())[0]
    opened._session = Broken(opened._session)
    with pytest.raises(DfdError, match="face model gives numbers that are not finite"):
        opened.detect(portrait()) if model is FaceDetector else opened.landmarks(portrait(), face)
