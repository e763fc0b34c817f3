"""The loaded graphs of a bundle: immutable, shared by all streams, safe to call from threads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfd_edge.arguments import MOST_THREADS, check_one_of, check_whole
from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.bundle.manifest import DecisionSpec, FrameSpec
from dfd_edge.errors import DfdError, UsageError
from dfd_edge.inference.graph import BucketedGraph, Graph, all_finite, finite_rows
from dfd_edge.inference.installation import load_onnxruntime
from dfd_edge.inference.names import PRECISION_CHOICES, Provider, parse_provider
from dfd_edge.inference.precision import Choice, choose_variant, graph_file
from dfd_edge.inference.provider_options import (
    NO_OPTIONS,
    FrameHints,
    ProviderOptions,
    buckets_of,
    computes_on_cpu,
)
from dfd_edge.inference.providers import Opened, ProviderReport, open_best, open_graph, open_session

MAX_BATCH: Final = 8
"""Crops that go through the frame graph at once on a CPU, where larger batches gain nothing."""

_CUDA_MEMORY = (Provider.CUDA, Provider.TENSORRT)
"""Providers whose buffers can be made in CUDA's memory."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FrameOutputs:
    """Outputs of the frame model for n crops.

    Attributes:
        features: float32 [n, F].
        fake_logit: float32 [n], higher = more fake.
        evidence: float32 [n, h, w], where in the crop the logit comes from (its mean is the
            logit); None where the model has no such map.
    """

    features: Float32
    fake_logit: Float32
    evidence: Float32 | None

    def finite(self, rows: slice) -> NDArray[np.bool_]:
        """Returns which of these crops got finite numbers throughout: bool, one for each."""
        evidence = () if self.evidence is None else (self.evidence[rows],)
        return finite_rows(self.features[rows], self.fake_logit[rows], *evidence)


