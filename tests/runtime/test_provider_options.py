"""What is asked of a provider is refused where it makes no sense, and told to onnxruntime whole."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dfd_edge.bundle import Bundle
from dfd_edge.cli import options as flags
from dfd_edge.cli.command import command
from dfd_edge.errors import ProviderError, UsageError
from dfd_edge.inference.names import Provider
from dfd_edge.inference.provider_options import (
    GPU_BUCKETS,
    NO_OPTIONS,
    SINGLE_BUCKETS,
    FrameHints,
    ProviderOptions,
    buckets_of,
    computes_on_cpu,
    settings_of,
)
from dfd_edge.inference.session import MAX_BATCH, Session
from small_bundle import build_small_bundle


@pytest.mark.parametrize(
    ("provider", "options", "message"),
    [
        ("cpu", {"device": 0}, "--device goes with --provider cuda or .*, not with cpu"),
        ("auto", {"device": 0}, "--device goes with --provider cuda or .*, not with auto"),
        ("cpu", {"gpu_memory_limit_mb": 100}, "--gpu-memory-limit goes with --provider cuda or"),
        ("openvino", {"gpu_memory_limit_mb": 100}, "not with openvino"),
        ("auto", {"cuda_graphs": True}, "--cuda-graphs goes with --provider cuda, not with auto"),
        ("tensorrt", {"cuda_graphs": True}, "--cuda-graphs goes with --provider cuda, not with"),
        ("cuda", {"engine_cache": Path("x")}, "--engine-cache goes with --provider tensorrt or"),
        ("cuda", {"device": "GPU"}, "--device GPU: cuda numbers its devices: give 0, 1"),
        ("cuda", {"device": -1}, "--device -1: cuda numbers its devices"),
        ("directml", {"device": "1.5"}, "--device 1.5: directml numbers its devices"),
        ("openvino", {"device": 0}, "--device 0: OpenVINO has CPU, GPU, NPU, or one as GPU.1"),
        ("openvino", {"device": "GPU.x"}, "--device GPU.x: OpenVINO has"),
        ("openvino", {"device": "HETERO:GPU,CPU"}, "--device HETERO:GPU,CPU: OpenVINO has"),
        ("coreml", {"device": "GPU"}, "--device GPU: Core ML has ALL, CPUAndNeuralEngine"),
    ],
)
def test_an_option_that_a_provider_does_not_know_is_refused(provider, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        ProviderOptions(**options).check(Provider(provider))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("cuda", {"device": 1, "gpu_memory_limit_mb": 2048, "cuda_graphs": True}),
        ("cuda", {"device": "1"}),
        ("tensorrt", {"device": 0, "gpu_memory_limit_mb": 64, "engine_cache": Path("x")}),
        ("openvino", {"device": "GPU.1", "engine_cache": Path("x")}),
        ("openvino", {"device": "NPU"}),
        ("coreml", {"device": "CPUAndNeuralEngine"}),
        ("directml", {"device": 2}),
        ("auto", {}),
        ("cpu", {}),
    ],
)
def test_an_option_that_a_provider_knows_passes(provider, options):
    ProviderOptions(**options).check(Provider(provider))


def test_a_limit_below_one_megabyte_is_refused():
    with pytest.raises(UsageError, match="limit in MB 0: give a whole number from 1"):
        ProviderOptions(gpu_memory_limit_mb=0)


def test_a_session_refuses_them_before_it_reads_a_graph(tmp_path: Path):
    bundle = Bundle.load(build_small_bundle(tmp_path / "small"))
    for file in ("frame.onnx", "sequence.onnx"):
        (tmp_path / "small" / file).unlink()
    with pytest.raises(UsageError, match="--device goes with"):
        Session.open(bundle, provider="cpu", options=ProviderOptions(device=0))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--provider", "cpu", "--device", "0"],
        ["--cuda-graphs"],
        ["--gpu-memory-limit", "100"],
        ["--gpu-memory-limit", "0", "--provider", "cuda"],
        ["--engine-cache", "here", "--provider", "cuda"],
    ],
)
def test_the_command_line_refuses_them_as_wrong_usage(arguments: list[str]):
    for more in (["clip.mp4"], ["--doctor"]):
        result = CliRunner().invoke(command, [*arguments, *more])
        assert result.exit_code == 2, result.output


def test_the_command_line_hands_them_on():
    values = {
        "provider": "cuda",
        "threads": 3,
        "device": "1",
        "gpu_memory_limit_mb": 512,
        "cuda_graphs": True,
        "engine_cache": None,
    }
    options = flags.take_provider_flags(values)
    assert options == ProviderOptions(device="1", gpu_memory_limit_mb=512, cuda_graphs=True)
    assert values == {"provider": "cuda", "threads": 3}  # the rest is the command's own


def test_the_command_line_offers_every_provider():
    choices = {option.name: getattr(option.type, "choices", None) for option in command.params}
    assert [*choices["provider"]] == [provider.value for provider in Provider]
    assert [*choices["precision"]] == ["auto", "fp32", "fp16", "int8"]


def told(provider: Provider, options: ProviderOptions = NO_OPTIONS, **more) -> dict[str, str]:
    """What onnxruntime is told of the provider itself."""
    return settings_of(provider, options, **({"threads": 1} | more)).providers[0][1]


def test_cuda_is_told_device_limit_and_graphs():
    options = ProviderOptions(device=1, gpu_memory_limit_mb=512, cuda_graphs=True)
    settings = told(Provider.CUDA, options)
    assert settings["device_id"] == "1"
    assert settings["gpu_mem_limit"] == str(512 * 1024 * 1024)
    assert settings["enable_cuda_graph"] == "1"
    plain = told(Provider.CUDA)
    assert plain["device_id"] == "0"
    assert plain["enable_cuda_graph"] == "0"
    assert "gpu_mem_limit" not in plain


def test_tensorrt_builds_one_engine_for_all_batches_and_keeps_it(tmp_path: Path):
    options = ProviderOptions(device=2, engine_cache=tmp_path / "engines", gpu_memory_limit_mb=3)
    frame = FrameHints(224, half=True)
    both = settings_of(Provider.TENSORRT, options, threads=1, frame=frame).providers
    assert [name for name, _ in both] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    settings, cuda = both[0][1], both[1][1]
    assert settings["trt_profile_min_shapes"] == "image:1x224x224x3"
    assert settings["trt_profile_max_shapes"] == f"image:{GPU_BUCKETS[-1]}x224x224x3"
    assert settings["trt_fp16_enable"] == "1"
    assert settings["trt_max_workspace_size"] == str(3 * 2**20)
    assert settings["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert settings["device_id"] == cuda["device_id"] == "2"
    assert told(Provider.TENSORRT, options, frame=FrameHints(64))["trt_fp16_enable"] == "0"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_engines_lie_where_only_the_user_can_put_them(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    folder = Path(told(Provider.TENSORRT)["trt_engine_cache_path"])
    assert folder == tmp_path / "dfd-edge" / "tensorrt"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_named_with_the_mend(tmp_path: Path):
    (tmp_path / "file").write_text("")
    options = ProviderOptions(engine_cache=tmp_path / "file" / "engines")
    with pytest.raises(
        ProviderError, match=r"tensorrt cannot keep its engines in .*--engine-cache"
    ):
        told(Provider.TENSORRT, options)


def test_openvino_is_told_device_and_threads(tmp_path: Path):
    assert told(Provider.OPENVINO, threads=3) == {"device_type": "CPU", "num_of_threads": "3"}
    gpu = told(Provider.OPENVINO, ProviderOptions(device="GPU.1", engine_cache=tmp_path))
    assert gpu == {"device_type": "GPU.1", "cache_dir": str(tmp_path), "precision": "ACCURACY"}


def test_directml_gets_no_memory_pattern_which_it_refuses():
    settings = settings_of(Provider.DIRECTML, ProviderOptions(device=1), threads=1)
    assert not settings.memory_pattern
    assert settings.providers == (("DmlExecutionProvider", {"device_id": "1"}),)
    assert settings_of(Provider.CUDA, NO_OPTIONS, threads=1).memory_pattern


def test_core_ml_is_told_its_units():
    settings = told(Provider.COREML, ProviderOptions(device="CPUAndGPU"))
    assert settings == {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"}


def test_batch_sizes_are_fixed_on_accelerators_only():
    assert buckets_of(Provider.CPU, NO_OPTIONS) is None
    assert buckets_of(Provider.OPENVINO, NO_OPTIONS) is None
    assert buckets_of(Provider.OPENVINO, ProviderOptions(device="GPU")) == SINGLE_BUCKETS
    assert buckets_of(Provider.COREML, NO_OPTIONS) == SINGLE_BUCKETS
    assert buckets_of(Provider.CUDA, NO_OPTIONS) == GPU_BUCKETS
    for buckets in (SINGLE_BUCKETS, GPU_BUCKETS):
        assert buckets[0] == 1  # a lone crop is not filled up
        assert list(buckets) == sorted(set(buckets))
        assert buckets[-1] >= MAX_BATCH


def test_only_what_computes_on_the_cores_gains_from_calls_side_by_side():
    assert computes_on_cpu(Provider.CPU, NO_OPTIONS)
    assert computes_on_cpu(Provider.OPENVINO, ProviderOptions(device="CPU"))
    assert not computes_on_cpu(Provider.OPENVINO, ProviderOptions(device="NPU"))
    assert not computes_on_cpu(Provider.CUDA, NO_OPTIONS)
