"""Scores of a store's crops by frame models, without a bundle, for quick experiments."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.jitter import NO_JITTER, to_input, work_crop
from dfd_training.data.store import CropStore
from dfd_training.evaluation.crops.selection import JudgedFile
from dfd_training.evaluation.degradations import Condition, apply_condition
from dfd_training.models import build_frame_model
from dfd_training.models.scoring import FrameScorer

logger = logging.getLogger(__name__)
CHUNK_CROPS = 256
PREDICT_BATCH = 64
_Batch = tuple[str, Condition, dict[int, NDArray[np.uint8]]]


def embedding(size: int) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """Returns a function from crops [n, size, size, 3] to frozen ImageNet features [n, 1280]."""
    model = build_frame_model(input_size=size)
    features = keras.Model(model.input, model.output["features"])

    def embed(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        found = features.predict(crops.astype(np.float32), batch_size=PREDICT_BATCH, verbose=0)
        return np.asarray(found, np.float64)

    return embed


def score_files(
    store: CropStore,
    files: Sequence[JudgedFile],
    models: Mapping[str, FrameScorer],
    *,
    conditions: Iterable[Condition] = tuple(Condition),
    on_file: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Scores every selected crop of every file under every condition.

    Args:
        store: The crops.
        files: From `select_files`.
        models: Models by name.
        conditions: Degradations of the crops.
        on_file: Called after each file.

    Returns:
        One row for each file, model and condition: `path`, `condition`, `model`, `logit` (the
        mean of the crops' logits), `crops`.
    """
    conditions = tuple(conditions)
    sizes = sorted({model.input_size for model in models.values()})
    rows: list[dict[str, object]] = []
    for chunk in _chunks(store, files, conditions, sizes, on_file):
        for name, model in models.items():
            size = model.input_size
            logits = model.score(np.concatenate([crops[size] for _, _, crops in chunk]))[1]
            ends = np.cumsum([len(crops[size]) for _, _, crops in chunk])
            for (path, condition, _), part in zip(chunk, np.split(logits, ends[:-1]), strict=True):
                rows.append(
                    {
                        "path": path,
                        "condition": condition.value,
                        "model": name,
                        "logit": float(part.mean()),
                        "crops": len(part),
                    }
                )
    return pd.DataFrame(rows)


def _chunks(
    store: CropStore,
    files: Sequence[JudgedFile],
    conditions: tuple[Condition, ...],
    sizes: list[int],
    on_file: Callable[[], None],
) -> Iterator[list[_Batch]]:
    """Yields the inputs of a few files at a time: large batches cost less per crop."""
    waiting: list[_Batch] = []
    for file in files:
        stored = [store.crop(file.shard, position) for position in file.positions]
        pictures = [work_crop(crop, NO_JITTER).image for crop in stored]
        for condition in conditions:
            changed = apply_condition(condition, pictures)
            crops = {size: np.stack([to_input(p, size) for p in changed]) for size in sizes}
            waiting.append((file.path, condition, crops))
        on_file()
        if sum(len(crops[sizes[0]]) for _, _, crops in waiting) >= CHUNK_CROPS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def model_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Returns short names of model files: the folder of the run for `best` and `last`."""
    short = [path.parent.name if path.stem in ("best", "last") else path.stem for path in paths]
    names = [
        name if name and short.count(name) == 1 else str(path.with_suffix(""))
        for name, path in zip(short, paths, strict=True)
    ]
    if len(set(names)) < len(names):
        raise UsageError(f"{paths[0]}: a model is given twice; give each once")
    return dict(zip(names, paths, strict=True))


def warn_of_leak(model: Path, split: str, fold: int | None) -> None:
    """Warns if the record of a model's run says that it was fitted on the rows to judge."""
    run = model.parent / "run.json"
    if split != "train" or not run.is_file():
        return
    held = json.loads(run.read_text("utf-8")).get("options", {}).get("holdout")
    if held is not None and held != fold:
        what = "all rows marked train" if fold is None else f"fold {fold}"
        logger.warning(
            "%s was fitted without fold %s but judges %s: it has seen some of them",
            model,
            held,
            what,
        )
