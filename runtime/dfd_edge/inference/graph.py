"""An open graph of a bundle, on an accelerator in batches of few fixed sizes.

An accelerator chooses its kernels, plans its memory and records its CUDA graphs for one shape. So a
batch is filled up to the next of a few sizes, each of which was run once beforehand, and the
outputs of the filling are cut off. On NVIDIA devices the buffers of each size stay on the device
(IO binding): crops go up as bytes, and only the outputs come back.
"""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import BundleError, DfdError, ProviderError, is_out_of_memory
from dfd_edge.inference.installation import load_onnxruntime, reason_of
from dfd_edge.inference.names import Provider

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE: for every context of the process
_DONE = 0  # CUDA_SUCCESS

#: Arrays that could not be taken back from the driver: their memory must not be used again.
_stuck: list[NDArray[np.uint8]] = []


def pin(array: NDArray[np.uint8], owner: object) -> bool:
    """Registers an array's memory with the driver for as long as its owner lives.

    A copy from ordinary memory goes through a buffer of the driver's; registered memory is read in
    place. onnxruntime offers none in Python, so this asks the driver itself. It is a matter of
    speed only: where it fails, copies work as before.

    Args:
        array: One that is never replaced; a copy from any part of it is quicker afterwards.
        owner: When it is collected, the memory is given back.

    Returns:
        Whether it was registered: False without a driver, or where this thread has not run
        anything on a device yet.
    """
    driver = _driver()
    if driver is None:
        return False
    address = ctypes.c_void_p(array.ctypes.data)
    if driver.cuMemHostRegister_v2(address, ctypes.c_size_t(array.nbytes), _PORTABLE) != _DONE:
        return False
    # At the end of the process the driver may be gone already, and it frees everything anyway.
    weakref.finalize(owner, _unpin, driver, array).atexit = False
    return True


def _unpin(driver: Any, array: NDArray[np.uint8]) -> None:  # noqa: ANN401
    if driver.cuMemHostUnregister(ctypes.c_void_p(array.ctypes.data)) != _DONE:
        _stuck.append(array)


def _driver() -> Any:  # noqa: ANN401 - ctypes makes its functions as they are asked for
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


logger = logging.getLogger(__name__)

Run = Callable[[NDArray[np.uint8]], list[Any]]
Shape = tuple[int, ...]


def bucket_of(count: int, buckets: tuple[int, ...]) -> int:
    """Returns the smallest bucket that holds so many crops.

    Args:
        count: 1 to the largest bucket.
        buckets: Batch sizes, rising.

    Raises:
        ValueError: It is not in that range.
    """
    if not 1 <= count <= buckets[-1]:
        raise ValueError(f"{count} crops; the buckets hold 1 to {buckets[-1]}")
    return next(bucket for bucket in buckets if bucket >= count)


