"""Families of fakes judged by models that were fitted without them.

Each fit leaves some families out, with all groups of footage that they are judged on, and a fold
of the groups, to judge known families on unknown people: with as many fits as folds, every file is
judged by a model that saw nothing of its group. No epoch is selected: the last weights are judged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.sinks.files import written_whole
from dfd_training.augment.jitter import Jitter, to_input, work_crop
from dfd_training.data.families import leave_out
from dfd_training.data.folds import FOLD_SHARES, training_rows
from dfd_training.data.store import CropStore
from dfd_training.data.table import is_fake
from dfd_training.evaluation.crops.selection import evenly
from dfd_training.evaluation.pictures import draw_intervals, drawn
from dfd_training.evaluation.report import write_json
from dfd_training.evaluation.statistics import Estimate, GroupBootstrap, Scores
from dfd_training.fitting.frame import fit_frame
from dfd_training.fitting.options import FitFrameOptions
from dfd_training.fitting.pairs import PairOptions
from dfd_training.fitting.record import FrameEpoch
from dfd_training.models.scoring import FrameModel, FrameScorer

SCORES_NAME = "scores.csv"
MAX_CROPS = 12
_CHUNK = 256
_FEWEST_PAIRS = 3
_UPPER = 0.75
_UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0, 0)


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """Figures of one family of fakes.

    Attributes:
        family: Its name.
        seen: Whether the models that judged it were fitted on fakes of it, of other people.
        fakes: Number of files.
        reals: Number of real files of like media that they are judged against.
        own: AUC against the fakes' own originals; NaN for fewer than three of them.
        auc: AUC against all held-out reals of like media (clips against clips, crops against
            crops), with an interval over groups.
        found_at_3: Share of the fakes above all but 3 % of those reals, and
        found_at_10: All but 10 %.
    """

    family: str
    seen: bool
    fakes: int
    reals: int
    own: Estimate
    auc: Estimate
    found_at_3: float
    found_at_10: float

    @property
    def figure(self) -> float:
        """The main AUC: against own originals where there are any, else against reals."""
        return self.auc.value if np.isnan(self.own.value) else self.own.value


def crossfit(
    store: CropStore,
    out: Path,
    leave_outs: Sequence[tuple[str, ...]],
    *,
    options: FitFrameOptions,
    pairs: PairOptions,
    widths: tuple[float, ...] = (),
    on_fit: Callable[[tuple[str, ...]], None] = lambda _: None,
    on_epoch: Callable[[FrameEpoch], None] = lambda _: None,
    on_step: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Fits a model for each set of families that is left out, and judges what it has not seen.

    An interrupted run is resumed.

    Args:
        store: The crops; only rows marked train are read.
        out: The run's folder: a folder for each fit.
        leave_outs: Families that are left out together, for each fit.
        options: Options of every fit, except for the families left out and the kept epoch.
        pairs: Options of drawing pairs.
        widths: Widths of the judged crops, in faces; the logits of several are averaged. The
            store's crop scale by default.
        on_fit: Called with the families left out before each fit.
        on_epoch: Called with each epoch's row of the history.
        on_step: Called after each batch, with the epoch.

    The first fit holds fold 0 out, the next fold 1, and so on, from the start again after the last.

    Returns:
        One row for each judged file and fit: `fit`, `path`, `label`, `family`, `left_out`, `group`,
        `source`, `original`, `still`, and `mean` and `upper`, the mean and the upper quartile of
        its crops' logits.

    Raises:
        UsageError: A family does not exist, or a folder holds a run with other settings.
    """
    parts: list[pd.DataFrame] = []
    widths = widths or (store.crop_scale,)
    rows = training_rows(store)
    for number, families in enumerate(leave_outs):
        on_fit(families)
        fold = number % len(FOLD_SHARES)
        folder = out / _folder(families)
        best = fit_frame(
            store,
            folder,
            options=dataclasses.replace(
                options, without_families=families, holdout=fold, keep_last=True
            ),
            pairs=pairs,
            resume=True,
            on_epoch=on_epoch,
            on_step=on_step,
        )
        fitted, held = leave_out(rows, families, fold=fold)
        left = set(held["family"]) - set(fitted["family"])
        parts.append(_judged(store, held, left, best, widths).assign(fit=folder.name))
    return pd.concat(parts, ignore_index=True)


