"""A bundle that was damaged, changed or made for another contract is refused, each with why."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dfd_edge import bundle as bundle_module
from dfd_edge.bundle import Bundle
from dfd_edge.bundle.graph_size import TooLarge, check_size
from dfd_edge.bundle.manifest import Manifest
from dfd_edge.detector import Detector
from dfd_edge.errors import BundleError
from dfd_edge.inference.session import Session
from dfd_edge.schema import SchemaError
from small_bundle import FEATURES, build_small_bundle, edit_graph, edit_manifest, relist

Tamper = Callable[[Path], None]
NOTHING = {"sha256": "0" * 64, "size": 1}
OPTIMIZED = {"onnxruntime": "1.32", "load_ms": 1.0, "portable_load_ms": 2.0}
FILES = ("frame.onnx", "frame.int8.onnx", "sequence.onnx", "probe.png", "CARD.md")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle to copy. Not to be written to."""
    out = tmp_path_factory.mktemp("tampering") / "bundle"
    return build_small_bundle(out, precisions=("fp32", "int8"))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.load(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def set_field(*path: str, value: object) -> Tamper:
    def edit(folder: Path) -> None:
        def change(manifest: dict) -> None:
            target = manifest
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value

        edit_manifest(folder, change)

    return edit


def in_sequence(edit: Callable[[onnx.ModelProto], None]) -> Tamper:
    return lambda folder: edit_graph(folder, "sequence.onnx", edit)


def test_what_the_others_are_copies_of_is_whole(whole: Path):
    assert set(Bundle.load(whole).manifest.files) == set(FILES)


# Bytes of a file


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=20, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_in_any_file_is_seen(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, place: float, bit: int
):
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("flipped") / "bundle"))
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (folder / name).write_bytes(data)
    refused(folder, rf"{name}: sha256 \w{{12}}…, but the manifest says \w{{12}}…: the file was")


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_in_the_manifest_is_refused_or_changes_the_bundle_s_hash(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
):
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("flipped") / "bundle"))
    path = folder / "manifest.json"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        flipped = Bundle.load(folder)
    except BundleError as error:
        assert str(folder) in str(error)
    else:
        assert flipped.sha256 != Bundle.load(whole).sha256


def truncate(folder: Path) -> None:
    data = (folder / "frame.onnx").read_bytes()
    (folder / "frame.onnx").write_bytes(data[:-100])


def truncate_and_relist(folder: Path) -> None:
    truncate(folder)
    relist(folder, "frame.onnx")


def no_onnx(folder: Path) -> None:
    (folder / "sequence.onnx").write_text("<html>not found</html>")
    relist(folder, "sequence.onnx")


def nested_without_end(folder: Path) -> None:
    graph = b""
    for _ in range(6000):  # a branch in a branch in a branch …
        attribute = b"\x32" + varint(len(graph)) + graph
        node = b"\x2a" + varint(len(attribute)) + attribute
        graph = b"\x0a" + varint(len(node)) + node
    (folder / "sequence.onnx").write_bytes(b"\x3a" + varint(len(graph)) + graph)
    relist(folder, "sequence.onnx")


def varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (truncate, r"frame\.onnx: \d+ bytes, but the manifest says \d+"),
        (truncate_and_relist, r"frame\.onnx: not an ONNX graph \(the file is cut short\)"),
        (no_onnx, r"sequence\.onnx: not an ONNX graph"),
        (nested_without_end, r"sequence\.onnx: not an ONNX graph"),
        (lambda folder: (folder / "CARD.md").unlink(), r"CARD\.md: listed in the manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), r"manifest\.json: cannot be read"),
    ],
)
def test_a_damaged_or_missing_file_is_refused(copy: Path, tamper: Tamper, message: str):
    tamper(copy)
    refused(copy, message)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["CARD.md", "manifest.json"])
def test_a_pipe_or_folder_in_a_file_s_place_is_refused_at_once(copy: Path, name: str):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    refused(copy, rf"{name}: is no file")
    (copy / name).unlink()
    (copy / name).mkdir()
    refused(copy, rf"{name}: is no file")


# Graphs that are not the right ones


def swap_graphs(folder: Path) -> None:
    shutil.copy(folder / "sequence.onnx", folder / "frame.onnx")


