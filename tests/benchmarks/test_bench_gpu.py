"""`dfd-bench gpu`: no figure of a GPU without one, and what nvidia-smi prints is read rightly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.gpu.measure import (
    Opened,
    batches_up_to,
    calls_of,
    crop_outputs,
    decode_ms,
    decoders_of,
    decoding_figures,
    figures_of_runs,
    refuse_cpu,
    time_turns,
)
from dfd_benchmarks.results import nvidia
from dfd_benchmarks.results.nvidia import SAMPLED, Gpu, GpuSampler, parse_csv, parse_gpus, spreads
from dfd_edge.bundle import Bundle
from dfd_edge.errors import ProviderError, UsageError
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_edge.inference.session import Session
from dfd_edge.sources import decoder as decoder_module
from dfd_edge.sources.decoder import ON_CPU, Fault

needs_no_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in load_onnxruntime().get_available_providers(),
    reason="this onnxruntime has CUDA",
)

SAMPLES = """1980, 1593, 97, 1240, 41, 118.32
1965, 1593, 95, 1240, 43, 121.07
[N/A], 1593, [Not Supported], 1242, 44, [Unknown Error]
"""


def test_gpus_are_read() -> None:
    text = (
        "0, NVIDIA H100 80GB HBM3, 550.54.15, 81559, Disabled\n1, Tesla T4, 550.54.15, 15360, [N/A]"
    )
    assert parse_gpus(text) == (
        Gpu(0, "NVIDIA H100 80GB HBM3", "550.54.15", 81559.0, "Disabled"),
        Gpu(1, "Tesla T4", "550.54.15", 15360.0, None),
    )


@pytest.mark.parametrize("text", ["", "No devices were found\n", "Failed to initialize NVML: x\n"])
def test_messages_are_no_gpus(text: str) -> None:
    assert parse_gpus(text) == ()
    assert parse_csv(text, tuple(SAMPLED)) == []


def test_samples_leave_out_what_a_gpu_does_not_know() -> None:
    found = spreads(parse_csv(SAMPLES, tuple(SAMPLED)))
    assert list(found) == list(SAMPLED)
    assert (found["clocks.sm"].low, found["clocks.sm"].runs) == (1965.0, 2)
    assert found["temperature.gpu"].median == 43.0
    assert found["power.draw"].high == 121.07
    assert "power.draw" not in spreads(parse_csv("1, 2, 3, 4, 5, [N/A]", tuple(SAMPLED)))


@pytest.mark.skipif(os.name == "nt", reason="the program stands in as a shell script")
def test_a_sampler_reads_what_a_program_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{SAMPLES}END\n")
    program.chmod(0o755)
    monkeypatch.setattr(nvidia.shutil, "which", lambda _: str(program))
    with GpuSampler() as sampler:
        assert sampler._process is not None
        sampler._process.wait(timeout=20)
        assert sampler._reader is not None
        sampler._reader.join(timeout=20)
    assert len(sampler.rows) == 3


def test_without_nvidia_smi_there_are_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia.shutil, "which", lambda _: None)
    assert nvidia.describe_gpus() == ()
    with GpuSampler() as sampler:
        assert sampler.rows == []


@needs_no_cuda
@pytest.mark.parametrize("provider", ["cuda", "auto"])
def test_no_figure_of_a_gpu_where_the_cpu_ran(
    provider: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "gpu.json"
    arguments = ["gpu", "--provider", provider, "--model", str(tiny_bundle), "--json", str(file)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert not file.exists()


def test_only_a_gpu_is_taken_for_one() -> None:
    refuse_cpu("cuda")
    for provider in ("cpu", "openvino", "directml"):
        with pytest.raises(ProviderError, match=f"ran on {provider}"):
            refuse_cpu(provider)


def test_batches_double() -> None:
    assert batches_up_to(256) == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert batches_up_to(5) == (1, 2, 4)
    with pytest.raises(UsageError, match="max-batch is 257"):
        batches_up_to(257)


def test_every_way_of_calling_runs_the_same_graph(tiny_bundle: Path) -> None:
    """On the CPU, whose IO binding has the same interface."""
    session = Session.open(Bundle.load(tiny_bundle), provider="cpu", precision="fp32")
    spec = session.bundle.manifest.frame
    graph = session.bundle.read(spec.variants["fp32"].file)
    opened = Opened(
        session=open_session(graph, Provider.CPU, threads=1, name="frame.onnx"),
        graphs=None,
        memory="cpu",
        device=0,
        image=(spec.input_size, spec.input_size, 3),
        outputs=crop_outputs(session),
    )
    crops = np.random.default_rng(0).integers(0, 256, (4, *opened.image), np.uint8)
    calls = calls_of(opened, crops)
    expected = session.run_frame(crops)
    calls["upload"]()
    calls["compute"]()
    for name in ("session_run", "io_binding", "download"):
        outputs = calls[name]()
        np.testing.assert_allclose(outputs[0], expected.features, atol=1e-5)
        np.testing.assert_allclose(outputs[1], expected.fake_logit, atol=1e-5)
    taken = time_turns(calls, 2)
    assert set(taken) == set(calls)
    assert all(value > 0 for value in taken.values())


def test_rates_are_those_of_the_best_batch() -> None:
    run = {1: {"session_run": 2.0, "runtime": 2.0}, 8: {"session_run": 8.0, "runtime": 5.0}}
    figures = {figure.name: figure for figure in figures_of_runs([run, run])}
    assert figures["bare_rate"].values == (1000.0, 1000.0)
    assert figures["runtime_rate"].values == (1600.0, 1600.0)
    assert figures["runtime_over_bare"].reached


def test_a_decoder_that_does_not_run_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_device_fault", lambda device: Fault("no such device"))
    for command in (["gpu"], ["streams", "--count", "1"]):
        result = CliRunner().invoke(main, [*command, "--decoder", "cuda"])
        assert result.exit_code == 4, result.output
        assert result.stderr.splitlines()[-1].startswith(
            "error: decoder cuda cannot run: no such device"
        )
        assert "ms" not in result.stdout


def test_decoders_are_compared_where_the_device_decodes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decoder_module, "_device_fault", lambda device: None)
    assert decoders_of("cpu", 0) == {}
    compared = decoders_of("cuda", 1)
    assert {name: report.actual for name, report in compared.items()} == {
        "cuda": "cuda",
        "cpu": "cpu",
    }
    assert compared["cuda"].device == 1
    sample = Path(__file__).resolve().parents[2] / "samples" / "real_astronaut.mp4"
    assert decode_ms(sample, ON_CPU) > 0.0
    figures = decoding_figures([{"cuda": 1.0, "cpu": 3.0}, {"cuda": 2.0, "cpu": 4.0}])
    assert [(f.name, f.values) for f in figures] == [
        ("decode.cuda", (1.0, 2.0)),
        ("decode.cpu", (3.0, 4.0)),
    ]
