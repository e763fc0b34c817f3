"""Measures what each rewrite of a frame graph gains at load and at run time.

For each network of the registry, with random weights at its own input size: the graph with all
rewrites against the one without any and those without one of them, on one thread. Processor time
is taken in turns; the figures are medians of the ratios in each turn, with their quartiles.

    python benchmarks/graph_rewrites.py efficientnet_b0 mobilenet_v2
    python benchmarks/graph_rewrites.py --int8 mobilenet_v2  # the graphs after quantisation
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from dfd_edge.inference.names import Provider
from dfd_edge.inference.providers import open_session
from dfd_export.gate.crops import random_crops
from dfd_export.graphs.frame_graph import (
    convert_frame_model,
    describe_frame_model,
    finish_frame_graph,
)
from dfd_export.graphs.graph_passes import PASSES, simplify
from dfd_export.variants.int8 import nodes_in_float, quantize_once, with_names
from dfd_training.models import BACKBONES, build_frame_model

ROUNDS = 21


def cpu_s(work: Callable[[], object]) -> float:
    """Returns the processor time of a call in this thread."""
    started_s = time.thread_time()
    work()
    return time.thread_time() - started_s


def graphs_of(name: str, size: int) -> dict[str, onnx.ModelProto]:
    """Returns the graph with all rewrites, without any, and those that differ without one."""
    keras.utils.set_random_seed(1)
    model = build_frame_model(backbone=name, input_size=size, weights="none")
    rng = np.random.default_rng(1)
    model(random_crops(rng, 4, size).astype(np.float32), training=True)
    for variable in model.weights:
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(rng.uniform(0.7, 1.4, variable.shape))
        elif variable.path.endswith(("beta", "bias", "moving_mean")):
            variable.assign(rng.uniform(-0.3, 0.3, variable.shape))
    spec = describe_frame_model(model, crop_scale=1.5)
    converted = convert_frame_model(model, spec)
    choices = {"all rewrites": PASSES, "no rewrite": ()}
    choices |= {
        f"without {rewrite.__name__}": tuple(other for other in PASSES if other is not rewrite)
        for rewrite in PASSES
    }
    graphs: dict[str, onnx.ModelProto] = {}
    for choice, passes in choices.items():
        graph = onnx.ModelProto()
        graph.CopyFrom(converted)
        simplify(graph, passes)
        graph = finish_frame_graph(graph, spec, metadata={})
        if choice == "all rewrites" or graph != graphs["all rewrites"]:
            graphs[choice] = graph
    return graphs


def quantized(graph: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    """Returns the graph in int8, without the corrections that change no cost."""
    graph = with_names(graph)
    first = next(node for node in graph.graph.node if node.op_type == "Conv")
    return quantize_once(graph, crops, nodes_in_float(graph, first))


def measure(name: str, *, int8: bool) -> None:
    """Measures the graphs of one network and prints a line each."""
    size = BACKBONES[name].input_size
    graphs = graphs_of(name, size)
    if int8:
        crops = random_crops(np.random.default_rng(2), 8, size)
        graphs = {choice: quantized(graph, crops) for choice, graph in graphs.items()}
    data = {choice: graph.SerializeToString() for choice, graph in graphs.items()}
    crop = random_crops(np.random.default_rng(0), 1, size)

    def load(choice: str) -> object:
        return open_session(data[choice], Provider.CPU, threads=1, name=choice)

    sessions = {
        choice: open_session(d, Provider.CPU, threads=1, name=choice) for choice, d in data.items()
    }
    loads: dict[str, list[float]] = {choice: [] for choice in graphs}
    runs: dict[str, list[float]] = {choice: [] for choice in graphs}
    for _ in range(ROUNDS):
        for choice, session in sessions.items():
            loads[choice].append(cpu_s(lambda choice=choice: load(choice)))  # type: ignore[misc]
            run = lambda session=session: session.run(None, {"image": crop})  # noqa: E731
            runs[choice].append(min(cpu_s(run), cpu_s(run)))
    print(f"{name}, {size} px, {'int8' if int8 else 'fp32'}")
    for choice, graph in graphs.items():
        load_ms, run_ms = (statistics.median(t[choice]) * 1e3 for t in (loads, runs))
        print(
            f"  {choice:24} {len(graph.graph.node):4} nodes"
            f"  load {load_ms:7.1f} ms {ratio(loads[choice], loads['all rewrites'])}"
            f"  run {run_ms:7.2f} ms {ratio(runs[choice], runs['all rewrites'])}",
            flush=True,
        )


def ratio(values: list[float], base: list[float]) -> str:
    """Returns the median of the ratios with their quartiles."""
    quotients = [value / least for value, least in zip(values, base, strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4)
    return f"x{middle:.2f} [{low:.2f} {high:.2f}]"


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if word != "--int8"]
    for network in chosen or sorted(BACKBONES):
        measure(network, int8="--int8" in sys.argv)
