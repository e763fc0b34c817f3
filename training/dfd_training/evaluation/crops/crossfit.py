"""Families of fakes judged by models that were fitted without them.

Each fit leaves some families out, with all groups of footage that they are judged on, and a fold
of the groups, to judge known families on unknown people: with as many fits as folds, every file is
judged by a model that saw nothing of its group. No epoch is selected: the last weights are judged.

Clips are judged by the signals of their consecutive frames too, by probes that were fitted without
the same families and groups, and by both together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES
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
from dfd_training.fitting.frame import BEST_NAME, fit_frame
from dfd_training.fitting.options import FitFrameOptions
from dfd_training.fitting.pairs import PairOptions
from dfd_training.fitting.record import RUN_NAME, FrameEpoch
from dfd_training.models.saving import average_models
from dfd_training.models.scoring import FrameModel, FrameScorer
from dfd_training.sequence.feature_cache import hash_of
from dfd_training.sequence.probes import FEWEST_STEPS, PROBE_SHARE, FamilyProbes, ProbeOptions

logger = logging.getLogger(__name__)

SCORES_NAME = "scores.csv"
MAX_CROPS = 12
_CHUNK = 256
_FEWEST_PAIRS = 3
_UPPER = 0.75
#: Beside the mean of several models: the SHA-256 of each, a line each.
_AVERAGED_NAME = "averaged.txt"
_UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0, 0)


@dataclass(frozen=True, slots=True)
class FamilyFigures:
    """Figures of one score for one family of fakes.

    Attributes:
        own: AUC against the fakes' own originals; NaN for fewer than three of them.
        auc: AUC against all held-out reals of like media (clips against clips, crops against
            crops), with an interval over groups.
        found_at_3: Share of the fakes above all but 3 % of those reals, and
        found_at_10: All but 10 %.
    """

    own: Estimate
    auc: Estimate
    found_at_3: float
    found_at_10: float

    @property
    def figure(self) -> float:
        """The main AUC: against own originals where there are any, else against reals."""
        return self.auc.value if np.isnan(self.own.value) else self.own.value


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """Figures of one family of fakes.

    Attributes:
        family: Its name.
        seen: Whether the models that judged it were fitted on fakes of it, of other people.
        fakes: Number of files.
        reals: Number of real files of like media that they are judged against.
        network: Figures of the frame model.
        signals: Figures of the probes on signals; None for stills, and without signals.
        both: Figures of both together; None likewise.
    """

    family: str
    seen: bool
    fakes: int
    reals: int
    network: FamilyFigures
    signals: FamilyFigures | None = None
    both: FamilyFigures | None = None


def crossfit(
    store: CropStore,
    out: Path,
    leave_outs: Sequence[tuple[str, ...]],
    *,
    options: FitFrameOptions,
    pairs: PairOptions,
    widths: tuple[float, ...] = (),
    probes: ProbeOptions | None = None,
    averaged: Sequence[Path] = (),
    on_fit: Callable[[tuple[str, ...]], None] = lambda _: None,
    on_epoch: Callable[[FrameEpoch], None] = lambda _: None,
    on_step: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Fits a model for each set of families that is left out, and judges what it has not seen.

    An interrupted run is resumed.

    Args:
        store: The crops; only rows marked train are read.
        out: The run's folder: `fit0`, `fit1` … for the fits.
        leave_outs: Families that are left out together, for each fit.
        options: Options of every fit, except for the families left out and the kept epoch.
        pairs: Options of drawing pairs.
        widths: Widths of the judged crops, in faces; the logits of several are averaged. The
            store's crop scale by default.
        probes: Options of the probes on signals.
        averaged: Folders of other runs with the same families left out. Nothing is fitted then:
            the models that are judged have the mean of the weights of theirs.
        on_fit: Called with the families left out before each fit.
        on_epoch: Called with each epoch's row of the history.
        on_step: Called after each batch, with the epoch.

    The first fit holds fold 0 out, the next fold 1, and so on, from the start again after the last.

    Returns:
        One row for each judged file and fit: `fit`, `path`, `label`, `family`, `left_out`, `group`,
        `source`, `original`, `still`, and `mean` and `upper`, the mean and the upper quartile of
        its crops' logits, and `signals`, the probes' score of a clip; NaN where there is none.

    Raises:
        UsageError: A family does not exist, a folder holds a run with other settings, or a model
            to average was fitted with other families or another fold left out.
    """
    parts: list[pd.DataFrame] = []
    widths = widths or (store.crop_scale,)
    rows = training_rows(store)
    for number, families in enumerate(leave_outs):
        on_fit(families)
        fold = number % len(FOLD_SHARES)
        folder = out / f"fit{number}"
        own = dataclasses.replace(options, without_families=families, holdout=fold, keep_last=True)
        if averaged:
            best = _mean_of([_member(run / folder.name, own) for run in averaged], folder)
        else:
            best = fit_frame(
                store,
                folder,
                options=own,
                pairs=pairs,
                resume=True,
                on_epoch=on_epoch,
                on_step=on_step,
            )
        fitted, held = leave_out(rows, families, fold=fold)
        left = set(held["family"]) - set(fitted["family"])
        scores = _judged(store, held, left, best, widths).assign(fit=folder.name)
        signals = _signal_scores(store, fitted, held, scores["path"], probes or ProbeOptions())
        parts.append(scores.assign(signals=signals))
    return pd.concat(parts, ignore_index=True)


