"""Choice of the frame graph's variant, and of the file that is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dfd_edge.arguments import check_one_of
from dfd_edge.bundle.manifest import VariantSpec
from dfd_edge.errors import UsageError
from dfd_edge.inference.names import PRECISION_CHOICES, Provider
from dfd_edge.inference.processor import int8_instructions

_HALF = (Provider.CUDA, Provider.TENSORRT)
"""Providers that compute in half precision faster than in single."""

_BYTES = (Provider.CPU, Provider.OPENVINO)
"""Providers that compute in int8, as far as the processor has instructions for it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant, and why it was chosen.

    Attributes:
        precision: Its name in the bundle.
        reason: In words, for reports.
    """

    precision: str
    reason: str


def choose_variant(
    variants: Mapping[str, VariantSpec], requested: str, provider: Provider
) -> Choice:
    """Picks the variant of the frame graph for a provider.

    Args:
        variants: What the bundle carries, by precision.
        requested: "auto" or one of `PRECISIONS`. `auto` takes int8 where provider and processor
            have instructions for it, fp16 on accelerators, and fp32 otherwise and wherever the
            bundle lacks the other.
        provider: What the graph will run on; not `AUTO`.

    Raises:
        UsageError: The precision is unknown, or the bundle lacks it.
    """
    check_one_of("precision", requested, PRECISION_CHOICES)
    if requested == "auto":
        return _suited(variants, provider)
    if requested not in variants:
        raise UsageError(
            f"precision {requested!r} is not in the bundle; it has {', '.join(variants)}"
        )
    return Choice(requested, "as asked")


def _suited(variants: Mapping[str, VariantSpec], provider: Provider) -> Choice:
    if provider in _HALF:
        if "fp16" in variants:
            return Choice("fp16", f"{provider} computes it faster than fp32")
        return Choice("fp32", "the bundle has no fp16")
    if provider not in _BYTES:
        return Choice("fp32", f"no other was tried on {provider}")
    instructions = int8_instructions()
    if (fault := _int8_fault(variants, instructions)) is not None:
        return Choice("fp32", fault)
    return Choice("int8", f"this processor has {instructions}")


def _int8_fault(variants: Mapping[str, VariantSpec], instructions: str | None) -> str | None:
    """Returns why int8 would not pay; None where it does."""
    if "int8" not in variants:
        return "the bundle has no int8"
    if instructions is None:
        return "this processor has no instructions for int8"
    changes = variants["int8"].changes
    if changes is not None and changes.speedup.value <= 1:
        return f"int8 was no faster where it was made ({changes.processor})"
    return None


def graph_file(variant: VariantSpec, provider: Provider, onnxruntime: str) -> str:
    """Returns the file of a variant to read: the one that loads faster, where it is usable.

    Args:
        variant: The variant.
        provider: What it will run on.
        onnxruntime: The installed version: an optimised graph is for the release that wrote it.
    """
    optimized = variant.optimized
    if optimized is None or provider is not Provider.CPU:
        return variant.file
    same = onnxruntime.split(".")[:2] == optimized.onnxruntime.split(".")[:2]
    return optimized.file if same else variant.file
