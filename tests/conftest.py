"""Fixtures for all tests."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.metadata
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

# The package first: it switches the telemetry of onnxruntime off.
from dfd_edge.bundle import DEFAULT_BUNDLE
from headless import Browser, find_browser

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]
# Code that writes the bundles or is read into them; code that only reads bundles is left out.
_SOURCES = (
    "runtime/dfd_edge/**/bundle.py",
    "runtime/dfd_edge/**/manifest.py",
    "runtime/dfd_edge/**/onnx_file.py",
    "runtime/dfd_edge/faces/*.py",
    "training/dfd_training/models/*.py",
    "export/dfd_export/**/*.py",
    "tests/tiny_bundle.py",
)
_PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says on one line what was skipped, and for want of what."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ").split(": ")[0]] += 1
    if reasons:
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"skipped {reasons.total()}: {listed}")


@pytest.fixture(scope="session")
def tiny_bundle() -> Path:
    """A bundle with the real graphs at 64 px and random heads. Not to be written to.

    Without Keras, which builds it, the shipped bundle.
    """
    if find_spec("keras") is None:
        return DEFAULT_BUNDLE
    return _cached("tiny-bundle", lambda out: _tiny_bundle_module().build(out))


@pytest.fixture(scope="session")
def variant_bundle(tiny_bundle: Path) -> Path:
    """The same with its int8 and fp16 variants. Not to be written to."""
    if find_spec("keras") is None:
        return DEFAULT_BUNDLE
    return _cached(
        "variant-bundle", lambda out: _tiny_bundle_module().build_variants(tiny_bundle, out)
    )


@pytest.fixture(scope="session")
def signals_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of small graphs that measures bursts, with the shipped face detector.

    Not to be written to.
    """
    pytest.importorskip("onnx", reason="onnx is not installed, which writes such a bundle")
    from dfd_edge.bundle.manifest import FaceSpec
    from dfd_edge.faces import DETECTOR_NAME, DetectorOptions
    from dfd_edge.faces.detector import DETECTOR_FILE
    from dfd_edge.faces.onnx_model import face_model_sha256
    from small_bundle import build_small_bundle

    detector_sha256 = face_model_sha256(DETECTOR_FILE)
    face = FaceSpec(DETECTOR_NAME, detector_sha256, DetectorOptions().to_dict())
    folder = tmp_path_factory.mktemp("signals") / "bundle"
    return build_small_bundle(folder, face=face, signals=True)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium; tests are skipped where there is none."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium was found: install `chromium`, or `playwright install chromium`")
    try:
        opened = Browser(program, tmp_path_factory.mktemp("profile"))
    except (AssertionError, OSError) as error:
        pytest.skip(f"{program} does not start ({error})")
    yield opened
    opened.close()


def _cached(name: str, build: Callable[[Path], object]) -> Path:
    """Returns a folder that is rebuilt only when the code that builds it has changed."""
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        paths = sorted(ROOT.glob(pattern))
        assert paths, f"{pattern} matches nothing any more"
        for path in paths:
            digest.update(path.read_bytes())
    for package in _PACKAGES:
        digest.update(importlib.metadata.version(package).encode())
    out = ROOT / ".cache" / "tests" / f"{name}-{digest.hexdigest()[:16]}"
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be building it
        if not out.is_dir():
            for stale in out.parent.glob(f"{name}-*"):
                shutil.rmtree(stale)
            build(out)
    return out


def _tiny_bundle_module() -> ModuleType:
    """Imports `tiny_bundle.py`, which loads TensorFlow, only when something has to be built."""
    return importlib.import_module("tiny_bundle")


@pytest.fixture
def quick_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parity gate with few of its cases, for tests of something else."""
    from dfd_export.gate import parity

    monkeypatch.setattr(parity, "BATCHES", (1, 3))
    monkeypatch.setattr(parity, "TIMES", (1, 7))
