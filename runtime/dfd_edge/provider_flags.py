"""The options of `dfd-edge` that say what the models run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dfd_edge.inference.names import PRECISION_CHOICES, PROVIDER_CHOICES, parse_provider
from dfd_edge.inference.threads import MAX_THREADS

if TYPE_CHECKING:
    from dfd_edge.inference.provider_options import ProviderOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FLAGS = (
    click.option(
        "--provider",
        type=click.Choice(PROVIDER_CHOICES),
        default="auto",
        show_default=True,
        help="What the frame model runs on. A named one never falls back.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISION_CHOICES),
        default="auto",
        show_default=True,
        help="Variant of the frame model; auto takes the one that suits provider and processor.",
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
        help="Device memory that cuda or tensorrt may take for its work.",
    ),
    click.option(
        "--cuda-graphs/--no-cuda-graphs",
        default=False,
        help="Launch the frame model's CUDA kernels together; off by default.",
    ),
    click.option(
        "--engine-cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Where tensorrt and openvino keep what they compiled; by default in your cache.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1, max=MAX_THREADS),
        default=1,
        show_default=True,
        metavar="N",
        help="Threads that each library may use; the stages overlap anyway.",
    ),
)
_TAKEN = ("device", "gpu_memory_limit_mb", "cuda_graphs", "engine_cache")


def provider_flags(command: _Command) -> _Command:
    """Adds the options to a command, in the order of its help."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def take_provider_flags(values: dict[str, Any]) -> ProviderOptions:
    """Takes what was asked of the provider out of a command's arguments.

    The provider itself, the precision and the threads stay.

    Raises:
        UsageError: The provider does not know an option, or one is out of range.
    """
    from dfd_edge.inference.provider_options import ProviderOptions  # noqa: PLC0415

    options = ProviderOptions(**{name: values.pop(name) for name in _TAKEN})
    options.check(parse_provider(values["provider"]))
    return options
