"""`dfd-train generate`: networks that generate fakes from a store's crops."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.errors import UsageError

if TYPE_CHECKING:
    import keras

    from dfd_training.augment.generators.fitting import GeneratorFitOptions, OnRound
    from dfd_training.augment.generators.generate import Progress

_GENERATORS = click.Choice(["swap", "heads", "all"])


@click.group()
def generate() -> None:
    """Train networks that generate fakes, and add their fakes to a crop store."""
    # Both are read when TensorFlow and OpenCV first work: further threads would only contend
    # with a training run beside this one.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


@generate.command("fit")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--only", type=_GENERATORS, default="all", show_default=True)
@click.option(
    "--minutes",
    default=15.0,
    show_default=True,
    help="Minutes for the swap autoencoder; the autoencoders of heads take as long together.",
)
@click.option("--batch-size", default=8, show_default=True)
@click.option("--steps", default=100, show_default=True, help="Batches between two checkpoints.")
@click.option("--seed", default=0, show_default=True)
def fit_command(
    store: Path, out: Path, only: str, minutes: float, batch_size: int, steps: int, seed: int
) -> None:
    """Train a swap autoencoder and autoencoders of whole heads on the real crops of STORE.

    Only rows marked train are read. An interrupted run is resumed, until the minutes
    are used; more minutes later train on.
    """
    from dfd_training.augment.generators.fitting import GeneratorFitOptions
    from dfd_training.augment.generators.heads import HEAD_PLANS, fit_heads
    from dfd_training.augment.generators.swap import fit_swap
    from dfd_training.data.store import CropStore

    def options(share: float) -> GeneratorFitOptions:
        return GeneratorFitOptions(
            minutes=minutes * share, batch_size=batch_size, steps=steps, seed=seed
        )

    crops = CropStore(store)
    if only in {"swap", "all"}:
        with _round_bar("swap autoencoder") as on_round:
            state = fit_swap(crops, out, options(1.0), on_round=on_round)
        click.echo(_summary("swap autoencoder", state.losses))
    if only in {"heads", "all"}:
        for plan in HEAD_PLANS:
            with _round_bar(f"heads, {plan.name}") as on_round:
                state = fit_heads(
                    crops, out, plan, options(1.0 / len(HEAD_PLANS)), on_round=on_round
                )
            click.echo(_summary(f"heads, {plan.name}", state.losses))


@generate.command("make")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--generators",
    type=click.Path(path_type=Path),
    help="The folder that `generate fit` wrote.",
)
@click.option(
    "--upscaler",
    type=click.Path(path_type=Path),
    help="A .tgz with super-resolution networks for TensorFlow.js, such as `npm pack "
    "@upscalerjs/esrgan-slim` writes.",
)
@click.option("--clip-crops", default=12, show_default=True, help="Crops of a clip for each swap.")
@click.option("--swaps", default=2, show_default=True, help="Identities for each clip.")
@click.option(
    "--redraws",
    default=1,
    show_default=True,
    help="Times that each clip and photograph is drawn anew.",
)
@click.option(
    "--head-crops", default=8, show_default=True, help="Crops of a clip for each redrawing."
)
@click.option(
    "--photographs", default=800, show_default=True, help="Most photographs that are drawn anew."
)
@click.option("--seed", default=0, show_default=True)
def make_command(
    store: Path,
    generators: Path | None,
    upscaler: Path | None,
    clip_crops: int,
    swaps: int,
    redraws: int,
    head_crops: int,
    photographs: int,
    seed: int,
) -> None:
    """Generate fakes from the real crops of STORE that are marked train, and store them beside.

    Writes shards into STORE/crops and their rows into STORE/made.csv. Files that exist
    already are left as they are, so that a broken-off run goes on.
    """
    from dfd_training.augment.generators.generate import (
        REBUILT,
        REPAINTED,
        SWAPPED,
        UPSCALED,
        GenerateOptions,
        Networks,
        generate_redrawn,
        generate_swaps,
    )
    from dfd_training.augment.generators.redraw import Upscaler
    from dfd_training.augment.generators.swap import SWAP_FOLDER, load_swap
    from dfd_training.data.store import CropStore

    crops = CropStore(store)
    options = GenerateOptions(
        swap_crops=clip_crops,
        swaps=swaps,
        redraws=redraws,
        head_crops=head_crops,
        photographs=photographs,
        seed=seed,
    )
    if generators is None and upscaler is None:
        raise UsageError("nothing to generate fakes with: give --generators, --upscaler or both")
    networks = None if upscaler is None else Upscaler(upscaler)
    heads = {} if generators is None else _load_heads(generators)
    jobs = {
        UPSCALED: Networks(upscaler=networks) if networks else None,
        REBUILT: Networks(heads) if heads else None,
        REPAINTED: Networks(heads, networks) if heads or networks else None,
    }
    heads_lack = "network of heads in --generators"
    lacking = {
        UPSCALED: "--upscaler",
        REBUILT: heads_lack,
        REPAINTED: f"{heads_lack}, nor --upscaler",
    }
    for name, drawn_by in jobs.items():
        if drawn_by is None:
            click.echo(f"{name}: skipped, since there was no {lacking[name]}")
            continue
        with _bar(name) as on_file:
            made = generate_redrawn(crops, drawn_by, name, options, on_file=on_file)
        click.echo(f"{name}: {made} files made")
    if generators is None or not (generators / SWAP_FOLDER).is_dir():
        click.echo(f"{SWAPPED}: skipped, since there was none in --generators")
        return
    model, people = load_swap(generators)
    with _bar(SWAPPED) as on_file:
        made = generate_swaps(crops, model, people, options, on_file=on_file)
    click.echo(f"{SWAPPED}: {made} files made")


def _load_heads(generators: Path) -> dict[str, keras.Model]:
    from dfd_training.augment.generators.heads import HEAD_PLANS, HEADS_FOLDER, load_head
    from dfd_training.augment.generators.swap import SWAP_FOLDER

    plans = [plan for plan in HEAD_PLANS if (generators / HEADS_FOLDER / plan.name).is_dir()]
    if not plans and not (generators / SWAP_FOLDER).is_dir():
        raise UsageError(f"{generators}: no generators here: run dfd-train generate fit first")
    return {plan.name: load_head(generators, plan) for plan in plans}


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def on_file(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield on_file


@contextmanager
def _round_bar(label: str) -> Iterator[OnRound]:
    def shown(item: str | None) -> str:
        return item or ""

    with click.progressbar(length=1000, label=label, file=sys.stderr, item_show_func=shown) as bar:

        def on_round(share: float, loss: float) -> None:
            bar.update(round(1000 * min(1.0, share)) - bar.pos, f"loss {loss:.3f}")

        yield on_round


def _summary(name: str, losses: list[float] | None) -> str:
    if not losses:
        return f"{name}: no time was left to train"
    return f"{name}: loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last"
