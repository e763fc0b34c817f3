"""FaceForensics++ (Rössler et al., ICCV 2019) and the DeepFakeDetection clips that come with it.

```
original_sequences/{youtube,actors}/{raw,c23,c40}/videos/ID.mp4
manipulated_sequences/METHOD/{raw,c23,c40}/videos/TARGET_SOURCE.mp4
```

The person TARGET is seen in the footage, SOURCE lent the face. Clips of actors are named
`NN__scene.mp4`, their fakes `NN_MM__scene__ID.mp4`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_edge.errors import UsageError
from dfd_training.data.readers.media import (
    Imported,
    MediaRow,
    listed,
    media_in,
    subfolder,
    without_shared_people,
)
from dfd_training.data.table import LABELS, SPLITS

COMPRESSIONS = ("raw", "c0", "c23", "c40")
ORIGINALS = "original_sequences"
FAKES = "manipulated_sequences"

_FOOTAGE = re.compile(r"(?P<target>\d+)(?:__(?P<scene>.+))?")
_FAKE = re.compile(r"(?P<target>\d+)_(?P<source>\d+)(?:__(?P<scene>.+?)(?:__[A-Za-z0-9]+)?)?")


@dataclass(frozen=True, slots=True)
class _Clip:
    """A file with its people (one, or target and source) and, for actors, the scene."""

    file: Path
    method: str
    compression: str
    people: tuple[str, ...]
    scene: str

    @property
    def footage(self) -> tuple[str, str, str]:
        return (self.people[0], self.scene, self.compression)


def read_faceforensics(
    folder: Path, *, compressions: Sequence[str] = (), splits: Path | None = None
) -> Imported:
    """Reads the originals and fakes.

    A group joins all people that fakes join, so that nobody stands on both sides of a split.

    Args:
        folder: Holds original_sequences and manipulated_sequences.
        compressions: Compressions to read; by default all that are there.
        splits: Folder with the published train.json, val.json and test.json (lists of pairs of
            clips). Files that share a person with a cleaner split are left out.

    Raises:
        UsageError: There are no clips, or a split file is not what it should be.
    """
    split_of = {} if splits is None else read_splits(splits)
    wanted = set(compressions) or set(COMPRESSIONS)
    result = Imported()
    strange: list[Path] = []
    originals = list(_clips(folder, ORIGINALS, wanted, strange))
    fakes = list(_clips(folder, FAKES, wanted, strange))
    if not originals and not fakes:
        raise UsageError(
            f"{folder}: no clip in {ORIGINALS}/*/{{{','.join(sorted(wanted))}}}/videos or "
            f"{FAKES}/*/{{{','.join(sorted(wanted))}}}/videos"
        )
    file_of = {clip.footage: clip.file for clip in originals}
    lost: list[Path] = []
    for clip in originals + fakes:
        fake = len(clip.people) == 2
        original = file_of.get(clip.footage) if fake else None
        if fake and original is None:
            lost.append(clip.file)
        kind = "actors" if clip.scene else "youtube"
        result.rows.append(
            MediaRow(
                clip.file,
                LABELS[fake],
                original=original,
                generator=clip.method if fake else "",
                model=clip.people[1] if fake else "",
                keys=tuple(f"{kind} {person}" for person in clip.people),
                split="" if clip.scene else split_of.get(clip.people[0], ""),
                source=f"FaceForensics++ {kind} {clip.compression}",
            )
        )
    result.note("named otherwise, left out", strange)
    result.note("fakes whose original is not there", lost)
    if not split_of:
        return result
    unlisted = [r.file for r in result.rows if not r.split and not r.keys[0].startswith("actors")]
    result.note(f"in no split file of {splits}", unlisted)
    return without_shared_people(result)


def _clips(folder: Path, part: str, compressions: set[str], strange: list[Path]) -> Iterator[_Clip]:
    top = subfolder(folder, part)
    pattern = _FAKE if part == FAKES else _FOOTAGE
    for method in [] if top is None else listed(top):
        if top is None or not (top / method).is_dir():
            continue
        for compression in COMPRESSIONS:
            videos = top / method / compression / "videos"
            if compression not in compressions or not videos.is_dir():
                continue
            for name in media_in(videos):
                match = pattern.fullmatch(Path(name).stem)
                if match is None:
                    strange.append(videos / name)
                    continue
                words = match.groupdict()
                people = (words["target"], *([words["source"]] if "source" in words else []))
                yield _Clip(videos / name, method, compression, people, words["scene"] or "")


def read_splits(folder: Path) -> dict[str, str]:
    """Reads the published train.json, val.json and test.json.

    Returns:
        The split of each clip's number.

    Raises:
        UsageError: None is there, one is no list of pairs, or a clip stands in two of them.
    """
    split_of: dict[str, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.json"
        if not path.is_file():
            continue
        try:
            pairs: Any = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: not readable as JSON: {error}") from error
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            if not (isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))):
                raise UsageError(f'{path}: {pair!r:.40} is no pair such as ["071", "054"]')
            for number in pair:
                if split_of.setdefault(number, split) != split:
                    raise UsageError(f"{path}: {number} stands in {split_of[number]}.json too")
    if not split_of:
        raise UsageError(f"{folder}: none of train.json, val.json and test.json")
    return split_of


def _is_number(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal()
