"""Commands start light, and TensorFlow's notes stay off the terminal; its errors do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_LOADED = "import tensorflow; print('loaded', tensorflow.__spec__.loader is tensorflow.__loader__)"


def run(code: str, *, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    lines = ["import os, sys"]
    # Set by the tests' own configuration; TensorFlow's first lines come whatever it is.
    lines.append("os.environ.pop('TF_CPP_MIN_LOG_LEVEL', None)")
    if folder is not None:
        lines.append(f"sys.path.insert(0, {str(folder)!r})")
    lines += ["from dfd_training.quiet import quiet_tensorflow", "quiet_tensorflow()", code]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_list_of_commands_needs_no_library() -> None:
    code = "import sys, dfd_training.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"av", "cv2", "keras", "matplotlib", "numpy", "onnxruntime", "pandas", "tensorflow"}
    assert not heavy & set(done.stdout.split())


def test_tensorflow_loads_without_a_word() -> None:
    pytest.importorskip("tensorflow")
    done = run(_LOADED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "loaded True\n", "")


def test_a_tensorflow_that_fails_says_why_and_standard_error_is_back(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'a library is missing\\n')\nraise ImportError('no tensorflow')\n"
    )
    done = run(
        "try:\n    import tensorflow\nexcept ImportError as error:\n"
        "    print(error)\n    os.write(2, b'after\\n')",
        folder=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "no tensorflow\n")
    assert done.stderr == "a library is missing\nafter\n"


@pytest.mark.parametrize("command", ["dfd_training.cli", "dfd_export.cli", "dfd_benchmarks.cli"])
def test_every_command_line_loads_it_so(command: str, tmp_path: Path) -> None:
    """A small TensorFlow that notes something as it loads: the real one takes seconds each time."""
    (tmp_path / "tensorflow.py").write_text("import os\nos.write(2, b'a note\\n')\n")
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        f"from {command} import main\nimport click\n"
        "@main.command('load')\ndef load():\n    import tensorflow\n    click.echo('loaded')\n"
        "main(['load'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "loaded\n", "")
