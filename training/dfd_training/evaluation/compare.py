"""Comparison of runs: quality, costs, and significance of the differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.errors import UsageError
from dfd_edge.inference.session import Session
from dfd_training.evaluation.levels import Level, levels_of
from dfd_training.evaluation.runs import Run
from dfd_training.evaluation.statistics import METRICS, Estimate, change_of, draws_for, estimate

WARM_UP = 5
ROUNDS = 101
COMPARED = ("auc", "average_precision", "eer", "log_loss", "calibration_error")
"""Figures that are compared, by their key in `METRICS`."""

_NOTHING = Level(
    "", pd.Index([], dtype=str), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.str_), 0
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of the frame graph for one crop, on one thread of this machine's processor.

    Attributes:
        precision: The precision that ran.
        median_ms: Median over the rounds.
        low_ms: 5th percentile.
        high_ms: 95th percentile.
        ratio: Median over the rounds of this run's time over that of the first run.
    """

    precision: str
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float


@dataclass(frozen=True)
class Quality:
    """Quality of a run at one level.

    Attributes:
        run: Its name.
        figures: Figures by metric; empty where the level has one class only, or was not judged.
        differences: Paired differences to the first run on the rows that both judged, by metric;
            empty for the first run and where `reason` is given.
        paired: Number of rows that both judged.
        reason: Reason why figures or differences are missing, or "".
    """

    run: str
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]
    paired: int
    reason: str


@dataclass(frozen=True)
class LevelTable:
    """All runs at one level.

    Attributes:
        name: Clips, photographs or single faces.
        rows: One for each run, in order.
    """

    name: str
    rows: list[Quality]


@dataclass(frozen=True)
class Cost:
    """Costs of the model of a run and of its fit; None where they are not known.

    Attributes:
        run: Its name.
        model: Backbone, as far as it is recorded.
        judged: Bundle, variant and rows of the evaluation.
        parameters: Parameters of the frame model.
        macs: Multiply-accumulates of the frame model for one crop.
        onnx_bytes: Bytes of the frame graph in the judged variant and of the sequence graph.
        latency: Latency of the frame graph on this machine.
        fit_s: Duration of the epochs in seconds.
        epochs: Number of epochs of the fit.
        held_out_auc: Best AUC of an epoch, on the fold held out inside the rows marked train.
        missing: Reason for each empty cell, by its field.
    """

    run: str
    model: str
    judged: str
    parameters: int | None
    macs: int | None
    onnx_bytes: int | None
    latency: Latency | None
    fit_s: float | None
    epochs: int | None
    held_out_auc: float | None
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Results of `dfd-train compare`.

    Attributes:
        names: Names of the runs; the first is the one that others are compared with.
        levels: Quality at each level.
        costs: One for each run.
        notes: Caveats of the comparison.
    """

    names: list[str]
    levels: list[LevelTable]
    costs: list[Cost]
    notes: list[str]


def compare_quality(
    runs: Sequence[Run], *, draws: int = 1000, on_run: Callable[[], None] = lambda: None
) -> list[LevelTable]:
    """Computes figures of every level with intervals, and paired differences to the first run.

    Rows are paired by file, single faces by file, time and track. The bootstrap draws the same
    groups for both runs of a difference.

    Args:
        runs: The runs; rows of those without an evaluation stay empty.
        draws: Bootstrap samples.
        on_run: Called after each run.

    Raises:
        UsageError: Two evaluations have different labels for the same file.
    """
    judged = [_levels(run) for run in runs]
    names = list(dict.fromkeys(name for levels in judged for name in levels))
    tables: dict[str, list[Quality]] = {name: [] for name in names}
    for run, levels in zip(runs, judged, strict=True):
        for name in names:
            base = None if run is runs[0] else judged[0].get(name, _NOTHING)
            tables[name].append(_quality(run, levels.get(name), base, draws))
        on_run()
    return [
        LevelTable(name, rows) for name, rows in tables.items() if any(row.figures for row in rows)
    ]


def _levels(run: Run) -> dict[str, Level]:
    return {level.name: level for level in levels_of(run.evaluation)} if run.evaluation else {}


def _quality(run: Run, level: Level | None, base: Level | None, draws: int) -> Quality:
    """Computes figures of a run at a level, and the change from `base`, None for the first run."""
    if run.evaluation is None or level is None or not level.two_classes:
        reason = "not evaluated" if run.evaluation is None else "none judged"
        if level is not None:
            reason = f"one class only ({level.counts})"
        return Quality(run.name, {}, {}, 0, reason)
    figures = {key: level.figure(METRICS[key], draws=draws) for key in COMPARED}
    if base is None:
        return Quality(run.name, figures, {}, len(level.labels), "")
    shared = level.keys.intersection(base.keys)
    own, other = level.keys.get_indexer(shared), base.keys.get_indexer(shared)
    labels = level.labels[own]
    if (unlike := labels != base.labels[other]).any():
        raise UsageError(
            f"{run.folder}: {shared[unlike][0]} has another label there than in the first run: "
            "runs that are compared must be judged by the same table"
        )
    if not 0 < labels.sum() < len(labels):
        reason = f"fakes and reals that the first run judged too: none ({len(shared)} in common)"
        return Quality(run.name, figures, {}, len(shared), reason)
    both = np.stack([base.scores[other], level.scores[own]], axis=1)
    count = draws_for(len(shared), draws)
    differences = {
        key: estimate(change_of(METRICS[key]), labels, both, level.groups[own], draws=count)
        for key in COMPARED
    }
    return Quality(run.name, figures, differences, len(shared), "")


def precision_of(run: Run) -> str | None:
    """Returns the judged precision of the run's bundle, else fp32."""
    if run.bundle is None:
        return None
    variants = run.bundle.manifest.frame.variants
    judged = str(run.facts.get("precision", "fp32"))
    return judged if judged in variants else next(iter(variants))


