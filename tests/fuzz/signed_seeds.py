"""Small signed files that fuzzing starts from, and damage to the manifests in them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mutations import mutate

#: Folders of the tests' module that signs, and of what it imports.
_TESTS = Path(__file__).resolve().parents[1] / "runtime"
_PATHS = (str(_TESTS), str(_TESTS / "provenance"))
_SUFFIXES = ("mp4", "jpg", "png", "webp", "heic")
#: Numbers that parsers of CBOR, JUMBF and DER trip over: heads of containers, lengths, ends.
_HEADS = b"\0\x01\x7f\x80\x81\x9b\x9f\xa1\xbb\xbf\xc1\xd8\xdb\xf6\xf7\xff\x30\x82\x84"


@dataclass(frozen=True, slots=True)
class SignedSeed:
    """A signed file.

    Attributes:
        suffix: Of its name, with the dot.
        data: The file.
        start, end: Where its manifest store lies.
    """

    suffix: str
    data: bytes
    start: int
    end: int

    def damaged(self, random_: random.Random) -> bytes:
        """Damages the manifest in most cases, else the file around it or the whole."""
        if random_.random() < 0.1:
            return mutate(self.data, self.data, random_)
        store = bytearray(self.data[self.start : self.end])
        for _ in range(random_.choice((1, 1, 1, 2, 3, 8, 40))):
            random_.choice(_DAMAGE)(store, random_)
        return self.data[: self.start] + bytes(store) + self.data[self.end :]


def make_signed_seeds(folder: Path) -> list[SignedSeed]:
    """Signs a file of each format, each with a signed ingredient, by a certificate for this run.

    Keys and signatures are random, so that these files differ from run to run.
    """
    sys.path[:0] = [path for path in _PATHS if path not in sys.path]
    from signing import action, authority, sign, write_media

    folder.mkdir(parents=True)
    signer, seeds = authority().issue(), []
    edited = action("edited", "compositeWithTrainedAlgorithmicMedia", softwareAgent={"name": "A"})
    for suffix in _SUFFIXES:
        plain, first = write_media(folder, suffix), folder / f"first.{suffix}"
        sign(plain, first, signer)
        second = folder / f"second.{suffix}"
        part = ({"title": "the first", "relationship": "parentOf"}, first)
        store = sign(plain, second, signer, actions=(action(), edited), ingredients=[part])
        data = second.read_bytes()
        start = data.index(store)
        seeds.append(SignedSeed(second.suffix, data, start, start + len(store)))
    return seeds


def _byte(store: bytearray, random_: random.Random) -> None:
    store[random_.randrange(len(store))] = random_.randrange(256)


def _head(store: bytearray, random_: random.Random) -> None:
    store[random_.randrange(len(store))] = random_.choice(_HEADS)


def _number(store: bytearray, random_: random.Random) -> None:
    size = random_.choice((2, 4, 8))
    at = random_.randrange(len(store) - size)
    number = random_.choice((0, 1, 2, 7, 8, 1 << 15, 1 << 31, (1 << 32) - 1, (1 << 64) - 1))
    store[at : at + size] = (number & ((1 << (8 * size)) - 1)).to_bytes(size, "big")


def _length(store: bytearray, random_: random.Random) -> None:
    """Changes the length of a box."""
    names = (b"jumb", b"jumd", b"cbor", b"json")
    boxes = [at for at in range(len(store) - 8) if store[at + 4 : at + 8] in names]
    at = random_.choice(boxes or [0])
    length = int.from_bytes(store[at : at + 4], "big") + random_.choice((-9, -1, 1, 8, 1 << 20))
    store[at : at + 4] = (max(length, 0) & 0xFFFFFFFF).to_bytes(4, "big")


def _copy(store: bytearray, random_: random.Random) -> None:
    """Copies a stretch over another one."""
    size = random_.randint(1, min(300, len(store) // 2))
    source, target = (random_.randrange(len(store) - size) for _ in range(2))
    store[target : target + size] = store[source : source + size]


_DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_byte, _head, _number, _length, _copy),
)
