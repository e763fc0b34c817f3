"""The loaded graphs of a bundle: immutable, shared by all streams, safe to call from threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.errors import BundleError, DfdError, ProviderError, UsageError
from dfd_edge.manifest import DecisionSpec
from dfd_edge.precision import Choice, choose_variant, graph_file
from dfd_edge.providers import (
    Provider,
    ProviderReport,
    load_onnxruntime,
    open_best,
    open_session,
    parse_provider,
)

MAX_BATCH: Final = 8
"""Crops that go through the frame graph at once; larger batches gain nothing on a CPU."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FrameOutputs:
    """What the frame model says of n crops.

    Attributes:
        features: float32 [n, F].
        fake_logit: float32 [n], higher = more fake.
        evidence: float32 [n, h, w], where in the crop the logit comes from (its mean is the
            logit); None where the model has no such map.
    """

    features: Float32
    fake_logit: Float32
    evidence: Float32 | None


@dataclass(frozen=True, slots=True, eq=False)
class SequenceOutputs:
    """What the sequence model says of n tracks.

    Attributes:
        fake_logit: float32 [n, T], after each step; beyond a track's length without meaning.
        next_state: float32 [n, S], to carry into the next call.
    """

    fake_logit: Float32
    next_state: Float32


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """An open graph, its file and what it runs on."""

    opened: Any
    file: str
    provider: Provider

    def run(self, inputs: dict[str, Any], outputs: dict[str, tuple[int, ...]]) -> list[Any]:
        """Runs it.

        Args:
            inputs: By name.
            outputs: The shapes that they must have, by name.

        Raises:
            BundleError: The graph fails, or gives other shapes than it declares.
            ProviderError: It fails on an accelerator, whose own fault it may be.
        """
        try:
            arrays: list[Any] = self.opened.run(list(outputs), inputs)
        except MemoryError:
            raise
        except Exception as error:  # onnxruntime raises types of its own and bare RuntimeError
            raise self._failure(error) from error
        if [array.shape for array in arrays] != [*outputs.values()]:
            raise self._mismatch(arrays, outputs)
        return arrays

    def _mismatch(self, arrays: list[Any], outputs: dict[str, tuple[int, ...]]) -> BundleError:
        found = ", ".join(
            f"{name} {list(array.shape)}, but its contract makes it {list(shape)}"
            for (name, shape), array in zip(outputs.items(), arrays, strict=True)
            if array.shape != shape
        )
        return BundleError(f"{self.file}: gave {found}: export the bundle again")

    def _failure(self, error: Exception) -> DfdError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        version = load_onnxruntime().__version__
        if self.provider is Provider.CPU:
            return BundleError(
                f"{self.file}: onnxruntime {version} cannot run the graph ({reason}): export the "
                "bundle again, or upgrade onnxruntime"
            )
        return ProviderError(
            f"{self.file}: provider {self.provider} cannot run the graph ({reason}): check the "
            "device and its free memory, or use --provider cpu"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A bundle's graphs, loaded. Open one with `Session.open`.

    Attributes:
        bundle: Where they come from.
        provider: What they run on.
    """

    bundle: Bundle
    provider: ProviderReport
    _frame: _Graph
    _sequence: _Graph

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        provider: str = "auto",
        precision: str = "auto",
        threads: int = 1,
    ) -> Session:
        """Loads a bundle's graphs.

        Args:
            bundle: A checked bundle.
            provider: A name of `Provider`. `auto` may fall back and says why; a named one never.
            precision: A variant of the frame graph: "fp32", "fp16", "int8" as far as the bundle
                carries it, or "auto" for the one that suits provider and processor.
            threads: Threads inside an operator, 1 or more.

        Raises:
            UsageError: An option is out of range, or the bundle has no such variant.
            ProviderError: The provider asked for, or any onnxruntime, cannot run.
            BundleError: A file changed since the bundle was checked, or a graph is refused.
        """
        if threads < 1:
            raise UsageError(f"threads is {threads}; give 1 or more")
        variants = bundle.manifest.frame.variants

        def open_frame(actual: Provider) -> tuple[_Graph, Choice]:
            choice = choose_variant(variants, precision, actual)
            version = load_onnxruntime().__version__
            file = graph_file(variants[choice.precision], actual, version)
            return open_file(file, actual), choice

        def open_file(file: str, actual: Provider) -> _Graph:
            name = str(bundle.path / file)
            opened = open_session(bundle.read(file), actual, threads=threads, name=name)
            return _Graph(opened, name, actual)

        wanted = parse_provider(provider)
        (frame, choice), actual, reason = open_best(wanted, open_frame)
        report = ProviderReport(
            requested=wanted.value,
            actual=actual.value,
            sequence_actual=Provider.CPU.value,
            precision=choice.precision,
            precision_reason=choice.reason,
            reason=reason,
        )
        return cls(bundle, report, frame, open_file(bundle.manifest.sequence.file, Provider.CPU))

    @property
    def decision(self) -> DecisionSpec:
        """How logits of the variant that runs become labels."""
        return self.bundle.manifest.decision_of(self.provider.precision)

    def run_frame(self, crops: NDArray[np.uint8]) -> FrameOutputs:
        """Runs the frame model, in batches of at most `MAX_BATCH`.

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
        parts = [
            self._frame.run({"image": np.ascontiguousarray(batch)}, self._frame_shapes(len(batch)))
            for batch in (crops[i : i + MAX_BATCH] for i in range(0, len(crops), MAX_BATCH))
        ]
        features, fake_logit, *evidence = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        return FrameOutputs(features, fake_logit, evidence[0] if evidence else None)

    def run_sequence(
        self, features: Float32, lengths: NDArray[np.int32], state: Float32
    ) -> SequenceOutputs:
        """Runs the sequence model over one or more steps of n tracks.

        Args:
            features: float32 [n, T, F], n and T at least 1, all finite, padding included.
            lengths: int32 [n], real steps of each track, 1 to T.
            state: float32 [n, S]: zeros, or the `next_state` of the track's last call.

        Raises:
            UsageError: An array has another shape or dtype, a length is out of range, or there
                are no tracks.
            DfdError: Features or states are not finite. (onnxruntime's GRU would turn them into
                logits that look right.)
            BundleError: The graph fails, or gives other shapes than it declares.
        """
        self._check_sequence(features, lengths, state)
        inputs = {"features": features, "lengths": lengths, "state": state}
        shapes = {"fake_logit": features.shape[:2], "next_state": state.shape}
        logit, next_state = self._sequence.run(inputs, shapes)
        return SequenceOutputs(logit, next_state)

    def initial_state(self, n: int) -> Float32:
        """State of n tracks that have not begun: float32 [n, S], zeros."""
        return np.zeros((n, self.bundle.manifest.sequence.state_width), np.float32)

    def _frame_shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        frame = self.bundle.manifest.frame
        shapes: dict[str, tuple[int, ...]] = {
            "features": (n, frame.feature_width),
            "fake_logit": (n,),
        }
        if frame.evidence_size is not None:
            shapes["evidence"] = (n, *frame.evidence_size)
        return shapes

    def _check_sequence(
        self, features: Float32, lengths: NDArray[np.int32], state: Float32
    ) -> None:
        manifest = self.bundle.manifest
        n, steps = features.shape[:2] if features.ndim == 3 else (0, 0)
        wanted = {
            "features": (features, np.float32, (n, steps, manifest.frame.feature_width)),
            "lengths": (lengths, np.int32, (n,)),
            "state": (state, np.float32, (n, manifest.sequence.state_width)),
        }
        for name, (array, dtype, shape) in wanted.items():
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
        if not (_is_finite(features) and _is_finite(state)):
            raise DfdError(
                "features or states of a track are not finite: the frame model gave numbers that "
                "cannot be judged: check the crops, or run with --precision fp32"
            )


def _is_finite(array: Float32) -> bool:
    """Tells whether all numbers are finite, by the sum of squares where that does not overflow.

    `np.vdot` alone: `np.dot` looks at the processor's floating-point flags, so it warns or raises
    on an overflow, as the application has set it with `np.seterr`.
    """
    flat = array.reshape(-1)
    return math.isfinite(np.vdot(flat, flat)) or bool(np.isfinite(flat).all())
