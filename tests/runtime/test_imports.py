"""`import dfd_edge` is light, and needs no inference library."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import dfd_edge

HEAVY = ("tensorflow", "keras", "pandas", "torch", "sklearn", "matplotlib")


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_loads_no_library():
    loaded = run("import sys, dfd_edge; print(*{name.partition('.')[0] for name in sys.modules})")
    assert not set(loaded) & {*HEAVY, "onnxruntime", "av", "cv2", "numpy"}


@pytest.mark.parametrize(
    "module", ["dfd_edge.detector", "dfd_edge.cli.command", "dfd_edge.cli.run"]
)
def test_the_runtime_never_loads_the_training_libraries(module):
    code = (
        f"import sys, {module}; from dfd_edge import Detector, Stream, Verdict\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = set(run(code))
    others = {"dfd_training", "dfd_export", "dfd_benchmarks"}
    assert not loaded & {*HEAVY, *others, "onnxruntime"}


def test_every_public_name_is_there():
    run("import dfd_edge\nfor name in dfd_edge.__all__: getattr(dfd_edge, name)")


def test_the_package_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: dfd-edge [OPTIONS] [SOURCES]...")


def test_the_version_is_that_of_the_distribution():
    assert dfd_edge.__version__ == metadata.version("dfd-edge")
    assert "__version__" in dir(dfd_edge)
    with pytest.raises(AttributeError, match="no attribute 'version_info'"):
        _ = dfd_edge.version_info