def swap_graphs_and_relist(folder: Path) -> None:
    swap_graphs(folder)
    relist(folder, "frame.onnx")


def frame_of_another_bundle(folder: Path) -> None:
    other = build_small_bundle(folder.parent / "other", name="other", seed=9)
    shutil.copy(other / "frame.onnx", folder / "frame.onnx")
    relist(folder, "frame.onnx")


def frame_of_another_precision(folder: Path) -> None:
    shutil.copy(folder / "frame.int8.onnx", folder / "frame.onnx")
    relist(folder, "frame.onnx")


def frame_of_another_size(folder: Path) -> None:
    other = build_small_bundle(folder.parent / "other", size=12)
    shutil.copy(other / "frame.onnx", folder / "frame.onnx")
    relist(folder, "frame.onnx")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (swap_graphs, r"frame\.onnx: \d+ bytes, but the manifest says \d+"),
        (
            swap_graphs_and_relist,
            r"frame\.onnx: its inputs are features, lengths, state, but the contract has image",
        ),
        (
            frame_of_another_bundle,
            r"frame\.onnx: says of itself dfd_edge\.bundle = 'other', but the manifest makes it "
            r"'small': the graph belongs elsewhere",
        ),
        (
            frame_of_another_precision,
            r"frame\.onnx: says of itself dfd_edge\.precision = 'int8', but the manifest makes it "
            "'fp32'",
        ),
        (frame_of_another_size, r"image is uint8 \[batch, 12, 12, 3\], but the manifest makes it"),
        (
            set_field("face", "detector", value="haar"),
            r"says of itself dfd_edge\.face_detector = 'blazeface_full_range'",
        ),
        (set_field("sequence", "rate_hz", value=9.5), r"dfd_edge\.rate_hz = '5', .* '9\.5'"),
    ],
)
def test_a_swapped_graph_is_refused(copy: Path, tamper: Tamper, message: str):
    tamper(copy)
    refused(copy, message)


@pytest.mark.parametrize(
    ("tamper", "name"),
    [
        (set_field("sequence", "file", value="frame.onnx"), "frame.onnx"),
        (
            set_field("frame", "variants", "int8", "file", value="sequence.onnx"),
            "sequence.onnx",
        ),
        (set_field("frame", "variants", "int8", "file", value="frame.onnx"), "frame.onnx"),
        *(
            (
                set_field("frame", "variants", "fp32", "optimized", value={**OPTIMIZED, "file": f}),
                f,
            )
            for f in ("frame.int8.onnx", "frame.onnx", "sequence.onnx")
        ),
        (set_field("probe", "file", value="frame.onnx"), "frame.onnx"),
    ],
)
def test_a_file_in_two_places_of_the_manifest_is_refused(copy: Path, tamper: Tamper, name: str):
    """It would be held to the contract of one of them only."""
    tamper(copy)
    refused(copy, f"files: '{name}' is used 2 times, each has one use")


def test_graphs_without_metadata_are_taken(copy: Path):
    """Files that other tools wrote, or an older exporter, say less of themselves."""
    for name in ("frame.onnx", "frame.int8.onnx", "sequence.onnx"):
        edit_graph(copy, name, lambda model: model.ClearField("metadata_props"))
    Bundle.load(copy)


# What is in a graph


def external_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")


def external_data_in_a_constant(model: onnx.ModelProto) -> None:
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [1], [0.0])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def extra_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("leaked", TensorProto.FLOAT, [1]))


def extra_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("hidden", TensorProto.FLOAT, None))


def weight_as_input(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    info = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    model.graph.input.append(info)


def renamed_axis(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "unk__1"


def other_type(model: onnx.ModelProto) -> None:
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64


def operator(name: str, domain: str = "") -> Tamper:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = name
        model.graph.node[0].domain = domain

    return in_sequence(edit)


def loop_in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([helper.make_node("Loop", ["n"], ["y"])], "b", [], [])
    model.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH, g=branch)


def search_with_a_model_inside(model: onnx.ModelProto) -> None:
    step = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "step", [], [])
    model.graph.node.append(
        helper.make_node("BeamSearch", ["a"], ["b"], domain="com.microsoft", decoder=step)
    )