def _member(folder: Path, options: FitFrameOptions) -> Path:
    """Returns the model of a fit, checked to have left out what these options leave out."""
    try:
        fitted = json.loads((folder / RUN_NAME).read_text("utf-8"))["options"]
        families, fold = tuple(fitted["without_families"]), fitted["holdout"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder}: no finished fit of crossfit ({error})") from error
    if not (folder / BEST_NAME).is_file():
        raise UsageError(f"{folder}: no finished fit of crossfit (it has no {BEST_NAME})")
    if (families, fold) != (options.without_families, options.holdout):
        raise UsageError(
            f"{folder}: fitted without {', '.join(families) or 'nothing'} and fold {fold}, not "
            f"without {', '.join(options.without_families)} and fold {options.holdout}"
        )
    return folder / BEST_NAME


def _mean_of(members: Sequence[Path], folder: Path) -> Path:
    """Returns the mean of some models, from an earlier run where that was of the same ones."""
    best, record = folder / BEST_NAME, folder / _AVERAGED_NAME
    hashes = "".join(f"{hash_of(member)}\n" for member in members)
    if not (best.is_file() and record.is_file() and record.read_text("utf-8") == hashes):
        record.unlink(missing_ok=True)
        average_models(members, best)
        record.write_text(hashes, "utf-8")
    return best


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
        One row for each file, as from `crossfit`, without `fit` and `signals`.
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


def with_both(
    scores: pd.DataFrame, *, pooling: str = "upper", share: float = PROBE_SHARE
) -> pd.DataFrame:
    """Adds the scores of network and signals together.

    In each fit the network's score counts in its own unit, the signals' by a share, after both are
    brought to one standard deviation: that over the held-out clips of kinds that were fitted on.
    A clip without signals has the mean of these.

    Args:
        scores: From `crossfit`.
        pooling: `mean` or `upper`, the network's score.
        share: As of `ProbeOptions`.

    Returns:
        The same rows with `filled`, the signals' score with that mean in the place of NaN, and
        `both`; these are NaN for stills, and in fits without signals.
    """
    parts: list[pd.DataFrame] = []
    for _, part in scores.groupby("fit", sort=False):
        known = part[part["signals"].notna() & ~part["left_out"].astype(bool)]
        spread = float(known["signals"].std(ddof=0)) if len(known) > 1 else 0.0
        factor = share * float(known[pooling].std(ddof=0)) / spread if spread else math.nan
        mean = float(known["signals"].mean())
        filled = part["signals"].fillna(mean).mask(part["still"].astype(bool))
        parts.append(part.assign(filled=filled, both=part[pooling] + factor * (filled - mean)))
    return pd.concat(parts, ignore_index=True)


