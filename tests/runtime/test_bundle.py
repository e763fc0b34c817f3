"""What a whole bundle says, and the reader of ONNX files beside the onnx package."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import DecisionSpec, Manifest
from dfd_edge.bundle.onnx_file import read_onnx
from dfd_edge.errors import BundleError
from dfd_edge.schema import SchemaError


def test_a_whole_bundle_loads_and_its_hash_is_its_manifest_s(tiny_bundle: Path):
    bundle = Bundle.load(tiny_bundle)
    text = (tiny_bundle / "manifest.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256(text).hexdigest()
    assert bundle.hash == bundle.sha256[:12]
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
    assert bundle.manifest.sequence.state_width == 64 + 32 + 16
    assert bundle.manifest.frame.evidence_size == (2, 2)


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
    assert declared.ir_version == model.ir_version
    assert declared.opsets == {"ai.onnx": 17}
    assert declared.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert declared.functions == 0
    assert declared.subgraphs == ()
    assert declared.external_data == ()


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
    assert declared.subgraphs == ("If",)


def test_external_data_is_seen_in_sparse_weights():
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    values.data_location = TensorProto.EXTERNAL
    values.external_data.add(key="location", value="elsewhere.bin")
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [4])
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
    for graph in (
        helper.make_graph([node], "g", [], []),
        helper.make_graph([], "g", [], [], sparse_initializer=[sparse]),
    ):
        declared = read_onnx(helper.make_model(graph).SerializeToString())
        assert declared.external_data == ("elsewhere.bin",)


def test_operators_of_other_domains_carry_their_domain():
    nodes = [
        helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx"),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []), opset_imports=opsets)
    declared = read_onnx(model.SerializeToString())
    assert declared.operators == {"Relu": 2, "com.microsoft:Gelu": 1}
    assert declared.opsets == {"ai.onnx": 17, "com.microsoft": 1}


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


COUNTING = """
import collections, hashlib, json, os, sys

read, hashed = collections.Counter(), collections.Counter()

def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        read[os.path.basename(os.fspath(arguments[0]))] += 1

sys.addaudithook(note)
sha256 = hashlib.sha256

def counted(data=b"", **options):
    done = sha256(data, **options)
    hashed[done.hexdigest()] += 1
    return done

hashlib.sha256 = counted
from dfd_edge import cli

sys.argv[:] = ["dfd-edge", *sys.argv[1:]]
try:
    cli.main()
finally:
    print(json.dumps([read, hashed]), file=sys.stderr)
"""


def test_a_command_reads_and_hashes_each_file_of_its_bundle_once(variant_bundle, face_clip):
    command = [sys.executable, "-c", COUNTING, "--model", str(variant_bundle), str(face_clip)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read, hashed = json.loads(done.stderr.splitlines()[-1])
    bundle = Bundle.load(variant_bundle)
    assert len(bundle.manifest.files) >= 4
    for name, entry in bundle.manifest.files.items():
        assert (read[name], hashed[entry.sha256]) == (1, 1), name
    assert (read["manifest.json"], hashed[bundle.sha256]) == (1, 1)


def test_files_that_were_kept_are_given_once(tiny_bundle):
    bundle = Bundle.load(tiny_bundle, keep=True)
    name = bundle.manifest.sequence.file
    assert bundle.read(name) is not None
    assert not set(bundle._kept) & {name}
    assert bundle == Bundle.load(tiny_bundle)
    bundle.release()
    assert not bundle._kept
    assert bundle.read(name) == (tiny_bundle / name).read_bytes()
