"""Processes that parse data from strangers: fresh interpreters, which end with their parent."""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping

#: Environment variables that a child needs; others may hold secrets.
_SETTINGS = (
    *("PATH", "LANG", "LC_ALL", "TZ", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("http_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


def unavailable() -> str | None:
    """Returns why no child can be started here; None where one can."""
    if platform.system() == "Windows":
        return "there is no sandbox on Windows"
    if getattr(sys, "frozen", False):
        return "there is no sandbox in a frozen program, which has no Python to start"
    if not sys.executable:
        return "there is no sandbox where the Python program is not known"
    return None


class ChildProcess:
    """A fresh interpreter that runs a module, with a pipe to it and a pipe from it.

    It works from any program, with or without a `__main__` guard. It ends when it is closed or
    forgotten, and when this process ends.

    Args:
        module: What it runs, as `python -m MODULE CONTROL ANSWERS LIFELINE ...`: the numbers of
            three descriptors, then the arguments. The last is for `confining.end_with_parent`.
        arguments: Further arguments.
        environment: Environment variables beside those that each child gets.
        takes_input: Whether it inherits standard input.

    Attributes:
        control: Descriptor of the pipe to it.
        answers: Descriptor of the pipe from it.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        takes_input: bool = False,
    ) -> None:
        control, self.control = os.pipe()
        self.answers, answers = os.pipe()
        lifeline, held = os.pipe()
        given, kept = (control, answers, lifeline), (self.control, self.answers, held)
        command = [sys.executable, "-P", "-m", module, *map(str, given), *arguments]
        try:
            self._process = _start(command, given, environment or {}, takes_input=takes_input)
        except OSError:
            _close_all(kept)
            raise
        finally:
            _close_all(given)
        # Also where it is forgotten, or the interpreter ends.
        self._end = weakref.finalize(self, _end, self._process, kept)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether it was closed; it may have died before."""
        return not self._end.alive

    def close(self) -> None:
        """Ends the process. Safe to call twice."""
        self._end()

    def wait(self) -> int:
        """Waits for its end; returns its exit code, negative for a signal."""
        return self._process.wait()

    def read(self, buffer: memoryview, until_s: float) -> None:
        """Fills the buffer with what the process says next.

        Args:
            buffer: Bytes to fill.
            until_s: End of the wait, as of `time.monotonic()`.

        Raises:
            EOFError: It is dead.
            TimeoutError: It said too little until then.
        """
        poll = select.poll()
        poll.register(self.answers, select.POLLIN | select.POLLHUP)
        while buffer:
            left_s = until_s - time.monotonic()
            if left_s <= 0.0 or not poll.poll(1000.0 * left_s):
                raise TimeoutError
            count = os.readv(self.answers, [buffer])
            if not count:
                raise EOFError
            buffer = buffer[count:]


def name_of_signal(code: int) -> str:
    """Returns the name of the signal that a negative exit code stands for."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _start(
    command: list[str],
    given: tuple[int, ...],
    environment: Mapping[str, str],
    *,
    takes_input: bool,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=None if takes_input else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=given,
        # It finds the modules where this process does, in an interpreter without a main module.
        env={
            **{name: os.environ[name] for name in _SETTINGS if name in os.environ},
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OPENBLAS_NUM_THREADS": "1",
            **environment,
        },
        process_group=0,  # Ctrl-C in a terminal is for the parent
    )


def _end(process: subprocess.Popen[bytes], descriptors: tuple[int, ...]) -> None:
    process.kill()
    process.wait()
    _close_all(descriptors)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
