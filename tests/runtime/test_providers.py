"""A named provider runs or the program says why it cannot; `auto` says what it left out."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from dfd_edge.bundle import Bundle
from dfd_edge.detector import Detector
from dfd_edge.errors import BundleError, ProviderError, UsageError
from dfd_edge.faces.detector import DETECTOR_FILE
from dfd_edge.faces.onnx_model import FACE_MODELS_DIR
from dfd_edge.inference import installation, providers
from dfd_edge.inference.names import Provider
from dfd_edge.inference.provider_options import ProviderOptions
from dfd_edge.inference.providers import ProviderReport
from dfd_edge.inference.session import Session
from small_bundle import SIZE, build_small_bundle

HAS_CUDA_WHEEL = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
cpu_wheel_only = pytest.mark.skipif(HAS_CUDA_WHEEL, reason="the wheel here is built with CUDA")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(build_small_bundle(tmp_path_factory.mktemp("bundle") / "small"))


def pretend_installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        if name.replace("-", "_") not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name.replace("-", "_")]

    monkeypatch.setattr(importlib.metadata, "version", version)


def pretend_built_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)


def test_auto_and_cpu_run_on_the_cpu_here(bundle: Bundle):
    for name in ("cpu", *([] if HAS_CUDA_WHEEL else ["auto"])):
        report = Session.open(bundle, provider=name).provider
        assert (report.requested, report.actual, report.precision) == (name, "cpu", "fp32")
        assert report
        assert str(report) == "cpu (fp32)"
        assert (report.sequence_actual, report.face_actual) == ("cpu", "cpu")
        assert report.device is None
        assert report.elsewhere == ()


@cpu_wheel_only
@pytest.mark.parametrize("name", ["cuda", "tensorrt", "openvino", "coreml", "directml"])
def test_a_named_provider_never_falls_back(bundle: Bundle, name: str):
    with pytest.raises(ProviderError, match=f"provider {name} cannot run") as caught:
        Session.open(bundle, provider=name)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@cpu_wheel_only
def test_cuda_with_the_cpu_wheel_names_wheel_and_mend(bundle: Bundle):
    version = importlib.metadata.version("onnxruntime")
    with pytest.raises(ProviderError) as caught:
        Session.open(bundle, provider="cuda")
    assert f"onnxruntime {version} is built without it" in str(caught.value)
    assert "pip uninstall -y onnxruntime" in str(caught.value)
    assert "pip install 'dfd-edge[gpu]'" in str(caught.value)


@cpu_wheel_only
def test_cuda_that_is_built_in_but_does_not_load_is_an_error_when_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    pretend_built_with_cuda(monkeypatch)
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(ProviderError, match=r"provider cuda cannot run: .*--provider auto"),
    ):
        Session.open(bundle, provider="cuda")


@cpu_wheel_only
def test_auto_says_why_it_did_not_take_cuda(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    pretend_built_with_cuda(monkeypatch)
    with pytest.warns(UserWarning, match="not in available provider names"):
        report = Session.open(bundle, provider="auto").provider
    assert report.actual == "cpu"
    assert not report
    assert "provider cuda cannot run" in str(report)


def test_two_wheels_at_once_are_refused_with_the_command_that_mends_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pretend_installed(monkeypatch, onnxruntime="1.30.0", onnxruntime_gpu="1.29.0")
    for name in ("onnxruntime-1.30.0.dist-info", "onnxruntime_gpu-1.29.0.dist-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(installation, "_site_of_onnxruntime", lambda: tmp_path)
    with pytest.raises(ProviderError) as caught:
        Session.open(bundle)
    assert "onnxruntime 1.30.0 and onnxruntime-gpu 1.29.0 are installed together" in str(
        caught.value
    )
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(caught.value)
    assert "pip install 'dfd-edge[gpu]'" in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "several"),
    [
        ([], False),
        (["onnxruntime-1.30.0", "onnxruntime_extensions-0.15.0", "onnxruntime_genai-0.9.0"], False),
        (["onnxruntime_gpu-1.31.1", "onnxruntime-1.30.0"], True),
        (["onnxruntime_directml-1.24.0", "onnxruntime_openvino-1.24.1", "numpy-2.0.0"], True),
    ],
)
def test_several_wheels_are_seen_by_their_folders(
    tmp_path: Path, folders: list[str], several: bool
):
    for name in folders:
        (tmp_path / f"{name}.dist-info").mkdir()
    assert installation.several_in(tmp_path) is several


def test_the_installed_wheel_is_found_beside_its_module():
    site = installation._site_of_onnxruntime()
    assert site is not None
    assert list(site.glob("onnxruntime*.dist-info"))


def test_no_wheel_at_all_names_the_command_that_mends_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    pretend_installed(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match="onnxruntime is not installed") as caught:
        Session.open(bundle)
    assert "pip install 'dfd-edge[cpu]'" in str(caught.value)


def test_a_broken_wheel_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch):
    pretend_installed(monkeypatch, onnxruntime="1.30.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match=r"onnxruntime 1\.30\.0 is installed but cannot be"):
        installation.load_onnxruntime()


def test_importing_needs_no_onnxruntime():
    code = (
        "import sys; sys.modules['onnxruntime'] = None; "
        "import dfd_edge, dfd_edge.bundle, dfd_edge.inference, dfd_edge.inference.session"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_provider_is_refused_with_the_known_ones(bundle: Bundle):
    with pytest.raises(UsageError, match=r"provider 'gpu' is unknown; known are auto, cpu, cuda"):
        Session.open(bundle, provider="gpu")


def test_a_graph_that_onnxruntime_refuses_is_the_bundle_s_fault():
    with pytest.raises(BundleError, match=r"x\.onnx: onnxruntime .* refuses the graph"):
        providers.open_session(b"nonsense", Provider.CPU, threads=1, name="x.onnx")


def test_threads_are_as_asked_and_do_not_spin():
    data = (FACE_MODELS_DIR / DETECTOR_FILE).read_bytes()
    session = providers.open_session(data, Provider.CPU, threads=2, name=DETECTOR_FILE)
    options = session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_probing_runs_a_graph_on_every_provider_of_the_wheel():
    probes = {p.provider: p for p in providers.probe_providers(FACE_MODELS_DIR / DETECTOR_FILE)}
    assert probes["cpu"].works
    assert len(probes) <= len(onnxruntime.get_available_providers())


def test_probing_runs_the_bundle_s_graphs_too(bundle: Bundle):
    for file in ("frame.onnx", "sequence.onnx"):
        probes = {p.provider: p for p in providers.probe_providers(bundle.path / file)}
        assert probes["cpu"].works


@cpu_wheel_only
def test_probing_tells_why_a_provider_does_not_load(monkeypatch: pytest.MonkeyPatch):
    pretend_built_with_cuda(monkeypatch)
    with pytest.warns(UserWarning, match="not in available provider names"):
        probes = providers.probe_providers(FACE_MODELS_DIR / DETECTOR_FILE)
    assert {p.provider: p.works for p in probes} == {"cpu": True, "cuda": False}
    assert "provider cuda cannot run" in next(p.detail for p in probes if not p.works)


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (
            ProviderReport("cuda", "cuda", "cpu", "fp16"),
            "cuda (fp16), sequence model and face detector on cpu",
        ),
        (
            ProviderReport("cuda", "cuda", "cpu", "fp32", face_actual=None, device="1"),
            "cuda 1 (fp32), sequence model on cpu",
        ),
        (
            ProviderReport("coreml", "coreml", "cpu", "fp32", elsewhere=(("Cast", "cpu"),) * 2),
            "coreml (fp32) but for Cast on cpu, sequence model and face detector on cpu",
        ),
        (ProviderReport("cpu", "cpu", "cpu", "int8", face_actual=None), "cpu (int8)"),
    ],
)
def test_a_report_says_which_graph_runs_where(report: ProviderReport, text: str):
    assert report
    assert str(report) == text


def test_what_a_run_record_says_of_the_providers(bundle: Bundle):
    session = Session.open(bundle, provider="cpu")
    record = Detector(session, None).run_record()
    assert record["provider"] == {
        "requested": "cpu",
        "actual": "cpu",
        "sequence": "cpu",
        "faces": "cpu",
        "device": None,
        "reason": None,
    }
    assert record["versions"]["onnxruntime"] == onnxruntime.__version__


def test_loading_libraries_prints_nothing_where_records_go(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudart"))
    installation.preload_libraries(Provider.CUDA)
    installation.preload_libraries(Provider.TENSORRT)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "/src/cuda_call.cc:129 bool CudaCall [with ERRTYPE = cudaError; bool THRW = true] CUDA "
            "failure 2: out of memory ; GPU=0 ; hostname=vm ; file=/src/a.cc ; expr=cudaMalloc(p);",
            "CUDA failure 2: out of memory",
        ),
        ("CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR", "CUDNN failure 4000: CUDNN_STATUS_INT"),
        ("[ONNXRuntimeError] : 1 : FAIL : no\nmore of it", "[ONNXRuntimeError] : 1 : FAIL : no"),
        ("a\x1b[31mred", "a?[31mred"),
        ("", "RuntimeError"),
    ],
)
def test_what_onnxruntime_says_becomes_one_line(said: str, reason: str):
    found = installation.reason_of(RuntimeError(said))
    assert found.startswith(reason)
    assert ";" not in found
    assert "\n" not in found


@cpu_wheel_only
def test_a_device_that_cannot_be_had_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    pretend_built_with_cuda(monkeypatch)
    reason = "CUDA failure 101: invalid device ordinal"

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(reason)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ProviderError, match=rf"cannot run on --device 7: {reason}: leave --dev"):
        Session.open(bundle, provider="cuda", options=ProviderOptions(device=7))
    reason = "This session cannot use the graph capture feature as requested by the user"
    graphs = ProviderOptions(device=7, cuda_graphs=True)
    with pytest.raises(ProviderError, match=r"with --cuda-graphs: .*: leave --cuda-graphs out"):
        Session.open(bundle, provider="cuda", options=graphs)


def test_the_same_crops_give_the_same_logits_with_more_threads(bundle: Bundle):
    shape = (2, SIZE, SIZE, 3)
    crops = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    one = Session.open(bundle, provider="cpu", threads=1).run_frame(crops)
    two = Session.open(bundle, provider="cpu", threads=2).run_frame(crops)
    np.testing.assert_allclose(one.fake_logit, two.fake_logit, atol=1e-5)