def cost_of(run: Run, latency: Latency | None, no_latency: str) -> Cost:
    """Collects the costs of a run.

    Args:
        run: The run.
        latency: Measured latency.
        no_latency: Reason why it was not measured.
    """
    missing: dict[str, str] = {}
    size = None
    fit = run.fit
    precision = precision_of(run)
    parameters, macs = _frame_cost(run, precision, missing)
    if run.bundle is not None and precision is not None:
        size = onnx_bytes(run.bundle, precision)
    else:
        missing["onnx_bytes"] = run.no_bundle
    if latency is None:
        missing["latency"] = run.no_bundle or no_latency
    facts = run.facts
    judged = [str(facts[key]) for key in ("bundle", "precision", "split") if facts.get(key)]
    return Cost(
        run=run.name,
        model=fit.name if fit is not None else "",
        judged=", ".join(judged),
        parameters=parameters,
        macs=macs,
        onnx_bytes=size,
        latency=latency,
        fit_s=None if fit is None else fit.seconds,
        epochs=None if fit is None else fit.epochs,
        held_out_auc=None if fit is None else fit.best_auc,
        missing=missing,
    )


def _frame_cost(
    run: Run, precision: str | None, missing: dict[str, str]
) -> tuple[int | None, int | None]:
    """Returns parameters and multiply-accumulates: of the fitted model, else of the bundle's graph.

    Args:
        run: The run.
        precision: The variant of the bundle's frame graph.
        missing: Gets the reasons why they are not known.
    """
    model = run.fit.model if run.fit is not None else None
    reason = "neither best.keras nor a bundle is in the run"
    if model is not None:
        try:
            return model_cost(model)
        except UsageError as error:  # such as a layer that this version does not know
            reason = str(error)
    if run.bundle is not None and precision is not None:
        return graph_cost(run.bundle, precision)
    missing["parameters"] = missing["macs"] = reason
    return None, None


