"""An open graph of a bundle, and what its failures mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import BundleError, DfdError, ProviderError, is_out_of_memory
from dfd_edge.providers.batching import BucketedGraph
from dfd_edge.providers.faults import reason_of
from dfd_edge.providers.names import Provider
from dfd_edge.providers.wheels import load_onnxruntime


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """An open graph, its file and what it runs on.

    Attributes:
        opened: An `onnxruntime.InferenceSession`.
        file: Where it comes from.
        provider: What it runs on.
        bucketed: Runs it in batches of fixed sizes; None where any size is as good.
    """

    opened: Any
    file: str
    provider: Provider
    bucketed: BucketedGraph | None = None

    def run(self, inputs: dict[str, Any], outputs: dict[str, tuple[int, ...]]) -> list[Any]:
        """Runs it.

        Args:
            inputs: By name.
            outputs: The shapes that they must have, by name.

        Raises:
            BundleError: The graph fails, or gives other shapes than it declares.
            MemoryError: There is not enough memory.
            ProviderError: It fails on an accelerator, whose own fault it may be.
        """
        arrays: list[Any]
        try:
            if self.bucketed is not None:
                arrays = self.bucketed.run(inputs["image"])
            else:
                arrays = self.opened.run(list(outputs), inputs)
        except MemoryError:
            raise
        except Exception as error:  # onnxruntime raises types of its own and bare RuntimeError
            if self.provider is Provider.CPU and is_out_of_memory(error):
                raise MemoryError(reason_of(error)) from error
            raise self.failure(error) from error
        if [array.shape for array in arrays] != [*outputs.values()]:
            raise self._mismatch(arrays, outputs)
        return arrays

    def failure(self, error: Exception) -> DfdError:
        """What an error of onnxruntime's means for the user, in one line."""
        reason = reason_of(error)
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

    def _mismatch(self, arrays: list[Any], outputs: dict[str, tuple[int, ...]]) -> BundleError:
        found = ", ".join(
            f"{name} {list(array.shape)}, but its contract makes it {list(shape)}"
            for (name, shape), array in zip(outputs.items(), arrays, strict=True)
            if array.shape != shape
        )
        return BundleError(f"{self.file}: gave {found}: export the bundle again")


def is_finite(array: NDArray[np.float32]) -> bool:
    """Tells whether all numbers are finite, by the sum of squares where that does not overflow.

    `np.vdot` alone: `np.dot` looks at the processor's floating-point flags, so it warns or raises
    on an overflow, as the application has set it with `np.seterr`.
    """
    flat = array.reshape(-1)
    return math.isfinite(np.vdot(flat, flat)) or bool(np.isfinite(flat).all())
