"""`dfd-train`: from labelled files to a trained, calibrated, evaluated model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dfd_edge.console import CommandGroup
from dfd_training.clips.cli import fit_sequence_command
from dfd_training.decision.cli import calibrate_command, evaluate_command
from dfd_training.generators.cli import generate
from dfd_training.quality.cli import COMMANDS as QUALITY_COMMANDS

_PICTURE_MEMORY_MB = 4096
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


for _command in QUALITY_COMMANDS:
    main.add_command(_command)
main.add_command(generate)


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
@click.option(
    "--without-source",
    "without_sources",
    multiple=True,
    metavar="NAME",
    help="Leave a source out, to see how a model does on it.",
)
@click.option(
    "--pairs",
    "pair_settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the drawing of pairs, such as true_share=0.5; an unknown name lists all.",
)
@click.option(
    "--fit",
    "fit_settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the fit that has no option of its own, such as label_smoothing=0.1.",
)
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
    without_sources: tuple[str, ...],
    pair_settings: tuple[str, ...],
    fit_settings: tuple[str, ...],
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
    from dfd_training.settings import with_settings
    from dfd_training.store import CropStore

    def tell(row: dict[str, float]) -> None:
        click.echo(
            f"epoch {int(row['epoch']) + 1}/{epochs}: loss {row['loss']:.4f}, held out: "
            f"loss {row['val_loss']:.4f}, AUC {row['val_auc']:.4f} ({row['seconds']:.0f} s)"
        )

    options = FitFrameOptions(
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
        without_sources=without_sources,
        seed=seed,
    )
    best = fit_frame(
        CropStore(store, picture_memory_mb=_PICTURE_MEMORY_MB),
        out,
        options=with_settings(options, fit_settings),
        pairs=with_settings(PairOptions(input_size=input_size), pair_settings),
        resume=resume,
        on_epoch=tell,
    )
    click.echo(f"best weights: {best}")


fit.add_command(fit_sequence_command)
main.add_command(calibrate_command)
main.add_command(evaluate_command)