def branches_of_a_fused_operator(model: onnx.ModelProto) -> None:
    """A list of graphs, in an operator that has none."""
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "b", [], [])
    model.graph.node[0].op_type, model.graph.node[0].domain = "FusedConv", "com.microsoft"
    attribute = model.graph.node[0].attribute.add(name="b", type=onnx.AttributeProto.GRAPHS)
    attribute.graphs.append(branch)


def own_function(model: onnx.ModelProto) -> None:
    """A function of the standard domain could stand for any operator, and hide a loop."""
    node = helper.make_node("Identity", ["x"], ["y"])
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("", "Transpose", ["x"], ["y"], [node], opset))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (in_sequence(external_data), r"keeps weights in another file \('\.\./secret\.bin'\)"),
        (in_sequence(external_data_in_a_constant), r"in another file \('/etc/passwd'\)"),
        (in_sequence(extra_input), "its inputs are features, lengths, state, leaked, but the"),
        (in_sequence(weight_as_input), "its inputs are features, lengths, state, w, but the"),
        (in_sequence(extra_output), "its outputs are fake_logit, next_state, hidden, but the"),
        (
            in_sequence(renamed_axis),
            r"input features is float32 \[unk__1, time, 4\], but the manifest makes it "
            r"float32 \[batch, time, 4\]",
        ),
        (in_sequence(other_type), r"input lengths is int64 \[batch\], but the manifest makes it"),
        (operator("Loop"), r"sequence\.onnx: holds Loop; a bundle's graphs have no loops"),
        (operator("If"), r"sequence\.onnx: holds If"),
        (operator("Scan"), r"sequence\.onnx: holds Scan"),
        (in_sequence(loop_in_a_branch), r"sequence\.onnx: holds Loop"),
        (
            in_sequence(search_with_a_model_inside),
            r"sequence\.onnx: holds 'com\.microsoft:BeamSearch' with a graph inside",
        ),
        (operator("Shell", "evil.corp"), r"sequence\.onnx: holds 'evil\.corp:Shell'"),
        (operator("Gelu", "com.microsoft"), r"holds 'com\.microsoft:Gelu'; .* every runtime has"),
        (operator("EPContext", "com.microsoft"), r"holds 'com\.microsoft:EPContext'"),
        (in_sequence(own_function), r"sequence\.onnx: defines 1 operators of its own"),
    ],
)
def test_a_graph_that_does_not_keep_the_contract_is_refused(
    copy: Path, tamper: Tamper, message: str
):
    tamper(copy)
    refused(copy, message)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("com.microsoft:FusedConv", True),
        ("com.microsoft:QLinearAdd", True),
        ("com.microsoft.nchwc:Conv", True),
        ("com.microsoft:EPContext", False),
        ("com.microsoft:BeamSearch", False),
        ("com.microsoft.nchwc:FusedConv", False),
        ("x:Shell", False),
    ],
)
def test_fused_operators_are_for_optimised_graphs_only(whole: Path, name: str, allowed: bool):
    """Some of that domain open files of any path, or run models inside them: by name, then."""
    model = onnx.load(whole / "frame.onnx")
    domain, _, operator_type = name.partition(":")
    model.graph.node[0].op_type, model.graph.node[0].domain = operator_type, domain
    manifest = Bundle.load(whole).manifest
    contract = bundle_module.graph_contract(manifest)["frame.onnx"]
    data = model.SerializeToString()
    with pytest.raises(BundleError, match="which every runtime has"):
        bundle_module.check_graph(Path("frame.onnx"), data, *contract)
    extra = bundle_module.OPTIMISER_OPERATORS
    if allowed:
        bundle_module.check_graph(Path("frame.onnx"), data, *contract, extra=extra)
    else:
        with pytest.raises(BundleError, match=f"holds '{name}'; an optimised graph has those of"):
            bundle_module.check_graph(Path("frame.onnx"), data, *contract, extra=extra)


@pytest.mark.parametrize("edit", [search_with_a_model_inside, branches_of_a_fused_operator])
def test_an_optimised_graph_holds_no_other_graph(copy: Path, edit: Callable):
    shutil.copy(copy / "frame.onnx", copy / "frame.optimized.onnx")
    optimized = {**OPTIMIZED, "file": "frame.optimized.onnx"}
    relist(copy, "frame.optimized.onnx")
    set_field("frame", "variants", "fp32", "optimized", value=optimized)(copy)
    Bundle.load(copy)
    edit_graph(copy, "frame.optimized.onnx", edit)
    refused(copy, r"frame\.optimized\.onnx: holds 'com\.microsoft:\w+' with a graph inside")


