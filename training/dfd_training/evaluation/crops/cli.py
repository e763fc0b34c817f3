"""Commands that evaluate frame models on the crops of a store."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from dfd_training.fitting.cli import PICTURE_MEMORY_MB, EpochBars, settings_option


@click.command("score")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--frame",
    "frames",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="A .keras frame model or a bundle; several are compared with the first.",
)
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--fold", type=int, help="Only this fold of the rows marked train.")
@click.option(
    "--swaps",
    type=click.Choice(["fold", "all"]),
    default="fold",
    show_default=True,
    help="Judge the true fakes of the fold, or of all folds (with their originals).",
)
@click.option(
    "--condition",
    "conditions",
    type=click.Choice(["clean", "jpeg 40", "half size", "h264 low"]),
    multiple=True,
    help="Condition of the crops.  [default: each in turn]",
)
@click.option("--max-crops", default=12, show_default=True, help="Crops of a clip, at most.")
@click.option("--draws", default=1000, show_default=True, help="Bootstrap samples.")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for all figures.")
def score_command(
    store: Path,
    frames: tuple[Path, ...],
    split: str,
    fold: int | None,
    swaps: str,
    conditions: tuple[str, ...],
    max_crops: int,
    draws: int,
    out: Path | None,
) -> None:
    """Judge crops of STORE with frame models, without a bundle.

    A clip's score is the mean of its crops' logits. Prints clip AUCs with intervals over groups,
    pairs won (a fake above its own original) and shares of reals above thresholds, on clean and
    on degraded crops, and paired differences between models.
    """
    from dfd_training.data.store import CropStore
    from dfd_training.evaluation.crops.score_report import scores_to_text, summarise_scores
    from dfd_training.evaluation.crops.scoring import model_names, score_files, warn_of_leak
    from dfd_training.evaluation.crops.selection import Swaps, select_files
    from dfd_training.evaluation.degradations import Condition
    from dfd_training.evaluation.report import write_json
    from dfd_training.models.scoring import FrameModel

    crops = CropStore(store)
    files = select_files(crops, split=split, fold=fold, swaps=Swaps(swaps), max_crops=max_crops)
    models = {}
    for name, path in model_names(frames).items():
        warn_of_leak(path, split, fold)
        models[name] = FrameModel.find(path, store=crops).open()
    with click.progressbar(length=len(files), label="judging", file=sys.stderr) as bar:
        scores = score_files(
            crops,
            files,
            models,
            conditions=[Condition(name) for name in conditions] or tuple(Condition),
            on_file=lambda: bar.update(1),
        )
    report = summarise_scores(files, scores, draws=draws)
    click.echo(scores_to_text(report))
    if out is not None:
        facts = {
            "split": split,
            "fold": fold,
            "swaps": swaps,
            "max_crops": max_crops,
            "models": {name: str(path) for name, path in model_names(frames).items()},
        }
        write_json(out, {**facts, "report": report, "files": scores.to_dict("records")})


@click.command("doctor-data")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--frame",
    type=click.Path(path_type=Path),
    help="A .keras frame model or a bundle, to check that it judges the face.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of the media files: adds resolution, frame rate, bit rate, codec … to the facts.",
)
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--draws", default=1000, show_default=True, help="Bootstrap samples.")
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file for all figures.")
def doctor_data_command(
    store: Path, frame: Path | None, root: Path | None, split: str, draws: int, out: Path | None
) -> None:
    """Check the clips of STORE for leaks: differences of fakes and reals outside the face.

    The checks: facts of the file only; the border of the crop only; the face blurred away;
    shuffled labels. Quick classifiers are judged on groups of footage that they did not see; for
    rows marked val they are fitted on the rows marked train.
    """
    from dfd_training.data.store import CropStore
    from dfd_training.evaluation.crops.leak_samples import FEATURE_SIZE, clips_of_store, measure
    from dfd_training.evaluation.crops.leaks import checks_to_text, examine
    from dfd_training.evaluation.crops.scoring import embedding
    from dfd_training.evaluation.report import write_json
    from dfd_training.models.scoring import FrameModel

    crops = CropStore(store)
    model = None if frame is None else FrameModel.find(frame, store=crops).open()
    embed = embedding(FEATURE_SIZE)
    splits = [split] if split == "train" else [split, "train"]
    samples = []
    for name in splits:
        length = len(clips_of_store(crops, name))
        with click.progressbar(length=length, label=f"measuring {name}", file=sys.stderr) as bar:
            samples.append(
                measure(
                    crops,
                    name,
                    root=root,
                    embed=embed,
                    model=model if name == split else None,
                    on_file=partial(bar.update, 1),
                )
            )
    checks = examine(samples[0], samples[1] if len(samples) > 1 else None, draws=draws)
    click.echo(checks_to_text(checks))
    if out is not None:
        facts = {"split": split, "frame": None if frame is None else str(frame)}
        write_json(out, {**facts, "checks": checks})


@click.command("probe")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--pairs", default=1500, show_default=True, help="Pairs to fit on.")
@click.option("--input-size", default=160, show_default=True, help="Side of the crops, pixels.")
@click.option("--holdout", default=0, show_default=True, help="Fold that is not fitted on.")
@click.option("--seed", default=0, show_default=True)
def probe_command(
    store: Path, out: Path, pairs: int, input_size: int, holdout: int, seed: int
) -> None:
    """Fit a linear probe on frozen ImageNet features of EfficientNet-Lite0: a baseline.

    The pairs are drawn from the rows marked train of STORE as for `fit frame`. Writes best.keras,
    a frame model that `score` and `doctor-data` judge like any other.
    """
    from dfd_training.data.store import CropStore
    from dfd_training.evaluation.crops.classifiers import ProbeOptions, fit_probe
    from dfd_training.fitting.pairs import PairOptions

    options = ProbeOptions(pairs=pairs, holdout=holdout, seed=seed)
    with click.progressbar(
        length=pairs + options.held_out_pairs, label="drawing pairs", file=sys.stderr
    ) as bar:
        probe = fit_probe(
            CropStore(store),
            out,
            options=options,
            pairs=PairOptions(input_size=input_size),
            on_batch=bar.update,
        )
    click.echo(
        f"penalty 1/{probe.strength:g}, chosen by fold {holdout}: AUC {probe.held_out_auc:.4f} on "
        f"{options.held_out_pairs} pairs"
    )
    click.echo(f"probe: {probe.path}")


@click.command("crossfit")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option(
    "--leave-out",
    "leave_outs",
    multiple=True,
    metavar="NAME[,NAME]",
    help="Families to leave out of one fit; repeat it for more fits. `FF++ *` stands for all names "
    "that begin so.  [default: one fit for each family]",
)
@settings_option
@click.option("--fit", "fit_settings", multiple=True, metavar="NAME=VALUE", help="As of fit frame.")
@click.option(
    "--pairs", "pair_settings", multiple=True, metavar="NAME=VALUE", help="As of fit frame."
)
@click.option(
    "--width",
    "widths",
    type=float,
    multiple=True,
    help="Width of the judged crops, in faces; several are averaged.  [default: the store's crop "
    "scale]",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "upper"]),
    default="upper",
    show_default=True,
    help="A file's score: the mean or the upper quartile of its crops' logits.",
)
@click.option(
    "--probe",
    "probe_settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the probes on signals, such as families=no; an unknown name lists all.",
)
@click.option(
    "--average",
    "averaged",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="RUN",
    help="Fit nothing: judge the models whose weights are the mean of those of this crossfit and "
    "others; repeat it.",
)
def crossfit_command(
    store: Path,
    out: Path,
    leave_outs: tuple[str, ...],
    settings_file: Path | None,
    fit_settings: tuple[str, ...],
    pair_settings: tuple[str, ...],
    widths: tuple[float, ...],
    pooling: str,
    probe_settings: tuple[str, ...],
    averaged: tuple[Path, ...],
) -> None:
    """Judge families of fakes by frame models that were fitted without them.

    For each --leave-out a model is fitted on the crops of STORE without the fakes of those
    families and without the footage that they are judged on; its folder is fit0, fit1 …, and it
    holds out the fold of that number. Clips are judged by probes on their signals too, which are
    fitted likewise, and by both together. Writes one table (families.md, families.json), one chart
    (families.png) and each file's scores (scores.csv). An interrupted run is resumed.
    """
    from dfd_training.data.families import with_families
    from dfd_training.data.folds import training_rows
    from dfd_training.data.store import CropStore
    from dfd_training.evaluation.crops.crossfit import crossfit, to_markdown, write_crossfit
    from dfd_training.fitting.options import FitFrameOptions
    from dfd_training.fitting.pairs import PairOptions
    from dfd_training.fitting.settings import read_settings, values_of_texts
    from dfd_training.sequence.probes import ProbeOptions

    probes = ProbeOptions(**values_of_texts(ProbeOptions, probe_settings))
    kinds: dict[str, type[Any]] = {"fit": FitFrameOptions, "pairs": PairOptions}
    values = read_settings(settings_file, kinds) if settings_file else {"fit": {}, "pairs": {}}
    values["fit"] |= values_of_texts(FitFrameOptions, fit_settings)
    values["pairs"] |= {"families": True} | values_of_texts(PairOptions, pair_settings)
    options, pairs = FitFrameOptions(**values["fit"]), PairOptions(**values["pairs"])
    crops = CropStore(store, picture_memory_mb=PICTURE_MEMORY_MB)
    wanted = [tuple(name.strip() for name in text.split(",")) for text in leave_outs]
    if not wanted:
        names = set(with_families(training_rows(crops))["family"]) - {""}
        wanted = [(name,) for name in sorted(names)]
    bars = EpochBars(options)
    fits = 0

    def begin(families: tuple[str, ...]) -> None:
        nonlocal fits
        fits += 1
        click.echo(
            f"fit{fits - 1}, {fits} of {len(wanted)}: without {', '.join(families)}", err=True
        )

    scores = crossfit(
        crops,
        out,
        wanted,
        options=options,
        pairs=pairs,
        widths=widths,
        probes=probes,
        averaged=averaged,
        on_fit=begin,
        on_epoch=bars.tell,
        on_step=bars.step,
    )
    click.echo(to_markdown(write_crossfit(scores, out, pooling=pooling, share=probes.share)))


COMMANDS = (crossfit_command, score_command, doctor_data_command, probe_command)
