"""The processor: its name, usable cores and instructions for int8."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
#: Instructions that onnxruntime's int8 kernels use, best first, by the names of /proc/cpuinfo.
#: Without one of them int8 costs more than fp32.
_INT8_FLAGS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512bw": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "I8MM",
    "asimddp": "dot product",
}
#: Arguments of Windows' `IsProcessorFeaturePresent`.
_WINDOWS_FEATURES = {40: "AVX2", 43: "dot product"}


def usable_cores() -> float:
    """Returns the cores that this process may use; a fraction under a container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    else:
        cores = float(os.cpu_count() or 1)
    if _CGROUP_LIMIT.is_file():
        quota, _, period = _CGROUP_LIMIT.read_text().partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            cores = min(cores, int(quota) / int(period))
    return cores


@cache
def processor_name() -> str:
    """Returns the processor's model, as the system names it."""
    fields = _cpuinfo()
    return (
        fields.get("model name")
        or fields.get("Model")
        or platform.processor()
        or platform.machine()
    )


@cache
def int8_instructions() -> str | None:
    """Returns the best instructions for int8 that this processor has; None without any."""
    if sys.platform == "darwin":
        # Every Apple processor with this architecture has them; older Macs have AVX2.
        return "dot product" if platform.machine() == "arm64" else "AVX2"
    if sys.platform == "win32":
        present = _windows_kernel().IsProcessorFeaturePresent
        return next((name for code, name in _WINDOWS_FEATURES.items() if present(code)), None)
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return next((name for flag, name in _INT8_FLAGS.items() if flag in flags), None)


def _cpuinfo() -> dict[str, str]:
    """Returns the first entry of each field of /proc/cpuinfo; empty except on Linux."""
    fields: dict[str, str] = {}
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    return fields


def _windows_kernel() -> Any:  # noqa: ANN401 - exists on Windows only
    return ctypes.windll.kernel32  # type: ignore[attr-defined]
