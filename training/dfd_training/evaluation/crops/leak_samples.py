"""Input of the leak checks: clips of a store, their facts, and crops with the face occluded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources.containers import open_container
from dfd_training.augment.jitter import NO_JITTER, to_input, work_crop
from dfd_training.augment.synthesis.detail import Picture
from dfd_training.data.store import CropStore, StoredCrop
from dfd_training.evaluation.crops.classifiers import Features
from dfd_training.evaluation.crops.selection import JudgedFile, select_files
from dfd_training.evaluation.statistics import Labels, Scores
from dfd_training.models.scoring import FrameScorer

GROWTH = 0.12
"""Growth of the landmarks' hull over the size of the face: masks of swaps reach beyond it."""

_GREY = 127
_BLUR_SHARE = 0.15
_FEATHER_SHARE = 0.02
CROPS = 6
FEATURE_SIZE = 160


def store_facts(store: CropStore, files: Sequence[JudgedFile]) -> pd.DataFrame:
    """Collects facts from a store: face size, brightness, contrast, sampled length, judged crops.

    Returns:
        One row for each file, in order; all columns are numbers.
    """
    judged = store.index[store.index["judged"]].groupby("shard")
    length_s, count = judged["time_s"].max(), judged.size()
    rows = []
    for file in files:
        shard = store.shard(file.shard)
        luma = [
            cv2.cvtColor(work_crop(store.crop(file.shard, p), NO_JITTER).image, cv2.COLOR_BGR2GRAY)
            for p in file.positions
        ]
        rows.append(
            {
                "face size": float(shard.face_px[list(file.positions)].mean()),
                "brightness": float(np.mean([picture.mean() for picture in luma])),
                "contrast": float(np.mean([picture.std() for picture in luma])),
                "sampled length": float(length_s[file.shard]),
                "judged crops": float(count[file.shard]),
            }
        )
    return pd.DataFrame(rows)


def media_facts(root: Path, files: Sequence[JudgedFile]) -> pd.DataFrame:
    """Collects facts from containers: size, shape, frame rate, length, bit rate, bytes and codec.

    Args:
        root: Folder that the files' paths start from.
        files: The clips.

    Returns:
        One row for each file, in order; all columns are numbers, one of 0 or 1 for each codec.

    Raises:
        SourceError: A file is missing or is no video.
    """
    rows = [_media(root / file.path) for file in files]
    return pd.get_dummies(pd.DataFrame(rows), columns=["codec"], prefix="codec", dtype=float)


