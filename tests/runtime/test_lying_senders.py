"""Senders that lie: lengths, parts and headers without end, redirects to files, nonsense.

Each is watched as a user would, in the sandbox that addresses have, and ends soon in a clear error
or with the frames that came. All are watched at once: what they wait for are timeouts.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from clip_maker import face_frames, write_clip

from dfd_edge import Detector, DfdError
from dfd_edge.sources import SourceOptions

#: The longest timeout of a network stream is 10 s; the rest is for machines that are busy.
MOST_S = 90.0
#: Memory of a sandbox, so that what never ends meets its bound soon.
MEMORY_MB = 512
OK = b"HTTP/1.1 200 OK\r\nContent-Type: "
MOVED = b"HTTP/1.1 302 Found\r\nLocation: "
PARTS = OK + b"multipart/x-mixed-replace; boundary=f\r\n\r\n--f\r\nContent-Type: image/jpeg\r\n"
FRAMES = 50
NOISE = np.random.default_rng(0).bytes(1 << 16)

Lie = Callable[["Media"], Iterable[bytes]]


class Media:
    """What the senders send, where they do."""

    def __init__(self, folder: Path) -> None:
        frames = face_frames(FRAMES)
        self.file = write_clip(folder / "clip.mp4", frames, options={"g": "5"})
        self.mp4 = self.file.read_bytes()
        live = folder / "clip.ts"
        self.ts = write_clip(live, frames, options={"g": "5"}).read_bytes()
        # Without its end marker, it goes on with whatever comes.
        self.jpeg = cv2.imencode(".jpg", frames[0])[1].tobytes()[:-2]


def endless(*begin: bytes, piece: bytes = bytes(1 << 16)) -> Iterator[bytes]:
    return itertools.chain(begin, itertools.repeat(piece))


def answer(kind: str, length: object, data: bytes) -> list[bytes]:
    return [OK + f"{kind}\r\nContent-Length: {length}\r\n\r\n".encode(), data]


def chunked(first: bytes, data: bytes) -> list[bytes]:
    return [OK + b"video/mp2t\r\nTransfer-Encoding: chunked\r\n\r\n" + first + b"\r\n", data]


#: By name: what is sent, and what the error says; None where the frames that came are judged.
LIES: dict[str, tuple[Lie, str | None]] = {
    "length-too-large": (lambda m: answer("video/mp4", 1000 * len(m.mp4), m.mp4), None),
    "length-too-small": (lambda m: answer("video/mp4", len(m.mp4) // 2, m.mp4), None),
    "live-length-too-large": (lambda m: answer("video/mp2t", 1000 * len(m.ts), m.ts), "lost"),
    "length-below-zero": (lambda m: answer("video/mp2t", -5, m.ts), "lost"),
    "length-of-many-digits": (lambda m: answer("video/mp2t", "9" * 3000, m.ts), "lost"),
    "range-beyond-all": (
        lambda m: [OK + b"video/mp4\r\nContent-Range: bytes 0-9/%d\r\n\r\n" % 10**15, m.mp4],
        "no frame could be decoded|lost|cannot be opened",
    ),
    "headers-without-end": (
        lambda m: endless(OK + b"video/mp4\r\n", piece=b"X-More: a\r\n" * 99),
        "no video came within 10 s",
    ),
    "one-header-without-end": (
        lambda m: endless(OK + b"video/mp4\r\nX-Long: ", piece=b"a" * 999),
        "no video came within 10 s",
    ),
    "part-without-end": (
        lambda m: endless(PARTS + b"\r\n" + m.jpeg),
        f"nothing came in time|more than the {MEMORY_MB} MB",
    ),
    "part-of-gigabytes": (
        lambda m: endless(PARTS + b"Content-Length: 2000000000\r\n\r\n" + m.jpeg),
        f"nothing came in time|more than the {MEMORY_MB} MB",
    ),
    "part-of-headers": (lambda m: endless(PARTS, piece=b"X-More: a\r\n" * 99), "nothing came"),
    "chunk-of-nonsense": (lambda m: chunked(b"nonsense", m.ts), "cannot be opened"),
    "chunk-beyond-all": (lambda m: chunked(b"F" * 18, m.ts), "cannot be opened"),
    "chunk-below-zero": (lambda m: chunked(b"-10", m.ts), "lost"),
    "moved-to-a-file": (
        lambda m: [MOVED + f"file://{m.file}\r\n\r\n".encode()],
        "cannot be opened",
    ),
    "moved-to-parts-of-files": (
        lambda m: [MOVED + f"concat:{m.file}\r\n\r\n".encode()],
        "cannot be opened",
    ),
    "moved-to-itself": (lambda m: [MOVED + b"/moved-to-itself\r\n\r\n"], "cannot be opened"),
    "noise-without-end": (
        lambda m: endless(
            OK + b"video/mp2t\r\n\r\n", piece=np.random.default_rng(0).bytes(1 << 16)
        ),
        "cannot be opened",
    ),
    "a-byte-now-and-then": (lambda m: slowly(b"HTTP/1.1 200 OK\r\n" * 99), "no video came"),
}


def slowly(data: bytes) -> Iterator[bytes]:
    for number in range(len(data)):
        yield data[number : number + 1]
        time.sleep(0.2)


@pytest.fixture(scope="module")
def ends(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    """By the name of the lie: results, the error if there was one, and seconds."""
    media = Media(tmp_path_factory.mktemp("lies"))
    listening = socket.create_server(("127.0.0.1", 0))
    detector = Detector.load(tiny_bundle)

    def send(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # whoever asked is gone
            asked = connection.recv(4096).split()[1].decode().strip("/")
            for piece in LIES[asked][0](media):
                connection.sendall(piece)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=send, args=[listening.accept()[0]], daemon=True).start()

    def watch(lie: str) -> tuple:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/{lie}"
        options = SourceOptions(reconnect_s=0, sandbox_memory_mb=MEMORY_MB)
        start_s, results, error = time.monotonic(), 0, None
        try:
            with detector.watch(address, options=options) as watched:
                for _ in watched:
                    results += 1
        except DfdError as raised:
            error = str(raised)
        return results, error, time.monotonic() - start_s

    threading.Thread(target=serve, daemon=True).start()
    with ThreadPoolExecutor(len(LIES)) as pool:
        yield dict(zip(LIES, pool.map(watch, LIES), strict=True))
    listening.close()


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_soon_in_a_clear_error_or_in_what_came(ends: dict[str, tuple], lie: str) -> None:
    results, error, seconds = ends[lie]
    said = LIES[lie][1]
    assert seconds < MOST_S
    if said is None:
        assert error is None
        assert results > 0
    else:
        assert error is not None
        assert re.search(said, error), error
        assert error.startswith("http://127.0.0.1:")
        assert "\n" not in error
    if lie.startswith("moved"):
        assert results == 0
