"""`dfd-train calibrate`: calibrators and thresholds of a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import PRECISIONS
from dfd_training.sequence.cli import out_of_fold_sequences, synthesis_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dfd_edge.bundle.manifest import Threshold


_MEND = (
    "add clips of both kinds and of more people to the table, or fit for longer; `dfd-export "
    "bundle` without --decision exports the models as they are, marked as not calibrated"
)


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
    help="Precisions to calibrate beside fp32; they need bundles.  [default: all that the frame "
    "models have]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option(
    "--protocol",
    default="",
    help="Further sentences for the card on how the model was fitted.",
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
@synthesis_option
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    metavar="SOURCE",
    help="A source of real recordings by webcams, phones or browsers. Together they weigh as much "
    "as all other real clips when thresholds are set.",
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
    synthesis: bool,
    cameras: tuple[str, ...],
    seed: int,
) -> None:
    """Fit calibrators and set thresholds on the training's own folds.

    Each precision gets its own, from the scores of its graphs on folds that they did not see.
    Writes decision.json and card.json, which `dfd-export bundle` puts into the manifest.
    """
    from dfd_training.calibration.calibrate import Calibration, NoDecisionError, calibrate
    from dfd_training.calibration.card import make_card
    from dfd_training.calibration.decision_file import decisions_to_json
    from dfd_training.data.store import CropStore
    from dfd_training.models.scoring import shared_precisions
    from dfd_training.sequence.out_of_fold import read_out_of_fold
    from dfd_training.sequence.signals_head import ships_another_frame_model

    wanted = dict.fromkeys(("fp32", *(precisions or shared_precisions(list(frames)))))
    scored = out_of_fold_sequences(
        store, frames, sequence, precisions=list(wanted), seed=seed, synthesise=synthesis
    )
    photographs = out_of_fold_sequences(
        store, frames, sequence, precisions=list(wanted), seed=seed, photographs=True
    )
    found: dict[str, Calibration] = {}
    for precision, sequences in scored.items():
        logits = read_out_of_fold(sequence, sequences)
        try:
            found[precision] = calibrate(
                sequences,
                logits,
                precision=precision,
                # All precisions use the same kind of score; only the numbers differ.
                person_score=found["fp32"].decision.person_score if found else None,
                photographs=photographs[precision],
                cameras=cameras,
            )
        except NoDecisionError as error:
            raise UsageError(f"{precision}: {error}: {_MEND}") from error
    out.mkdir(parents=True, exist_ok=True)
    decisions = {precision: result.decision for precision, result in found.items()}
    (out / "decision.json").write_text(decisions_to_json(decisions))
    metrics = {name: metric for r in found.values() for name, metric in r.metrics.items()}
    card = make_card(
        CropStore(store),
        metrics,
        protocol=protocol,
        licence=licence,
        whole=ships_another_frame_model(sequence),
        cameras=bool(cameras),
    )
    (out / "card.json").write_text(card.to_json())
    click.echo(f"a person's score is the mean of the {decisions['fp32'].person_score} logits")
    for precision, decision in decisions.items():
        _print_thresholds(precision, decision.thresholds)
        if decision.still is not None:
            _print_thresholds(f"{precision}, stills,", decision.still.thresholds)
    if decisions["fp32"].still is None:
        click.echo("stills have no decision of their own: too few real or fake photographs")
    for name, metric in metrics.items():
        between = "" if metric.high is None else f", at most {metric.high:.3f}"
        if metric.low is not None:
            between = f" [{metric.low:.3f}, {metric.high:.3f}]"
        click.echo(f"{name}: {metric.value:.3f}{between}")


def _print_thresholds(name: str, thresholds: Mapping[str, Threshold]) -> None:
    for label, threshold in thresholds.items():
        click.echo(
            f"{name} {label}: P(fake) {threshold.probability:.3f}, wrong in "
            f"{threshold.rate:.3f} of {threshold.n} groups' clips (upper bound "
            f"{threshold.upper_bound:.3f})"
        )
