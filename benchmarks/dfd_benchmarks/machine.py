"""The machine that a figure was taken on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.processor import processor_name
from dfd_edge.version import version_of

_LIBRARIES = ("dfd-edge", "onnxruntime", "onnxruntime-gpu", "opencv-python", "av", "numpy")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
#: More load than this at the start, in busy cores, and figures are not to be trusted.
_BUSY_LOAD = 0.5


@dataclass(frozen=True, slots=True)
class Machine:
    """A description that goes with every figure.

    Attributes:
        processor: Model of the processor.
        cores: Cores that this process may use: affinity and the container's limit counted.
        system: Operating system and architecture.
        python: Version of Python.
        versions: Versions of the libraries that matter, those installed.
        load: Cores that were busy over the last minute before the run, or None.
    """

    processor: str
    cores: float
    system: str
    python: str
    versions: dict[str, str]
    load: float | None

    @property
    def warning(self) -> str | None:
        """Why figures taken now are doubtful, or None."""
        if self.load is None or self.load < _BUSY_LOAD:
            return None
        return (
            f"other work kept {self.load:.1f} of {self.cores:g} cores busy over the last minute: "
            "figures taken now are too slow"
        )


def describe_machine() -> Machine:
    """Describe the machine that this process runs on."""
    versions = {name: version for name in _LIBRARIES if (version := version_of(name))}
    return Machine(
        processor=processor_name(),
        cores=usable_cores(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def usable_cores() -> float:
    """Cores that this process may use; a fraction where a container's quota is one."""
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    else:
        cores = float(os.cpu_count() or 1)
    if _CGROUP_LIMIT.is_file():
        quota, _, period = _CGROUP_LIMIT.read_text().partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            cores = min(cores, int(quota) / int(period))
    return cores
