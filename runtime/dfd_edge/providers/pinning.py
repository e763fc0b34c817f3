"""Host memory that an NVIDIA device reads directly.

A copy from ordinary memory goes through a buffer of the driver's; memory that is registered with
it is read in place. onnxruntime offers no such memory in Python, so the driver is asked itself.
It is a matter of speed only: where it fails, copies work as before.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE: for every context of the process
_DONE = 0  # CUDA_SUCCESS

#: Arrays that could not be taken back from the driver: their memory must not be used again.
_stuck: list[NDArray[np.uint8]] = []


def pin(array: NDArray[np.uint8], owner: object) -> bool:
    """Registers an array's memory with the driver for as long as its owner lives.

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
