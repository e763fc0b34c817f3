"""What the leak checks look at: clips of a store, facts of them, and crops with the face hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.jitter import NO_JITTER, to_input, work_crop
from dfd_training.data.store import CropStore
from dfd_training.metrics import Labels, Scores
from dfd_training.models.scoring import FrameScorer
from dfd_training.quality.covering import Cover, covered
from dfd_training.quality.facts import media_facts, store_facts
from dfd_training.quality.quick import Features
from dfd_training.quality.selection import JudgedFile, select_files

CROPS = 6
FEATURE_SIZE = 160


@dataclass(frozen=True)
class Sample:
    """Files and what was measured on them.

    Attributes:
        files: clips with landmarks.
        facts: float [n, K], without a look at the face; names in the columns.
        features: for each cover, the mean ImageNet features of each file's crops, float [n, F].
        logits: for each cover, the mean logit of the model that is examined, float [n]; empty
            without a model.
    """

    files: list[JudgedFile]
    facts: pd.DataFrame
    features: dict[Cover, Features]
    logits: dict[Cover, Scores]

    @property
    def labels(self) -> Labels:
        """1 for fake, int [n]."""
        return np.array([int(file.fake) for file in self.files], np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """Groups, text [n]."""
        return np.array([file.group for file in self.files])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Places of each fake and of its original."""
        place = {file.path: i for i, file in enumerate(self.files) if not file.fake}
        return [
            (i, place[file.original])
            for i, file in enumerate(self.files)
            if file.fake and file.original in place
        ]


def measure(
    store: CropStore,
    split: str,
    *,
    root: Path | None,
    embed: Callable[[NDArray[np.uint8]], Features],
    model: FrameScorer | None,
    on_file: Callable[[], None] = lambda: None,
) -> Sample:
    """Look at the clips of a split: facts, and features and logits with the face hidden.

    Args:
        store: the crops.
        split: `train` or `val`.
        root: folder of the media files; None leaves out what containers tell.
        embed: from crops uint8 [n, 160, 160, 3] to features [n, F] that know no deepfakes.
        model: the frame model that is examined, if any.
        on_file: called after each file.

    Raises:
        UsageError: when no clip of the split has landmarks.
    """
    chosen = [f for f in clips_of_store(store, split) if len(_places(store, f))]
    if not chosen:
        raise UsageError(f"{store.path}: no clip with landmarks in split {split}")
    facts = store_facts(store, chosen)
    if root is not None:
        facts = pd.concat([facts, media_facts(root, chosen)], axis=1)
    features: dict[Cover, list[NDArray[np.float64]]] = {cover: [] for cover in Cover}
    logits: dict[Cover, list[float]] = {cover: [] for cover in Cover if model is not None}
    for file in chosen:
        cut = [
            work_crop(store.crop(file.shard, place), NO_JITTER) for place in _places(store, file)
        ]
        pictures = [covered(crop, cover) for cover in Cover for crop in cut]
        inputs = np.stack([to_input(picture, FEATURE_SIZE) for picture in pictures])
        for cover, part in zip(Cover, np.split(embed(inputs), len(Cover)), strict=True):
            features[cover].append(part.mean(axis=0))
        if model is not None:
            if model.input_size != FEATURE_SIZE:
                inputs = np.stack([to_input(picture, model.input_size) for picture in pictures])
            judged = np.split(model.score(inputs)[1], len(Cover))
            for cover, scores in zip(Cover, judged, strict=True):
                logits[cover].append(float(scores.mean()))
        on_file()
    return Sample(
        chosen,
        facts,
        {cover: np.stack(rows) for cover, rows in features.items()},
        {cover: np.array(values) for cover, values in logits.items()},
    )


def clips_of_store(store: CropStore, split: str) -> list[JudgedFile]:
    """The clips of a split, without made fakes."""
    files = select_files(store, split=split, max_crops=CROPS)
    return [file for file in files if not file.made and not file.photograph]


def _places(store: CropStore, file: JudgedFile) -> list[int]:
    landmarks = store.shard(file.shard).landmarks
    return [place for place in file.positions if not np.isnan(landmarks[place]).any()]