def _media(path: Path) -> dict[str, object]:
    try:
        size = path.stat().st_size
        with open_container(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            length_s = float(container.duration or 0) / av.time_base
            return {
                "width": float(context.width),
                "height": float(context.height),
                "frame rate": float(stream.average_rate or 0.0),
                "length": length_s,
                "bytes": float(size),
                "bit rate": size * 8 / length_s if length_s > 0 else 0.0,
                "sound": float(bool(container.streams.audio)),
                "codec": f"{context.name} {context.pix_fmt}",
            }
    except (OSError, av.error.FFmpegError, IndexError) as error:
        raise SourceError(
            path,
            f"no facts of this clip ({str(error) or 'no video in it'}): give --root, the folder "
            "that the table's paths start from",
        ) from error


class Occlusion(StrEnum):
    """Kind of occlusion of the face."""

    NOTHING = "whole crop"
    GREY = "border only"
    BLUR = "face blurred away"


def face_area(crop: StoredCrop) -> NDArray[np.bool_]:
    """Returns the grown hull of the landmarks: bool [height, width], True on the face."""
    assert crop.landmarks is not None
    size = float(np.ptp(crop.landmarks, axis=0).max())
    mask = np.zeros(crop.image.shape[:2], np.uint8)
    hull = cv2.convexHull(crop.landmarks.astype(np.float32))
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 255)
    reach = 2 * max(1, round(GROWTH * size)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return np.asarray(cv2.dilate(mask, kernel) > 0)


def occluded(crop: StoredCrop, cover: Occlusion) -> Picture:
    """Returns a crop with its face occluded.

    Args:
        crop: A crop with landmarks.
        cover: `GREY` fills the grown hull with mid-grey; `BLUR` blurs it by a Gaussian of 0.15
            face sizes, with a soft edge.

    Returns:
        uint8, as `crop.image`.
    """
    if cover is Occlusion.NOTHING:
        return crop.image
    area = face_area(crop)
    if cover is Occlusion.GREY:
        return np.where(area[:, :, None], np.uint8(_GREY), crop.image)
    assert crop.landmarks is not None
    size = float(np.ptp(crop.landmarks, axis=0).max())
    soft = cv2.GaussianBlur(crop.image, (0, 0), _BLUR_SHARE * size).astype(np.float32)
    edge = cv2.GaussianBlur(area.astype(np.float32), (0, 0), max(0.5, _FEATHER_SHARE * size))
    # The area itself is fully blurred: the edge is feathered outwards only.
    weight = np.maximum(edge, area)[:, :, None]
    return np.asarray(np.round(crop.image * (1.0 - weight) + soft * weight), np.uint8)


@dataclass(frozen=True)
class Sample:
    """Files and their measurements.

    Attributes:
        files: Clips with landmarks.
        facts: float [n, K], facts that do not depend on the face; names in the columns.
        features: Mean ImageNet features of each file's crops, float [n, F], by occlusion.
        logits: Mean logit of the examined model, float [n], by occlusion; empty without a model.
    """

    files: list[JudgedFile]
    facts: pd.DataFrame
    features: dict[Occlusion, Features]
    logits: dict[Occlusion, Scores]

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
        """Positions of each fake and of its original."""
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
    """Measures the clips of a split: facts, and features and logits with the face occluded.

    Args:
        store: The crops.
        split: `train` or `val`.
        root: Folder of the media files; None leaves out the facts of containers.
        embed: Maps crops uint8 [n, 160, 160, 3] to features [n, F] not trained on deepfakes.
        model: The examined frame model, if any.
        on_file: Called after each file.

    Raises:
        UsageError: No clip of the split has landmarks.
    """
    chosen = [f for f in clips_of_store(store, split) if len(_places(store, f))]
    if not chosen:
        raise UsageError(f"{store.path}: no clip with landmarks in split {split}")
    facts = store_facts(store, chosen)
    if root is not None:
        facts = pd.concat([facts, media_facts(root, chosen)], axis=1)
    features: dict[Occlusion, list[NDArray[np.float64]]] = {cover: [] for cover in Occlusion}
    logits: dict[Occlusion, list[float]] = {cover: [] for cover in Occlusion if model is not None}
    for file in chosen:
        cut = [
            work_crop(store.crop(file.shard, place), NO_JITTER) for place in _places(store, file)
        ]
        pictures = [occluded(crop, cover) for cover in Occlusion for crop in cut]
        inputs = np.stack([to_input(picture, FEATURE_SIZE) for picture in pictures])
        for cover, part in zip(Occlusion, np.split(embed(inputs), len(Occlusion)), strict=True):
            features[cover].append(part.mean(axis=0))
        if model is not None:
            if model.input_size != FEATURE_SIZE:
                inputs = np.stack([to_input(picture, model.input_size) for picture in pictures])
            judged = np.split(model.score(inputs)[1], len(Occlusion))
            for cover, scores in zip(Occlusion, judged, strict=True):
                logits[cover].append(float(scores.mean()))
        on_file()
    return Sample(
        chosen,
        facts,
        {cover: np.stack(rows) for cover, rows in features.items()},
        {cover: np.array(values) for cover, values in logits.items()},
    )


def clips_of_store(store: CropStore, split: str) -> list[JudgedFile]:
    """Returns the clips of a split, without generated fakes."""
    files = select_files(store, split=split, max_crops=CROPS)
    return [file for file in files if not file.generated and not file.photograph]


def _places(store: CropStore, file: JudgedFile) -> list[int]:
    landmarks = store.shard(file.shard).landmarks
    return [place for place in file.positions if not np.isnan(landmarks[place]).any()]
