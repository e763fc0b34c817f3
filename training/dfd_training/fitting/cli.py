"""`dfd-train fit frame`, and the options that both fits share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_training.fitting.options import DEFAULT_BACKBONE, FitFrameOptions, Media, Switch

if TYPE_CHECKING:
    from collections.abc import Collection

    from dfd_training.fitting.record import FrameEpoch
    from dfd_training.fitting.settings import Values

PICTURE_MEMORY_MB = 4096
_MEDIA = click.Choice([media.value for media in Media])
_DEFAULT = FitFrameOptions()
_INPUT_SIZE = 160

settings_option = click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    help="A TOML file of settings, such as settings.toml of another run. Options on the command "
    "line take precedence.",
)


def share(text: str) -> float:
    """Reads a share from 0 to 1, or `all` or `none`; click reports a fault."""
    try:
        value = {"all": 1.0, "none": 0.0}[text] if text in ("all", "none") else float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise click.BadParameter(f"{text!r} is neither a share of 0 to 1 nor all nor none")
    return value


def given_options(names: Collection[str]) -> Values:
    """Returns the running command's parameters that were given on the command line."""
    ctx = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {
        name: value
        for name, value in ctx.params.items()
        if name in names and ctx.get_parameter_source(name) is not default
    }


def settings_in(
    folder: Path, file: Path | None, *, resume: bool, kinds: dict[str, type[Any]]
) -> dict[str, Values]:
    """Returns the values in a file of settings; a run that is resumed has one of its own."""
    from dfd_training.fitting.settings import read_settings

    own = folder / "settings.toml"
    if file is None and resume and own.is_file():
        file = own
    return read_settings(file, kinds) if file else {name: {} for name in kinds}


@click.group()
def fit() -> None:
    """Fit the frame model, then the sequence model.

    The environment variable KERAS_BACKEND chooses tensorflow, jax or torch.
    """


@fit.command("frame")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@settings_option
@click.option("--backbone", default=_DEFAULT.backbone, show_default=True)
@click.option(
    "--weights",
    default=_DEFAULT.weights,
    show_default=True,
    help="imagenet, none, a file of weights; or to go on from a frame model: shipped, a bundle or "
    "a .keras file.",
)
@click.option("--train-on", type=_MEDIA, default=_DEFAULT.train_on.value, show_default=True)
@click.option(
    "--validate-on",
    type=_MEDIA,
    default=_DEFAULT.validate_on.value,
    show_default=True,
    help="Rows of the held-out fold that choose the best weights.",
)
@click.option(
    "--input-size",
    type=int,
    help=f"Side of the crops in pixels.  [default: {_INPUT_SIZE} for {DEFAULT_BACKBONE}, else the "
    "backbone's own]",
)
@click.option(
    "--holdout",
    default=_DEFAULT.holdout,
    show_default=True,
    help="Fold kept out of training; -1 for none.",
)
@click.option("--epochs", default=_DEFAULT.epochs, show_default=True)
@click.option(
    "--warmup-epochs",
    default=_DEFAULT.warmup_epochs,
    show_default=True,
    help="First epochs, in which only the head learns.",
)
@click.option(
    "--unfreeze",
    type=share,
    default="all",
    show_default=True,
    metavar="SHARE|all|none",
    help="Upper share of the backbone's layers that learn after the warm-up.",
)
@click.option("--steps", default=_DEFAULT.steps, show_default=True, help="Batches an epoch.")
@click.option("--batch-size", default=_DEFAULT.batch_size, show_default=True)
@click.option("--learning-rate", default=_DEFAULT.learning_rate, show_default=True)
@click.option(
    "--patience",
    default=_DEFAULT.patience,
    show_default=True,
    help="Most epochs without a better AUC.",
)
@click.option(
    "--mixed-precision",
    type=click.Choice([switch.value for switch in Switch]),
    default=_DEFAULT.mixed_precision.value,
    show_default=True,
    help="Compute in float16; auto does so on a GPU only.",
)
@click.option(
    "--without-source",
    "without_sources",
    multiple=True,
    metavar="NAME",
    help="Leave a source out, to see how a model does on it.",
)
@click.option(
    "--without-family",
    "without_families",
    multiple=True,
    metavar="NAME",
    help="Leave a family of fakes out, with every group that it is judged on.",
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
    help="A setting of the fit that has no option of its own, such as loss=focal; an unknown name "
    "lists all.",
)
@click.option("--seed", default=_DEFAULT.seed, show_default=True)
@click.option("--resume", is_flag=True, help="Resume an interrupted run.")
def fit_frame_command(
    store: Path,
    out: Path,
    settings_file: Path | None,
    input_size: int | None,
    pair_settings: tuple[str, ...],
    fit_settings: tuple[str, ...],
    resume: bool,
    **_options: object,
) -> None:
    """Fit the frame model on the crops of STORE.

    Real and fake crops are drawn one to one inside every source; a source without fakes gets
    self-blended ones and landmark swaps. The weights that separate the held-out fold best are
    kept in best.keras, what was set in settings.toml.
    """
    from dfd_training.fitting.pairs import PairOptions
    from dfd_training.fitting.settings import values_of_texts

    kinds: dict[str, type[Any]] = {"fit": FitFrameOptions, "pairs": PairOptions}
    values = settings_in(out, settings_file, resume=resume, kinds=kinds)
    values["fit"] |= given_options(_OPTIONS)
    for name in ("train_on", "validate_on"):
        values["fit"][name] = Media(values["fit"].get(name, getattr(_DEFAULT, name)))
    values["fit"]["mixed_precision"] = Switch(
        values["fit"].get("mixed_precision", _DEFAULT.mixed_precision)
    )
    values["fit"] |= values_of_texts(FitFrameOptions, fit_settings)
    if input_size is not None:
        values["pairs"]["input_size"] = input_size
    values["pairs"] |= values_of_texts(PairOptions, pair_settings)
    options = FitFrameOptions(**values["fit"])
    values["pairs"].setdefault("input_size", _native_size(options.backbone))
    _run(store, out, options, PairOptions(**values["pairs"]), resume=resume)


