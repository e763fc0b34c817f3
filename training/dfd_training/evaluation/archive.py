"""The rows of an archive (`dfd-edge archive`) as an evaluation: nothing is judged again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfd_edge.archive.dataset import FRAMES, open_part, read_clips
from dfd_edge.archive.storage import Store
from dfd_edge.errors import UsageError
from dfd_training.evaluation.evaluate import Evaluation

_KINDS = {"video": "clip", "image": "photograph"}
_CLIP_COLUMNS = (
    *("source", "sha256", "label", "p_fake", "coverage", "frames", "kind", "expected", "error"),
    *("bundle", "provider", "precision", "duplicate_of"),
)
_FRAME_COLUMNS = ("sha256", "time_s", "track", "p_frame", "p_step")


def read_archive(results: str) -> tuple[Evaluation, dict[str, Any]]:
    """Reads the clips of an archive that have an expected label; copies are left out.

    An archive does not say which clips share footage, so each clip is a group of its own.

    Args:
        results: Folder or address of the results.

    Returns:
        The evaluation, and facts on the bundle that judged.

    Raises:
        UsageError: There are no results, or none with an expected label.
    """
    store = Store(results)
    files: list[dict[str, Any]] = []
    paths: dict[str, str] = {}
    facts: dict[str, Any] = {}
    for row in _rows(store):
        if row["expected"] is None or row["duplicate_of"] is not None:
            continue
        if row["sha256"] is not None:
            paths[row["sha256"]] = row["source"]
        if row["error"] is None:
            facts = {name: row[name] for name in ("provider", "precision")}
            facts["bundle_hash"] = row["bundle"][:12]
        files.append(
            {
                "path": row["source"],
                "label": row["expected"].upper(),
                "group": row["source"],
                "source": str(Path(row["source"]).parent),
                "original": "",
                "generator": "",
                "kind": "unreadable" if row["error"] else _KINDS.get(row["kind"], "unreadable"),
                "verdict": row["label"] or "error",
                "p_fake": np.nan if row["p_fake"] is None else row["p_fake"],
                "cnn": np.nan,
                "gru": np.nan,
                "frames": row["frames"],
                "coverage": row["coverage"],
                "error": row["error"] or "",
            }
        )
    if not files:
        raise UsageError(
            f"{results}: no clip has an expected label: judge a manifest with a column of labels"
        )
    frames = [
        {"path": paths[row["sha256"]], **{name: row[name] for name in _FRAME_COLUMNS[1:]}}
        for row in _frame_rows(store)
        if row["sha256"] in paths and row["p_frame"] is not None
    ]
    table = pd.DataFrame(frames, columns=["path", *_FRAME_COLUMNS[1:]])
    return Evaluation(pd.DataFrame(files), table), facts


def _rows(store: Store) -> Iterator[dict[str, Any]]:
    for batch in read_clips(store, _CLIP_COLUMNS):
        yield from batch.to_pylist()


def _frame_rows(store: Store) -> Iterator[dict[str, Any]]:
    """Reads the rows of judged frames; those without clips are of a run that was killed."""
    for name in store.names(FRAMES):
        with store.opened(name) as file:
            for batch in open_part(file, name).iter_batches(columns=list(_FRAME_COLUMNS)):
                yield from batch.to_pylist()
