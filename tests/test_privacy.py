"""Nothing leaves the machine, and nothing is written that was not asked for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
PACKAGES = ("dfd_edge", "dfd_training", "dfd_export", "dfd_benchmarks")
#: onnxruntime 1.32 looks up its collector some ten seconds after it was imported.
TELEMETRY_S = 13

#: Lets the kernel kill the process that opens a socket for IPv4 or IPv6, in C or in Python.
NO_SOCKETS = """
import ctypes, struct
arch, socket_call = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}[%(machine)r]
LOAD, EQUAL, RETURN, ALLOW, KILL = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000
steps = [
    (LOAD, 0, 0, 4), (EQUAL, 0, 5, arch),
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, socket_call),
    (LOAD, 0, 0, 16), (EQUAL, 2, 0, 2), (EQUAL, 1, 0, 10),
    (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
assert libc.prctl(22, 2, program, 0, 0) == 0, "seccomp"
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="sockets are watched by Linux' seccomp, on x86-64 and ARM",
)


def run_watched(
    code: str, home: Path, *, sockets: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs Python code with empty home and temporary folders; an internet socket kills it."""
    watch = "" if sockets else NO_SOCKETS % {"machine": platform.machine()}
    (home / "tmp").mkdir(parents=True)
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-c", watch + code],
        env=kept | {"HOME": str(home), "TMPDIR": str(home / "tmp")},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def left_behind(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.name != "tmp")


def test_judging_sends_and_leaves_nothing(tmp_path):
    clip = SAMPLES / "swapped_astronaut.mp4"
    judged = run_watched(
        "import time\nfrom dfd_edge import Detector\n"
        f"print(Detector.load().analyze({str(clip)!r}).label)\ntime.sleep({TELEMETRY_S})",
        tmp_path / "home",
    )
    assert judged.returncode == 0, judged.stderr
    assert judged.stdout.strip() == "fake"
    assert left_behind(tmp_path / "home") == []


@pytest.mark.slow
def test_openvino_is_loaded_without_its_telemetry(tmp_path):
    for package in ("openvino", "keras"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    loaded = run_watched(
        "from dfd_benchmarks.peers.engines import load_openvino\nload_openvino().Core()",
        tmp_path / "home",
        sockets=True,  # TensorFlow asks whether there is IPv6, and sends nothing
    )
    assert loaded.returncode == 0, loaded.stderr
    assert "intel" not in left_behind(tmp_path / "home")


def test_a_socket_or_a_file_would_be_seen(tmp_path):
    sent = run_watched("import socket; socket.socket(socket.AF_UNIX)", tmp_path / "local")
    assert sent.returncode == 0, sent.stderr
    sent = run_watched("import socket; socket.socket(socket.AF_INET)", tmp_path / "sends")
    assert sent.returncode < 0
    run_watched("open('left', 'w')", tmp_path / "writes")
    assert left_behind(tmp_path / "writes") == ["left"]


@pytest.mark.parametrize("package", [name for name in PACKAGES if find_spec(name)])
@pytest.mark.parametrize(("wish", "kept"), [(None, "1"), ("0", "0")])
def test_every_package_switches_onnxruntime_telemetry_off_first(package, wish, kept, monkeypatch):
    """A package comes before its modules, and the variable goes on to child processes."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if wish is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", wish)
    seen = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import {package}, os, subprocess, sys\nassert 'onnxruntime' not in sys.modules\n"
            "subprocess.run([sys.executable, '-c', "
            "'import os; print(os.environ[\"ORT_DISABLE_TELEMETRY\"])'])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == kept
