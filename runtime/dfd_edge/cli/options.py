"""Groups of options of `dfd-edge`: how sources are opened, and what the models run on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import PRECISION_CHOICES, PROVIDER_CHOICES, parse_provider
from dfd_edge.inference.threads import MAX_THREADS

if TYPE_CHECKING:
    from dfd_edge.inference.provider_options import ProviderOptions
    from dfd_edge.provenance.trust import TrustList
    from dfd_edge.sources import SourceItem, SourceOptions


_Command = TypeVar("_Command", bound=Callable[..., Any])

_SOURCE_FLAGS = (
    click.option(
        "--camera-size", metavar="WxH", help="Ask cameras for pictures of this size: 1280x720."
    ),
    click.option("--camera-fps", type=float, metavar="N", help="Ask cameras for this rate: 30."),
    click.option(
        "--camera-format", metavar="FOUR", help="Ask cameras for this pixel format: MJPG, YUYV."
    ),
    click.option(
        "--rtsp-transport",
        type=click.Choice(["tcp", "udp"]),
        default="tcp",
        show_default=True,
        help="Transport of RTSP; udp loses packets where tcp waits.",
    ),
    click.option(
        "--raw",
        metavar="WxH:PIXELS@FPS",
        help="Standard input is raw frames: 1280x720:bgr24@30 (or rgb24, gray, yuv420p, nv12).",
    ),
    click.option(
        "--stream",
        type=click.IntRange(min=0),
        metavar="N",
        help="Judge stream N of files with several films, numbered as in ffprobe; by default the "
        "one that players show.",
    ),
    click.option(
        "--decoder",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="Decoder of films: the CPU, or an NVIDIA device; auto falls back and says why, cuda "
        "never.",
    ),
    click.option(
        "--reconnect",
        "reconnect_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Live sources: give up a source that is lost for this long; 0 never reopens it. By "
        "default it is retried for ever.",
    ),
    click.option(
        "--max-pixels",
        type=int,
        metavar="N",
        help="Refuse larger pictures and frames before they are decoded; by default 67108864 for "
        "a still, 33554432 for a film.",
    ),
    click.option(
        "--sandbox/--no-sandbox",
        default=None,
        help="Decode in a child process with limits on memory, time, files and network; by default "
        "for addresses only.",
    ),
    click.option(
        "--sandbox-memory",
        "sandbox_memory_mb",
        type=click.IntRange(min=256),
        default=2048,
        show_default=True,
        metavar="MB",
        help="Memory that a sandbox may allocate.",
    ),
)
_PROVIDER_FLAGS = (
    click.option(
        "--provider",
        type=click.Choice(PROVIDER_CHOICES),
        default="auto",
        show_default=True,
        help="Provider that runs the frame model. A named one never falls back.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISION_CHOICES),
        default="auto",
        show_default=True,
        help="Variant of the frame model; auto chooses by provider and processor.",
    ),
    click.option(
        "--device",
        metavar="N",
        help="Device of the named provider: its number, or for openvino CPU, GPU or NPU.",
    ),
    click.option(
        "--gpu-memory-limit",
        "gpu_memory_limit_mb",
        type=click.IntRange(min=1),
        metavar="MB",
        help="Device memory that cuda or tensorrt may use.",
    ),
    click.option(
        "--cuda-graphs/--no-cuda-graphs",
        default=False,
        help="Launch the frame model's CUDA kernels as one graph; off by default.",
    ),
    click.option(
        "--engine-cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Folder for what tensorrt and openvino compile; by default in your cache.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1, max=MAX_THREADS),
        default=1,
        show_default=True,
        metavar="N",
        help="Threads that each library may use; the stages overlap in any case.",
    ),
)
_PROVENANCE_FLAGS = (
    click.option(
        "--provenance",
        is_flag=True,
        help="Report beside each verdict what the file says of its own origin: Content "
        "Credentials (C2PA) and metadata. Scores and labels do not depend on it.",
    ),
    click.option(
        "--trust-list",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="With --provenance: certificates (PEM) that are trusted, in place of the list of "
        "C2PA that is shipped.",
    ),
)
_PROVIDER_OPTIONS = ("device", "gpu_memory_limit_mb", "cuda_graphs", "engine_cache")


def source_flags(command: _Command) -> _Command:
    """Adds the options to a command, in the order of its help."""
    for flag in reversed(_SOURCE_FLAGS):
        command = flag(command)
    return command


def take_source_flags(values: dict[str, Any], *, device: int = 0) -> SourceOptions:
    """Removes the values of these options from the arguments of a command.

    Args:
        values: The arguments.
        device: Number of the NVIDIA device that was named, for decoding on it.

    Raises:
        UsageError: A value is malformed or out of range.
    """
    from dfd_edge.sources import CameraOptions, RawFormat, SourceOptions

    size, raw = values.pop("camera_size"), values.pop("raw")
    width, height = (None, None) if size is None else CameraOptions.size(size)
    camera = CameraOptions(
        width=width,
        height=height,
        fps=values.pop("camera_fps"),
        pixel_format=values.pop("camera_format"),
    )
    return SourceOptions(
        camera=camera,
        rtsp_transport=values.pop("rtsp_transport"),
        raw=None if raw is None else RawFormat.parse(raw),
        reconnect_s=values.pop("reconnect_s"),
        max_pixels=values.pop("max_pixels"),
        stream=values.pop("stream"),
        sandbox=values.pop("sandbox"),
        sandbox_memory_mb=values.pop("sandbox_memory_mb"),
        decoder=values.pop("decoder"),
        decoder_device=device,
    )


def check_source_flags(options: SourceOptions, items: Iterable[SourceItem]) -> None:
    """Refuses options that apply to none of the sources.

    Raises:
        UsageError: There is such an option.
    """
    from dfd_edge.sources import CameraOptions, SourceKind

    kinds = {item.kind for item in items}
    with_streams = {SourceKind.VIDEO, SourceKind.ADDRESS, SourceKind.STANDARD_INPUT}
    if options.raw is not None and SourceKind.STANDARD_INPUT not in kinds:
        raise UsageError(
            f"--raw is for frames on standard input: run `dfd-edge - --raw {options.raw}`"
        )
    if options.camera != CameraOptions() and SourceKind.CAMERA not in kinds:
        raise UsageError("--camera-size, -fps and -format are for cameras: give --webcam too")
    if options.stream is not None and not kinds & with_streams:
        raise UsageError(f"--stream {options.stream} is for video files and addresses: give one")
    if options.decoder != "cpu" and (options.raw is not None or not kinds & with_streams):
        raise UsageError(
            f"--decoder {options.decoder} is for video files and addresses: give one, or leave it "
            "out"
        )


def provenance_flags(command: _Command) -> _Command:
    """Adds the options to a command, in the order of its help."""
    for flag in reversed(_PROVENANCE_FLAGS):
        command = flag(command)
    return command


def check_provenance_flags(*, provenance: bool, trust_list: Path | None) -> TrustList | None:
    """Refuses a list without what it is for, a missing extra, and a list that cannot be read.

    Returns:
        The certificates that are trusted; None without `--provenance`.

    Raises:
        UsageError: It is refused.
    """
    if provenance:
        from dfd_edge.provenance.beside import open_trust_list

        return open_trust_list(trust_list)
    if trust_list is not None:
        raise UsageError(
            f"--trust-list {trust_list} is for --provenance: give that too, or leave it out"
        )
    return None


def provider_flags(command: _Command) -> _Command:
    """Adds the options to a command, in the order of its help."""
    for flag in reversed(_PROVIDER_FLAGS):
        command = flag(command)
    return command


def take_provider_flags(values: dict[str, Any]) -> ProviderOptions:
    """Removes the options of the provider from the arguments of a command.

    The provider itself, the precision and the threads stay.

    Raises:
        UsageError: The provider does not know an option, or one is out of range.
    """
    from dfd_edge.inference.provider_options import ProviderOptions

    options = ProviderOptions(**{name: values.pop(name) for name in _PROVIDER_OPTIONS})
    options.check(parse_provider(values["provider"]))
    return options
