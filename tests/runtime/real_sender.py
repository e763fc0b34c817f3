"""A real ffmpeg that sends a clip in real time, and is killed like a sender that dies."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import imageio_ffmpeg


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sender:
    """Sends a clip over and over, at its own speed, to an address. Use as a context manager.

    Args:
        clip: The clip; its packets are sent as they are.
        address: Where to: `udp://...`, or `http://...` with `-listen 1` to serve one client.
        options: Options of ffmpeg for its output.
    """

    def __init__(self, clip: Path, address: str, *options: str) -> None:
        self._command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-re"]
        self._command += ["-stream_loop", "-1", "-i", str(clip), "-c", "copy", "-f", "mpegts"]
        self._command += [*options, address]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it, anew after `kill`."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """Kills it: nothing says good-bye to who receives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def reader_threads() -> int:
    """Threads of this process that read live sources."""
    return sum("dfd-edge reader" in thread.name for thread in threading.enumerate())


def open_files() -> int | None:
    """File descriptors of this process; None where the system does not list them."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.is_dir() else None  # noqa: PTH208


def system_threads() -> int | None:
    """Threads of this process, those of libraries too; None where the system does not list them."""
    folder = Path("/proc/self/task")
    return len(os.listdir(folder)) if folder.is_dir() else None  # noqa: PTH208