@dataclass(frozen=True, slots=True, eq=False)
class SequenceOutputs:
    """Outputs of the sequence model for n tracks.

    Attributes:
        fake_logit: float32 [n, T], after each step; beyond a track's length without meaning.
        next_state: float32 [n, S], to carry into the next call.
    """

    fake_logit: Float32
    next_state: Float32

    def finite(self) -> NDArray[np.bool_]:
        """Returns which tracks got finite numbers throughout: bool [n]."""
        return finite_rows(self.fake_logit, self.next_state)


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A bundle's graphs, loaded. Open one with `Session.open`.

    May be called from several threads. On a CPU their calls run side by side; on an accelerator
    the frame model runs one call at a time (`providers.batching`).

    Attributes:
        bundle: Where they come from.
        provider: What they run on.
        max_batch: Crops that go through the frame graph at once: `MAX_BATCH` on a CPU, up to 32
            on an NVIDIA device, less where its memory does not hold them.
        parallel: Whether several batches at once are quicker than one after the other.
    """

    bundle: Bundle
    provider: ProviderReport
    _frame: Graph
    _sequence: Graph
    max_batch: int = MAX_BATCH
    parallel: bool = True

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        provider: str = "auto",
        precision: str = "auto",
        threads: int = 1,
        options: ProviderOptions = NO_OPTIONS,
    ) -> Session:
        """Loads a bundle's graphs.

        On an accelerator the frame graph runs once for each of its batch sizes, which chooses
        kernels and takes the memory; with TensorRT that builds an engine, which may take minutes
        the first time.

        Args:
            bundle: A checked bundle.
            provider: A name of `Provider`. `auto` may fall back and says why; a named one never.
            precision: A variant of the frame graph: "fp32", "fp16", "int8" as far as the bundle
                carries it, or "auto" for the one that suits provider and processor.
            threads: Threads inside an operator, 1 or more.
            options: What is asked of the provider; each needs a named one that knows it.

        Raises:
            UsageError: An option is out of range, the provider does not know it, or the bundle
                has no such variant.
            ProviderError: The provider asked for, or any onnxruntime, cannot run.
            BundleError: A file changed since the bundle was checked, or a graph is refused.
        """
        threads = check_whole("threads", threads, least=1, most=MOST_THREADS)
        check_one_of("precision", precision, PRECISION_CHOICES)
        wanted = parse_provider(provider)
        options.check(wanted)
        manifest = bundle.manifest
        variants = manifest.frame.variants

        def open_frame(actual: Provider) -> tuple[Graph, Opened, Choice]:
            choice = choose_variant(variants, precision, actual)
            version = load_onnxruntime().__version__
            file = graph_file(variants[choice.precision], actual, version)
            name = str(bundle.path / file)
            data = bundle.read(file)
            _check_cost(bundle, file, data)
            opened = open_graph(
                data,
                actual,
                threads=threads,
                name=name,
                options=options,
                frame=FrameHints(manifest.frame.input_size, half=choice.precision == "fp16"),
            )
            graph = Graph(opened.session, name, actual)
            return _bucketed(graph, manifest.frame, options), opened, choice

        (frame, opened, choice), actual, reason = open_best(wanted, open_frame)
        name = str(bundle.path / manifest.sequence.file)
        data = bundle.read(manifest.sequence.file)
        _check_cost(bundle, manifest.sequence.file, data)
        sequence = open_session(data, Provider.CPU, threads=threads, name=name)
        report = ProviderReport(
            requested=wanted.value,
            actual=actual.value,
            sequence_actual=Provider.CPU.value,
            precision=choice.precision,
            precision_reason=choice.reason,
            reason=reason,
            face_actual=None if manifest.face.detector == "none" else Provider.CPU.value,
            device=None if options.device is None else str(options.device),
            elsewhere=opened.placement.elsewhere if opened.placement is not None else (),
        )
        return cls(
            bundle,
            report,
            frame,
            Graph(sequence, name, Provider.CPU),
            max_batch=frame.bucketed.buckets[-1] if frame.bucketed is not None else MAX_BATCH,
            parallel=computes_on_cpu(actual, options),
        )

    @property
    def decision(self) -> DecisionSpec:
        """Decision of the variant that runs: calibrators and thresholds."""
        return self.bundle.manifest.decision_of(self.provider.precision)

    def run_frame(self, crops: NDArray[np.uint8]) -> FrameOutputs:
        """Runs the frame model, in batches of at most `max_batch`.

        Args:
            crops: uint8 [n, S, S, 3], RGB, n at least 1, S the bundle's input size.

        Raises:
            UsageError: The crops have another shape or dtype, or there are none.
            BundleError: The graph fails, or gives other shapes than it declares.
            ProviderError: The graph fails on an accelerator.
        """
        size = self.bundle.manifest.frame.input_size
        if crops.ndim != 4 or crops.shape[1:] != (size, size, 3) or crops.dtype != np.uint8:
            raise UsageError(
                f"crops are {crops.dtype} {list(crops.shape)}; the frame model takes "
                f"uint8 [n, {size}, {size}, 3]"
            )
        if not len(crops):
            raise UsageError("there are no crops; call the frame model with 1 or more")
        step = self.max_batch
        parts = [
            self._frame.run({"image": np.ascontiguousarray(batch)}, self._frame_shapes(len(batch)))
            for batch in (crops[i : i + step] for i in range(0, len(crops), step))
        ]
        features, fake_logit, *evidence = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        return FrameOutputs(features, fake_logit, evidence[0] if evidence else None)

    def run_sequence(
        self,
        features: Float32,
        lengths: NDArray[np.int32],
        state: Float32,
        signals: Float32 | None = None,
        measured: Float32 | None = None,
    ) -> SequenceOutputs:
        """Runs the sequence model over one or more steps of n tracks.

        Args:
            features: float32 [n, T, F], n and T at least 1, all finite, padding included.
            lengths: int32 [n], real steps of each track, 1 to T.
            state: float32 [n, S]: zeros, or the `next_state` of the track's last call.
            signals: float32 [n, T, W], measurements of consecutive frames, for a bundle whose
                sequence model takes them; finite, padding and steps that were not measured
                included.
            measured: float32 [n, T], 1 where the step's signals were measured, else 0. Without
                both, no step counts as measured.

        Raises:
            UsageError: An array has another shape or dtype, a length or a flag is out of range,
                there are no tracks, or signals are given to a model that takes none.
            DfdError: Features, states or signals are not finite. (onnxruntime's GRU would turn
                them into logits that look right.)
            BundleError: The graph fails, or gives other shapes than it declares.
        """
        inputs = {"features": features, "lengths": lengths, "state": state}
        inputs |= self._signal_inputs(features.shape[:2], signals, measured)
        self._check_sequence(inputs)
        shapes = {"fake_logit": features.shape[:2], "next_state": state.shape}
        logit, next_state = self._sequence.run(inputs, shapes)
        return SequenceOutputs(logit, next_state)

    def initial_state(self, n: int) -> Float32:
        """Returns the state of n tracks that have not begun: float32 [n, S], zeros."""
        return np.zeros((n, self.bundle.manifest.sequence.state_width), np.float32)

    def _frame_shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        shapes = _crop_outputs(self.bundle.manifest.frame)
        return {name: (n, *shape) for name, shape in shapes.items()}

    def _signal_inputs(
        self, shape: tuple[int, ...], signals: Float32 | None, measured: Float32 | None
    ) -> dict[str, NDArray[Any]]:
        """Returns the inputs that only models with signals have."""
        spec = self.bundle.manifest.sequence.signals
        if spec is None:
            if signals is not None or measured is not None:
                raise UsageError(
                    "the sequence model takes no signals: leave signals and measured out"
                )
            return {}
        if signals is None or measured is None:
            if signals is not measured:
                raise UsageError("signals and measured belong together: give both or neither")
            signals, measured = np.zeros((*shape, spec.width), np.float32), np.zeros(shape, "f4")
        return {"signals": signals, "measured": measured}

    def _check_sequence(self, inputs: dict[str, NDArray[Any]]) -> None:
        manifest = self.bundle.manifest
        features, lengths = inputs["features"], inputs["lengths"]
        n, steps = features.shape[:2] if features.ndim == 3 else (0, 0)
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "features": (np.float32, (n, steps, manifest.frame.feature_width)),
            "lengths": (np.int32, (n,)),
            "state": (np.float32, (n, manifest.sequence.state_width)),
        }
        if (signals := manifest.sequence.signals) is not None:
            wanted["signals"] = (np.float32, (n, steps, signals.width))
            wanted["measured"] = (np.float32, (n, steps))
        for name, (dtype, shape) in wanted.items():
            array = inputs[name]
            if array.shape != shape or array.dtype != dtype:
                raise UsageError(
                    f"{name} are {array.dtype} {list(array.shape)}; with features "
                    f"{list(features.shape)} the sequence model takes {np.dtype(dtype)} "
                    f"{list(shape)}"
                )
        if not n or not steps:
            raise UsageError(
                f"features are {list(features.shape)}; call the sequence model with 1 track and "
                "1 step or more"
            )
        shortest, longest = min(counts := lengths.tolist()), max(counts)
        if shortest < 1 or longest > steps:
            raise UsageError(
                f"lengths are {shortest} to {longest}; each is 1 to {steps} (leave tracks without "
                "a step out of the call)"
            )
        if not all_finite(features, inputs["state"]):
            raise DfdError(
                "features or states of a track are not finite: the frame model gave numbers that "
                "cannot be judged: check the crops, or run with --precision fp32"
            )
        if signals is not None:
            _check_signals(inputs["signals"], inputs["measured"])


def _check_signals(signals: Float32, measured: Float32) -> None:
    if not np.isin(measured, (0.0, 1.0)).all():
        raise UsageError("measured has other values than 0 and 1")
    if not all_finite(signals):
        raise DfdError(
            "signals of a track are not finite: give zeros, and 0 in measured, where a step was "
            "not measured"
        )


def _check_cost(bundle: Bundle, file: str, data: bytes) -> None:
    """Checks the cost of a graph; those that ship with this program are trusted.

    Raises:
        BundleError: It costs more.
    """
    if bundle.path == DEFAULT_BUNDLE:
        return
    from dfd_edge.bundle.graph_trial import BATCH, STEPS, check_cost  # noqa: PLC0415 - see above

    frame, sequence = bundle.manifest.frame, bundle.manifest.sequence
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    if file == sequence.file:
        inputs = {
            "features": ("float32", (BATCH, STEPS, frame.feature_width)),
            "lengths": ("int32", (BATCH,)),
            "state": ("float32", (BATCH, sequence.state_width)),
        }
        if sequence.signals is not None:
            inputs["signals"] = ("float32", (BATCH, STEPS, sequence.signals.width))
            inputs["measured"] = ("float32", (BATCH, STEPS))
    else:
        inputs = {"image": ("uint8", (BATCH, frame.input_size, frame.input_size, 3))}
    check_cost(str(bundle.path / file), data, bundle.manifest.files[file].sha256, inputs)


def _bucketed(graph: Graph, frame: FrameSpec, options: ProviderOptions) -> Graph:
    """Returns the frame graph in the batch sizes of its provider, each run once.

    Raises:
        ProviderError: It does not run.
    """
    buckets = buckets_of(graph.provider, options)
    if buckets is None:
        return graph
    on_cuda = graph.provider in _CUDA_MEMORY
    try:
        bucketed = BucketedGraph(
            graph.opened,
            buckets=buckets,
            image=(frame.input_size, frame.input_size, 3),
            outputs=_crop_outputs(frame),
            memory="cuda" if on_cuda else None,
            device=options.device_number if on_cuda else 0,
            cuda_graphs=options.cuda_graphs,
        )
    except Exception as error:  # onnxruntime raises types of its own and bare RuntimeError
        raise graph.failure(error) from error
    return dataclasses.replace(graph, bucketed=bucketed)


def _crop_outputs(frame: FrameSpec) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the frame graph's outputs for one crop, by name."""
    shapes: dict[str, tuple[int, ...]] = {"features": (frame.feature_width,), "fake_logit": ()}
    if frame.evidence_size is not None:
        shapes["evidence"] = frame.evidence_size
    return shapes
