"""`dfd-train fit sequence`, and the out-of-fold sequences that calibration needs too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.errors import UsageError
from dfd_training.fitting.cli import given_options, settings_in, settings_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dfd_training.sequence.sequences import ClipSequence


synthesis_option = click.option(
    "--synthesis/--no-synthesis",
    default=True,
    show_default=True,
    help="Whether forged copies of the real clips count as fakes too; do without them where true "
    "fakes are many.",
)


@click.command("sequence")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--frame",
    "frames",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Frame model fitted without fold 0, then 1, then 2 …: one for each fold. A .keras file or "
    "its bundle, whose fp32 graph is faster.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@settings_option
@click.option(
    "--head",
    default="gru",
    show_default=True,
    help="gru, gru_small, gru_single, lstm, attention, mean or signals. The last adds measurements "
    "of consecutive frames to the frame model's own logit.",
)
@click.option(
    "--shipped",
    type=click.Path(path_type=Path),
    help="For --head signals: the frame model that the head ships with.  [default: the first]",
)
@click.option("--epochs", default=30, show_default=True)
@click.option("--steps", default=40, show_default=True, help="Batches an epoch.")
@click.option(
    "--fit",
    "fit_settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the fit that has no option of its own, such as dropout=0.4; an unknown name "
    "lists all.",
)
@synthesis_option
@click.option("--seed", default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Resume an interrupted run.")
def fit_sequence_command(
    store: Path,
    frames: tuple[Path, ...],
    out: Path,
    settings_file: Path | None,
    fit_settings: tuple[str, ...],
    shipped: Path | None,
    synthesis: bool,
    resume: bool,
    **_options: object,
) -> None:
    """Fit the sequence model on out-of-fold features of the clips of STORE.

    The head that ships is fitted without fold 0, like the first frame model; with --head signals
    it is fitted on all folds, at once and without epochs. Features are computed once and cached in
    the run's folder.
    """
    from dfd_training.data.store import CropStore
    from dfd_training.fitting.settings import values_of_texts
    from dfd_training.models import SIGNALS_HEAD
    from dfd_training.sequence.fit import fit_sequence
    from dfd_training.sequence.signals_head import fit_signals_head
    from dfd_training.sequence.windows import FitSequenceOptions

    kinds = {"fit": FitSequenceOptions}
    values = settings_in(out, settings_file, resume=resume, kinds=kinds)["fit"]
    values |= given_options(FitSequenceOptions.__slots__)
    options = FitSequenceOptions(**values | values_of_texts(FitSequenceOptions, fit_settings))
    if shipped is not None and options.head != SIGNALS_HEAD:
        raise UsageError("--shipped is for --head signals: other heads ship with the first --frame")
    sequences = out_of_fold_sequences(store, frames, out, seed=options.seed, synthesise=synthesis)[
        "fp32"
    ]
    crop_scale = CropStore(store).crop_scale

    def print_epoch(fold: int, row: dict[str, float]) -> None:
        click.echo(
            f"fold {fold}, epoch {int(row['epoch']) + 1}/{options.epochs}: loss {row['loss']:.4f}, "
            f"held out: AUC {row['val_auc']:.4f}"
        )

    if options.head == SIGNALS_HEAD:
        result = fit_signals_head(
            sequences, out, frames=frames, shipped=shipped, crop_scale=crop_scale, options=options
        )
    else:
        result = fit_sequence(
            sequences,
            out,
            crop_scale=crop_scale,
            options=options,
            resume=resume,
            on_epoch=print_epoch,
        )
    areas = ", ".join(f"{fold}: {area:.4f}" for fold, area in result.fold_auc.items())
    click.echo(f"clip AUC by fold: {areas}")
    click.echo(f"sequence model: {result.path}")


def out_of_fold_sequences(
    store: Path,
    frames: Sequence[Path],
    folder: Path,
    *,
    precisions: Sequence[str] = ("fp32",),
    seed: int = 0,
    photographs: bool = False,
    synthesise: bool = True,
) -> dict[str, list[ClipSequence]]:
    """Returns the sequences of a store by precision, with a progress bar; cached in a folder.

    Args:
        store: The crop store.
        frames: The frame model of each fold.
        folder: Folder of the cache.
        precisions: Precisions of the frame models.
        seed: Seed of everything drawn.
        photographs: Score the photographs instead of the clips.
        synthesise: Whether real clips are forged too.
    """
    from dfd_training.data.store import CropStore
    from dfd_training.sequence.extraction import (
        cached_sequences,
        extract_footage,
        extract_photographs,
        extract_sequences,
    )
    from dfd_training.sequence.sequences import list_photographs, list_tracks

    for fold, frame in enumerate(frames):
        _check_holdout(frame, fold)
    crops = CropStore(store)
    tracks = list_photographs(crops, seed=seed) if photographs else list_tracks(crops)
    if photographs and not tracks:
        return {precision: [] for precision in precisions}
    label = "photographs" if photographs else "features"
    of_clips = extract_sequences if synthesise else extract_footage
    with click.progressbar(length=len(tracks), label=label, file=sys.stderr) as bar:
        return cached_sequences(
            crops,
            dict(enumerate(frames)),
            folder,
            extract=extract_photographs if photographs else of_clips,
            precisions=precisions,
            seed=seed,
            on_clip=lambda: bar.update(1),
        )


def _check_holdout(model: Path, fold: int) -> None:
    """Refuses a model whose run says that it was fitted on the fold that it is to score."""
    run = model.parent / "run.json"
    if run.is_file():
        held = json.loads(run.read_text("utf-8")).get("options", {}).get("holdout")
        if held != fold:
            raise UsageError(
                f"{model}: was fitted without fold {held}, but is given for fold {fold}: give the "
                "models in the order of their folds"
            )