def test_a_graph_with_the_mark_of_another_format_runs_as_the_one_that_was_checked(
    whole: Path, copy: Path
):
    """Bytes 4 to 8 say to onnxruntime: its own format. To a reader of ONNX they say nothing."""
    unknown_fields = b"\x78\0" + b"\x79\0ORTM\0\0\0"
    path = copy / "sequence.onnx"
    path.write_bytes(unknown_fields + path.read_bytes())
    relist(copy, "sequence.onnx")
    inputs = np.ones((1, 2, FEATURES), np.float32), np.array([2], np.int32)
    logits = []
    for folder in (whole, copy):
        session = Session.open(Bundle.load(folder), provider="cpu")
        logits.append(session.run_sequence(*inputs, session.initial_state(1)).fake_logit)
    np.testing.assert_array_equal(*logits)


# Paths


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


def climb_out_by_a_linked_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    shutil.copy(folder / "CARD.md", outside / "CARD.md")
    (folder / "inner").symlink_to(outside)
    relist(folder, "inner/CARD.md")


def manifest_elsewhere(folder: Path) -> None:
    outside = folder.parent / "manifest.json"
    (folder / "manifest.json").rename(outside)
    (folder / "manifest.json").symlink_to(outside)


def link_to_itself(folder: Path) -> None:
    (folder / "CARD.md").unlink()
    (folder / "CARD.md").symlink_to("CARD.md")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (climb_out, r"the path '\.\./sequence\.onnx' leads out of the folder"),
        (climb_out_by_link, r"sequence\.onnx: leads out of the bundle, to .*outside\.onnx"),
        (climb_out_by_a_linked_folder, r"inner/CARD\.md: leads out of the bundle"),
        (manifest_elsewhere, r"manifest\.json: leads out of the bundle"),
        (
            set_field("files", "//server/share/x", value=NOTHING),
            "//server/share/x.* leads out of the (folder|bundle)",
        ),
        (link_to_itself, r"CARD\.md: listed in the manifest but cannot be read"),
        (
            set_field("files", "a\nb", value=NOTHING),
            r"manifest\.json: 'a\\nb' is no name for a file",
        ),
        (
            set_field("files", "\ud800", value=NOTHING),
            r"manifest\.json: '\\ud800' is no name for a file",
        ),
    ],
)
def test_a_path_that_leads_nowhere_good_is_refused(copy: Path, tamper: Tamper, message: str):
    tamper(copy)
    refused(copy, message)


def test_a_link_inside_the_bundle_is_taken(copy: Path):
    (copy / "CARD.md").rename(copy / "card-of-today.md")
    (copy / "CARD.md").symlink_to("card-of-today.md")
    Bundle.load(copy)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "..", "a/../../b", "C:\\x", "C:x", "..\\x", "\\\\server\\share\\x"),
        *("frame.onnx:stream", "", ".", "a\0b"),
    ],
)
def test_no_path_leads_out_of_the_folder_on_any_system(whole: Path, name: str):
    content = json.loads((whole / "manifest.json").read_text("utf-8"))
    content["files"][name] = content["files"]["CARD.md"]
    with pytest.raises(SchemaError, match="leads out of the folder"):
        Manifest.from_json(json.dumps(content))


# The manifest


def duplicate_key(folder: Path) -> None:
    path = folder / "manifest.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"name":', '"name": "first", "name":', 1), "utf-8")


