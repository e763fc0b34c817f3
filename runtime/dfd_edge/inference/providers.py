"""Opens graphs on a provider and reports what runs where.

What `get_available_providers` lists is what was built into the wheel, not what loads on this
machine: only a session that was opened and read back counts here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dfd_edge.errors import BundleError, ProviderError
from dfd_edge.inference.installation import (
    find_fault,
    load_onnxruntime,
    not_built_in,
    not_loading,
    reason_of,
)
from dfd_edge.inference.names import BUILDS, Provider
from dfd_edge.inference.placement import (
    Placement,
    ask_for_placement,
    check_placement,
    refused_for_a_node,
)
from dfd_edge.inference.provider_options import (
    NO_OPTIONS,
    FrameHints,
    ProviderOptions,
    Settings,
    settings_of,
)


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """The provider that runs, and whether it is the one asked for.

    True when the frame graph runs on the provider asked for; for `auto`, when it runs on the
    best one that the installed onnxruntime was built with. Its text says so in words.

    Attributes:
        requested: The provider asked for.
        actual: The provider that the frame graph runs on.
        sequence_actual: The provider of the sequence graph. One step of it takes microseconds
            on a CPU, less than a copy to an accelerator, so that is where it runs.
        precision: The variant of the frame graph.
        precision_reason: Why that variant.
        reason: Why something better did not run; None where nothing was missed.
        face_actual: The provider of the face detector; None where the bundle has none.
        device: The device that was asked for, as in `ProviderOptions`; None for the default.
        elsewhere: Operator and provider of the frame graph's nodes that `actual` left to another:
            only ones that look at shapes, move values or change their type.
    """

    requested: str
    actual: str
    sequence_actual: str
    precision: str
    precision_reason: str = "as asked"
    reason: str | None = None
    face_actual: str | None = "cpu"
    device: str | None = None
    elsewhere: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return self.reason is None

    def __str__(self) -> str:
        device = "" if self.device is None else f" {self.device}"
        runs = f"{self.actual}{device} ({self.precision})"
        if self.elsewhere:
            nodes = ", ".join(
                sorted({f"{operator} on {where}" for operator, where in self.elsewhere})
            )
            runs += f" but for {nodes}"
        if (small := self._small_models()) is not None:
            runs += f", {small}"
        return f"{runs}: {self.reason}" if self.reason else runs

    def _small_models(self) -> str | None:
        """Returns where the small models run, if not all on the frame graph's provider."""
        places = {"sequence model": self.sequence_actual, "face detector": self.face_actual}
        apart = {name: place for name, place in places.items() if place not in (None, self.actual)}
        if len(apart) == len(places) and len({*apart.values()}) == 1:
            return f"sequence model and face detector on {self.sequence_actual}"
        return ", ".join(f"{name} on {place}" for name, place in apart.items()) or None


@dataclass(frozen=True, slots=True)
class ProviderProbe:
    """Result of running a graph on a provider of the installed onnxruntime."""

    provider: str
    works: bool
    detail: str


T = TypeVar("T")

_AUTO_ORDER = (Provider.CUDA, Provider.CPU)
"""Providers that `auto` tries; the others run only by name: TensorRT builds engines for minutes."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A graph on a provider.

    Attributes:
        session: An `onnxruntime.InferenceSession`, read back to run there.
        placement: Where its nodes run; None where onnxruntime does not report it.
    """

    session: Any
    placement: Placement | None


def open_session(graph: bytes, provider: Provider, *, threads: int, name: str) -> Any:  # noqa: ANN401
    """Opens a graph on exactly one provider, as `open_graph` does; returns the session alone."""
    return open_graph(graph, provider, threads=threads, name=name).session


