"""Manifest stores as no program writes them: boxes of JUMBF (ISO/IEC 19566-5) by hand.

Copies of a manifest take its place under labels of the same length, so that references lead
wherever they should; hashes and signatures no longer hold.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

STORE_TYPE = bytes.fromhex("6332706100110010800000aa00389b71")
_PNG_HEAD_BYTES = 33


def box(name: bytes, content: bytes) -> bytes:
    """A box with its length."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that follow each other: name and content."""
    while data:
        length, name = struct.unpack(">I4s", data[:8])
        yield name, data[8:length]
        data = data[length:]


def label_of(manifest: bytes) -> bytes:
    """The label of a superbox, from its description box."""
    _, description = next(boxes(manifest))
    return description[17 : description.index(b"\0", 17)]


def manifests_of(store: bytes) -> list[bytes]:
    """Contents of the manifests in a store; the last is the active one."""
    ((_, content),) = boxes(store)
    return [inner for name, inner in boxes(content) if name == b"jumb"]


def superbox(content: bytes, more_bytes: int = 0) -> bytes:
    """A superbox of a store's type, which says that it is `more_bytes` longer than it is."""
    inner = box(b"jumd", STORE_TYPE + b"\x03c2pa\0") + content
    return struct.pack(">I4s", 8 + len(inner) + more_bytes, b"jumb") + inner


def store_of(manifests: Sequence[bytes]) -> bytes:
    """A store of these manifests."""
    return superbox(b"".join(box(b"jumb", content) for content in manifests))


def with_claim(store: bytes, claim: bytes) -> bytes:
    """The store with another claim, as CBOR, in its active manifest."""
    *below, active = manifests_of(store)
    parts = b""
    for name, content in boxes(active):
        if name == b"jumb" and label_of(content).startswith(b"c2pa.claim"):
            inner = boxes(content)
            content = b"".join(box(n, claim if n == b"cbor" else c) for n, c in inner)  # noqa: PLW2901
        parts += box(name, content)
    return store_of([*below, parts])


def chain(store: bytes, leads_to: Sequence[int | None]) -> bytes:
    """A store of copies of the active manifest, whose ingredients lead to each other.

    Args:
        store: A store of an active manifest whose ingredients have manifests.
        leads_to: For each copy, the copy that all its ingredients lead to, or None for those that
            they led to before. The first one is active.
    """
    *below, active = manifests_of(store)
    labels = [f"urn:c2pa:{uuid.UUID(int=n)}".encode() for n in range(len(leads_to))]
    copies = []
    for label, target in zip(labels, leads_to, strict=True):
        copy = active.replace(label_of(active), label)
        for manifest in below if target is not None else ():
            copy = copy.replace(label_of(manifest), labels[target])
        assert len(copy) == len(active)
        copies.append(copy)
    return store_of([*below, *copies[::-1]])


def png_with(plain: Path, target: Path, store: bytes) -> Path:
    """A PNG with this store, behind its header."""
    data = plain.read_bytes()
    chunk = struct.pack(">I", len(store)) + b"caBX" + store
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    target.write_bytes(data[:_PNG_HEAD_BYTES] + chunk + data[_PNG_HEAD_BYTES:])
    return target
