"""Which rows of a store are fitted on, and which are held out."""

from __future__ import annotations

import pandas as pd

from dfd_edge.errors import UsageError
from dfd_training.families import leave_out
from dfd_training.fitting.options import FitFrameOptions, Media
from dfd_training.folds import FOLD_SHARES, assign_folds
from dfd_training.store import CropStore


def training_rows(store: CropStore) -> pd.DataFrame:
    """The rows of a store that are marked train, with their fold in the column `fold`.

    Raises:
        UsageError: No row is marked train.
    """
    rows = store.index[store.index["split"] == "train"].copy()
    if rows.empty:
        found = ", ".join(sorted(set(store.index["split"]))) or "no crop at all"
        raise UsageError(
            f"{store.path}: no row of its index is marked train (found: {found}): mark files as "
            "train in the table's column split, and prepare them"
        )
    rows["fold"] = assign_folds(rows)
    return rows


def divided_rows(store: CropStore, options: FitFrameOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to fit on and those of the held-out fold, of the media asked for.

    Without a held-out fold (-1) all rows are fitted on, and those of fold 0 are told apart to
    follow the fit; they choose nothing then that could be called held out.

    Raises:
        UsageError: A source or the fold does not exist, or one of the two parts is empty.
    """
    rows = training_rows(store)
    if unknown := sorted(set(options.without_sources) - set(rows["source"])):
        raise UsageError(f"source {unknown[0]!r} is not in the store: {sorted(set(rows.source))}")
    rows = rows[~rows["source"].isin(options.without_sources)]
    if options.without_families:
        fitted, judged = leave_out(rows, options.without_families)
        return only_media(fitted, options.train_on), only_media(judged, options.validate_on)
    if not -1 <= options.holdout < len(FOLD_SHARES):
        raise UsageError(f"fold {options.holdout} does not exist; there are {len(FOLD_SHARES)}")
    held = rows["fold"] == max(options.holdout, 0)
    training = only_media(rows if options.holdout < 0 else rows[~held], options.train_on)
    validation = only_media(rows[held], options.validate_on)
    for part, name, media in (
        (training, "the folds to fit on have", options.train_on),
        (validation, f"the held-out fold {max(options.holdout, 0)} has", options.validate_on),
    ):
        if part.empty:
            raise UsageError(
                f"{store.path}: {name} no crop (of {media}): add groups of files to the table, or "
                "choose other media or another fold"
            )
    return training, validation


def only_media(rows: pd.DataFrame, media: Media) -> pd.DataFrame:
    """The rows of photographs or of clips."""
    if media is Media.ALL:
        return rows
    crops_per_file = rows.groupby("shard")["shard"].transform("size")
    still = (crops_per_file == 1) & (rows["time_s"] == 0.0)
    return rows[still if media is Media.PHOTOGRAPHS else ~still]
