"""The first frames of clips and their features, each computed once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import SourceError
from dfd_edge.faces import extract_crop, middle_square
from dfd_edge.sources import SourceItem, SourceKind, VideoFile
from dfd_edge.sources.frames import FirstFrames
from dfd_training.recipes.run import RESIZE
from dfd_training.sequence.feature_cache import ClipFeatures, FeatureCache, hash_of

logger = logging.getLogger(__name__)

Crops = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class ReadClips:
    """The clips of a table that could be read.

    Attributes:
        rows: Their rows of the table, in its order.
        features: Features of each.
        computed: Number of clips that were not in the cache.
        photographs: Number of rows that are pictures, which a recipe for clips leaves out.
        unreadable: Reason for each file that could not be read, by path.
    """

    rows: pd.DataFrame
    features: list[ClipFeatures]
    computed: int
    photographs: int
    unreadable: dict[str, str]


def first_crops(path: Path, *, frames: int, size: int) -> tuple[Crops, float]:
    """Cuts the middle squares of a clip's first frames, by the runtime's own code.

    Args:
        path: Path of the clip.
        frames: How many, where the clip has as many.
        size: Side of the squares in pixels.

    Returns:
        uint8 [T, size, size, 3], RGB, T at least 1; and the frames a second that the clip states.

    Raises:
        SourceError: It cannot be read.
    """
    sampler = FirstFrames(frames)
    crops: list[Crops] = []
    with VideoFile(path) as video:
        for frame in video.frames(sampler):
            crops.append(extract_crop(frame.image, middle_square(frame.image), size, RESIZE))
            if sampler.is_done:
                break
        rate_hz = float(video.frame_rate)
    return np.stack(crops), rate_hz


def features_of(model: keras.Model, crops: Crops, *, batch_size: int) -> NDArray[np.float32]:
    """Computes the features of crops, in batches of one size; the last is padded.

    Args:
        model: Gives `features`.
        crops: uint8 [T, S, S, 3], RGB.
        batch_size: Batch size of the network.

    Returns:
        float32 [T, F].
    """
    parts = []
    for start in range(0, len(crops), batch_size):
        part = crops[start : start + batch_size]
        batch = np.zeros((batch_size, *crops.shape[1:]), np.float32)
        batch[: len(part)] = part
        found = model.predict_on_batch(batch)["features"]
        parts.append(np.asarray(found, np.float32)[: len(part)])
    return np.concatenate(parts)


def read_clips(
    table: pd.DataFrame,
    root: Path,
    model: keras.Model,
    cache: FeatureCache,
    *,
    frames: int,
    size: int,
    on_file: Callable[[], None] = lambda: None,
) -> ReadClips:
    """Computes the features of every clip of a table that is not in the cache.

    Args:
        table: Rows of `read_table`.
        root: The folder that relative paths start from.
        model: Gives `features`.
        cache: Cache for the same model, frames and size.
        frames: Number of frames of a clip, from its start.
        size: Side of the pictures in pixels.
        on_file: Called after each row.
    """
    kept: list[int] = []
    features: list[ClipFeatures] = []
    computed = photographs = 0
    unreadable: dict[str, str] = {}
    for number, name in enumerate(table["path"]):
        path = root / name
        try:
            if SourceItem.of(path).kind is SourceKind.IMAGE:
                photographs += 1
                continue
            clip = hash_of(path)
            found = cache.load(clip)
            if found is None:
                crops, rate_hz = first_crops(path, frames=frames, size=size)
                found = ClipFeatures(features_of(model, crops, batch_size=frames), rate_hz)
                cache.save(clip, found)
                computed += 1
            kept.append(number)
            features.append(found)
        except (SourceError, OSError) as error:
            unreadable[name] = str(error)
            logger.warning("%s; left out", error)
        finally:
            on_file()
    return ReadClips(table.iloc[kept], features, computed, photographs, unreadable)
