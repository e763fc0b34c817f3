"""`dfd-train calibrate` and `dfd-train evaluate`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.errors import UsageError
from dfd_edge.manifest import PRECISIONS
from dfd_training.clips.cli import out_of_fold_sequences

if TYPE_CHECKING:
    from dfd_edge.manifest import CardInfo, DecisionSpec


@click.command("calibrate")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--frame",
    "frames",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="The frame models given to `fit sequence`, in the same order, or bundles made of them.",
)
@click.option(
    "--sequence",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder that `fit sequence` wrote.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Variants to decide on beside fp32; they need bundles.  [default: all that the frame "
    "models have]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option(
    "--protocol",
    default="",
    help="More sentences on how the model was fitted, for the card.",
)
@click.option(
    "--licence",
    default=(
        "Apache-2.0, as the weights that training started from. The footage is not in the bundle; "
        "some of its sources allow research only"
    ),
    show_default=True,
    help="Terms of the model files, for the card.",
)
@click.option("--seed", default=0, show_default=True, help="As given to `fit sequence`.")
def calibrate_command(
    store: Path,
    frames: tuple[Path, ...],
    sequence: Path,
    precisions: tuple[str, ...],
    out: Path,
    protocol: str,
    licence: str,
    seed: int,
) -> None:
    """Fit calibrators and set thresholds on the training's own folds.

    Each variant gets its own, from what its graphs say of the folds that they never saw. Writes
    decision.json and card.json, which `dfd-export bundle` puts into the manifest.
    """
    from dfd_training.calibration.calibrate import Calibration, calibrate
    from dfd_training.calibration.card import make_card
    from dfd_training.calibration.decision_file import decisions_to_json
    from dfd_training.clips.out_of_fold import read_out_of_fold
    from dfd_training.models.frame_scorer import shared_precisions
    from dfd_training.store import CropStore

    wanted = dict.fromkeys(("fp32", *(precisions or shared_precisions(list(frames)))))
    scored = out_of_fold_sequences(store, frames, sequence, precisions=list(wanted), seed=seed)
    photographs = out_of_fold_sequences(
        store, frames, sequence, precisions=list(wanted), seed=seed, photographs=True
    )
    found: dict[str, Calibration] = {}
    for precision, sequences in scored.items():
        found[precision] = calibrate(
            sequences,
            read_out_of_fold(sequence, sequences),
            precision=precision,
            # Variants of one model are judged alike; only the numbers differ.
            person_score=found["fp32"].decision.person_score if found else None,
            photographs=photographs[precision],
        )
    out.mkdir(parents=True, exist_ok=True)
    decisions = {precision: result.decision for precision, result in found.items()}
    (out / "decision.json").write_text(decisions_to_json(decisions))
    metrics = {name: metric for r in found.values() for name, metric in r.metrics.items()}
    card = make_card(CropStore(store), metrics, protocol=protocol, licence=licence)
    (out / "card.json").write_text(card.to_json())
    click.echo(f"a person's score is the mean of the {decisions['fp32'].person_score} logits")
    for precision, decision in decisions.items():
        _tell(precision, decision)
    for name, metric in metrics.items():
        between = "" if metric.high is None else f", at most {metric.high:.3f}"
        if metric.low is not None:
            between = f" [{metric.low:.3f}, {metric.high:.3f}]"
        click.echo(f"{name}: {metric.value:.3f}{between}")


def _tell(precision: str, decision: DecisionSpec) -> None:
    for label, threshold in decision.thresholds.items():
        click.echo(
            f"{precision} {label}: P(fake) {threshold.probability:.3f}, wrong in "
            f"{threshold.rate:.3f} of {threshold.n} groups' clips (upper bound "
            f"{threshold.upper_bound:.3f})"
        )


@click.command("evaluate")
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Bundle to judge with.  [default: shipped]"
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that the table's relative paths start from.  [default: the table's own]",
)
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="val", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option("--provider", default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="Variant of the frame model; auto takes the one that suits provider and processor.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="The folder that `fit frame` wrote, for the training curves.  [default: the folder above "
    "--out or above the bundle, if a fit is there]",
)
@click.option(
    "--mistakes",
    default=8,
    show_default=True,
    type=click.IntRange(min=0),
    help="Show so many of the worst reals and of the worst fakes.",
)
@click.option(
    "--draws",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Bootstrap samples.",
)
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    help="A card.json to which the figures are added, in the place of older ones of the same "
    "split and precision.",
)
def evaluate_command(
    table: Path,
    bundle: Path | None,
    root: Path | None,
    split: str,
    out: Path,
    provider: str,
    precision: str,
    run: Path | None,
    mistakes: int,
    draws: int,
    card: Path | None,
) -> None:
    """Judge the rows of TABLE with a bundle, through the runtime, and report how well it does.

    Writes the page evaluation.html, with the same figures as evaluation.json, evaluation.md and
    CSV tables and the same curves as PNG; files.csv and frames.csv have every score.
    """
    from dfd_edge import Detector
    from dfd_training.evaluation.evaluate import evaluate, summarise, worst_files, worst_mistakes
    from dfd_training.evaluation.page import PAGE, write_results
    from dfd_training.evaluation.report import card_metrics, to_text, write_report
    from dfd_training.evaluation.runs import find_fit, graph_hashes, place_from, read_fit
    from dfd_training.table import read_table

    info = None if card is None else _read_card(card)
    fit = None if run is None else read_fit(run)
    every = read_table(table, root=root)
    rows = every[every["split"] == split]
    if rows.empty:
        there = ", ".join(f"{n} {name}" for name, n in every["split"].value_counts().items())
        raise UsageError(f"{table}: no row is marked {split}: there are {there}; give --split")
    media = root or table.parent
    detector = Detector.load(bundle, provider=provider, precision=precision)
    with click.progressbar(length=len(rows), label="judging", file=sys.stderr) as bar:
        evaluation = evaluate(detector, rows, media, on_file=lambda: bar.update(1))
    report = summarise(evaluation, draws=draws)
    thresholds = detector.decision.spec.thresholds
    facts = {
        "bundle": detector.bundle.manifest.name,
        "bundle_hash": detector.bundle.hash,
        "graphs": graph_hashes(detector.bundle, detector.provider.precision),
        "bundle_place": place_from(out, detector.bundle.path),
        "precision": detector.provider.precision,
        "provider": detector.provider.actual,
        "table": table.name,
        "split": split,
        "thresholds": {name: limit.probability for name, limit in thresholds.items()},
    }
    length = len(worst_files(evaluation, mistakes))
    with click.progressbar(length=length, label="worst mistakes", file=sys.stderr) as bar:
        worst = worst_mistakes(
            detector, evaluation, media, count=mistakes, on_file=lambda: bar.update(1)
        )
    fit = fit or find_fit(out, bundle)
    write_report(evaluation, report, out, facts)
    write_results(evaluation, report, out, facts, mistakes=worst, fit=fit, draws=draws)
    if card is not None and info is not None:
        judged = f"{split} rows, {detector.provider.precision}"
        kept = {k: v for k, v in info.metrics.items() if not k.startswith(f"{judged},")}
        metrics = {**kept, **card_metrics(report, judged)}
        card.write_text(dataclasses.replace(info, metrics=metrics).to_json())
    click.echo(to_text(report))
    click.echo(f"page: {out / PAGE}")


def _read_card(path: Path) -> CardInfo:
    from dfd_edge.manifest import CardInfo
    from dfd_edge.schema import SchemaError

    try:
        return CardInfo.from_json(path.read_text("utf-8"))
    except (OSError, SchemaError) as error:
        raise UsageError(f"{path}: not a card.json of dfd-train calibrate: {error}") from error
