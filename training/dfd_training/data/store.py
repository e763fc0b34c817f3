"""The crop store, which `dfd-train prepare` writes and every later command reads.

A store is a folder:

```
store.json        version, detector (name, hash, options), crop scale, region scale, largest side,
                  rate, most frames of a clip, version of the signals
index.csv         one row a crop: the table's columns, and shard, position, track, time_s,
                  face_px (size of the face in the file), judged, reason
skipped.csv       path and reason of each file that gave no crop
made.csv          one row a crop that a generator made from a stored one, where there are any:
                  the index's columns; `original` is the real file's path
crops/HASH.npz    one shard a file:
    data          uint8 [bytes], the PNG pictures of all crops, one after the other
    offsets       int64 [n + 1], where each picture starts
    boxes         float32 [n, 4], the tracked face box x0, y0, x1, y1 in pixels of the crop
    landmarks     float32 [n, 468, 2] in pixels of the crop; NaN where the mesh saw no face
    time_s        float64 [n], 0 for a photograph
    track         int32 [n], the person
    face_px       float32 [n]
    judged        bool [n], False where the runtime would not judge the face
    reason        text [n], why not
    signals       float32 [n, S], measurements of consecutive frames in the order of
                  `dfd_edge.faces.signals.NAMES`; NaN where there are none, as for photographs
    signals_version  their version
```

The detector is the runtime's, or one that `dfd_training.data.croppers` lists for comparison.

The crop scale is the side of the model's crop over the size of the face's box. Models fitted on the
store carry it, and so do their bundles: the runtime cuts faces at the bundle's scale.

A stored crop is a square of `region_scale` face sizes, wider than the model's crop, so that
training may shift and scale the model's crop inside it. It keeps the file's own pixels up to a side
of `MAX_SIDE`, a face of 290 px: a crop shrunk here and once more in training would be blurrier than
the runtime's, which is shrunk once. PNG keeps its pixels exactly: another
JPEG would write its own traces over those of the forgery.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.faces import DETECTOR_NAME
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION
from dfd_edge.sinks.files import written_whole
from dfd_training.data.table import COLUMNS

STORE_VERSION = 1
REGION_SCALE = 2.2
MAX_SIDE = 640

UNRECORDED_CROP_SCALE = 1.5
"""The crop scale of stores and models that do not state one.

All of them were cut at it: it was a constant of the program until stores recorded theirs.
"""


@dataclass(frozen=True, slots=True)
class StoredCrop:
    """One crop of the store.

    Attributes:
        image: uint8 [side, side, 3], BGR.
        box: float32 [4], the face in pixels of `image`.
        landmarks: float32 [468, 2] in pixels of `image`, or None.
        crop_scale: Side of the model's crop over the size of the face.
    """

    image: NDArray[np.uint8]
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32] | None
    crop_scale: float


@dataclass(frozen=True)
class Shard:
    """The crops of one file, in order of time; the fields are described in the module's text."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    time_s: NDArray[np.float64]
    track: NDArray[np.int32]
    face_px: NDArray[np.float32]
    judged: NDArray[np.bool_]
    reason: NDArray[np.str_]
    signals: NDArray[np.float32]
    signals_version: int = SIGNALS_VERSION

    def __len__(self) -> int:
        return len(self.time_s)

    def crop(self, position: int, *, crop_scale: float) -> StoredCrop:
        """Decodes one crop; the crop scale is the store's."""
        picture = self.data[self.offsets[position] : self.offsets[position + 1]]
        image = cv2.imdecode(picture, cv2.IMREAD_COLOR)
        if image is None:
            raise UsageError(f"crop {position} cannot be decoded: prepare this store again")
        landmarks = self.landmarks[position]
        return StoredCrop(
            image=np.asarray(image, np.uint8),
            box=self.boxes[position],
            landmarks=None if np.isnan(landmarks).any() else landmarks,
            crop_scale=crop_scale,
        )

    def save(self, path: Path) -> None:
        """Writes the shard, whole or not at all."""
        fields: dict[str, Any] = {
            field.name: np.asarray(getattr(self, field.name)) for field in dataclasses.fields(self)
        }
        with written_whole(path) as partial:
            np.savez(partial, **fields)

    @classmethod
    def load(cls, path: Path) -> Shard:
        """Reads a shard; nothing in it is ever unpickled.

        Signals of another version, which older shards have, are not comparable: they are NaN.

        Raises:
            UsageError: The file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                signals, version = _signals_in(arrays)
                return cls(
                    **{name: arrays[name] for name in _ARRAYS},
                    signals=signals,
                    signals_version=version,
                )
        except _DAMAGE as error:
            raise _damaged(path, error) from error


_ARRAYS = tuple(
    field.name for field in dataclasses.fields(Shard) if not field.name.startswith("signals")
)
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def _signals_in(arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], int]:
    """Returns the signals of a shard's crops, and their version."""
    version = int(arrays["signals_version"]) if "signals_version" in arrays else 0
    if version != SIGNALS_VERSION:
        return no_signals(len(arrays["time_s"])), version
    return arrays["signals"], version


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return UsageError(
        f"{path}: this shard of the crop store cannot be read ({reason}): delete it and prepare "
        "the store again"
    )


