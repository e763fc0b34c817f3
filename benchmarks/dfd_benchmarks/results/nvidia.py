"""NVIDIA GPUs as `nvidia-smi` reports them: models, and samples of clocks and load during a run."""

from __future__ import annotations

import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import IO

from dfd_benchmarks.results.timing import Spread
from dfd_edge.closing import Closing

_TIMEOUT_S = 20.0
_KINDS = ("index", "name", "driver_version", "memory.total", "mig.mode.current")

SAMPLED = {
    "clocks.sm": "MHz",
    "clocks.mem": "MHz",
    "utilization.gpu": "%",
    "memory.used": "MiB",
    "temperature.gpu": "C",
    "power.draw": "W",
}
"""Values sampled beside a run, by nvidia-smi's names, and their units."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        index: Its number, from 0.
        name: Its model.
        driver: Version of its driver.
        memory_mib: Its memory in mebibytes; None where nvidia-smi does not say.
        mig: Whether it is shared by MIG: "Enabled" or "Disabled"; None where it has no such mode.
    """

    index: int
    name: str
    driver: str
    memory_mib: float | None
    mig: str | None


def parse_csv(text: str, fields: tuple[str, ...]) -> list[dict[str, str | None]]:
    """Reads the output of `nvidia-smi --query-gpu=… --format=csv,noheader,nounits`.

    Args:
        text: Lines of values, apart by a comma and a space, in the order of the fields.
        fields: The fields that were asked for.

    Returns:
        One dictionary a line, None for what the GPU does not know (`[N/A]`, `[Not Supported]`,
        `[Unknown Error]`). Lines of another length, such as messages, are left out.
    """
    rows: list[dict[str, str | None]] = []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(fields):
            known = [None if value.startswith("[") or value == "N/A" else value for value in values]
            rows.append(dict(zip(fields, known, strict=True)))
    return rows


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Reads the GPUs that nvidia-smi prints, by the fields of `describe_gpus`."""
    return tuple(
        Gpu(
            index=int(row["index"]),
            name=row["name"] or "unknown",
            driver=row["driver_version"] or "unknown",
            memory_mib=_number(row["memory.total"]),
            mig=row["mig.mode.current"],
        )
        for row in parse_csv(text, _KINDS)
        if row["index"] is not None and row["index"].isdigit()
    )


def describe_gpus() -> tuple[Gpu, ...]:
    """The machine's NVIDIA GPUs; none where nvidia-smi is not installed or finds none."""
    command = _query(_KINDS)
    if command is None:
        return ()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_gpus(done.stdout) if done.returncode == 0 else ()


def spreads(rows: list[dict[str, str | None]]) -> dict[str, Spread]:
    """Minimum, median and maximum of what was sampled; without what the GPU does not know."""
    found: dict[str, Spread] = {}
    for field in SAMPLED:
        values = [v for row in rows if (v := _number(row.get(field))) is not None]
        if values:
            found[field] = Spread.of(values)
    return found


class GpuSampler(Closing):
    """Samples a GPU's clocks, utilisation, memory, temperature and power until it is closed.

    One nvidia-smi runs beside and prints a line each time, so that no process is started while
    something is measured. Without nvidia-smi there are no samples.

    Args:
        device: Number of the GPU.
        interval_ms: Milliseconds from one sample to the next.
    """

    def __init__(self, device: int = 0, *, interval_ms: int = 100) -> None:
        self._rows: list[dict[str, str | None]] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        command = _query(tuple(SAMPLED))
        if command is None:
            return
        command += ["-i", str(device), "-lms", str(interval_ms)]
        try:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            return
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name="nvidia-smi", daemon=True
        )
        self._reader.start()

    @property
    def rows(self) -> list[dict[str, str | None]]:
        """The samples so far."""
        return list(self._rows)

    def close(self) -> None:
        """Ends the sampling. Safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join()
            self._reader = None

    def _read(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self._rows += parse_csv(line, tuple(SAMPLED))


def _query(fields: tuple[str, ...]) -> list[str] | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    return [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
