"""`dfd-train`: from labelled files to a trained, calibrated, evaluated model."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dfd_edge.errors import DfdError


_MEDIA = click.Choice(["photographs", "clips", "all"])


class _Group(click.Group):
    """Turns the program's own errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except DfdError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dfd-edge")
def main() -> None:
    """Train deepfake detectors: prepare, fit, calibrate, evaluate.

    The usual order is prepare, fit frame, fit sequence, calibrate; then `dfd-export bundle`;
    then evaluate.
    """


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
    from dfd_training.prepare import Prepared, PrepareOptions  # noqa: PLC0415
    from dfd_training.prepare import prepare as run_prepare  # noqa: PLC0415
    from dfd_training.table import read_table  # noqa: PLC0415

    rows = read_table(table)
    with click.progressbar(
        length=len(rows), label="preparing", file=click.get_text_stream("stderr")
    ) as bar:

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
    from dfd_training.fit_frame import FitFrameOptions, Media, fit_frame  # noqa: PLC0415
    from dfd_training.pairs import PairOptions  # noqa: PLC0415
    from dfd_training.store import CropStore  # noqa: PLC0415

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
