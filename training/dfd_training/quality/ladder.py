"""The robustness ladder of a bundle: all clips up all rungs, and what that does to the figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dfd_edge.errors import SourceError, UsageError
from dfd_edge.judging.results import Label
from dfd_edge.sources import SourceItem, SourceKind
from dfd_training.metrics import Estimate, Labels, Scores, rate_upper_bound
from dfd_training.quality.bootstrap import GroupDraws
from dfd_training.quality.climbing import Climber
from dfd_training.quality.files import plain, write_json
from dfd_training.quality.rungs import CLEAN, LADDER

RESULTS_NAME = "clips.csv"
SETTINGS_NAME = "run.json"


@dataclass(frozen=True, slots=True)
class RungFigures:
    """Figures of one rung.

    Attributes:
        rung: its name.
        fakes: fakes that were judged long enough.
        reals: reals that were.
        auc: fakes against all reals, of the clip's logit.
        auc_change: against the clean rung, on the clips judged on both, paired.
        pairs_won: fakes above their own original.
        pairs: fakes judged beside their own original.
        real_clips: all reals, judged or not.
        reals_called_fake: how many of them were.
        reals_called_fake_upper: upper end of the 95 % interval of that share.
        reals_unsure: how many were called unsure, or had no face that was found.
        fake_clips: all fakes.
        fakes_called_fake: how many of them were.
        real_shift: mean change of the reals' logits against the clean rung.
        fake_shift: the same of the fakes.
        kbps: mean bit rate of re-encoded clips, or NaN.
    """

    rung: str
    fakes: int
    reals: int
    auc: Estimate
    auc_change: Estimate
    pairs_won: int
    pairs: int
    real_clips: int
    reals_called_fake: int
    reals_called_fake_upper: float
    reals_unsure: int
    fake_clips: int
    fakes_called_fake: int
    real_shift: Estimate
    fake_shift: Estimate
    kbps: float


def clips_of(table: pd.DataFrame, root: Path, split: str) -> pd.DataFrame:
    """The rows of a table that are clips of a split.

    Raises:
        UsageError: when there is none.
    """
    rows = table[table["split"] == split]
    clips = rows[[_is_clip(root / str(path)) for path in rows["path"]]]
    if clips.empty:
        raise UsageError(f"no clip among the {len(rows)} rows of split {split}")
    return clips


def _is_clip(path: Path) -> bool:
    try:
        return SourceItem.of(path).kind is SourceKind.VIDEO
    except SourceError:
        return False


def climb_all(
    climber: Climber,
    clips: pd.DataFrame,
    root: Path,
    out: Path,
    *,
    settings: dict[str, object],
    replace: bool = False,
    on_clip: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Take every clip up the ladder; a run that was broken off goes on where it stopped.

    Args:
        climber: the bundle, ready.
        clips: rows of a table.
        root: the folder that relative paths start from.
        out: the run's folder; results are written after each clip.
        settings: what the results depend on.
        replace: throw away the results of other settings.
        on_clip: called after each clip.

    Returns:
        One row a clip and rung: the table's columns and those of `RungResult`; of clips that
        cannot be read, one row with the text in `error`.

    Raises:
        UsageError: when `out` holds the results of other settings, and they are to be kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_settings(out, settings, replace=replace)
    path = out / RESULTS_NAME
    done = pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.is_file() else None
    finished = set() if done is None else set(done["path"])
    parts = [] if done is None else [done]
    for row in clips.to_dict("records"):
        if row["path"] not in finished:
            parts.append(_climb(climber, {str(key): value for key, value in row.items()}, root))
            _write_table(pd.concat(parts, ignore_index=True), path)
        on_clip()
    results = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return results[results["path"].isin(set(clips["path"]))]


def _climb(climber: Climber, row: dict[str, object], root: Path) -> pd.DataFrame:
    facts = {name: row[name] for name in ("path", "label", "original", "group", "source")}
    try:
        results = climber.climb(root / str(row["path"]))
    except SourceError as error:
        return pd.DataFrame([{**facts, "rung": "", "error": str(error)}])
    return pd.DataFrame([{**facts, **dataclasses.asdict(item), "error": ""} for item in results])


def _check_settings(out: Path, settings: dict[str, object], *, replace: bool) -> None:
    path = out / SETTINGS_NAME
    if path.is_file() and (before := json.loads(path.read_text("utf-8"))) != plain(settings):
        key = next(key for key in settings if before.get(key) != settings[key])
        if not replace:
            raise UsageError(
                f"{out}: holds results with {key} {before.get(key)}, not {settings[key]}: give "
                "another --out, or --replace"
            )
        (out / RESULTS_NAME).unlink(missing_ok=True)
    write_json(path, settings)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    table.to_csv(partial, index=False)
    partial.replace(path)


def summarise_ladder(results: pd.DataFrame, *, draws: int = 1000) -> list[RungFigures]:
    """Compute the figures of every rung.

    Args:
        results: from `climb_all`.
        draws: bootstrap samples.
    """
    results = results[results["error"].fillna("") == ""]
    present = set(results["rung"])
    logits = results.pivot(index="path", columns="rung", values="logit")
    facts = results.drop_duplicates("path").set_index("path").loc[logits.index]
    return [
        _figures(rung.name, results[results["rung"] == rung.name], logits, facts, draws)
        for rung in LADDER
        if rung.name in present
    ]


def _figures(
    name: str, rows: pd.DataFrame, logits: pd.DataFrame, facts: pd.DataFrame, draws: int
) -> RungFigures:
    here = logits[name]
    known = here.notna()
    both = known & logits[CLEAN.name].notna()
    score = here[known].to_dict()
    fakes = facts[(facts["label"] == "FAKE") & known]
    pairs = [(p, o) for p, o in zip(fakes.index, fakes["original"], strict=True) if o in score]
    reals = rows[rows["label"] == "REAL"]
    called = int((reals["verdict"] == Label.FAKE.value).sum())
    neither = reals["verdict"].isin([Label.UNSURE.value, Label.NO_FACE.value])
    shift = here - logits[CLEAN.name]
    fake = facts["label"] == "FAKE"
    return RungFigures(
        rung=name,
        fakes=len(fakes),
        reals=int(known.sum()) - len(fakes),
        auc=_draws(facts[known], draws).auc(_labels(facts[known]), _values(here[known])),
        auc_change=_draws(facts[both], draws).auc_difference(
            _labels(facts[both]), _values(here[both]), _values(logits.loc[both, CLEAN.name])
        ),
        pairs_won=sum(score[fake_path] > score[original] for fake_path, original in pairs),
        pairs=len(pairs),
        real_clips=len(reals),
        reals_called_fake=called,
        reals_called_fake_upper=rate_upper_bound(called, len(reals)),
        reals_unsure=int(neither.sum()),
        fake_clips=int((rows["label"] == "FAKE").sum()),
        fakes_called_fake=int(
            ((rows["label"] == "FAKE") & (rows["verdict"] == Label.FAKE.value)).sum()
        ),
        real_shift=_draws(facts[both & ~fake], draws).mean(_values(shift[both & ~fake])),
        fake_shift=_draws(facts[both & fake], draws).mean(_values(shift[both & fake])),
        kbps=float(rows["kbps"].astype(float).mean()),
    )


def _draws(facts: pd.DataFrame, draws: int) -> GroupDraws:
    return GroupDraws.of(facts["group"].to_numpy(str), draws=draws)


def _labels(facts: pd.DataFrame) -> Labels:
    return np.asarray(facts["label"] == "FAKE", np.int64)


def _values(column: pd.Series[float]) -> Scores:
    return np.asarray(column, np.float64)