def digits(key: str, count: int) -> Tamper:
    """A number of so many digits, which Python's own writer of JSON refuses to write."""

    def edit(folder: Path) -> None:
        set_field(key, value="DIGITS")(folder)
        path = folder / "manifest.json"
        path.write_text(path.read_text("utf-8").replace('"DIGITS"', "1" * count), "utf-8")

    return edit


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (set_field("schema_version", value=5), r"schema version 5 is newer than 4.*upgrade"),
        (set_field("schema_version", value="1"), r"schema_version is '1', not one of 1, 2, 3"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json: not JSON"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), r"manifest\.json: .*utf-8"),
        (lambda f: (f / "manifest.json").write_text("[" * 200_000), r"nested too deeply"),
        (duplicate_key, r"manifest\.json: name is given twice"),
        (set_field("surprise", value=1), r"surprise is unknown"),
        (set_field("frame", "input_size", value=96), r"image is uint8 \[batch, 8, 8, 3\]"),
        (set_field("frame", "input_size", value="64"), r"frame\.input_size is '64', not a whole"),
        (set_field("frame", "variants", value={}), r"frame\.variants has no fp32"),
        (
            set_field("frame", "variants", "auto", value={"file": "frame.int8.onnx"}),
            r"frame\.variants has 'auto', not of fp32, fp16, int8",
        ),
        (
            set_field("frame", "variants", "\x1b[31m", value={"file": "frame.int8.onnx"}),
            r"frame\.variants has '\\x1b\[31m', not of fp32",
        ),
        (
            set_field("frame", "variants", "int8", "probe_logit", value=[0.1] * 3),
            r"frame\.variants\.int8\.probe_logit has 3 logits, the probe \d+",
        ),
        (set_field("sequence", "state_width", value=7), r"state is float32 \[batch, 3\]"),
        (set_field("sequence", "rate_hz", value=0), r"sequence\.rate_hz is 0\.0, not above 0"),
        (set_field("sequence", "rate_hz", value=float("nan")), r"NaN is not a number JSON has"),
        (set_field("decision", "person_score", value="both"), r"not one of sequence, frame"),
        (set_field("decision", "calibrators", value={}), r"decision\.calibrators has nothing"),
        (set_field("card", "limits", value="none"), r"card\.limits is 'none', not a list"),
        (digits("created", 5000), r"manifest\.json: a number in it has too many digits"),
        (digits("schema_version", 4000), r"is newer than 4"),
        (set_field("sequence", "rate_hz", value=10**400), r"rate_hz is 1000.*, not a number that"),
        (set_field("sequence", "rate_hz", value=1e-300), r"rate_hz is 1e-300, not 0\.001 to 1000"),
        (set_field("frame", "crop_scale", value=1e300), r"crop_scale is 1e\+300, not above 0, at"),
        (set_field("decision", "min_steps", value=10**30), r"min_steps is 1000.*, not a whole"),
        (set_field("files", "frame.onnx", "sha256", value="x"), r"not 64 hex digits"),
        (set_field("probe", "file", value="other.png"), r"'other\.png' is used but not listed"),
        (
            set_field("files", "frame.onnx", "size", value=10**15),
            r"manifest\.json: gives frame\.onnx 1000000000000000 bytes, but a file has at most",
        ),
        (
            set_field("files", "frame.onnx", "size", value=2**30),
            r"but the manifest says 1073741824",
        ),
        (
            set_field("frame", "input_size", value=10**6),
            r"manifest\.json: makes image uint8 \[batch, 1000000, 1000000, 3\]; a row of it has at",
        ),
        (
            set_field("sequence", "state_width", value=10**12),
            r"manifest\.json: makes state float32 \[batch, 1000000000000\]",
        ),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(copy: Path, tamper: Tamper, message: str):
    tamper(copy)
    refused(copy, message)


def test_a_huge_manifest_is_not_read(copy: Path):
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file: it takes no room
    refused(copy, r"manifest\.json: 1099511627776 bytes, but a manifest has at most")


def test_a_file_larger_than_listed_is_not_read(copy: Path):
    with (copy / "probe.png").open("r+b") as file:
        file.truncate(1 << 40)
    refused(copy, r"probe\.png: 1099511627776 bytes, but the manifest says \d+")


def test_a_file_that_is_not_listed_is_never_read(copy: Path):
    """It is harmless, so the runtime goes on; `dfd-export verify` points at it."""
    (copy / "frame.fp16.onnx").write_bytes(b"something")
    Bundle.load(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 2.0}, r"face\.options: detector option min_score is 2\.0"),
        ({"tile_min_side": -1.0}, r"detector option tile_min_side is -1\.0"),
        ({"sharpness": 1.0}, r"unknown detector options \['sharpness'\]"),
    ],
)
def test_options_that_the_face_detector_does_not_have_are_the_bundle_s_fault(
    copy: Path, options: dict[str, float], message: str
):
    set_field("face", "options", value=options)(copy)
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{message}"):
        Detector.load(copy)


