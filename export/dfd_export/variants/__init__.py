"""Variants of the frame graph: other precisions, each with what it changes against fp32."""

from dfd_export.variants.measure import VariantRefused, describe_changes
from dfd_export.variants.samples import Sample, read_samples
from dfd_export.variants.writer import VariantOptions, add_variants

__all__ = [
    "Sample",
    "VariantOptions",
    "VariantRefused",
    "add_variants",
    "describe_changes",
    "read_samples",
]
