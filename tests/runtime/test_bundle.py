"""A bundle that was damaged, changed or made for another contract is refused, each with why."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dfd_edge.bundle import Bundle
from dfd_edge.errors import BundleError
from dfd_edge.manifest import DecisionSpec, Manifest
from dfd_edge.onnx_file import read_onnx
from dfd_edge.schema import SchemaError


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit_manifest(folder: Path, edit) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


def relist(folder: Path, name: str) -> None:
    """Makes the manifest agree with a changed file, as a forger would."""
    data = (folder / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    edit_manifest(folder, lambda m: m["files"].update({name: entry}))


def edit_graph(folder: Path, name: str, edit) -> None:
    model = onnx.load(folder / name)
    edit(model)
    (folder / name).write_bytes(model.SerializeToString())
    relist(folder, name)


def test_a_whole_bundle_loads_and_its_hash_is_its_manifest_s(tiny_bundle: Path):
    bundle = Bundle.load(tiny_bundle)
    text = (tiny_bundle / "manifest.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256(text).hexdigest()
    assert bundle.hash == bundle.sha256[:12]
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
    assert bundle.manifest.sequence.state_width == 64 + 32 + 16
    assert bundle.manifest.frame.evidence_size == (2, 2)


def flip_byte(folder: Path) -> None:
    data = bytearray((folder / "frame.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "frame.onnx").write_bytes(data)


def swap_graphs(folder: Path) -> None:
    shutil.copy(folder / "sequence.onnx", folder / "frame.onnx")


def swap_graphs_and_relist(folder: Path) -> None:
    swap_graphs(folder)
    relist(folder, "frame.onnx")


def truncate(folder: Path) -> None:
    data = (folder / "frame.onnx").read_bytes()
    (folder / "frame.onnx").write_bytes(data[:-100])


def truncate_and_relist(folder: Path) -> None:
    truncate(folder)
    relist(folder, "frame.onnx")


def climb_out(folder: Path) -> None:
    shutil.copy(folder / "sequence.onnx", folder.parent / "sequence.onnx")

    def edit(manifest: dict) -> None:
        manifest["sequence"]["file"] = "../sequence.onnx"
        manifest["files"]["../sequence.onnx"] = manifest["files"]["sequence.onnx"]

    edit_manifest(folder, edit)


def climb_out_by_link(folder: Path) -> None:
    outside = folder.parent / "outside.onnx"
    (folder / "sequence.onnx").rename(outside)
    (folder / "sequence.onnx").symlink_to(outside)


def external_data(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret.bin")

    edit_graph(folder, "sequence.onnx", edit)


def extra_input(folder: Path) -> None:
    extra = helper.make_tensor_value_info("leaked", TensorProto.FLOAT, [1])
    edit_graph(folder, "sequence.onnx", lambda model: model.graph.input.append(extra))


def renamed_axis(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "unk__1"

    edit_graph(folder, "sequence.onnx", edit)


def a_loop(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Loop"

    edit_graph(folder, "sequence.onnx", edit)


def no_onnx(folder: Path) -> None:
    (folder / "sequence.onnx").write_text("<html>not found</html>")
    relist(folder, "sequence.onnx")


def set_field(*path: str, value: object):
    def edit(folder: Path) -> None:
        def change(manifest: dict) -> None:
            target = manifest
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value

        edit_manifest(folder, change)

    return edit


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (flip_byte, r"frame\.onnx: sha256 \w{12}…, but the manifest says \w{12}…"),
        (swap_graphs, r"frame\.onnx: \d+ bytes, but the manifest says \d+"),
        (
            swap_graphs_and_relist,
            r"frame\.onnx: its inputs are features, lengths, state, but the contract has image",
        ),
        (truncate, r"frame\.onnx: \d+ bytes, but the manifest says \d+"),
        (truncate_and_relist, r"frame\.onnx: not an ONNX graph \(the file is cut short\)"),
        (climb_out, r"the path '\.\./sequence\.onnx' leads out of the folder"),
        (climb_out_by_link, r"sequence\.onnx: leads out of the bundle"),
        (external_data, r"keeps weights in another file \('\.\./secret\.bin'\)"),
        (extra_input, r"its inputs are features, lengths, state, leaked, but the contract has"),
        (
            renamed_axis,
            r"input features is float32 \[unk__1, time, 1280\], but the manifest makes it "
            r"float32 \[batch, time, 1280\]",
        ),
        (a_loop, r"sequence\.onnx: holds Loop"),
        (no_onnx, r"sequence\.onnx: not an ONNX graph"),
        (lambda folder: (folder / "CARD.md").unlink(), r"CARD\.md: listed in the manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), r"manifest\.json: cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json: not JSON"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), r"manifest\.json: .*utf-8"),
        (lambda f: (f / "manifest.json").write_text("[" * 200_000), r"nested too deeply"),
        (set_field("schema_version", value=2), r"schema version 2 is newer than 1.*upgrade"),
        (set_field("schema_version", value="1"), r"schema_version is '1', not 1"),
        (set_field("surprise", value=1), r"surprise is unknown"),
        (set_field("frame", "input_size", value=96), r"image is uint8 \[batch, 64, 64, 3\]"),
        (set_field("frame", "input_size", value="64"), r"frame\.input_size is '64', not a whole"),
        (set_field("frame", "variants", value={}), r"frame\.variants has no fp32"),
        (set_field("sequence", "state_width", value=7), r"state is float32 \[batch, 112\]"),
        (set_field("sequence", "rate_hz", value=0), r"sequence\.rate_hz is 0\.0, not above 0"),
        (set_field("sequence", "rate_hz", value=float("nan")), r"NaN is not a number JSON has"),
        (set_field("decision", "person_score", value="both"), r"not one of sequence, frame"),
        (set_field("decision", "calibrators", value={}), r"decision\.calibrators has nothing"),
        (set_field("card", "limits", value="none"), r"card\.limits is 'none', not a list"),
        (set_field("files", "frame.onnx", "sha256", value="x"), r"not 64 hex digits"),
        (set_field("probe", "file", value="other.png"), r"'other\.png' is used but not listed"),
    ],
)
def test_a_bundle_that_was_tampered_with_is_refused(copy: Path, tamper, message: str):
    tamper(copy)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.load(copy)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "C:\\x", "..\\x", "", "a\0b"])
def test_no_path_leads_out_of_the_folder(tiny_bundle: Path, name: str):
    content = json.loads((tiny_bundle / "manifest.json").read_text("utf-8"))
    content["files"][name] = content["files"]["CARD.md"]
    with pytest.raises(SchemaError, match="leads out of the folder"):
        Manifest.from_json(json.dumps(content))


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.load(tmp_path / "missing")
    with pytest.raises(BundleError, match="this folder is no bundle"):
        Bundle.load(tmp_path)


def test_thresholds_that_overlap_are_refused(tiny_bundle: Path):
    decision = json.loads(Bundle.load(tiny_bundle).manifest.decision.to_json())
    decision["thresholds"]["real"]["probability"] = 0.9
    with pytest.raises(SchemaError, match=r"real \(0\.9\) lies above fake \(0\.6\)"):
        DecisionSpec.from_json(json.dumps(decision))


def test_a_key_given_twice_is_refused():
    with pytest.raises(SchemaError, match="slope is given twice"):
        DecisionSpec.from_json('{"slope": 1, "slope": 2}')


@pytest.mark.parametrize("name", ["frame.onnx", "sequence.onnx"])
def test_the_reader_of_onnx_files_sees_what_the_onnx_package_sees(tiny_bundle: Path, name: str):
    model = onnx.load(tiny_bundle / name)
    declared = read_onnx((tiny_bundle / name).read_bytes())
    for found, wanted in (
        (declared.inputs, model.graph.input),
        (declared.outputs, model.graph.output),
    ):
        assert list(found) == [value.name for value in wanted]
        for value in wanted:
            axes = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            assert found[value.name].axes == axes
    assert sum(declared.operators.values()) == len(model.graph.node)


def test_external_data_is_seen_inside_a_branch():
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "b", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    declared = read_onnx(model.SerializeToString())
    assert set(declared.external_data) == {"/etc/passwd"}
    assert declared.operators == {"If": 1, "Constant": 2}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes):
    with contextlib.suppress(ValueError):
        read_onnx(data)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 20_000), value=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(at: int, value: int):
    tensor = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    node = helper.make_node("Relu", ["x"], ["y"])
    data = bytearray(
        helper.make_model(helper.make_graph([node], "g", [tensor], [tensor])).SerializeToString()
    )
    data[at % len(data)] = value
    with contextlib.suppress(ValueError):
        read_onnx(bytes(data))