def judge_held_out(
    store: CropStore,
    rows: pd.DataFrame,
    scorer: FrameScorer,
    *,
    widths: tuple[float, ...] = (),
) -> pd.DataFrame:
    """Judges up to 12 crops of each file.

    Args:
        store: The crops.
        rows: Rows of its index, with the column `family`.
        scorer: The frame model.
        widths: Widths of the crops, in faces; the logits of several are averaged. The store's
            crop scale by default.

    Returns:
        One row for each file, as from `crossfit`, without `fit`.
    """
    widths = widths or (store.crop_scale,)
    rows = rows[rows["judged"]]
    files = [part.sort_values(["time_s", "track"]) for _, part in rows.groupby("shard")]
    found: list[dict[str, object]] = []
    for chunk in _chunks(files):
        places = [evenly(part["position"].to_numpy(np.int64), MAX_CROPS) for part in chunk]
        logits = np.mean(
            [
                scorer.score(
                    np.stack(
                        [
                            _input(store, str(part["shard"].iloc[0]), int(p), width, scorer)
                            for part, positions in zip(chunk, places, strict=True)
                            for p in positions
                        ]
                    )
                )[1]
                for width in widths
            ],
            axis=0,
        )
        ends = np.cumsum([len(positions) for positions in places])[:-1]
        for part, its in zip(chunk, np.split(logits.astype(np.float64), ends), strict=True):
            first = part.iloc[0]
            names = ("path", "label", "family", "group", "source", "original")
            found.append(
                {name: str(first[name]) for name in names}
                | {
                    "still": len(part) == 1 and float(first["time_s"]) == 0.0,
                    "mean": float(its.mean()),
                    "upper": float(np.quantile(its, _UPPER)),
                }
            )
    return pd.DataFrame(found)


def summarise(
    scores: pd.DataFrame, *, pooling: str = "upper", draws: int = 1000
) -> list[FamilyRow]:
    """Returns figures of each family, left out and seen.

    Scores of different fits are never compared: a family that several fits judged has the mean of
    their figures, and of the ends of their intervals.

    Args:
        scores: From `crossfit`.
        pooling: `mean` or `upper`.
        draws: Bootstrap samples.
    """
    found: dict[tuple[bool, str], list[FamilyRow]] = {}
    for _, part in scores.groupby("fit", sort=True):
        fakes = part[part["label"] == "FAKE"]
        for (_, still), its in fakes.groupby(["family", "still"], sort=True):
            if len(its) < _FEWEST_PAIRS:
                continue
            reals = part[(part["label"] == "REAL") & (part["still"] == still)]
            if still:  # photographs of other sources are not cut as these are
                reals = reals[reals["source"].isin(set(its["source"]))]
            row = _figures(its, reals, pooling, draws)
            found.setdefault((row.seen, row.family), []).append(row)
    return [_averaged(rows) for _, rows in sorted(found.items(), key=lambda item: item[0])]


def _figures(fakes: pd.DataFrame, reals: pd.DataFrame, pooling: str, draws: int) -> FamilyRow:
    """Returns figures of the fakes of one family and one kind of media, from one fit."""
    first = fakes.iloc[0]
    own = reals[reals["path"].isin(set(fakes["original"]))]
    paired = fakes[fakes["original"].isin(set(own["path"]))]
    values = fakes[pooling].to_numpy(np.float64)
    background = reals[pooling].to_numpy(np.float64)
    return FamilyRow(
        family=f"{first['family']} (stills)" if first["still"] else str(first["family"]),
        seen=not first["left_out"],
        fakes=len(fakes),
        reals=len(reals),
        own=_auc(paired, own, pooling, draws) if len(own) >= _FEWEST_PAIRS else _UNKNOWN,
        auc=_auc(fakes, reals, pooling, draws),
        found_at_3=_found(values, background, 0.03),
        found_at_10=_found(values, background, 0.1),
    )


def _auc(fakes: pd.DataFrame, reals: pd.DataFrame, pooling: str, draws: int) -> Estimate:
    both = pd.concat([reals, fakes])
    samples = GroupBootstrap.of(both["group"].to_numpy(np.str_), draws=draws)
    return samples.auc(is_fake(both).astype(np.int64), both[pooling].to_numpy(np.float64))


def _found(fakes: Scores, reals: Scores, share: float) -> float:
    """Returns the share of the fakes above all but a share of the reals."""
    if not len(reals):
        return math.nan
    return float(np.mean(fakes > np.quantile(reals, 1.0 - share, method="higher")))


def _averaged(rows: list[FamilyRow]) -> FamilyRow:
    """Averages the figures of one family over several fits."""
    return FamilyRow(
        family=rows[0].family,
        seen=rows[0].seen,
        fakes=sum(row.fakes for row in rows),
        reals=sum(row.reals for row in rows),
        own=_mean_estimate([row.own for row in rows]),
        auc=_mean_estimate([row.auc for row in rows]),
        found_at_3=float(np.mean([row.found_at_3 for row in rows])),
        found_at_10=float(np.mean([row.found_at_10 for row in rows])),
    )