def open_graph(
    graph: bytes,
    provider: Provider,
    *,
    threads: int,
    name: str,
    options: ProviderOptions = NO_OPTIONS,
    frame: FrameHints | None = None,
) -> Opened:
    """Opens a graph on exactly one provider.

    Threads inside an operator do not spin while they wait: the processor's time belongs to the
    other stages.

    Args:
        graph: The ONNX file's bytes.
        provider: Any but `AUTO`.
        threads: Threads inside an operator.
        name: The file, for messages.
        options: What was asked of the provider.
        frame: Given for the frame graph, for providers that compile.

    Raises:
        ProviderError: The provider cannot run here, or leaves nodes that compute to another;
            cause and mend are in the message.
        BundleError: onnxruntime refuses the graph itself.
    """
    ort = load_onnxruntime()
    if BUILDS[provider].name not in ort.get_available_providers():
        raise ProviderError(not_built_in(provider))
    if (fault := find_fault(provider)) is not None:
        raise ProviderError(fault)
    settings = settings_of(provider, options, threads=threads, frame=frame)
    session_options = _session_options(ort, provider, settings, threads)
    try:
        # onnxruntime's own fall-back prints to standard output and hides the cause.
        session = ort.InferenceSession(
            graph, session_options, providers=list(settings.providers), enable_fallback=0
        )
    except Exception as error:  # onnxruntime raises types of its own and bare RuntimeError
        reason = reason_of(error)
        if provider is Provider.CPU:
            raise BundleError(
                f"{name}: onnxruntime {ort.__version__} refuses the graph ({reason}): export the "
                "bundle again, or upgrade onnxruntime"
            ) from error
        raise ProviderError(_refusal(provider, reason, options)) from error
    if session.get_providers()[0] != BUILDS[provider].name:
        raise ProviderError(_refusal(provider, "onnxruntime left it out", options))
    return Opened(session, check_placement(session, provider, name))


def open_best(
    requested: Provider, open_on: Callable[[Provider], T]
) -> tuple[T, Provider, str | None]:
    """Opens a graph on the provider asked for, or for `AUTO` on the best that runs.

    Args:
        requested: The provider asked for.
        open_on: Opens it on one provider, with `open_graph`.

    Returns:
        What `open_on` returned, the provider, and, where `AUTO` had to leave out one that
        onnxruntime was built with, why.

    Raises:
        ProviderError: A named provider cannot run: there is no falling back from it.
        BundleError: onnxruntime refuses the graph itself.
    """
    if requested is not Provider.AUTO:
        return open_on(requested), requested, None
    available = load_onnxruntime().get_available_providers()
    reason = None
    for provider in _AUTO_ORDER:
        if BUILDS[provider].name not in available:
            continue
        try:
            opened = open_on(provider)
        except ProviderError as error:
            reason = reason or str(error)
            continue
        return opened, provider, reason
    raise ProviderError(reason or "the installed onnxruntime has no CPU provider: reinstall it")


def probe_providers(graph: Path, *, threads: int = 1) -> list[ProviderProbe]:
    """Opens and runs a graph on each provider of the installed onnxruntime.

    Args:
        graph: A small ONNX file with one input whose axes, but for named ones, are fixed.
        threads: Threads inside an operator.

    Raises:
        ProviderError: There is no usable onnxruntime.
    """
    available = load_onnxruntime().get_available_providers()
    data = graph.read_bytes()
    probes = []
    for provider, build in BUILDS.items():
        if build.name not in available:
            continue
        try:
            session = open_session(data, provider, threads=threads, name=graph.name)
            session.run(None, _zeros(session))
        except (ProviderError, BundleError) as error:
            probes.append(ProviderProbe(provider.value, False, str(error)))
        except Exception as error:  # the run itself: a library or device that fails only now
            probes.append(ProviderProbe(provider.value, False, reason_of(error)))
        else:
            probes.append(ProviderProbe(provider.value, True, "runs"))
    return probes


def _session_options(ort: Any, provider: Provider, settings: Settings, threads: int) -> Any:  # noqa: ANN401
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = settings.memory_pattern
    options.log_severity_level = 3 if provider is Provider.CPU else 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By itself onnxruntime takes bytes with the mark of its own format for that, whatever else
    # they can be read as: a file could be checked as one model and run as another.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    ask_for_placement(ort, options, provider)
    return options


def _refusal(provider: Provider, reason: str, options: ProviderOptions) -> str:
    """Returns why onnxruntime did not open a graph on a provider, with the mend that fits."""
    if refused_for_a_node(reason):
        return (
            f"provider {provider} cannot run: it leaves nodes of the graph to the CPU: upgrade "
            "onnxruntime to 1.24 or newer, which can tell which, or use --provider auto"
        )
    if options.cuda_graphs and "graph capture" in reason:
        return (
            f"provider {provider} cannot run with --cuda-graphs: {reason}: leave --cuda-graphs out"
        )
    if options.device is not None:
        return (
            f"provider {provider} cannot run on --device {options.device}: {reason}: leave "
            "--device out, or use --provider auto"
        )
    return not_loading(provider, reason)


def _zeros(session: Any) -> dict[str, Any]:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - keeps the module light for those who only read reports

    dtypes = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32}
    return {
        value.name: np.zeros(
            [axis if isinstance(axis, int) else 1 for axis in value.shape],
            dtypes.get(value.type, np.float32),
        )
        for value in session.get_inputs()
    }
