"""Messages between parent and child.

The parent sends pickled objects, which the child may trust. The child sends JSON with the bytes of
pictures behind it: a child that a hostile file has taken over can say what it likes, and nothing
that it says is run.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Length of the text, length of the bytes of all pictures.
_HEAD = struct.Struct(">IQ")
_LENGTH = struct.Struct(">Q")
MAX_TEXT_BYTES = 1 << 20

Receive = Callable[[memoryview], None]
"""Fills a buffer with what comes next; raises EOFError at the end."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """The first message to a child.

    Attributes:
        item: The `SourceItem` to open.
        live: Whether it is to be watched.
        threads: Threads that FFmpeg may use.
        memory_mb: Memory that the child may allocate.
    """

    item: Any
    live: bool
    threads: int
    memory_mb: int


@dataclass(frozen=True, slots=True)
class FramesRequest:
    """The request for the frames of the opened source.

    Attributes:
        sampler: Says which frames are due.
        every: Whether the other frames are wanted too.
        bursts: Whether due frames carry their bursts.
        skips: Whether packets may be left out where a live stream falls behind.
    """

    sampler: Any
    every: bool
    bursts: bool
    skips: bool


def send_object(descriptor: int, thing: object) -> None:
    """Sends something to the child."""
    data = pickle.dumps(thing)
    write_all(descriptor, _LENGTH.pack(len(data)) + data)


def receive_object(receive: Receive) -> Any:  # noqa: ANN401 - whatever was sent
    """Receives an object from the parent."""
    return pickle.loads(_take(receive, *_LENGTH.unpack(_take(receive, _LENGTH.size))))


def send_message(descriptor: int, message: dict[str, Any], pictures: list[memoryview]) -> None:
    """Sends a message to the parent, and the bytes of its pictures."""
    text = json.dumps(message, default=float).encode()
    write_all(descriptor, _HEAD.pack(len(text), sum(map(len, pictures))) + text)
    for picture in pictures:
        write_all(descriptor, picture)


def receive_message(receive: Receive) -> tuple[dict[str, Any], int]:
    """Receives a message of the child, without the bytes of its pictures.

    Returns:
        The message and the length of the pictures.

    Raises:
        ValueError: It is none.
    """
    text_bytes, picture_bytes = _HEAD.unpack(_take(receive, _HEAD.size))
    if text_bytes > MAX_TEXT_BYTES:
        raise ValueError("a message that is too long")
    message = json.loads(_take(receive, text_bytes))
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message, picture_bytes


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all of the data, however little the pipe takes at once."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_all(descriptor: int, buffer: memoryview) -> None:
    """Fills the buffer.

    Raises:
        EOFError: The other side is gone.
    """
    while buffer:
        count = os.readv(descriptor, [buffer])
        if not count:
            raise EOFError
        buffer = buffer[count:]


def _take(receive: Receive, size: int) -> bytearray:
    data = bytearray(size)
    receive(memoryview(data))
    return data
