"""A folder with the shape of DFDC's public sample of 400 training clips, generated."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sample_clips import write_clip

FILES, REALS, FAKES = 400, 77, 323
#: Originals that the fakes name. The published sample has one with six fakes, its most frequent
#: value; how the others are shared out is not published, and chosen here.
ORIGINALS, MOST_FAKED, MOST_FAKES = 209, "meawmsgiti.mp4", 6
FAKES_OF_AN_ORIGINAL = (6, *[5] * 4, *[4] * 6, *[3] * 10, *[2] * 55, *[1] * 133)
#: Originals that are in the folder; most of the published sample's are in other parts.
ORIGINALS_HERE = 20


def write_dfdc_sample(folder: Path, clips: Sequence[bytes] = (), *, seed: int = 0) -> Path:
    """Write 400 clips with names as DFDC has them, and their metadata.json.

    Args:
        folder: It is created.
        clips: Contents of MP4 files, dealt to the names in turn; by default three tiny ones.
        seed: Seed of the names and of who is whose original.

    Returns:
        The metadata.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    clips = clips or tiny_clips(folder)
    letters = np.array(list(string.ascii_lowercase))
    drawn = ["".join(rng.choice(letters, 10)) + ".mp4" for _ in range(FILES + ORIGINALS)]
    assert len({MOST_FAKED, *drawn}) == FILES + ORIGINALS + 1
    reals, fakes = drawn[:REALS], drawn[REALS:FILES]
    away = drawn[FILES : FILES + ORIGINALS - ORIGINALS_HERE - 1]
    others = rng.permutation([*away, *reals[:ORIGINALS_HERE]]).tolist()
    shares = zip([MOST_FAKED, *others], FAKES_OF_AN_ORIGINAL, strict=True)
    named = rng.permutation([name for name, count in shares for _ in range(count)]).tolist()
    entries: dict[str, dict[str, str | None]] = {
        name: {"label": "REAL", "split": "train", "original": None} for name in reals
    }
    for name, original in zip(fakes, named, strict=True):
        entries[name] = {"label": "FAKE", "split": "train", "original": original}
    for number, name in enumerate(sorted(entries)):
        # A box that players skip makes every content another.
        free = (8 + len(name)).to_bytes(4, "big") + b"free" + name.encode()
        (folder / name).write_bytes(clips[number % len(clips)] + free)
    metadata = folder / "metadata.json"
    metadata.write_text(json.dumps(dict(sorted(entries.items()))))
    return metadata


def tiny_clips(folder: Path) -> list[bytes]:
    """Three clips of two grey frames, 32 pixels wide, as the contents of files."""
    scratch = folder / "scratch.mp4"
    contents = []
    for grey in (60, 120, 180):
        write_clip(scratch, [np.full((32, 32, 3), grey, np.uint8)] * 2)
        contents.append(scratch.read_bytes())
    scratch.unlink()
    return contents