class BucketedGraph:
    """Runs a frame graph in batches of fixed sizes.

    Safe to call from several threads: one call runs at a time, since there is one set of buffers
    and one device, which would run two calls one after the other anyway. With CUDA graphs every
    call runs in one thread of this object's own: onnxruntime records them for each thread.

    Args:
        session: The open graph. Its one input is `image`, uint8 [batch, *image].
        buckets: Batch sizes, rising.
        image: Shape of one crop.
        outputs: Shapes of the float32 outputs for one crop, by name, in the graph's order.
        memory: Where the buffers lie, in onnxruntime's words: "cuda" or "cpu"; None leaves them
            to onnxruntime, for providers without IO binding in Python.
        device: Number of the device.
        cuda_graphs: Record each size's kernels and launch them together.

    Attributes:
        buckets: The batch sizes that ran. A larger one that does not fit into the device's
            memory is left out, and logged.
        pinned: Whether the device reads the crops directly from this object's memory.

    Raises:
        Exception: What onnxruntime raises when it cannot run the smallest size.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - onnxruntime has no types
        *,
        buckets: tuple[int, ...],
        image: Shape,
        outputs: Mapping[str, Shape],
        memory: str | None = None,
        device: int = 0,
        cuda_graphs: bool = False,
    ) -> None:
        self.buckets: tuple[int, ...] = ()
        self.pinned = False
        self._session = session
        self._outputs = dict(outputs)
        self._lock = threading.Lock()
        self._crops = np.zeros((buckets[-1], *image), np.uint8)
        self._runs: dict[int, Run] = {}
        self._memory = memory
        self._device = device
        self._cuda_graphs = cuda_graphs
        self._worker = _one_thread() if cuda_graphs else None
        self._in_worker(self._warm_up, buckets)

    def run(self, crops: NDArray[np.uint8]) -> list[Any]:
        """Runs the graph.

        Args:
            crops: uint8 [n, *image], n from 1 to the largest bucket.

        Returns:
            The outputs in order, float32 [n, ...] each, in memory of their own.
        """
        with self._lock:
            outputs: list[Any] = self._in_worker(self._run, crops)
        return outputs

    def _in_worker(self, call: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
        if self._worker is None:
            return call(*arguments)
        return self._worker.submit(call, *arguments).result()

    def _run(self, crops: NDArray[np.uint8]) -> list[Any]:
        count = len(crops)
        bucket = bucket_of(count, self.buckets)
        batch = self._crops[:bucket]
        batch[:count] = crops  # the rest keeps crops of earlier calls, whose outputs are cut off
        return [np.array(output[:count]) for output in self._runs[bucket](batch)]

    def _warm_up(self, buckets: tuple[int, ...]) -> None:
        for bucket in buckets:
            batch = self._crops[:bucket]
            try:
                run = self._runs[bucket] = self._prepare(batch)
                run(batch)
            except Exception as error:  # onnxruntime raises types of its own
                self._runs.pop(bucket, None)
                if not self.buckets:
                    raise
                logger.warning(
                    "batches hold %d crops at most: %d do not run (%s)",
                    self.buckets[-1],
                    bucket,
                    reason_of(error),
                )
                return
            self.buckets += (bucket,)
            if self._memory == "cuda" and not self.pinned:
                self.pinned = pin(self._crops, self)

    def _prepare(self, batch: NDArray[np.uint8]) -> Run:
        if self._memory is None:
            names = list(self._outputs)
            return lambda crops: list(self._session.run(names, {"image": crops}))
        return self._bind(batch)

    def _bind(self, batch: NDArray[np.uint8]) -> Run:
        """Binds buffers for one batch size."""
        ort = load_onnxruntime()
        make = ort.OrtValue.ortvalue_from_shape_and_type
        place = self._memory, self._device
        image = make(list(batch.shape), np.uint8, *place)
        outputs = {
            name: make([len(batch), *shape], np.float32, *place)
            for name, shape in self._outputs.items()
        }
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", image)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        options = ort.RunOptions()
        if self._cuda_graphs:
            options.add_run_config_entry("gpu_graph_id", str(len(batch)))

        def run(crops: NDArray[np.uint8]) -> list[Any]:
            image.update_inplace(crops)
            self._session.run_with_iobinding(binding, options)
            return [value.numpy() for value in outputs.values()]

        return run


def _one_thread() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - for CUDA graphs alone

    return ThreadPoolExecutor(1, "dfd-edge CUDA graphs")


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
        """Returns the error for the user, in one line, for one of onnxruntime's."""
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


def all_finite(*arrays: NDArray[np.float32]) -> bool:
    """Returns whether all numbers are finite, by the sum of squares unless that overflows.

    `np.vdot` alone: `np.dot` looks at the processor's floating-point flags, so it warns or raises
    on an overflow, as the application has set it with `np.seterr`.
    """
    flat = [array.reshape(-1) for array in arrays]
    return all(math.isfinite(np.vdot(f, f)) or bool(np.isfinite(f).all()) for f in flat)


def finite_rows(*arrays: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns which rows are finite in all of these arrays: bool, one for each row."""
    finite = np.ones(len(arrays[0]), np.bool_)
    for array in arrays:
        if not all_finite(array):
            finite &= np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return finite
