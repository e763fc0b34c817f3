"""The frame graph on an NVIDIA GPU: transfer and compute apart, IO binding, CUDA graphs, batches.

No figure is given for a GPU when something else ran: the provider is read back from the session,
and a run on the CPU is refused.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_benchmarks.results.nvidia import GpuSampler, spreads
from dfd_benchmarks.results.schema import Figure, Result, RunInfo
from dfd_benchmarks.results.timing import wall_seconds
from dfd_benchmarks.streams.footage import make_footage
from dfd_edge.bundle import Bundle
from dfd_edge.errors import ProviderError, UsageError
from dfd_edge.inference.graph import BucketedGraph
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.names import Provider
from dfd_edge.inference.precision import graph_file
from dfd_edge.inference.provider_options import FrameHints, ProviderOptions
from dfd_edge.inference.providers import open_graph
from dfd_edge.inference.session import Session
from dfd_edge.sources.decoder import DecoderName, DecoderReport, choose_decoder
from dfd_edge.sources.frames import AllFrames
from dfd_edge.sources.video import VideoFile

MOST = 256
#: Of the runtime over a bare loop of `session.run`, each at its best batch.
RUNTIME_BAR = 1.2
_WARM_UP = 3
_CALLS = 10
_MODES = {
    "session_run": "session.run, memory of the host",
    "io_binding": "IO binding, upload and download included",
    "cuda_graphs": "IO binding and CUDA graphs",
    "compute": "compute alone, memory of the device",
    "upload": "upload of the crops alone",
    "download": "download of the outputs alone",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """The frame graph, open for the benchmark.

    Attributes:
        session: An `onnxruntime.InferenceSession`.
        graphs: The same with CUDA graphs on; None leaves them out.
        memory: Where bound buffers lie, in onnxruntime's words: "cuda" or "cpu".
        device: Number of the device.
        image: Shape of a crop.
        outputs: Shapes of the outputs for one crop, by name.
    """

    session: Any
    graphs: Any | None
    memory: str
    device: int
    image: tuple[int, int, int]
    outputs: Mapping[str, tuple[int, ...]]


def refuse_cpu(provider: str) -> None:
    """See that a GPU ran.

    Raises:
        ProviderError: It was something else.
    """
    if provider not in {Provider.CUDA.value, Provider.TENSORRT.value}:
        raise ProviderError(
            f"the frame model ran on {provider}, not on an NVIDIA GPU: no figure of a GPU is "
            "given: install dfd-edge[gpu] on a machine with one, or see `dfd-edge --doctor`"
        )


def batches_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 4 … up to a batch.

    Raises:
        UsageError: It is not 1 to `MOST`.
    """
    if not 1 <= most <= MOST:
        raise UsageError(f"max-batch is {most}; give 1 to {MOST}")
    return tuple(2**power for power in range(most.bit_length()))


