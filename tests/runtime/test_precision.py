"""`auto` takes the variant that suits provider and processor; a named one is what runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import Metric, OptimizedGraph, VariantSpec
from dfd_edge.errors import UsageError
from dfd_edge.inference import precision, processor
from dfd_edge.inference.names import Provider
from dfd_edge.inference.precision import choose_variant, graph_file
from dfd_edge.inference.session import Session

ALL = ("fp32", "fp16", "int8")


def variants(*names: str) -> dict[str, VariantSpec]:
    return {name: VariantSpec(f"frame.{name}.onnx") for name in names}


@pytest.mark.parametrize(
    ("carried", "provider", "instructions", "chosen", "reason"),
    [
        (ALL, Provider.CPU, "AVX2", "int8", "this processor has AVX2"),
        (ALL, Provider.OPENVINO, "AVX-512 VNNI", "int8", "has AVX-512 VNNI"),
        (ALL, Provider.CPU, None, "fp32", "no instructions for int8"),
        (("fp32", "fp16"), Provider.CPU, "AVX2", "fp32", "the bundle has no int8"),
        (ALL, Provider.CUDA, "AVX2", "fp16", "cuda computes it faster"),
        (ALL, Provider.TENSORRT, None, "fp16", "tensorrt computes it faster"),
        (("fp32", "int8"), Provider.CUDA, "AVX2", "fp32", "the bundle has no fp16"),
        (ALL, Provider.DIRECTML, "AVX2", "fp32", "no other was tried on directml"),
    ],
)
def test_auto_suits_provider_and_processor(
    monkeypatch: pytest.MonkeyPatch, carried, provider, instructions, chosen: str, reason: str
):
    monkeypatch.setattr(precision, "int8_instructions", lambda: instructions)
    choice = choose_variant(variants(*carried), "auto", provider)
    assert choice.precision == chosen
    assert reason in choice.reason


def test_auto_leaves_int8_where_it_was_no_faster(
    monkeypatch: pytest.MonkeyPatch, variant_bundle: Path
):
    monkeypatch.setattr(precision, "int8_instructions", lambda: "AVX2")
    carried = Bundle.load(variant_bundle).manifest.frame.variants
    for speedup, chosen in ((0.9, "fp32"), (1.1, "int8")):
        changes = dataclasses.replace(carried["int8"].changes, speedup=Metric(speedup))
        int8 = dataclasses.replace(carried["int8"], changes=changes)
        choice = choose_variant({**carried, "int8": int8}, "auto", Provider.CPU)
        assert choice.precision == chosen


def test_a_named_precision_is_taken_or_refused():
    assert choose_variant(variants(*ALL), "fp16", Provider.CPU).precision == "fp16"
    with pytest.raises(UsageError, match="'int8' is not in the bundle; it has fp32, fp16"):
        choose_variant(variants("fp32", "fp16"), "int8", Provider.CPU)
    with pytest.raises(UsageError, match="'int4' is unknown; known are auto, fp32, fp16, int8"):
        choose_variant(variants(*ALL), "int4", Provider.CPU)


def test_an_optimised_graph_is_for_the_cpu_and_the_release_that_wrote_it():
    variant = VariantSpec("a.onnx", optimized=OptimizedGraph("a.optimized.onnx", "1.32", 1.0, 3.0))
    assert graph_file(variant, Provider.CPU, "1.32.5") == "a.optimized.onnx"
    assert graph_file(variant, Provider.CPU, "1.33.0") == "a.onnx"
    assert graph_file(variant, Provider.CUDA, "1.32.0") == "a.onnx"
    assert graph_file(VariantSpec("b.onnx"), Provider.CPU, "1.32.0") == "b.onnx"


@pytest.mark.parametrize(
    ("cpuinfo", "instructions", "name"),
    [
        ("model name\t: Xeon\nflags\t\t: fpu avx2 avx512bw avx512_vnni\n", "AVX-512 VNNI", "Xeon"),
        ("model name\t: EPYC\nflags\t\t: fpu sse4_2 avx2 fma\n", "AVX2", "EPYC"),
        ("model name\t: Atom\nflags\t\t: fpu sse4_2\n", None, "Atom"),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\nModel\t\t: Pi 5\n", "dot product", "Pi 5"),
        ("processor\t: 0\nFeatures\t: fp asimd crc32\nModel\t\t: Pi 4\n", None, "Pi 4"),
    ],
)
def test_instructions_are_read_from_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpuinfo: str, instructions, name: str
):
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(processor, "_CPUINFO", file)
    monkeypatch.setattr(processor.sys, "platform", "linux")
    assert processor.int8_instructions.__wrapped__() == instructions
    assert processor.processor_name.__wrapped__() == name


@pytest.mark.parametrize("wanted", ["fp32", "fp16", "int8"])
def test_each_variant_runs_and_the_report_says_which(variant_bundle: Path, wanted: str):
    bundle = Bundle.load(variant_bundle)
    session = Session.open(bundle, provider="cpu", precision=wanted)
    assert str(session.provider) == f"cpu ({wanted})"
    assert session.provider.precision_reason == "as asked"
    crops = np.random.default_rng(2).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    outputs = session.run_frame(crops)
    assert outputs.features.dtype == outputs.fake_logit.dtype == np.float32
    fp32 = Session.open(bundle, provider="cpu", precision="fp32").run_frame(crops)
    if wanted != "fp32":
        assert not np.array_equal(outputs.fake_logit, fp32.fake_logit)
    np.testing.assert_allclose(outputs.fake_logit, fp32.fake_logit, atol=0.5)


def test_auto_is_what_a_session_opens_with(variant_bundle: Path):
    session = Session.open(Bundle.load(variant_bundle))
    choice = choose_variant(session.bundle.manifest.frame.variants, "auto", Provider.CPU)
    assert session.provider.precision == choice.precision
    assert session.provider.precision_reason == choice.reason
