"""Generated crops, written into the store beside the real ones that they were made from.

`made.csv` has the columns of the store's `index.csv`. The path of a generated file is
`made/GENERATOR/NUMBER/PATH-OF-THE-REAL-FILE`, and its shard lies in `crops/` like any other. Each
generated crop keeps the box, landmarks, time and size of the real crop that it was made from: the
two align to the pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole
from dfd_training.augment.synthesis.detail import Picture
from dfd_training.data.folds import training_rows
from dfd_training.data.store import CropStore, Shard, no_signals, shard_name

MADE_FILE = "made.csv"
MAX_STEP = 4
"""Largest step between crops: at 5 Hz, gaps stay below the second that starts a sequence anew."""


@dataclass(frozen=True, slots=True)
class RealFile:
    """One person in one real file, whose crops a generator works on.

    Attributes:
        path: The real file.
        group: Files that share footage or a person.
        fold: The training fold of the group.
        shard: Shard of the real file.
        positions: Positions of its judged crops with landmarks, in order of time.
    """

    path: str
    group: str
    fold: int
    shard: str
    positions: tuple[int, ...]

    def spread(self, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Chooses at most `count` positions over the file, in steps of at most `MAX_STEP`."""
        step = int(np.clip(np.ceil(len(self.positions) / count), 1, MAX_STEP))
        span = (min(count, 1 + (len(self.positions) - 1) // step) - 1) * step
        start = int(rng.integers(len(self.positions) - span))
        return self.positions[start : start + span + 1 : step]


def real_clips(store: CropStore) -> list[RealFile]:
    """Returns the real clips marked train; of several people in a clip, the one seen most."""
    return _real_files(store, stills=False)


def real_photographs(store: CropStore) -> list[RealFile]:
    """Returns the real photographs marked train."""
    return _real_files(store, stills=True)


def _real_files(store: CropStore, *, stills: bool) -> list[RealFile]:
    rows = training_rows(store)
    rows = rows[(rows["label"] == "REAL") & rows["judged"] & rows["has_landmarks"]]
    crops_per_file = rows.groupby("shard")["shard"].transform("size")
    still = (crops_per_file == 1) & (rows["time_s"] == 0.0)
    files: list[RealFile] = []
    for shard, part in rows[still if stills else ~still].groupby("shard", sort=False):
        person = part[part["track"] == part["track"].mode().iloc[0]].sort_values("time_s")
        first = person.iloc[0]
        files.append(
            RealFile(
                path=str(first["path"]),
                group=str(first["group"]),
                fold=int(first["fold"]),
                shard=str(shard),
                positions=tuple(int(position) for position in person["position"]),
            )
        )
    return sorted(files, key=lambda file: file.path)


def fake_path(generator: str, number: int, real_path: str) -> str:
    """Returns the path under which a generated file stands in `made.csv`."""
    return f"made/{generator}/{number}/{real_path}"


class FakeWriter:
    """Writes generated crops into a store.

    Args:
        store: The store whose real crops are worked on.
        generator: Its name, as `made.csv` is to give it.
        save_every: Files between two writings of `made.csv`.

    Files that `made.csv` holds already count as done, so an interrupted run is resumed.
    """

    def __init__(self, store: CropStore, generator: str, *, save_every: int = 20) -> None:
        self._store = store
        self._generator = generator
        self._save_every = save_every
        self._path = store.path / MADE_FILE
        self._rows = self._read()
        self._waiting: list[pd.DataFrame] = []
        self._done = set(self._rows["path"])
        by_shard = store.index.sort_values("position").groupby("shard", sort=False)
        self._real = {str(shard): part for shard, part in by_shard}

    def __enter__(self) -> FakeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def done(self, file: RealFile, number: int) -> bool:
        """Returns whether this generated file is there already."""
        return fake_path(self._generator, number, file.path) in self._done

    def add(
        self,
        file: RealFile,
        number: int,
        positions: Sequence[int],
        pictures: Sequence[Picture],
        *,
        model: str,
    ) -> str:
        """Writes one generated file.

        Args:
            file: The real file.
            number: Number of the generated file among those of one real file.
            positions: The real crops, in order of time.
            pictures: A picture for each, uint8 [side, side, 3], BGR, of the real crop's size.
            model: The network that made it, for the column `model`.

        Returns:
            The path of the generated file.

        Raises:
            UsageError: When a picture has another size than its real crop.
        """
        path = fake_path(self._generator, number, file.path)
        real = self._store.shard(file.shard)
        for position, picture in zip(positions, pictures, strict=True):
            side = _png_side(real.data[real.offsets[position] :])
            if picture.shape != (side, side, 3):
                raise UsageError(
                    f"{path}: generated a crop of shape {picture.shape} from one of {side} px"
                )
        fake_shard(real, positions, pictures).save(self._store.path / "crops" / shard_name(path))
        rows = (
            self._real[file.shard]
            .iloc[list(positions)]
            .assign(
                path=path,
                label="FAKE",
                original=file.path,
                generator=self._generator,
                model=model,
                shard=shard_name(path),
                position=np.arange(len(positions)),
            )
        )
        self._waiting.append(rows)
        self._done.add(path)
        if len(self._waiting) >= self._save_every:
            self.save()
        return path

    def save(self) -> None:
        """Writes `made.csv` whole, with the rows that others added since."""
        if not self._waiting:
            return
        mine = pd.concat(self._waiting, ignore_index=True)
        others = self._read()
        others = others[~others["path"].isin(set(mine["path"]))]
        self._rows = pd.concat([others, mine], ignore_index=True) if len(others) else mine
        with written_whole(self._path) as partial:
            self._rows.to_csv(partial, index=False)
        self._waiting = []

    def _read(self) -> pd.DataFrame:
        columns = list(self._store.index.columns)
        if not self._path.is_file():
            return pd.DataFrame(columns=columns)
        try:
            rows = pd.read_csv(
                self._path, keep_default_na=False, dtype=self._store.index.dtypes.to_dict()
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
            raise UsageError(f"{self._path}: not a table of generated crops: {error}") from error
        if missing := [name for name in columns if name not in rows.columns]:
            raise UsageError(f"{self._path}: lacks the columns {missing}: delete it and make again")
        return rows[columns]


def fake_shard(real: Shard, positions: Sequence[int], pictures: Sequence[Picture]) -> Shard:
    """Returns a shard of generated pictures with the facts of the real crops behind them."""
    encoded = [_encode(picture) for picture in pictures]
    chosen = np.asarray(positions, np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in encoded])])
    facts = ("boxes", "landmarks", "time_s", "track", "face_px", "judged", "reason")
    return dataclasses.replace(
        real,
        data=np.concatenate(encoded),
        offsets=offsets.astype(np.int64),
        signals=no_signals(len(chosen)),
        **{name: getattr(real, name)[chosen] for name in facts},
    )


def _png_side(data: NDArray[np.uint8]) -> int:
    """Returns the side of a square PNG from its header, which is far quicker than decoding."""
    return int.from_bytes(data[16:20].tobytes(), "big")


def _encode(picture: Picture) -> NDArray[np.uint8]:
    ok, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise UsageError(f"a crop of shape {picture.shape} cannot be encoded as PNG")
    return np.asarray(encoded, np.uint8).ravel()


def file_rng(seed: int, *words: object) -> np.random.Generator:
    """Returns a random generator of its own for each file, so that a resumed run draws alike."""
    text = "/".join(str(word) for word in words).encode()
    return np.random.default_rng([seed, *text])