def _mean_estimate(parts: list[Estimate]) -> Estimate:
    known = [part for part in parts if not np.isnan(part.value)]
    if not known:
        return _UNKNOWN
    return Estimate(
        value=float(np.mean([part.value for part in known])),
        low=float(np.mean([part.low for part in known])),
        high=float(np.mean([part.high for part in known])),
        n=sum(part.n for part in known),
        groups=sum(part.groups for part in known),
    )


def to_markdown(rows: Sequence[FamilyRow]) -> str:
    """Returns the table of families, with the mean and the worst of those left out."""
    lines = [
        "| family | fakes / reals | AUC, own originals | AUC, all reals | found at 3 % | at 10 % |",
        "|---|---|---|---|---|---|",
    ]
    for seen, title in ((False, "left out"), (True, "seen, other people")):
        part = [row for row in rows if row.seen is seen]
        if not part:
            continue
        lines.append(f"| **{title}** | | | | | |")
        lines += [
            f"| {row.family} | {row.fakes} / {row.reals} | "
            f"{'-' if np.isnan(row.own.value) else row.own} | {row.auc} | "
            f"{row.found_at_3:.2f} | {row.found_at_10:.2f} |"
            for row in part
        ]
        worst = min(part, key=lambda row: row.figure)
        lines.append(
            f"| mean; worst: {worst.family} {worst.figure:.3f} | | "
            f"**{np.mean([row.figure for row in part]):.3f}** | "
            f"{np.mean([row.auc.value for row in part]):.3f} | "
            f"{np.mean([row.found_at_3 for row in part]):.2f} | "
            f"{np.mean([row.found_at_10 for row in part]):.2f} |"
        )
    return "\n".join(lines) + "\n"


def write_crossfit(scores: pd.DataFrame, out: Path, *, pooling: str) -> list[FamilyRow]:
    """Writes scores.csv, families.json, families.md and families.png into a run's folder."""
    rows = summarise(scores, pooling=pooling)
    with written_whole(out / SCORES_NAME) as partial:
        scores.to_csv(partial, index=False)
    write_json(out / "families.json", {"pooling": pooling, "families": rows})
    with written_whole(out / "families.md") as partial:
        partial.write_text(to_markdown(rows), "utf-8")
    _draw(rows, out / "families.png")
    return rows


def _draw(rows: Sequence[FamilyRow], path: Path) -> None:
    names = sorted({row.family for row in rows}, reverse=True)
    with drawn(path, 1, 1, size=(8, 1 + 0.4 * len(names))) as panels:
        axes = panels[0, 0]
        kinds = ((False, "left out", "o", "C0", 0.12), (True, "seen", "s", "C1", -0.12))
        for seen, label, marker, colour, shift in kinds:
            points = [
                (names.index(row.family) + shift, row.auc if np.isnan(row.own.value) else row.own)
                for row in rows
                if row.seen is seen
            ]
            draw_intervals(axes, points, label=label, colour=colour, marker=marker)
        axes.axvline(0.5, color="grey", linestyle="--", linewidth=1)
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel="AUC (95 % over groups)")
        axes.set_xlim(0.0, 1.02)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="lower left")


def _folder(families: tuple[str, ...]) -> str:
    """Returns the name of a fit's folder: the families that it was fitted without."""
    plain = "+".join("".join(c if c.isalnum() else "-" for c in name) for name in families)
    return (
        f"without-{plain}"
        if len(plain) < 100
        else (f"without-{plain[:60]}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}")
    )


def _judged(
    store: CropStore, held: pd.DataFrame, left: set[str], best: Path, widths: tuple[float, ...]
) -> pd.DataFrame:
    """Returns the scores of a fit, computed once for each state of its model."""
    path = best.parent / SCORES_NAME
    key = f"{hashlib.sha256(best.read_bytes()).hexdigest()[:16]} {','.join(map(str, widths))}"
    if path.is_file():
        known = pd.read_csv(path, keep_default_na=False)
        if len(known) and known["model"].iloc[0] == key:
            return known.drop(columns="model")
    scores = judge_held_out(store, held, FrameModel.find(best, store=store).open(), widths=widths)
    scores["left_out"] = scores["family"].isin(left)
    with written_whole(path) as partial:
        scores.assign(model=key).to_csv(partial, index=False)
    return scores


def _chunks(files: list[pd.DataFrame]) -> Iterator[list[pd.DataFrame]]:
    waiting: list[pd.DataFrame] = []
    for file in files:
        waiting.append(file)
        if sum(min(len(part), MAX_CROPS) for part in waiting) >= _CHUNK:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _input(
    store: CropStore, shard: str, position: int, width: float, scorer: FrameScorer
) -> NDArray[np.uint8]:
    jitter = Jitter(scale=width / store.crop_scale, shift=(0.0, 0.0), flip=False)
    return to_input(work_crop(store.crop(shard, position), jitter).image, scorer.input_size)
