"""A graph that was quietly left to the CPU is refused, whatever the session says it runs on.

onnxruntime's wheel for the CPU carries one more provider, Azure's, which takes no node of an
ordinary graph: every node then runs on the CPU while the session names Azure first.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from dfd_edge.errors import ProviderError
from dfd_edge.inference import installation, names, placement, providers
from dfd_edge.inference.names import Build, Provider
from dfd_edge.inference.placement import Placement, check_placement, placement_of
from small_bundle import build_small_bundle

AZURE = "AzureExecutionProvider"
CAN_TELL = hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")
with_azure = pytest.mark.skipif(
    AZURE not in onnxruntime.get_available_providers(), reason="the wheel here has no Azure"
)
tells = pytest.mark.skipif(not CAN_TELL, reason="onnxruntime before 1.24 cannot tell")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("bundle") / "small"
    return (build_small_bundle(folder) / "frame.onnx").read_bytes()


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Provider:
    """Lets `--provider coreml` mean Azure's provider, which is there and takes nothing."""
    monkeypatch.setitem(names.BUILDS, Provider.COREML, Build(AZURE, "onnxruntime"))
    settings = providers.Settings(((AZURE, {}),))
    monkeypatch.setattr(providers, "settings_of", lambda *_, **__: settings)
    return Provider.COREML


@with_azure
@tells
def test_a_provider_that_takes_no_node_is_refused(graph: bytes, azure: Provider):
    with pytest.raises(ProviderError) as caught:
        providers.open_graph(graph, azure, threads=1, name="frame.onnx")
    assert "it took none of the 10 nodes of frame.onnx" in str(caught.value)
    assert "--provider auto" in str(caught.value)
    assert "\n" not in str(caught.value)


@with_azure
def test_before_1_24_onnxruntime_itself_refuses_what_is_left_to_the_cpu(
    graph: bytes, azure: Provider, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(placement, "_can_tell", lambda _: False)
    with pytest.raises(ProviderError, match="leaves nodes of the graph to the CPU: upgrade"):
        providers.open_graph(graph, azure, threads=1, name="frame.onnx")


@tells
def test_what_a_session_says_of_its_nodes_is_read(graph: bytes):
    options = onnxruntime.SessionOptions()
    placement.ask_for_placement(onnxruntime, options, Provider.CUDA)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"provider cuda cannot run: it took none of the 10"):
        check_placement(session, Provider.CUDA, "frame.onnx")


def test_the_cpu_is_not_asked(graph: bytes):
    opened = providers.open_graph(graph, Provider.CPU, threads=1, name="frame.onnx")
    assert opened.placement is None


@pytest.mark.parametrize(
    ("nodes", "computing"),
    [
        ([("Conv", "cuda"), ("Clip", "cuda")], []),
        ([("Conv", "cuda"), ("Shape", "cpu"), ("Gather", "cpu"), ("Cast", "cpu")], []),
        ([("Conv", "cuda"), ("Conv", "cpu")], ["Conv"]),
        ([("Conv", "cuda"), ("Shape", "cpu"), ("Mul", "cpu")], ["Mul"]),
        ([("Conv", "tensorrt"), ("Conv", "cuda")], ["Conv"]),
    ],
)
def test_only_shapes_moves_and_casts_may_run_elsewhere(nodes, computing: list[str]):
    found = placement_of(nodes, Provider(nodes[0][1]))
    assert found.on_provider + len(found.elsewhere) == len(nodes)
    assert [operator for operator, _ in found.computing_elsewhere] == computing


class Reported:
    """A session that says so and so of its nodes."""

    def __init__(self, *nodes: tuple[str, str]) -> None:
        self._nodes = nodes

    def get_provider_graph_assignment_info(self) -> list[object]:
        def group(operator: str, where: str) -> object:
            node = type("Node", (), {"op_type": operator})()
            return type("Group", (), {"ep_name": where, "get_nodes": lambda _: [node]})()

        return [group(*node) for node in self._nodes]


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def test_a_node_that_computes_elsewhere_is_named_with_its_provider():
    session = Reported(("Conv", CUDA), ("Conv", CPU), ("Conv", CPU), ("Add", CPU), ("Cast", CPU))
    with pytest.raises(ProviderError) as caught:
        check_placement(session, Provider.CUDA, "f.onnx")
    assert "it leaves 3 of the 5 nodes of f.onnx to others (2 Conv on cpu, 1 Add on cpu)" in str(
        caught.value
    )


def test_a_node_that_only_moves_values_is_counted():
    session = Reported(("Conv", CUDA), ("Cast", CPU))
    assert check_placement(session, Provider.CUDA, "f") == Placement(1, (("Cast", "cpu"),))


def test_a_fault_is_looked_for_on_nvidia_s_providers_only():
    assert installation.find_fault(Provider.CPU) is None
    assert installation.find_fault(Provider.OPENVINO) is None


def test_a_missing_library_is_named(tmp_path: Path):
    library = tmp_path / "libonnxruntime_providers_cuda.so"
    assert str(library) in str(installation._missing_library([library]))
    assert installation._missing_library([]) is None


def test_a_library_that_loads_is_not_missing():
    import _ctypes

    assert installation._missing_library([Path(_ctypes.__file__)]) is None
