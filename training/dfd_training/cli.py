"""`dfd-train`: from labelled files to a trained, calibrated, evaluated model."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.console import CommandGroup
from dfd_edge.errors import UsageError

if TYPE_CHECKING:
    from dfd_edge.manifest import CardInfo
    from dfd_training.sequences import ClipSequence


_MEDIA = click.Choice(["photographs", "clips", "all"])


@click.group(
    cls=CommandGroup, extra="train", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dfd-edge")
def main() -> None:
    """Train deepfake detectors: prepare, fit, calibrate, evaluate.

    The usual order is prepare, fit frame, fit sequence, calibrate; then `dfd-export bundle`;
    then evaluate.
    """
    # Both must be set before TensorFlow is imported. Its oneDNN kernels, which it leaves off on
    # processors without AVX-512, made a training step 1.4 times faster on an AVX2 machine.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@main.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that the table's relative paths start from.  [default: the table's own]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The crop store.")
@click.option("--rate", default=5.0, show_default=True, help="Frames a second from clips.")
@click.option("--max-frames", default=100, show_default=True, help="At most, from one clip.")
@click.option(
    "--workers", type=int, default=os.cpu_count() or 1, show_default=True, help="Processes."
)
def prepare(
    table: Path, root: Path | None, out: Path, rate: float, max_frames: int, workers: int
) -> None:
    """Cut the faces of every file of TABLE, with landmarks, into a crop store.

    TABLE is a CSV with the columns path and label (REAL or FAKE), and as far as known original,
    generator, model, group, split and source. A run that was broken off goes on where it
    stopped.
    """
    from dfd_training.prepare import Prepared, PrepareOptions
    from dfd_training.prepare import prepare as run_prepare
    from dfd_training.table import read_table

    rows = read_table(table)
    with click.progressbar(length=len(rows), label="preparing", file=sys.stderr) as bar:

        def advance(_: Prepared) -> None:
            bar.update(1)

        summary = run_prepare(
            rows,
            root or table.parent,
            out,
            options=PrepareOptions(rate_hz=rate, max_frames=max_frames),
            workers=workers,
            on_done=advance,
        )
    done = summary.pop("done", 0)
    click.echo(f"{done} of {len(rows)} files gave crops in {out}")
    for reason, count in summary.most_common():
        click.echo(f"  skipped {count}: {reason}")


@main.group()
def fit() -> None:
    """Fit the frame model, then the sequence model."""


@fit.command("frame")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--backbone", default="efficientnet_lite0", show_default=True)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    help="imagenet, none, a file of weights, or a .keras frame model to go on from.",
)
@click.option("--train-on", type=_MEDIA, default="all", show_default=True)
@click.option(
    "--validate-on",
    type=_MEDIA,
    default="all",
    show_default=True,
    help="Rows of the held-out fold that choose the best weights.",
)
@click.option("--input-size", default=160, show_default=True, help="Side of the crops, pixels.")
@click.option(
    "--holdout", default=0, show_default=True, help="Fold kept out of training; -1 for none."
)
@click.option("--epochs", default=30, show_default=True)
@click.option("--steps", default=100, show_default=True, help="Batches an epoch.")
@click.option("--batch-size", default=32, show_default=True)
@click.option("--learning-rate", default=6e-4, show_default=True)
@click.option("--patience", default=10, show_default=True, help="Epochs without a better AUC.")
@click.option("--seed", default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Go on where a broken-off run stopped.")
def fit_frame_command(
    store: Path,
    out: Path,
    backbone: str,
    weights: str,
    train_on: str,
    validate_on: str,
    input_size: int,
    holdout: int,
    epochs: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    patience: int,
    seed: int,
    resume: bool,
) -> None:
    """Fit the frame model on the crops of STORE.

    Real and fake crops are drawn one to one inside every source; a source without fakes gets
    self-blended ones and landmark swaps. The weights that separate the held-out fold best are
    kept in best.keras.
    """
    from dfd_training.fit_frame import FitFrameOptions, Media, fit_frame
    from dfd_training.pairs import PairOptions
    from dfd_training.store import CropStore

    def tell(row: dict[str, float]) -> None:
        click.echo(
            f"epoch {int(row['epoch']) + 1}/{epochs}: loss {row['loss']:.4f}, held out: "
            f"loss {row['val_loss']:.4f}, AUC {row['val_auc']:.4f} ({row['seconds']:.0f} s)"
        )

    best = fit_frame(
        CropStore(store),
        out,
        options=FitFrameOptions(
            backbone=backbone,
            weights=weights,
            train_on=Media(train_on),
            validate_on=Media(validate_on),
            holdout=holdout,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            seed=seed,
        ),
        pairs=PairOptions(input_size=input_size),
        resume=resume,
        on_epoch=tell,
    )
    click.echo(f"best weights: {best}")


@fit.command("sequence")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--frame",
    "frames",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Frame model fitted without fold 0, then 1, then 2 …: once a fold.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option(
    "--head",
    default="gru",
    show_default=True,
    help="gru, gru_small, gru_single, lstm, attention or mean.",
)
@click.option("--epochs", default=30, show_default=True)
@click.option("--steps", default=40, show_default=True, help="Batches an epoch.")
@click.option("--seed", default=0, show_default=True)
def fit_sequence_command(
    store: Path,
    frames: tuple[Path, ...],
    out: Path,
    head: str,
    epochs: int,
    steps: int,
    seed: int,
) -> None:
    """Fit the sequence model on out-of-fold features of the clips of STORE.

    The head that ships is fitted without fold 0, like the first frame model. Features are
    computed once and cached in the run's folder.
    """
    from dfd_training.fit_sequence import FitSequenceOptions, fit_sequence

    options = FitSequenceOptions(head=head, epochs=epochs, steps=steps, seed=seed)
    sequences = _sequences(store, frames, out, seed)

    def tell(fold: int, row: dict[str, float]) -> None:
        click.echo(
            f"fold {fold}, epoch {int(row['epoch']) + 1}/{epochs}: loss {row['loss']:.4f}, "
            f"held out: AUC {row['val_auc']:.4f}"
        )

    result = fit_sequence(sequences, out, options=options, on_epoch=tell)
    areas = ", ".join(f"{fold}: {area:.4f}" for fold, area in result.fold_auc.items())
    click.echo(f"clip AUC by fold: {areas}")
    click.echo(f"sequence model: {result.path}")


@main.command("calibrate")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--frame",
    "frames",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="The frame models given to `fit sequence`, in the same order.",
)
@click.option(
    "--sequence",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder that `fit sequence` wrote.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
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
    store: Path, frames: tuple[Path, ...], sequence: Path, out: Path, licence: str, seed: int
) -> None:
    """Fit calibrators and set thresholds on the training's own folds.

    Writes decision.json and card.json, which `dfd-export bundle` puts into the manifest.
    """
    from dfd_training.calibrate import calibrate, read_out_of_fold
    from dfd_training.card import make_card
    from dfd_training.store import CropStore

    sequences = _sequences(store, frames, sequence, seed)
    result = calibrate(sequences, read_out_of_fold(sequence, sequences))
    out.mkdir(parents=True, exist_ok=True)
    (out / "decision.json").write_text(result.decision.to_json())
    card = make_card(CropStore(store), result.metrics, licence=licence)
    (out / "card.json").write_text(card.to_json())
    click.echo(f"a person's score is the mean of the {result.decision.person_score} logits")
    for label, threshold in result.decision.thresholds.items():
        click.echo(
            f"{label}: P(fake) {threshold.probability:.3f}, wrong in {threshold.rate:.3f} of "
            f"{threshold.n} (upper bound {threshold.upper_bound:.3f})"
        )
    for name, metric in result.metrics.items():
        click.echo(f"{name}: {metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]")


@main.command("evaluate")
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Bundle to judge with.  [default: shipped]"
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that the table's relative paths start from.  [default: the table's own]",
)
@click.option("--split", type=click.Choice(["train", "val"]), default="val", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option("--provider", default="auto", show_default=True)
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    help="A card.json to which the figures are added.",
)
def evaluate_command(
    table: Path,
    bundle: Path | None,
    root: Path | None,
    split: str,
    out: Path,
    provider: str,
    card: Path | None,
) -> None:
    """Judge the rows of TABLE with a bundle, through the runtime, and report how well it does.

    Writes evaluation.json, evaluation.md, files.csv and frames.csv.
    """
    from dfd_edge import Detector
    from dfd_training.evaluation import evaluate, summarise
    from dfd_training.report import card_metrics, to_text, write_report
    from dfd_training.table import read_table

    info = None if card is None else _read_card(card)
    rows = read_table(table)
    rows = rows[rows["split"] == split]
    detector = Detector.load(bundle, provider=provider)
    with click.progressbar(length=len(rows), label="judging", file=sys.stderr) as bar:
        evaluation = evaluate(detector, rows, root or table.parent, on_file=lambda: bar.update(1))
    report = summarise(evaluation)
    facts = {
        "bundle": detector.bundle.manifest.name,
        "bundle_hash": detector.bundle.hash,
        "precision": detector.provider.precision,
        "provider": detector.provider.actual,
        "split": split,
    }
    write_report(evaluation, report, out, facts)
    if card is not None and info is not None:
        kept = {k: v for k, v in info.metrics.items() if not k.startswith(f"{split} rows")}
        measured = card_metrics(report, f"{split} rows, {detector.provider.precision}")
        metrics = {**kept, **measured}
        card.write_text(dataclasses.replace(info, metrics=metrics).to_json())
    click.echo(to_text(report))


def _check_holdout(model: Path, fold: int) -> None:
    """Refuse a model whose run says that it was fitted on the fold that it is to score."""
    run = model.parent / "run.json"
    if run.is_file():
        held = json.loads(run.read_text("utf-8")).get("options", {}).get("holdout")
        if held != fold:
            raise UsageError(
                f"{model}: was fitted without fold {held}, but is given for fold {fold}: give the "
                "models in the order of their folds"
            )


def _read_card(path: Path) -> CardInfo:
    from dfd_edge.manifest import CardInfo
    from dfd_edge.schema import SchemaError

    try:
        return CardInfo.from_json(path.read_text("utf-8"))
    except (OSError, SchemaError) as error:
        raise UsageError(f"{path}: not a card.json of dfd-train calibrate: {error}") from error


def _sequences(
    store: Path, frames: tuple[Path, ...], folder: Path, seed: int
) -> list[ClipSequence]:
    from dfd_training.sequences import cached_sequences, list_tracks
    from dfd_training.store import CropStore

    for fold, frame in enumerate(frames):
        _check_holdout(frame, fold)
    crops = CropStore(store)
    with click.progressbar(
        length=len(list_tracks(crops)),
        label="features",
        file=sys.stderr,
    ) as bar:
        return cached_sequences(
            crops, dict(enumerate(frames)), folder, seed=seed, on_clip=lambda: bar.update(1)
        )
