"""`import dfd_edge` is light, and needs no inference library."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import dfd_edge

#: What a run that judges a film and prints its verdict does without.
NOT_NEEDED = (
    *("dfd_edge.view", "dfd_edge.report", "dfd_edge.sandbox", "dfd_edge.judging.watch"),
    *("dfd_edge.judging.scanning", "dfd_edge.sinks.webhook", "dfd_edge.sinks.video_file"),
    *("dfd_edge.sinks.csv_file", "dfd_edge.sources.live", "dfd_edge.sources.camera"),
    *("dfd_edge.sources.network", "dfd_edge.bundle.graph_trial", "jsonschema", "jinja2", "PIL"),
    *("importlib.metadata", "email", "http", "ssl", "socket", "subprocess", "concurrent"),
    *("tempfile", "random", "tomllib", "multiprocessing", "asyncio"),
    *("dfd_edge.provenance", "dfd_edge.sinks.provenance_columns", "c2pa", "cryptography"),
)
#: Modules of the package in such a run: each costs about 0.6 ms.
MOST_MODULES = 75
HEAVY = ("tensorflow", "keras", "pandas", "torch", "sklearn", "matplotlib")


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("module", ["dfd_edge", "dfd_edge.provenance.reading"])
def test_importing_the_package_loads_no_library(module):
    loaded = run(f"import sys, {module}; print(*{{n.partition('.')[0] for n in sys.modules}})")
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


@pytest.fixture(scope="module")
def brought():
    """Modules that the libraries load by themselves."""
    return set(run("import sys, numpy, cv2, av, onnxruntime, click; print(*sys.modules)"))


def test_a_plain_run_imports_what_it_needs(face_clip, brought):
    """Windows, drawings, tables, videos, live sources, reports: loaded by runs that use them."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded:', *sys.modules))\n"
        f"sys.argv = ['dfd-edge', {str(face_clip)!r}]\n"
        "from dfd_edge.cli.command import main\n"
        "main()"
    )
    printed = run(code)
    loaded = set(printed[printed.index("loaded:") :])
    assert "dfd_edge.judging.recording" in loaded, "nothing was judged"
    assert not {name for name in loaded - brought if name.startswith(NOT_NEEDED)}
    own = {name for name in loaded if name.partition(".")[0] == "dfd_edge"}
    assert len(own) <= MOST_MODULES, sorted(own)


def test_judging_imports_few_modules(face_clip):
    """The command line and what it prints with are left to those who call it."""
    code = (
        "import sys\n"
        "from dfd_edge import Detector\n"
        f"Detector.load().analyze({str(face_clip)!r})\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'dfd_edge'))"
    )
    loaded = run(code)
    assert not {name for name in loaded if name.startswith((*NOT_NEEDED, "dfd_edge.cli"))}
    assert len(loaded) <= MOST_MODULES


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