_OPTIONS = FitFrameOptions.__slots__


def _run(store: Path, out: Path, options: FitFrameOptions, pairs: Any, *, resume: bool) -> None:  # noqa: ANN401
    from dfd_training.data.store import CropStore
    from dfd_training.fitting.frame import fit_frame

    bars = EpochBars(options)
    best = fit_frame(
        CropStore(store, picture_memory_mb=PICTURE_MEMORY_MB),
        out,
        options=options,
        pairs=pairs,
        resume=resume,
        on_epoch=bars.tell,
        on_step=bars.step,
    )
    click.echo(f"best weights: {best}")


@click.command("average")
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The new model, a .keras file."
)
def average_command(models: tuple[Path, ...], out: Path) -> None:
    """Average the weights of MODELS, frame models in .keras files, into one.

    Fits from the same start with other settings, rates or seeds average well: the result costs as
    much as one of them and generalises better. It is a new model: judge it before you trust it,
    with crossfit --average.
    """
    from dfd_training.models.saving import average_models

    average_models(models, out)
    click.echo(f"model: {out}")


def _native_size(backbone: str) -> int:
    if backbone == DEFAULT_BACKBONE:
        return _INPUT_SIZE
    from dfd_training.models import BACKBONES

    return BACKBONES[backbone].input_size if backbone in BACKBONES else _INPUT_SIZE


class EpochBars:
    """A progress bar for the batches of each epoch, on standard error."""

    def __init__(self, options: FitFrameOptions) -> None:
        self._options = options
        self._bar: Any = None

    def step(self, epoch: int) -> None:
        """Counts one batch."""
        if self._bar is None:
            self._bar = click.progressbar(
                length=self._options.steps,
                label=f"epoch {epoch + 1}/{self._options.epochs}",
                file=sys.stderr,
            )
            self._bar.__enter__()
        self._bar.update(1)

    def tell(self, row: FrameEpoch) -> None:
        """Ends the epoch's bar and prints its figures."""
        self.close()
        click.echo(
            f"epoch {row.epoch + 1}/{self._options.epochs} ({row.stage}): loss {row.loss:.4f}, "
            f"AUC {row.auc:.4f}; held out: loss {row.val_loss:.4f}, AUC {row.val_auc:.4f} "
            f"({row.seconds:.0f} s)"
        )

    def close(self) -> None:
        """Ends the epoch's bar."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