def summarise(
    scores: pd.DataFrame, *, pooling: str = "upper", draws: int = 1000
) -> list[FamilyRow]:
    """Returns figures of each family, left out and seen.

    Scores of different fits are never compared: a family that several fits judged has the mean of
    their figures, and of the ends of their intervals.

    Args:
        scores: From `with_both`.
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

    def of(score: str) -> FamilyFigures:
        values = fakes[score].to_numpy(np.float64)
        background = reals[score].to_numpy(np.float64)
        return FamilyFigures(
            own=_auc(paired, own, score, draws) if len(own) >= _FEWEST_PAIRS else _UNKNOWN,
            auc=_auc(fakes, reals, score, draws),
            found_at_3=_found(values, background, 0.03),
            found_at_10=_found(values, background, 0.1),
        )

    measured = bool(fakes["signals"].notna().any() and fakes["both"].notna().all())
    return FamilyRow(
        family=f"{first['family']} (stills)" if first["still"] else str(first["family"]),
        seen=not first["left_out"],
        fakes=len(fakes),
        reals=len(reals),
        network=of(pooling),
        signals=of("filled") if measured else None,
        both=of("both") if measured else None,
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
        network=_mean_figures([row.network for row in rows]),
        signals=_mean_figures(signals) if (signals := _known(rows, "signals")) else None,
        both=_mean_figures(both) if (both := _known(rows, "both")) else None,
    )


def _known(rows: Sequence[FamilyRow], score: str) -> list[FamilyFigures]:
    return [figures for row in rows if (figures := getattr(row, score)) is not None]


def _mean_figures(parts: Sequence[FamilyFigures]) -> FamilyFigures:
    return FamilyFigures(
        own=_mean_estimate([part.own for part in parts]),
        auc=_mean_estimate([part.auc for part in parts]),
        found_at_3=float(np.mean([part.found_at_3 for part in parts])),
        found_at_10=float(np.mean([part.found_at_10 for part in parts])),
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


SCORES = ("network", "signals", "both")


def to_markdown(rows: Sequence[FamilyRow]) -> str:
    """Returns the table of families, with the mean and the worst of those left out."""
    areas = [f"{what}: {score}" for what in ("AUC, own originals", "all reals") for score in SCORES]
    found = [f"{what}: {score}" for what in ("found at 3 %", "10 %") for score in SCORES[::2]]
    head = ["family", "fakes / reals", *areas, *found]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for seen, title in ((False, "left out"), (True, "seen, other people")):
        part = [row for row in rows if row.seen is seen]
        if part:
            lines.append(f"| **{title}** |" + " |" * (len(head) - 1))
            lines += [_line(row.family, f"{row.fakes} / {row.reals}", _cells(row)) for row in part]
        # Rows without signals, such as stills, would make the columns' means incomparable.
        for judged, media in ((True, "clips"), (False, "network alone")):
            its = [row for row in part if (row.both is not None) is judged]
            if its:
                lines += [
                    _line(f"**mean, {media}**", "", _summary(its, _mean_text)),
                    _line(f"**worst, {media}**", "", _summary(its, _worst_text)),
                ]
    return "\n".join(lines) + "\n"


def _line(name: str, files: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([name, files, *cells]) + " |"


def _cells(row: FamilyRow) -> list[str]:
    scores = [getattr(row, score) for score in SCORES]
    return [
        *("-" if s is None or np.isnan(s.own.value) else str(s.own) for s in scores),
        *("-" if s is None else str(s.auc) for s in scores),
        *("-" if s is None else f"{s.found_at_3:.2f}" for s in scores[::2]),
        *("-" if s is None else f"{s.found_at_10:.2f}" for s in scores[::2]),
    ]


_Figure = Callable[[FamilyFigures], float]


def _summary(
    rows: Sequence[FamilyRow], text: Callable[[Sequence[FamilyRow], str, _Figure, int], str]
) -> list[str]:
    """Returns the cells of a line that sums up families; `text` sums up one column."""
    columns: list[tuple[tuple[str, ...], _Figure, int]] = [
        (SCORES, lambda figures: figures.figure, 3),
        (SCORES, lambda figures: figures.auc.value, 3),
        (SCORES[::2], lambda figures: figures.found_at_3, 2),
        (SCORES[::2], lambda figures: figures.found_at_10, 2),
    ]
    return [
        text(rows, score, figure, digits) if _known(rows, score) else "-"
        for scores, figure, digits in columns
        for score in scores
    ]


def _mean_text(rows: Sequence[FamilyRow], score: str, figure: _Figure, digits: int) -> str:
    return f"**{np.mean([figure(figures) for figures in _known(rows, score)]):.{digits}f}**"


def _worst_text(rows: Sequence[FamilyRow], score: str, figure: _Figure, digits: int) -> str:
    worst = min(rows, key=lambda row: figure(getattr(row, score)))
    return f"{figure(getattr(worst, score)):.{digits}f} {worst.family}"


def write_crossfit(
    scores: pd.DataFrame, out: Path, *, pooling: str, share: float = PROBE_SHARE
) -> list[FamilyRow]:
    """Writes scores.csv, families.json, families.md and families.png into a run's folder.

    Args:
        scores: From `crossfit`; scores.csv gets the column `both` beside them.
        out: The run's folder.
        pooling: `mean` or `upper`.
        share: As of `ProbeOptions`.
    """
    scores = with_both(scores, pooling=pooling, share=share)
    rows = summarise(scores, pooling=pooling)
    with written_whole(out / SCORES_NAME) as partial:
        scores.drop(columns="filled").to_csv(partial, index=False)
    write_json(out / "families.json", {"pooling": pooling, "families": rows})
    with written_whole(out / "families.md") as partial:
        partial.write_text(to_markdown(rows), "utf-8")
    _draw(rows, out / "families.png")
    return rows


def _draw(rows: Sequence[FamilyRow], path: Path) -> None:
    names = sorted({row.family for row in rows}, reverse=True)
    with drawn(path, 1, 1, size=(8, 1 + 0.4 * len(names))) as panels:
        axes = panels[0, 0]
        kinds = (
            (False, "network", "left out: network", "o", "C0", 0.24),
            (False, "both", "left out: both", "D", "C2", 0.08),
            (True, "network", "seen: network", "s", "C1", -0.08),
            (True, "both", "seen: both", "^", "C4", -0.24),
        )
        for seen, score, label, marker, colour, shift in kinds:
            points = [
                (names.index(row.family) + shift, its.auc if np.isnan(its.own.value) else its.own)
                for row in rows
                if row.seen is seen and (its := getattr(row, score)) is not None
            ]
            if not points:
                continue
            draw_intervals(axes, points, label=label, colour=colour, marker=marker)
        axes.axvline(0.5, color="grey", linestyle="--", linewidth=1)
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel="AUC (95 % over groups)")
        axes.set_xlim(0.0, 1.02)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="lower left")


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


def _signal_scores(
    store: CropStore,
    fitted: pd.DataFrame,
    held: pd.DataFrame,
    paths: pd.Series[str],
    options: ProbeOptions,
) -> NDArray[np.float64]:
    """Returns the scores of held-out files by probes on the fitted clips; NaN without signals."""
    known = _mean_signals(store, fitted)
    facts = fitted.drop_duplicates("path").set_index("path").loc[list(known)]
    found = np.full(len(paths), np.nan)
    signals = np.array(list(known.values())).reshape(len(known), len(NAMES))
    try:
        probes = FamilyProbes.fit(
            signals,
            facts["family"].to_numpy(np.str_),
            facts["generator"].to_numpy(np.str_),
            facts["group"].to_numpy(np.str_),
            is_fake(facts),
            options=options,
        )
    except UsageError as error:
        logger.warning("clips are judged by the network alone: %s", error)
        return found
    measured = _mean_signals(store, held)
    for place, path in enumerate(paths):
        if path in measured:
            found[place] = probes.score(measured[path])
    return found


def _mean_signals(store: CropStore, rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Returns the mean signals of the clips among rows, [S] each, by path."""
    found: dict[str, NDArray[np.float64]] = {}
    clips = rows[rows["judged"]]
    for (path, shard), part in clips.groupby(["path", "shard"], sort=True):
        if len(part) >= FEWEST_STEPS:
            signals = store.signals(str(shard))[part["position"].to_numpy(np.int64)]
            known = signals[np.isfinite(signals).all(axis=1)]
            if len(known) >= FEWEST_STEPS:
                found[str(path)] = known.mean(axis=0, dtype=np.float64)
    return found


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