def notes_on(runs: Sequence[Run], levels: Sequence[LevelTable]) -> list[str]:
    """Returns caveats: different rows, different precisions, few files in common."""
    notes = []
    for key, what in (("split", "rows"), ("precision", "variants")):
        found = {run.name: str(run.facts[key]) for run in runs if run.facts.get(key)}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in found.items())
            notes.append(f"the runs were judged on different {what}: {listed}")
    for run in runs:
        if run.bundle is not None and run.evaluation is not None and not run.is_judged:
            notes.append(
                f"{run.name}: size and latency are those of the bundle in its folder "
                f"({run.bundle.hash}), which is not the very one that was judged"
            )
    for table in levels:
        first = table.rows[0]
        for row in table.rows[1:]:
            if not row.differences:
                continue
            own, other = row.figures["auc"].n, first.figures["auc"].n
            if row.paired < max(own, other):
                notes.append(
                    f"{row.run}, {table.name}: judged on other rows than {first.run} ({own} and "
                    f"{other}); the difference is over the {row.paired} that both judged"
                )
    return notes


def model_cost(model: Path) -> tuple[int, int]:
    """Returns parameters of a frame model and its multiply-accumulates for one crop.

    Loads Keras.

    Raises:
        UsageError: The file cannot be loaded.
    """
    from dfd_training.models import load_frame_model  # noqa: PLC0415 - loads TensorFlow
    from dfd_training.models.frame import measure  # noqa: PLC0415

    cost = measure(load_frame_model(model))
    return cost.parameters, cost.macs


def graph_cost(bundle: Bundle, precision: str) -> tuple[int, int]:
    """Returns parameters of a bundle's frame graph and its multiply-accumulates for one crop."""
    import onnx  # noqa: PLC0415 - runs with best.keras do without it

    from dfd_training.evaluation.graph_cost import measure  # noqa: PLC0415

    file = bundle.path / bundle.manifest.frame.variants[precision].file
    cost = measure(onnx.load(file))
    return cost.parameters, cost.macs


def onnx_bytes(bundle: Bundle, precision: str) -> int:
    """Returns bytes of the frame graph of a precision and of the sequence graph."""
    manifest = bundle.manifest
    names = (manifest.frame.variants[precision].file, manifest.sequence.file)
    return sum(manifest.files[name].size for name in names)


def measure_latency(
    bundles: Mapping[str, tuple[Bundle, str]],
    *,
    rounds: int = ROUNDS,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Latency]:
    """Times the frame graphs of bundles in turn, so that other load slows all of them alike.

    Args:
        bundles: Bundle and precision of its frame graph, by run.
        rounds: Number of rounds, each of which times every graph once, after `WARM_UP` more.
        on_round: Called after each round.

    Raises:
        UsageError: There is no bundle.
        BundleError: A graph does not run.
    """
    if not bundles:
        raise UsageError("no run has a bundle whose latency could be measured")
    rng = np.random.default_rng(0)
    calls: list[tuple[Session, NDArray[np.uint8]]] = []
    for bundle, precision in bundles.values():
        session = Session.open(bundle, provider="cpu", precision=precision, threads=1)
        side = bundle.manifest.frame.input_size
        calls.append((session, rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)))
    taken_ms = np.empty((WARM_UP + rounds, len(calls)))
    for turn in range(WARM_UP + rounds):
        for number, (session, crop) in enumerate(calls):
            started_s = time.perf_counter()
            session.run_frame(crop)
            taken_ms[turn, number] = 1000.0 * (time.perf_counter() - started_s)
        on_round()
    kept = taken_ms[WARM_UP:]
    low, median, high = np.percentile(kept, [5.0, 50.0, 95.0], axis=0)
    ratios = np.median(kept / kept[:, :1], axis=0)
    return {
        name: Latency(
            session.provider.precision,
            float(median[number]),
            float(low[number]),
            float(high[number]),
            float(ratios[number]),
        )
        for number, (name, (session, _)) in enumerate(zip(bundles, calls, strict=True))
    }