def no_signals(crops: int) -> NDArray[np.float32]:
    """Returns the signals of crops for which there are none: NaN, float32 [crops, S]."""
    return np.full((crops, len(NAMES)), np.nan, np.float32)


def stored_signals_version(path: Path) -> int | None:
    """Returns the version of a store's signals, 0 if it has none; None where there is no store."""
    settings = path / "store.json"
    if not settings.is_file():
        return None
    return int(json.loads(settings.read_text()).get("signals_version", 0))


def stored_crop_scale(path: Path) -> float | None:
    """Returns the crop scale of a store; None where there is no store."""
    settings = path / "store.json"
    if not settings.is_file():
        return None
    return float(json.loads(settings.read_text()).get("crop_scale", UNRECORDED_CROP_SCALE))


def shard_name(file_path: str) -> str:
    """Returns the name of the shard of one file of the table."""
    return hashlib.sha256(file_path.encode()).hexdigest()[:20] + ".npz"


class CropStore:
    """Reads a crop store.

    Args:
        path: The folder that `dfd-train prepare` wrote.
        picture_memory_mb: Most megabytes of decoded pictures that are kept in memory.

    Attributes:
        index: One row a crop of a file of the table.
        made: One row a crop that a generator made from one of those; may be empty.
        settings: The content of `store.json`, always with the crop scale.
        crop_scale: Side of the model's crop over the size of the face.
        detector: Name of the detector that found the faces.
        rate_hz: Frames a second taken from clips.

    Raises:
        UsageError: When the folder is no store, or was written by another version.
    """

    def __init__(self, path: Path, *, picture_memory_mb: int = 0) -> None:
        settings_file = path / "store.json"
        if not settings_file.is_file():
            raise UsageError(f"{path}: no crop store here: run dfd-train prepare first")
        settings = json.loads(settings_file.read_text())
        if settings.get("version") != STORE_VERSION:
            raise UsageError(
                f"{path}: store version {settings.get('version')}, this program reads "
                f"{STORE_VERSION}: prepare it again"
            )
        self.path = path
        self.crop_scale = float(settings.get("crop_scale", UNRECORDED_CROP_SCALE))
        self.settings: dict[str, object] = {**settings, "crop_scale": self.crop_scale}
        self.detector = str(settings.get("detector", DETECTOR_NAME))
        self.rate_hz = float(settings["rate_hz"])
        self.index = _read_index(path / "index.csv")
        made = path / "made.csv"
        self.made = _read_index(made) if made.is_file() else self.index.iloc[:0]
        self._cache: dict[str, Shard] = {}
        self._pictures: dict[tuple[str, int], StoredCrop] = {}
        self._picture_bytes_left = picture_memory_mb * 2**20

    def shard(self, name: str) -> Shard:
        """Returns a shard, kept in memory from its first use on."""
        if name not in self._cache:
            self._cache[name] = Shard.load(self.path / "crops" / name)
        return self._cache[name]

    def signals(self, name: str) -> NDArray[np.float32]:
        """Returns the signals of a shard's crops, [n, S], without reading its pictures.

        Raises:
            UsageError: The shard is missing or damaged.
        """
        path = self.path / "crops" / name
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return _signals_in(arrays)[0]
        except _DAMAGE as error:
            raise _damaged(path, error) from error

    def crop(self, name: str, position: int) -> StoredCrop:
        """Decodes one crop of a shard; its picture may be shared and must not be written to."""
        key = (name, position)
        if key in self._pictures:
            return self._pictures[key]
        crop = self.shard(name).crop(position, crop_scale=self.crop_scale)
        if crop.image.nbytes <= self._picture_bytes_left:
            self._picture_bytes_left -= crop.image.nbytes
            self._pictures[key] = crop
        return crop


def _read_index(path: Path) -> pd.DataFrame:
    text = (*COLUMNS, "reason", "shard")
    index = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(text, str))
    return index if "kind" in index else index.assign(kind="")