# What a graph costs


def weights(**values: object) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def with_nodes(
    nodes: list[onnx.NodeProto], last: str, **constants: object
) -> Callable[[onnx.ModelProto], None]:
    """An edit of a frame graph: these nodes, the mean of the last's output added to the logit."""

    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.initializer.extend(weights(**constants))
        graph.node[-1].output[0] = "sound"
        graph.node.extend(
            [
                *nodes,
                helper.make_node("ReduceMean", [last], ["mean"], keepdims=0),
                helper.make_node("Add", ["sound", "mean"], ["fake_logit"]),
            ]
        )

    return edit


def products(count: int) -> list[onnx.NodeProto]:
    return [helper.make_node("MatMul", [f"x{n}", f"x{n}"], [f"x{n + 1}"]) for n in range(count)]


FLOAT = TensorProto.FLOAT
HUGE = {
    "a constant of a thousand million numbers": with_nodes(
        [helper.make_node("ConstantOfShape", ["n"], ["x"])], "x", n=[10**9]
    ),
    "a constant that fits, but is far larger than the file": with_nodes(
        [
            helper.make_node("ConstantOfShape", ["n"], ["made"]),
            helper.make_node("ReduceSum", ["made"], ["x"], keepdims=0),
        ],
        "x",
        n=[255, 10**6],
    ),
    "the same from a shape that is computed": with_nodes(
        [
            helper.make_node("Mul", ["n", "n"], ["nn"]),
            helper.make_node("ConstantOfShape", ["nn"], ["x"]),
        ],
        "x",
        n=[10**5],
    ),
    "a product of two thin matrices": with_nodes(
        [helper.make_node("MatMul", ["a", "b"], ["x"])],
        "x",
        a=np.ones((40_000, 1), np.float32),
        b=np.ones((1, 40_000), np.float32),
    ),
    "a broadcast": with_nodes(
        [helper.make_node("Add", ["a", "b"], ["x"])],
        "x",
        a=np.ones((40_000, 1), np.float32),
        b=np.ones((1, 40_000), np.float32),
    ),
    "tiles of the picture": with_nodes(
        [helper.make_node("Tile", ["numbers", "n"], ["x"])], "x", n=[1, 1, 1, 10**7]
    ),
    "a border": with_nodes(
        [helper.make_node("Pad", ["numbers", "n"], ["x"])], "x", n=[0, 9**5, 9**5, 0, 0, 0, 0, 0]
    ),
    "hours of products": with_nodes(
        [helper.make_node("ConstantOfShape", ["n"], ["x0"]), *products(100)], "x100", n=[4000] * 2
    ),
}


@pytest.mark.parametrize("edit", HUGE.values(), ids=HUGE)
def test_a_graph_that_asks_for_too_much_is_refused_before_it_is_loaded(copy: Path, edit: Callable):
    edit_graph(copy, "frame.onnx", edit)
    started_s = time.monotonic()
    with pytest.raises(BundleError, match=r"frame\.onnx: .*has .* numbers|.* products: .*at most"):
        Session.open(Bundle.load(copy), provider="cpu", precision="fp32")
    assert time.monotonic() - started_s < 5.0, "it took milliseconds"


def test_weights_that_are_only_stated_are_refused(copy: Path):
    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer.add(name="stated", data_type=FLOAT)
        tensor.dims.extend([1 << 20, 1 << 20])

    edit_graph(copy, "frame.onnx", edit)
    with pytest.raises(BundleError, match=r"'stated' has 1099511627776 numbers"):
        Session.open(Bundle.load(copy), provider="cpu", precision="fp32")


@pytest.mark.parametrize("operator", ["Split", "Cast", "Mul", "Conv", "GRU", "Reshape", "Slice"])
@pytest.mark.parametrize("inputs", [[], [""], ["", ""], ["nothing"]])
def test_an_operator_without_what_it_needs_is_onnxruntime_s_to_refuse(
    copy: Path, operator: str, inputs: list[str]
):
    edit_graph(copy, "frame.onnx", with_nodes([helper.make_node(operator, inputs, ["x"])], "x"))
    with pytest.raises(BundleError, match=r"frame\.onnx: "):
        Session.open(Bundle.load(copy), provider="cpu", precision="fp32")


