"""Families of fakes: which methods count as one kind, and draws that are even over them.

A detector is judged by families that it has not seen. A fit therefore leaves some out, with every
group that it will be judged on (`leave_out`), and draws the others evenly (`FakeFamilies`), so that
the largest does not decide what is learnt.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError

FF_PREFIX = "FF++ "
DFD, DFDC = "DFD", "DFDC"
OTHER_SWAPS = "other swaps"

_MOST_FILES = 300
_FAMILY_EXPONENT = 0.25
_GENERATOR_EXPONENT = 0.5


def family_of(kind: str, generator: str) -> str:
    """Returns the family of a fake.

    Args:
        kind: The table's kind, such as "swap" or "talking head"; may be empty.
        generator: The tool that made it; may be empty.

    Returns:
        The method for FaceForensics++, "DFD" for Google's set, "DFDC" for that set, else the kind;
        Swaps of other tools are one family. The generator where the table gives no kind.
    """
    if "DeepFakeDetection" in generator:
        return DFD
    if generator.startswith(FF_PREFIX):
        return generator
    if generator.startswith(DFDC):
        return DFDC
    return OTHER_SWAPS if kind == "swap" else kind or generator


def with_families(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds the column `family` to rows of a store's index; it is empty for reals."""
    fakes = rows["label"] == "FAKE"
    named = [
        family_of(kind, generator) if fake else ""
        for kind, generator, fake in zip(rows["kind"], rows["generator"], fakes, strict=True)
    ]
    return rows.assign(family=named)


def leave_out(
    rows: pd.DataFrame, families: tuple[str, ...], *, fold: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divides rows into those to fit on and those to judge, which share no group.

    Judged are the groups of the families' own fakes (of a large family, those of its first 300
    files in a fixed random order), and the groups of a fold, whose reals and fakes of other
    families show how seen families fare on unseen people. Not fitted on are those groups and all
    fakes of the families.

    Args:
        rows: Rows of a store's index, with the column `fold`.
        families: Families to leave out; `FF++ *` stands for all methods of FaceForensics++.
        fold: The fold.

    Returns:
        The rows to fit on and those to judge, with the column `family`.

    Raises:
        UsageError: There is no such family, or one part is empty.
    """
    rows = with_families(rows)
    known = sorted(set(rows["family"]) - {""})
    left: set[str] = set()
    for name in families:
        wanted = name.removesuffix("*")
        found = {f for f in known if f == name or (name.endswith("*") and f.startswith(wanted))}
        if not found:
            raise UsageError(f"family {name!r} is not in the store; there are {', '.join(known)}")
        left |= found
    judged: set[str] = set()
    for family in sorted(left):
        files = rows[rows["family"] == family].groupby("group")["shard"].nunique()
        order = sorted(files.index, key=lambda group: _draw(family, group))
        count = 0
        for group in order:
            if count < _MOST_FILES:
                judged.add(group)
            count += int(files[group])
    judged |= set(rows.loc[rows["fold"] == fold, "group"])
    held = rows["group"].isin(judged)
    fitted = rows[~held & ~rows["family"].isin(left)]
    if fitted.empty or not held.any():
        raise UsageError(f"without {', '.join(families)} nothing is left to fit on or to judge")
    return fitted, rows[held]


def _draw(*words: str) -> int:
    """Returns a fixed pseudo-random number for words."""
    return zlib.crc32("\n".join(words).encode())


@dataclass(frozen=True)
class CropFile:
    """The judged crops of one file of a store.

    Attributes:
        shard: Its name in the store.
        positions: int64 [n], of the crops in the shard.
        time_s: float64 [n].
        track: int64 [n], the person.
        face_px: float64 [n], size of the face in the file.
        cropped: Whether the file is a face crop, with nothing around the face.
    """

    shard: str
    positions: NDArray[np.int64]
    time_s: NDArray[np.float64]
    track: NDArray[np.int64]
    face_px: NDArray[np.float64]
    cropped: bool

    @property
    def still(self) -> bool:
        """Whether it is a photograph."""
        return len(self.positions) == 1 and float(self.time_s[0]) == 0.0

    def nearest(self, time_s: float) -> int:
        """Returns the place of the crop that is nearest in time."""
        return int(np.argmin(np.abs(self.time_s - time_s)))


def crop_files(rows: pd.DataFrame) -> dict[str, CropFile]:
    """Returns the files of rows of an index, by their shards."""
    cropped = rows["cropped"] if "cropped" in rows else pd.Series("", index=rows.index)
    return {
        str(shard): CropFile(
            shard=str(shard),
            positions=part["position"].to_numpy(np.int64),
            time_s=part["time_s"].to_numpy(np.float64),
            track=part["track"].to_numpy(np.int64),
            face_px=part["face_px"].to_numpy(np.float64),
            cropped=cropped[part.index[0]] == "yes",
        )
        for shard, part in rows.groupby("shard")
    }


@dataclass(frozen=True)
class TrueFake:
    """A file of a fake, and the real file that it was made from, where that is among the rows."""

    file: CropFile
    original: CropFile | None


@dataclass(frozen=True)
class _Branch:
    """The choices at one level of a draw, and the share of each."""

    parts: list[_Branch] | list[TrueFake]
    shares: NDArray[np.float64]


class FakeFamilies:
    """Draws true fakes evenly: a family, then a generator, a group of footage, and a file.

    A family is drawn by the fourth root of its number of files, a generator by the square root:
    many people are worth more than few, but not in proportion. Files count, not groups: several
    hundred people of DFDC share 58 groups.

    Args:
        rows: Judged rows of a store's index.
        files: Their files, by shard.
    """

    def __init__(self, rows: pd.DataFrame, files: dict[str, CropFile]) -> None:
        facts = with_families(rows.drop_duplicates("shard"))
        shard_of = dict(zip(facts["path"], facts["shard"], strict=True))
        families, sizes = [], []
        fakes = facts[facts["label"] == "FAKE"]
        for _, family in fakes.groupby("family", sort=True):
            generators, counts = [], []
            for _, generator in family.groupby("generator", sort=True):
                groups = [
                    _even(
                        [
                            TrueFake(files[shard], files.get(shard_of.get(original, "")))
                            for shard, original in zip(
                                group["shard"], group["original"], strict=True
                            )
                        ]
                    )
                    for _, group in generator.groupby("group", sort=True)
                ]
                generators.append(_even(groups))
                counts.append(len(generator))
            families.append(_Branch(generators, _shares(counts, _GENERATOR_EXPONENT)))
            sizes.append(family["shard"].nunique())
        self._root = _Branch(families, _shares(sizes, _FAMILY_EXPONENT))

    def __bool__(self) -> bool:
        return bool(self._root.parts)

    def draw(self, rng: np.random.Generator) -> TrueFake:
        """Draws one fake."""
        found: _Branch | TrueFake = self._root
        while isinstance(found, _Branch):
            found = found.parts[int(rng.choice(len(found.parts), p=found.shares))]
        return found


def _even(parts: list[_Branch] | list[TrueFake]) -> _Branch:
    return _Branch(parts, np.full(len(parts), 1.0 / len(parts)))


def _shares(sizes: Sequence[int], exponent: float) -> NDArray[np.float64]:
    weights = np.array(sizes, np.float64) ** exponent
    return np.asarray(weights / max(weights.sum(), 1.0), np.float64)
