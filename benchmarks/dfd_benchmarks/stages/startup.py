"""The cost of a start: imports, bundle, time to a verdict, memory, and disk space.

Every time is taken in a process of its own. A first round that is not counted warms the file
cache and leaves the bytecode, so these are starts of a program that was run before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import av

import dfd_edge
from dfd_benchmarks.results.schema import Figure, Result, RunInfo
from dfd_benchmarks.streams.footage import make_footage
from dfd_edge.errors import DfdError, UsageError

#: Imports over those of the libraries alone, and seconds from process start to verdict.
IMPORT_BAR, VERDICT_BAR_S = 1.25, 1.5
CLIP_S = 10
_FPS = 30
_DISTRIBUTION = "dfd-edge"
_LIBRARIES = ("numpy", "cv2", "av", "onnxruntime", "click")

# Child processes. Each prints one JSON object on its last line.
_MODULES = """
import json, sys
from dfd_edge import Detector
Detector.load(sys.argv[2] or None).analyze(sys.argv[1])
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "dfd_edge"]))
"""
_IMPORT = """
import time
cpu_s, start_s = time.process_time(), time.perf_counter()
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
import json
print(json.dumps({"elapsed_s": elapsed_s, "cpu_s": cpu_s}))
"""
_LOAD = """
import dataclasses, json, sys, time
import av, click, cv2, numpy, onnxruntime
import dfd_edge.cli.command, dfd_edge.faces.detector, dfd_edge.inference.session
from dfd_edge import Detector
options = json.loads(sys.argv[1])
start_s = time.perf_counter()
detector = Detector.load(**options)
elapsed_s = time.perf_counter() - start_s
print(json.dumps({
    "elapsed_s": elapsed_s,
    "bundle": detector.bundle.manifest.name,
    "bundle_hash": detector.bundle.hash,
    "requested_provider": detector.provider.requested,
    "provider": detector.provider.actual,
    "precision": detector.provider.precision,
}))
"""
# The command line as it is, and the largest resident memory at its end. It is the process's own:
# what getrusage reports begins with that of the process which started it.
_JUDGE = """
import atexit
def tell():
    import json, pathlib
    status = pathlib.Path("/proc/self/status")
    peak = None
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
    print(json.dumps({"peak_bytes": peak}))
atexit.register(tell)
from dfd_edge.cli.command import main
main()
"""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The bundle and the provider that are started.

    Attributes:
        model: A bundle; the shipped one by default.
        provider: As in `Detector.load`.
        precision: A variant of the frame graph.
        runs: Measurements of each kind.
    """

    model: Path | None = None
    provider: str = "auto"
    precision: str = "auto"
    runs: int = 5


def make_clip(path: Path) -> None:
    """Writes 10 s of the sample with one face: 1280x720, 30 frames a second, H.264 in MP4.

    Raises:
        UsageError: There are no samples here.
    """
    footage_path = path.with_suffix(".ts")
    footage = make_footage(None, footage_path, size=(1280, 720), fps=_FPS)
    with av.open(str(footage_path)) as source, av.open(str(path), "w") as target:
        template = source.streams.video[0]
        time_base = template.time_base
        assert time_base is not None  # MPEG-TS has one
        packets = [packet for packet in source.demux(template) if packet.size]
        stream = target.add_stream_from_template(template)
        for number in range(CLIP_S * _FPS):
            packet = av.Packet(bytes(packets[number % footage.frames]))
            packet.stream = stream
            packet.time_base = time_base
            ticks = round(number / _FPS / float(time_base))
            packet.pts = packet.dts = ticks
            packet.is_keyframe = packets[number % footage.frames].is_keyframe
            target.mux(packet)


def measure_startup(
    clip: Path, options: StartOptions, *, on_run: Callable[[], object] = lambda: None
) -> Result:
    """Measures starts, `options.runs` times, imports with and without dfd_edge in turns.

    Args:
        clip: The video that is judged; the bar is for 10 s of 720p.
        options: The bundle and the provider.
        on_run: Called after each round.

    Raises:
        UsageError: The number of runs is out of range.
        DfdError: A process failed; the message is its own.
    """
    if options.runs < 1:
        raise UsageError(f"runs is {options.runs}; give 1 or more")
    model = "" if options.model is None else str(options.model)
    own = [str(name) for name in _child(_MODULES, str(clip), model)]
    _round(clip, options, own)  # warms the file cache
    rounds = []
    for _ in range(options.runs):
        rounds.append(_round(clip, options, own))
        on_run()
    sizes = install_sizes()
    loaded = rounds[0]["load"]
    return Result(
        benchmark="startup",
        arguments={
            "clip": str(clip),
            "provider": options.provider,
            "precision": options.precision,
            "runs": options.runs,
        },
        ran=RunInfo(
            bundle=loaded["bundle"],
            bundle_hash=loaded["bundle_hash"],
            requested_provider=loaded["requested_provider"],
            provider=loaded["provider"],
            requested_precision=options.precision,
            precision=loaded["precision"],
            threads=1,
        ),
        figures=_figures(rounds, sizes),
        details={"file_cache": "warm", "modules": len(own), "install_bytes": sizes},
    )


