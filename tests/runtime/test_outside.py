"""An embedded library changes nothing outside itself, neither by its import nor by its work."""

from __future__ import annotations

import subprocess
import sys
import textwrap

CODE = """
import logging, os, signal, sys, time, types
import av, av.container, av.container.core, av.error, cv2, numpy, onnxruntime

LIBRARIES = ("av", "cv2", "numpy", "onnxruntime", "time", "signal", "threading", "logging")

def state():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in LIBRARIES:
            for key, value in list(vars(module).items()):
                if not isinstance(value, (int, float, dict, list)) or key.isupper():
                    found[name, key] = id(value)
    return found

def settings():
    return {
        "OpenCV's threads": cv2.getNumThreads(),
        "OpenCV's log": cv2.utils.logging.getLogLevel(),
        "numpy's errors": numpy.geterr(),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "logging": (logging.root.level, list(logging.root.handlers)),
        "folder": os.getcwd(),
        "environment": {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"},
    }

def changes(before):
    now = state()
    return sorted(".".join(key) for key, value in before.items() if now.get(key) != value)

before, set_before = state(), settings()
import dfd_edge
for name in dfd_edge.__all__:
    getattr(dfd_edge, name)
assert not changes(before), changes(before)
from dfd_edge.sources import SourceOptions
detector = dfd_edge.Detector.load(sys.argv[1])
for sandbox in (False, True):
    options = SourceOptions(sandbox=sandbox)
    assert detector.analyze(sys.argv[2], options=options).frames
    with detector.watch(sys.argv[2], options=options) as watch:
        next(watch)
    try:
        detector.watch("http://127.0.0.1:9/live", options=options)
    except dfd_edge.UnreachableError:
        pass
assert not changes(before), changes(before)
assert settings() == set_before, (settings(), set_before)
"""


def test_nothing_outside_the_package_is_changed(tiny_bundle, face_clip):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CODE), str(tiny_bundle), str(face_clip)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
