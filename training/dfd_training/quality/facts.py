"""What is known of a clip without looking at the face: facts that must not tell its label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
import pandas as pd

from dfd_edge.errors import SourceError
from dfd_edge.sources.formats import open_container
from dfd_training.augment.jitter import NO_JITTER, work_crop
from dfd_training.data.store import CropStore
from dfd_training.quality.selection import JudgedFile


def store_facts(store: CropStore, files: Sequence[JudgedFile]) -> pd.DataFrame:
    """What a store tells: face size, brightness, contrast, sampled length and judged crops.

    Returns:
        One row a file, in their order; all columns are numbers.
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
    """What the containers tell: size, shape, frame rate, length, bit rate, bytes and codec.

    Args:
        root: the folder that the files' paths start from.
        files: the clips.

    Returns:
        One row a file, in their order; all columns are numbers, one of 0 or 1 for each codec.

    Raises:
        SourceError: when a file is missing or is no video.
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
            f"{path}: no facts of this clip ({str(error) or 'no video in it'}): give --root, the "
            "folder that the table's paths start from"
        ) from error
