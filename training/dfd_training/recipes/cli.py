"""`dfd-train recipe`: published recipes of other projects."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dfd_training.recipes.run import CnnRnnOptions

_DEFAULT = CnnRnnOptions()
_PATH = click.Path(path_type=Path)


@click.group("recipe")
def recipe() -> None:
    """Fit a published recipe on your data, as a baseline."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@recipe.command("cnn-rnn-baseline")
@click.argument("table", type=_PATH)
@click.option(
    "--root", type=_PATH, help="Folder that the table's relative paths start from.  [default: its]"
)
@click.option("--out", type=_PATH, required=True, help="The run's folder.")
@click.option("--backbone", default=_DEFAULT.backbone, show_default=True)
@click.option(
    "--weights",
    default=_DEFAULT.weights,
    show_default=True,
    help="imagenet, none (random), or a file of weights.",
)
@click.option(
    "--frames", default=_DEFAULT.frames, show_default=True, help="Frames of a clip, from its start."
)
@click.option(
    "--size", default=_DEFAULT.size, show_default=True, help="Side of the pictures, pixels."
)
@click.option("--epochs", default=_DEFAULT.epochs, show_default=True, help="At most.")
@click.option(
    "--patience", default=_DEFAULT.patience, show_default=True, help="Epochs without a lower loss."
)
@click.option("--batch-size", default=_DEFAULT.batch_size, show_default=True, help="Clips a batch.")
@click.option(
    "--learning-rate",
    default=_DEFAULT.learning_rate,
    show_default=True,
    help="Learning rate of Adam.",
)
@click.option("--dropout", default=_DEFAULT.dropout, show_default=True)
@click.option(
    "--head",
    default=_DEFAULT.head,
    show_default=True,
    help="small (GRUs of 16 and 8), live (GRUs of 64, 32 and 16 with batch norms between) or "
    "attention.",
)
@click.option("--seed", default=_DEFAULT.seed, show_default=True)
@click.option(
    "--cache", type=_PATH, help="Folder of features, for several runs.  [default: OUT/features]"
)
def cnn_rnn_command(
    table: Path,
    root: Path | None,
    out: Path,
    cache: Path | None,
    **settings: object,
) -> None:
    """Fit small GRUs on a frozen CNN's features of whole frames.

    TABLE is a CSV with path and label, as `dfd-train prepare` takes it; its clips marked train are
    used, and no others. Features are computed once and kept: an interrupted run is resumed.
    `dfd-export bundle OUT --out OUT/bundle` exports it as a bundle.
    """
    from dfd_training.data.table import read_table

    options = CnnRnnOptions(**settings)  # type: ignore[arg-type] # click gives the fields' types
    rows = read_table(table, root=root)
    from dfd_training.recipes.cnn_rnn import fit_cnn_rnn

    count = int((rows["split"] == "train").sum())
    with (
        click.progressbar(length=count, label="features", file=sys.stderr) as files,
        click.progressbar(length=options.epochs, label="epochs", file=sys.stderr) as epochs,
    ):
        fit = fit_cnn_rnn(
            rows,
            root or table.parent,
            out,
            options=options,
            cache=cache,
            on_file=lambda: files.update(1),
            on_epoch=lambda: epochs.update(1),
        )
    fitted, stopping, held = fit.clips
    click.echo(
        f"clips: {fitted} fitted on, {stopping} for early stopping, {held} for the decision; "
        f"features of {fit.computed} computed, of {sum(fit.clips) - fit.computed} found"
    )
    if fit.photographs:
        click.echo(f"left out: {fit.photographs} photographs, which the recipe does not know")
    for path, reason in fit.unreadable.items():
        click.echo(f"left out: {path}: {reason}")
    best = fit.history.sort_values("val_loss", kind="stable").iloc[0]
    click.echo(
        f"epoch {int(best['epoch']) + 1} of {len(fit.history)} kept: loss {best['loss']:.4f}, "
        f"accuracy {best['accuracy']:.4f}, AUC {best['auc']:.4f}; groups for early stopping: loss "
        f"{best['val_loss']:.4f}, accuracy {best['val_accuracy']:.4f}, AUC {best['val_auc']:.4f}"
    )
    for name, metric in fit.decision.metrics.items():
        between = "" if metric.low is None else f" [{metric.low:.3f}, {metric.high:.3f}]"
        click.echo(f"{name}: {metric.value:.3f}{between}")
    if fit.decision.unmeasured is not None:
        click.echo(f"not calibrated: {fit.decision.unmeasured}")
    click.echo(f"next: dfd-export bundle {out} --out {out / 'bundle'}")