def calls_of(opened: Opened, crops: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
    """Returns the calls that are timed for one batch, by the names of `_MODES`.

    Args:
        opened: The graph.
        crops: uint8 [batch, S, S, 3].
    """
    ort = load_onnxruntime()
    batch, place = len(crops), (opened.memory, opened.device)
    make = ort.OrtValue.ortvalue_from_shape_and_type
    image = make(list(crops.shape), np.uint8, *place)
    outputs = {
        name: make([batch, *shape], np.float32, *place) for name, shape in opened.outputs.items()
    }
    binding = opened.session.io_binding()
    binding.bind_ortvalue_input("image", image)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    image.update_inplace(crops)
    names = list(opened.outputs)

    def compute() -> None:
        opened.session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def bound(session: Any, *, cuda_graphs: bool) -> Callable[[], object]:  # noqa: ANN401
        graph = BucketedGraph(
            session,
            buckets=(batch,),
            image=opened.image,
            outputs=opened.outputs,
            memory=opened.memory,
            device=opened.device,
            cuda_graphs=cuda_graphs,
        )
        return lambda: graph.run(crops)

    calls: dict[str, Callable[[], object]] = {
        "session_run": lambda: opened.session.run(names, {"image": crops}),
        "io_binding": bound(opened.session, cuda_graphs=False),
    }
    if opened.graphs is not None:
        calls["cuda_graphs"] = bound(opened.graphs, cuda_graphs=True)
    return calls | {
        "compute": compute,
        "upload": lambda: image.update_inplace(crops),
        "download": lambda: [value.numpy() for value in outputs.values()],
    }


def time_turns(calls: Mapping[str, Callable[[], object]], times: int = _CALLS) -> dict[str, float]:
    """Median milliseconds of each call, all of them made turn by turn after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(_WARM_UP + times):
        for name, call in calls.items():
            elapsed_s = wall_seconds(call)
            if turn >= _WARM_UP:
                seconds[name].append(elapsed_s)
    return {name: statistics.median(values) * 1e3 for name, values in seconds.items()}


def measure_gpu(
    *,
    model: Path | None = None,
    provider: str = "cuda",
    precision: str = "auto",
    device: int = 0,
    max_batch: int = MOST,
    decoder: DecoderName = "cpu",
    runs: int = 5,
    on_run: Callable[[], object] = lambda: None,
) -> Result:
    """Measures the frame graph on a GPU, and the runtime on the same crops, in turns.

    Args:
        model: A bundle; the shipped one by default.
        provider: "cuda", or "auto", which is refused where it ends elsewhere.
        precision: A variant of the frame graph.
        device: Number of the GPU.
        max_batch: The largest batch, a power of two up to `MOST`.
        decoder: "cuda" measures decoding on the device and on the CPU too.
        runs: How often everything is measured.
        on_run: Called after each run.

    Raises:
        ProviderError: No GPU ran, or not this graph.
        UsageError: A value out of range.
    """
    batches = batches_up_to(max_batch)
    decoders = decoders_of(decoder, device)
    named = ProviderOptions(device=device) if provider == "cuda" else ProviderOptions()
    runtime = Session.open(
        Bundle.load(model), provider=provider, precision=precision, options=named
    )
    refuse_cpu(runtime.provider.actual)
    opened = _open(runtime, device)
    size = opened.image[0]
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (max_batch, size, size, 3), np.uint8)
    calls: dict[int, dict[str, Callable[[], object]]] = {}
    left_out = None
    for batch in batches:
        try:
            calls[batch] = calls_of(opened, crops[:batch])
            calls[batch]["runtime"] = lambda n=batch: runtime.run_frame(crops[:n])  # type: ignore[misc]
            time_turns(calls[batch], 1)
        except Exception as error:  # onnxruntime raises types of its own, out of memory among them
            if not calls or batch == batches[0]:
                raise ProviderError(f"batch {batch} does not run on the GPU ({error})") from error
            calls.pop(batch, None)
            left_out = f"batch {batch} and more do not run ({str(error).splitlines()[0]})"
            break
    taken: list[dict[int, dict[str, float]]] = []
    decoded: list[dict[str, float]] = []
    with GpuSampler(device) as sampler, tempfile.TemporaryDirectory(prefix="dfd-bench-") as folder:
        film = Path(folder) / "film.ts"
        if decoders:
            make_footage(None, film, size=(1280, 720), fps=30)
        for _ in range(runs):
            taken.append({batch: time_turns(by_name) for batch, by_name in calls.items()})
            decoded.append({name: decode_ms(film, report) for name, report in decoders.items()})
            on_run()
    return Result(
        benchmark="gpu",
        arguments={
            "model": None if model is None else str(model),
            "device": device,
            "max_batch": max_batch,
            "decoder": decoder,
            "runs": runs,
        },
        ran=RunInfo.of(runtime, precision=precision),
        figures=[*figures_of_runs(taken), *decoding_figures(decoded)],
        details={
            "gpu_meanwhile": {name: asdict(s) for name, s in spreads(sampler.rows).items()},
            "samples": len(sampler.rows),
            "left_out": left_out,
            "cuda_graphs": opened.graphs is not None,
        },
    )


def decoders_of(decoder: DecoderName, device: int) -> dict[str, DecoderReport]:
    """Returns the decoders that are compared, by name; none where the CPU decodes anyway.

    Raises:
        ProviderError: The device cannot decode.
    """
    if decoder == "cpu":
        return {}
    return {"cuda": choose_decoder("cuda", device), "cpu": choose_decoder("cpu")}


def decode_ms(film: Path, decoder: DecoderReport) -> float:
    """Returns the milliseconds of a film's frame, decoded and in the host's memory.

    Raises:
        ProviderError: The device does not decode it.
    """
    frames = 0
    start_s = time.perf_counter()
    with VideoFile(film, decoder=decoder) as video:
        for _ in video.frames(AllFrames()):
            frames += 1
    return (time.perf_counter() - start_s) * 1e3 / frames


def decoding_figures(decoded: list[dict[str, float]]) -> list[Figure]:
    """Figures of milliseconds a frame by decoder, one entry a run."""
    return [
        Figure(
            f"decode.{name}",
            f"a 720p frame decoded by {name}, in the host's memory",
            "ms",
            "lower",
            tuple(run[name] for run in decoded),
        )
        for name in decoded[0]
    ]


def figures_of_runs(taken: list[dict[int, dict[str, float]]]) -> list[Figure]:
    """Figures of milliseconds by batch and mode, one entry a run."""
    figures = []
    for batch, by_name in taken[0].items():
        for name, label in {**_MODES, "runtime": "the runtime's Session"}.items():
            if name in by_name:
                values = tuple(run[batch][name] for run in taken)
                figure = Figure(f"batch{batch}.{name}", f"{batch}: {label}", "ms", "lower", values)
                figures.append(figure)
    best = {
        name: tuple(max(batch * 1e3 / ms[name] for batch, ms in run.items()) for run in taken)
        for name in ("session_run", "runtime")
    }
    ratio = tuple(r / b for r, b in zip(best["runtime"], best["session_run"], strict=True))
    label = "at its best batch, crops"
    return [
        *figures,
        Figure("bare_rate", f"bare session.run {label}", "1/s", "higher", best["session_run"]),
        Figure("runtime_rate", f"the runtime {label}", "1/s", "higher", best["runtime"]),
        Figure("runtime_over_bare", "runtime over bare", "x", "higher", ratio, RUNTIME_BAR),
    ]


def _open(runtime: Session, device: int) -> Opened:
    """The runtime's frame graph once more, for bare calls, with CUDA graphs off and on."""
    bundle, manifest = runtime.bundle, runtime.bundle.manifest
    spec, precision = manifest.frame, runtime.provider.precision
    variant = spec.variants[precision]
    file = graph_file(variant, Provider.CUDA, load_onnxruntime().__version__)

    def open_with(*, cuda_graphs: bool) -> Any:  # noqa: ANN401
        return open_graph(
            bundle.read(file),
            Provider.CUDA,
            threads=1,
            name=file,
            options=ProviderOptions(device=device, cuda_graphs=cuda_graphs),
            frame=FrameHints(spec.input_size, half=precision == "fp16"),
        ).session

    try:
        graphs = open_with(cuda_graphs=True)
    except ProviderError:  # a graph with nodes on the CPU cannot be recorded; `details` say so
        graphs = None
    return Opened(
        session=open_with(cuda_graphs=False),
        graphs=graphs,
        memory="cuda",
        device=device,
        image=(spec.input_size, spec.input_size, 3),
        outputs=crop_outputs(runtime),
    )


def crop_outputs(session: Session) -> dict[str, tuple[int, ...]]:
    """Shapes of the frame graph's outputs for one crop, by name."""
    spec = session.bundle.manifest.frame
    shapes: dict[str, tuple[int, ...]] = {"features": (spec.feature_width,), "fake_logit": ()}
    return shapes if spec.evidence_size is None else shapes | {"evidence": spec.evidence_size}
