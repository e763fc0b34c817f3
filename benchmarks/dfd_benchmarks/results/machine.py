"""The machine that a figure was taken on, how busy it is, and what this process holds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfd_benchmarks.results.nvidia import Gpu, describe_gpus
from dfd_edge.errors import ProviderError, UsageError
from dfd_edge.inference.installation import installed_wheels, load_onnxruntime
from dfd_edge.inference.processor import processor_name, usable_cores
from dfd_edge.version import version_of

_LIBRARIES = ("dfd-edge", "opencv-python", "av", "numpy")
_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
#: Instructions that the kernels of the runtime choose by, by the names of /proc/cpuinfo.
_INSTRUCTIONS = (
    ("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni")
    + ("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")
    + ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")
)
#: More load than this at the start, in busy cores, and figures are not to be trusted.
_BUSY_LOAD = 0.5


@dataclass(frozen=True, slots=True)
class Machine:
    """A description that goes with every figure.

    Attributes:
        processor: Model of the processor.
        instructions: Extensions that the runtime uses, by the names of /proc/cpuinfo; none where
            the system does not tell them so.
        cores: Cores that this process may use: affinity and the container's limit counted.
        logical_cores: Processors that the system shows.
        physical_cores: Cores behind them, or None where the system does not say.
        memory_mb: Memory of the machine in megabytes, or None.
        governor: The policy of the processor's clock, as in "performance", or None.
        system: Operating system and architecture.
        python: Version of Python.
        versions: Versions of the libraries that matter, those installed; onnxruntime's wheel among
            them under its own name.
        providers: Providers of that wheel, in onnxruntime's names; not all may run.
        gpus: The GPUs that nvidia-smi lists.
        load: Cores that were busy over the last minute before the run, or None.
    """

    processor: str
    instructions: tuple[str, ...]
    cores: float
    logical_cores: int
    physical_cores: int | None
    memory_mb: float | None
    governor: str | None
    system: str
    python: str
    versions: dict[str, str]
    providers: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    load: float | None

    @property
    def warning(self) -> str | None:
        """Reason why figures taken now are doubtful, or None."""
        if self.load is None or self.load < _BUSY_LOAD:
            return None
        return (
            f"other work kept {self.load:.1f} of {self.cores:g} cores busy over the last minute: "
            "figures taken now are too slow"
        )


def describe_machine() -> Machine:
    """Describes the machine that this process runs on."""
    versions = {name: version for name in _LIBRARIES if (version := version_of(name))}
    cpuinfo = _CPUINFO.read_text(errors="replace") if _CPUINFO.is_file() else ""
    return Machine(
        processor=processor_name(),
        instructions=instructions_of(cpuinfo),
        cores=usable_cores(),
        logical_cores=os.cpu_count() or 1,
        physical_cores=physical_cores_of(cpuinfo),
        memory_mb=_memory_mb(),
        governor=_GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions | installed_wheels(),
        providers=_providers(),
        gpus=describe_gpus(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def instructions_of(cpuinfo: str) -> tuple[str, ...]:
    """The instructions that matter to the runtime, in the text of /proc/cpuinfo."""
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            flags.update(value.split())
    return tuple(name for name in _INSTRUCTIONS if name in flags)


def physical_cores_of(cpuinfo: str) -> int | None:
    """The cores behind the processors in the text of /proc/cpuinfo; None where it does not say."""
    cores: set[tuple[str, str]] = set()
    package = "0"
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "physical id":
            package = value.strip()
        elif key.strip() == "core id":
            cores.add((package, value.strip()))
    return len(cores) or None


def _memory_mb() -> float | None:
    if not _MEMINFO.is_file():
        return None
    for line in _MEMINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024 / 1e6
    return None


def _providers() -> tuple[str, ...]:
    try:
        return tuple(load_onnxruntime().get_available_providers())
    except ProviderError:
        return ()


_STAT = Path("/proc/stat")
_STATM = Path("/proc/self/statm")
_THREADS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")
#: Fields of /proc/stat's first line that are no work: idle and waiting for input or output.
_IDLE_FIELDS = (3, 4)


class BusyCores:
    """Cores kept busy since it was made: by this process with its children, and by all.

    Args:
        other_s: Returns the CPU seconds of children that are not part of what is measured, such as
            those that send streams.
    """

    def __init__(self, other_s: Callable[[], float] = lambda: 0.0) -> None:
        self._other_s = other_s
        self._start_s = time.monotonic()
        self._own_s = tree_cpu_s() - other_s()
        self._all_s = _machine_cpu_s()

    def own(self) -> float:
        """Returns the cores that this process and its children kept busy."""
        own_s = tree_cpu_s() - self._other_s() - self._own_s
        return max(0.0, own_s) / (time.monotonic() - self._start_s)

    def all(self) -> float | None:
        """Returns the same of all processes and of the hypervisor; None where it is not known."""
        now_s = _machine_cpu_s()
        if now_s is None or self._all_s is None:
            return None
        return (now_s - self._all_s) / (time.monotonic() - self._start_s)


def tree_cpu_s(pid: int | None = None) -> float:
    """Returns the CPU seconds of a process and of its children, running and ended ones.

    Sources that are decoded in a sandbox are children of the process that judges them.

    Args:
        pid: The process; this one where None.
    """
    times = _process_times()
    children: dict[int, list[int]] = {}
    for child, found in times.items():
        children.setdefault(found.parent, []).append(child)
    if pid is None:
        # Finer than the ticks of /proc, and known on every system.
        ended = os.times()
        total_s = time.process_time() + ended.children_user + ended.children_system
        waiting = children.get(os.getpid(), [])
    else:
        total_s, waiting = 0.0, [pid]
    while waiting:
        process = waiting.pop()
        if process in times:
            total_s += times[process].cpu_s
            waiting += children.get(process, [])
    return total_s


@dataclass(frozen=True, slots=True)
class _ProcessTimes:
    """The parent of a process, and its CPU seconds with those of its ended children."""

    parent: int
    cpu_s: float


def _process_times() -> dict[int, _ProcessTimes]:
    """Returns the times of all processes by their ids; none where there is no /proc."""
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK") if _STAT.is_file() else 0.0
    times: dict[int, _ProcessTimes] = {}
    for folder in _STAT.parent.glob("[0-9]*"):
        try:
            # The name stands in parentheses and may hold any character.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended since
            continue
        ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
        times[int(folder.name)] = _ProcessTimes(int(fields[1]), ticks * tick_s)
    return times


def _machine_cpu_s() -> float | None:
    """CPU seconds of all processes since the machine was started."""
    if not _STAT.is_file():
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are within user.
    ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(count for field, count in enumerate(ticks) if field not in _IDLE_FIELDS)
    return busy / float(os.sysconf("SC_CLK_TCK"))


def resident_mb() -> float:
    """Resident memory of this process in megabytes (10^6 bytes).

    Raises:
        UsageError: The system does not show it in /proc.
    """
    if not _STATM.is_file():
        raise UsageError("this system does not tell the memory of a process in /proc; use Linux")
    pages = int(_STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Memory, threads and descriptors of this process at one moment.

    Attributes:
        memory_mb: Resident memory in megabytes (10^6 bytes).
        threads: Threads, native ones included.
        descriptors: Open files, sockets and pipes.
    """

    memory_mb: float
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> ProcessUsage:
        """Takes stock.

        Raises:
            UsageError: The system does not show it in /proc.
        """
        memory_mb = resident_mb()
        # Listing the descriptors opens one.
        descriptors = len(os.listdir(_DESCRIPTORS)) - 1  # noqa: PTH208 - names alone, quickly
        return cls(memory_mb, len(os.listdir(_THREADS)), descriptors)  # noqa: PTH208