def test_a_number_of_more_bits_than_there_are_is_no_traceback():
    """Protocol buffers take such a number for its lower 64 bits."""
    dims = b"\x08\x01\x10\x07\x38" + b"\xff" * 9 + b"\x7f" + b"\x42\x01d"
    tensor = b"\x2a" + bytes([len(dims)]) + dims
    graph = b"\x3a" + bytes([len(tensor)]) + tensor
    assert check_size(graph, {})


def test_a_graph_of_very_many_nodes_is_refused(copy: Path):
    def edit(model: onnx.ModelProto) -> None:
        node = helper.make_node("Identity", ["image"], ["copy"])
        model.graph.node.extend([node] * 30_000)

    edit_graph(copy, "frame.onnx", edit)
    refused(copy, r"frame\.onnx: not an ONNX graph \(it has more than 20000 nodes\)")


def test_a_file_of_nothing_but_fields_is_refused(copy: Path):
    (copy / "frame.onnx").write_bytes(b"\x08\x01" * 1_000_000)
    relist(copy, "frame.onnx")
    refused(copy, r"frame\.onnx: not an ONNX graph \(a part of it has more than 200000 fields\)")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [helper.make_node("RandomNormal", [], ["x0"], shape=[40_000, 40_000])],
            "cannot be loaded and run in 4 GiB of memory",
        ),
        (
            [helper.make_node("RandomNormal", [], ["x0"], shape=[3000, 3000]), *products(140)],
            "cannot be loaded and run within 4 s",
        ),
        (
            [helper.make_node("RandomNormal", [], ["x0"], shape=[4, 4], scale=0.0)],
            "ends the process \\(signal 6\\)",  # some builds of onnxruntime check it so
        ),
    ],
)
def test_what_cannot_be_told_beforehand_is_tried_in_a_process_of_its_own(
    copy: Path, monkeypatch: pytest.MonkeyPatch, nodes: list[onnx.NodeProto], message: str
):
    monkeypatch.setattr("dfd_edge.bundle.graph_trial.TRIAL_S", 4.0)
    edit_graph(copy, "frame.onnx", with_nodes(nodes, nodes[-1].output[0]))
    with pytest.raises(BundleError, match=rf"frame\.onnx: .*{message}"):
        Session.open(Bundle.load(copy), provider="cpu", precision="fp32")


def test_an_operator_of_unknown_size_is_taken_where_it_runs(copy: Path):
    nodes = [helper.make_node("RandomNormal", [], ["x"], shape=[4, 4], scale=1e-30)]
    before = Session.open(Bundle.load(copy), provider="cpu", precision="fp32")
    crops = np.ones((2, 8, 8, 3), np.uint8)
    expected = before.run_frame(crops).fake_logit
    edit_graph(copy, "frame.onnx", with_nodes(nodes, "x"))
    session = Session.open(Bundle.load(copy), provider="cpu", precision="fp32")
    np.testing.assert_allclose(session.run_frame(crops).fake_logit, expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_bundles_of_our_own_need_no_trial(variant_bundle: Path, precision: str):
    """What is told beforehand of a graph's outputs is what onnxruntime gives."""
    bundle = Bundle.load(variant_bundle)
    side = bundle.manifest.frame.input_size
    for file in bundle.manifest.frame.variants[precision].graphs():
        assert check_size(bundle.read(file), {"image": (8, side, side, 3)})


def test_shapes_are_those_of_onnx_s_own_inference(variant_bundle: Path):
    """For every tensor of our own graphs that both know."""
    bundle = Bundle.load(variant_bundle)
    side = bundle.manifest.frame.input_size
    model = onnx.load(variant_bundle / "frame.onnx")
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 8
    inferred = onnx.shape_inference.infer_shapes(model)
    largest = max(
        int(np.prod([d.dim_value for d in v.type.tensor_type.shape.dim]))
        for v in inferred.graph.value_info
    )
    data = model.SerializeToString()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfd_edge.bundle.graph_size.MOST_NUMBERS", largest)
        assert check_size(data, {"image": (8, side, side, 3)})
        patch.setattr("dfd_edge.bundle.graph_size.MOST_NUMBERS", largest - 1)
        with pytest.raises(TooLarge):
            check_size(data, {"image": (8, side, side, 3)})
