"""`dfd-export diff` says how two bundles differ, and whether they do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper

from dfd_edge.bundle import Bundle
from dfd_export.cli import main
from dfd_export.inspect.diff import diff_bundles
from small_bundle import (
    add_optimized,
    build_small_bundle,
    edit_graph,
    edit_manifest,
    edit_weight,
    fail_when_run,
    relist,
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return build_small_bundle(tmp_path_factory.mktemp("diff") / "first")


@pytest.fixture
def second(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "second"))


def add_to(name: str, amount: float, at: int = 0):
    def add(weight: np.ndarray) -> np.ndarray:
        changed = weight.copy()
        changed.flat[at] += amount
        return changed

    return edit_weight(name, add)


def test_a_copy_is_the_same(first: Path, second: Path):
    result = run(first, second)
    assert result.exit_code == 0
    assert "the same bundle, byte for byte" in result.output


def test_bundles_that_differ_in_their_date_only_are_the_same(first: Path, tmp_path: Path):
    later = build_small_bundle(tmp_path / "later", created="2027-01-01T00:00:00+00:00")
    assert Bundle.load(later).sha256 != Bundle.load(first).sha256
    result = run(first, later)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[2:] == ["the same but for the time when they were written"]
    found = json.loads(run(first, later, "--json").output)
    assert (found["same"], found["identical"]) == (True, False)
    assert [change["name"] for change in found["manifest"]] == ["created"]


def test_fields_of_the_manifest_are_compared(first: Path, second: Path):
    def edit(manifest: dict) -> None:
        manifest["decision"]["thresholds"]["fake"]["probability"] = 0.75
        manifest["card"]["limits"].append("It is a test.")
        del manifest["card"]["metrics"]["clip AUC"]

    edit_manifest(second, edit)
    result = run(first, second)
    assert result.exit_code == 1
    assert "decision.thresholds.fake.probability: 0.6 -> 0.75\n" in result.output
    assert "card.limits[1]: nothing -> 'It is a test.'\n" in result.output
    assert "card.metrics.clip AUC.value: 0.5 -> nothing\n" in result.output
    assert "fp32 fake_logit: mean 0, largest 0\n" in result.output
    assert "files" not in result.output  # the manifest itself is not among them


def test_a_changed_weight_is_found_with_its_size_and_what_it_does(first: Path, second: Path):
    edit_graph(second, "frame.onnx", add_to("bias", 0.25))
    edit_graph(second, "frame.onnx", add_to("kernel", -0.5, at=7))
    result = run(first, second)
    assert result.exit_code == 1
    assert "! frame.onnx" in result.output
    assert "2 of 5 weights differ, at most by\n    0.5        kernel\n    0.25       bias\n" in (
        result.output
    )
    diff = diff_bundles(Bundle.load(first), Bundle.load(second))
    frame, sequence = diff.graphs
    assert (frame.nodes_equal, frame.same, sequence.same) == (True, False, True)
    assert diff.logits is not None
    by_output = {logit.output: logit for logit in diff.logits}
    assert by_output["fake_logit"].largest >= by_output["fake_logit"].mean > 0
    assert by_output["step_logit"].largest > 0  # the sequence graph has other features to read


def test_the_logits_that_are_compared_are_those_of_the_runtime(first: Path, tmp_path: Path):
    from dfd_edge.inference.session import Session
    from dfd_export.bundles.probe import read_probe, run_probe

    other = build_small_bundle(tmp_path / "other", seed=5)
    bundles = Bundle.load(first), Bundle.load(other)
    crops = read_probe(bundles[0])
    runs = [run_probe(Session.open(bundle, provider="cpu"), crops) for bundle in bundles]
    diff = diff_bundles(*bundles)
    assert diff.logits is not None
    for logit, one, two in zip(diff.logits, *runs, strict=True):
        assert logit.mean == pytest.approx(float(np.abs(one - two).mean()), rel=1e-5)
        assert logit.largest == pytest.approx(float(np.abs(one - two).max()), rel=1e-5)


def test_a_second_export_is_the_same_whatever_its_values_are_called(first: Path, second: Path):
    """Keras counts the names of layers up from export to export."""

    def rename(model: onnx.ModelProto) -> None:
        kept = {value.name for value in (*model.graph.input, *model.graph.output)}
        for node in model.graph.node:
            node.name = f"{node.output[0]}_node"
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    names[place] = name if name in kept else f"{name}_1"
        for tensor in model.graph.initializer:
            tensor.name = f"{tensor.name}_1"

    edit_graph(second, "frame.onnx", rename)
    assert run(first, second).exit_code == 0
    edit_graph(second, "frame.onnx", add_to("kernel_1", 2.0))
    result = run(first, second)
    assert result.exit_code == 1
    assert "1 of 5 weights differ, at most by\n    2          kernel\n" in result.output


def test_other_operators_parameters_and_axes_are_shown(first: Path, second: Path, tmp_path: Path):
    larger = build_small_bundle(tmp_path / "larger", size=12)
    result = run(first, larger)
    assert result.exit_code == 1
    assert "MACs: 1792 -> 4032\n" in result.output
    assert "input image: 'uint8 [batch, 8, 8, 3]' -> 'uint8 [batch, 12, 12, 3]'\n" in result.output
    assert "frame.input_size: 8 -> 12\n" in result.output
    assert "logits were not compared: the first takes crops of 8 px, the second of 12 px" in (
        result.output
    )
    assert json.loads(run(first, larger, "--json").output)["logits"] is None

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[4].op_type = "LeakyRelu"

    edit_graph(second, "frame.onnx", edit)
    text = run(first, second).output
    assert "its nodes differ\n" in text
    assert "operator Relu: 1 -> nothing\n" in text
    assert "operator LeakyRelu: nothing -> 1\n" in text
    assert "5 weights are equal\n" in text


def test_variants_and_files_that_one_has_alone_are_shown(first: Path, tmp_path: Path):
    with_int8 = build_small_bundle(tmp_path / "int8", precisions=("fp32", "int8"))
    result = run(first, with_int8)
    assert result.exit_code == 1
    assert "+ frame.int8.onnx" in result.output
    assert "frame.variants.int8.file: nothing -> 'frame.int8.onnx'\n" in result.output
    assert "- frame.int8.onnx" in run(with_int8, first).output
    both = diff_bundles(Bundle.load(with_int8), Bundle.load(with_int8))
    assert both.logits is not None
    assert {logit.precision for logit in both.logits} == {"fp32", "int8"}


def test_another_card_is_another_bundle(first: Path, second: Path):
    (second / "CARD.md").write_text("A card that says something else.", "utf-8")
    relist(second, "CARD.md")
    result = run(first, second)
    assert result.exit_code == 1
    assert "! CARD.md" in result.output


def test_a_bundle_that_does_not_load_ends_with_code_5(first: Path, tmp_path: Path):
    result = run(first, tmp_path)
    assert result.exit_code == 5
    assert "this folder is no bundle" in result.stderr


def test_optimised_graphs_are_compared(first: Path, tmp_path: Path):
    one, other = (Path(shutil.copytree(first, tmp_path / name)) for name in ("one", "other"))
    for folder in (one, other):
        name = add_optimized(folder)
    assert run(one, other).exit_code == 0
    edit_graph(other, name, edit_weight("kernel", lambda kernel: kernel * 5))
    result = run(one, other)
    assert result.exit_code == 1
    assert "\nframe fp32 optimized\n" in result.output
    assert "1 of 5 weights differ" in result.output


def test_weights_that_no_node_reads_are_paired_by_name(first: Path, second: Path, tmp_path: Path):
    def add_unused(model: onnx.ModelProto) -> None:
        unused = numpy_helper.from_array(np.zeros(3, np.float32), "unused")
        model.graph.initializer.append(unused)

    edit_graph(second, "frame.onnx", add_unused)
    result = run(second, second)
    assert (result.exit_code, "byte for byte" in result.output) == (0, True)
    assert "- weight unused" in run(second, first).output
    third = Path(shutil.copytree(second, tmp_path / "third"))
    edit_graph(third, "frame.onnx", add_to("unused", 0.5))
    result = run(second, third)
    assert result.exit_code == 1
    assert "1 of 6 weights differ, at most by\n    0.5        unused\n" in result.output


def test_sparse_weights_are_compared(first: Path, second: Path, tmp_path: Path):
    def add_sparse(value: float):
        def edit(model: onnx.ModelProto) -> None:
            values = helper.make_tensor("sparse", onnx.TensorProto.FLOAT, [1], [value])
            indices = helper.make_tensor("at", onnx.TensorProto.INT64, [1], [2])
            sparse = helper.make_sparse_tensor(values, indices, [4])
            model.graph.sparse_initializer.append(sparse)

        return edit

    third = Path(shutil.copytree(first, tmp_path / "third"))
    for folder, value in ((second, 1.0), (third, 3.0)):
        edit_graph(folder, "frame.onnx", add_sparse(value))
    result = run(second, third)
    assert result.exit_code == 1
    assert "1 of 7 weights differ, at most by\n    2          sparse\n" in result.output


def test_a_graph_that_fails_when_it_is_run_is_compared_all_the_same(first: Path, second: Path):
    edit_graph(second, "frame.onnx", fail_when_run)
    for pair in ((first, second), (second, first)):
        result = run(*pair)
        assert result.exit_code == 1
        assert "its nodes differ\n" in result.output
        assert "logits were not compared\n  fp32: " in result.output
    found = json.loads(run(first, second, "--json").output)
    assert (found["logits"], [*found["not_run"]]) == ([], ["fp32"])


def test_logits_that_are_not_finite_are_shown_as_such(first: Path, second: Path):
    edit_graph(second, "frame.onnx", edit_weight("seen", lambda seen: seen * np.nan))
    result = run(first, second)
    assert result.exit_code == 1
    assert "fp32 fake_logit: not finite\n" in result.output
    assert "fp32 step_logit: mean 0, largest 0\n" in result.output
    fake, step = json.loads(run(first, second, "--json").output)["logits"]
    assert (fake["mean"], fake["largest"], step["largest"]) == (None, None, 0)


def test_a_weight_that_is_cut_short_ends_with_code_5(first: Path, second: Path):
    def edit(model: onnx.ModelProto) -> None:
        seen = next(t for t in model.graph.initializer if t.name == "seen")
        seen.raw_data = seen.raw_data[:-3]

    edit_graph(second, "frame.onnx", edit)
    result = run(first, second)
    assert result.exit_code == 5
    assert "second/frame.onnx: the weight 'seen' is damaged (" in result.stderr


def test_signals_take_a_line_for_their_names_and_one_for_their_units(first: Path, tmp_path: Path):
    result = run(first, build_small_bundle(tmp_path / "signals", signals=True))
    assert result.exit_code == 1
    lines = [line for line in result.output.splitlines() if "sequence.signals." in line]
    assert len(lines) == 3
    assert lines[0].endswith("sequence.signals.version: nothing -> 1")
    assert "sequence.signals.names: nothing -> 'eyes_noise, eyes_change, " in lines[1]
    assert "input signals: nothing -> 'float32 [batch, time, 33]'" in result.output