def install_sizes() -> dict[str, int]:
    """Bytes on the disk of the runtime and of what it needs, by distribution; no bytecode.

    The runtime's own are those of its package, models included: an editable installation lists
    no more than its metadata.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - comes with onnxruntime

    package = Path(dfd_edge.__file__).parent
    sizes = {_DISTRIBUTION: sum(map(_bytes, package.rglob("*")))}
    waiting = [(_DISTRIBUTION, "cpu")]
    while waiting:
        name, extra = waiting.pop()
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            found = needed.name.lower().replace("_", "-")
            if found in sizes:
                continue
            try:
                files = metadata.files(found) or []
            except metadata.PackageNotFoundError:
                continue  # the other wheel of onnxruntime, say
            sizes[found] = sum(_bytes(Path(str(file.locate()))) for file in files)
            waiting.append((found, ""))
    return sizes


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() and path.suffix != ".pyc" else 0


def _round(clip: Path, options: StartOptions, own: Sequence[str]) -> dict[str, Any]:
    """One of each measurement."""
    load = {
        "path": None if options.model is None else str(options.model),
        "provider": options.provider,
        "precision": options.precision,
    }
    return {
        "libraries": _child(_IMPORT, *_LIBRARIES),
        "both": _child(_IMPORT, *_LIBRARIES, *own),
        "package": _child(_IMPORT, "dfd_edge"),
        "load": _child(_LOAD, json.dumps(load)),
        "verdict": _judge(clip, options),
    }


def _judge(clip: Path, options: StartOptions) -> dict[str, Any]:
    """Starts the command line.

    Returns:
        Seconds until it prints its verdict, its processor time to its end (0 on Windows), and the
        peak of its memory.
    """
    arguments = [str(clip), "--provider", options.provider, "--precision", options.precision]
    if options.model is not None:
        arguments += ["--model", str(options.model)]
    before = os.times()
    start_s = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _JUDGE, *arguments],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()  # the one line of a file is its verdict
        verdict_s = time.perf_counter() - start_s
        rest, errors = child.stdout.read(), child.stderr.read()
    if child.returncode:
        raise DfdError(_last_line(errors))
    after = os.times()
    cpu_s = after.children_user + after.children_system
    return {
        "verdict_s": verdict_s,
        "cpu_s": cpu_s - before.children_user - before.children_system,
        "peak_bytes": json.loads(_last_line(rest))["peak_bytes"],
    }


def _child(program: str, *arguments: str) -> Any:  # noqa: ANN401 - what the program prints
    """Runs a program in a process of its own; its last line is JSON.

    Raises:
        DfdError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=_environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise DfdError(_last_line(done.stderr))
    return json.loads(_last_line(done.stdout))


def _environment() -> dict[str, str]:
    """Returns this process' environment, with bytecode kept, as it is for users."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "a process ended without a word"


def _figures(rounds: Sequence[dict[str, Any]], sizes: dict[str, int]) -> list[Figure]:
    def each(kind: str, key: str = "elapsed_s", scale: float = 1e3) -> tuple[float, ...]:
        return tuple(one[kind][key] * scale for one in rounds)

    def over(key: str) -> tuple[float, ...]:
        return tuple(one["both"][key] / one["libraries"][key] for one in rounds)

    figures = [
        Figure("import.package", "import dfd_edge", "ms", "lower", each("package")),
        Figure("import.libraries", "import of the libraries", "ms", "lower", each("libraries")),
        Figure(
            "import.all", "the same and what judging loads of dfd_edge", "ms", "lower", each("both")
        ),
        Figure(
            "import.ratio",
            "with dfd_edge over without",
            "x",
            "lower",
            over("elapsed_s"),
            IMPORT_BAR,
        ),
        Figure("import.cpu_ratio", "the same, CPU time", "x", "lower", over("cpu_s")),
        Figure("load", "Detector.load, imports done", "ms", "lower", each("load")),
        Figure(
            "verdict",
            "process start to verdict",
            "s",
            "lower",
            each("verdict", "verdict_s", 1.0),
            VERDICT_BAR_S,
        ),
        Figure("verdict.cpu", "its CPU time", "s", "lower", each("verdict", "cpu_s", 1.0)),
    ]
    if all(one["verdict"]["peak_bytes"] is not None for one in rounds):
        peaks = each("verdict", "peak_bytes", 1e-6)
        figures.append(Figure("peak", "peak of its resident memory", "MB", "lower", peaks))
    total = sum(sizes.values()) / 1e6
    figures.append(Figure("install", "installed, with all that it needs", "MB", "lower", (total,)))
    own = sizes[_DISTRIBUTION] / 1e6
    figures.append(Figure("install.own", "of that dfd-edge itself", "MB", "lower", (own,)))
    return figures
