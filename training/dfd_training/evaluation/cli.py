"""Commands that evaluate bundles and compare runs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from dfd_edge.errors import UsageError
from dfd_edge.inference.names import PRECISION_CHOICES

_PATH = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    "bundles",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Bundle to judge with; with --folds one for each fold, in their order.  "
    "[default: shipped]",
)
@click.option(
    "--folds",
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Judge the rows marked train of this crop store, each by the bundle fitted without its "
    "fold; or all of them by a single --bundle, for comparison.",
)
@click.option(
    "--photographs",
    type=click.IntRange(min=0),
    help="With --folds: most photographs to judge, drawn at random.  [default: all]",
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
    type=click.Choice(PRECISION_CHOICES),
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
    help="Number of the worst reals, and of the worst fakes, to show.",
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
    bundles: tuple[Path, ...],
    folds: Path | None,
    photographs: int | None,
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
    from dfd_training.data.store import CropStore
    from dfd_training.data.table import read_table
    from dfd_training.evaluation.evaluate import (
        Evaluation,
        evaluate,
        rows_by_fold,
        summarise,
        worst_files,
        worst_mistakes,
    )
    from dfd_training.evaluation.page import PAGE, write_results
    from dfd_training.evaluation.report import card_metrics, read_card, to_text, write_report
    from dfd_training.evaluation.runs import find_fit, graph_hashes, read_fit, relative_path

    info = None if card is None else read_card(card)
    fit = None if run is None else read_fit(run)
    every = read_table(table, root=root)
    if folds is not None:
        split = "train"
    rows = every[every["split"] == split]
    if rows.empty:
        there = ", ".join(f"{n} {name}" for name, n in every["split"].value_counts().items())
        raise UsageError(f"{table}: no row is marked {split}: there are {there}; give --split")
    media = root or table.parent
    detectors = [
        Detector.load(bundle, provider=provider, precision=precision)
        for bundle in bundles or (None,)
    ]
    parts = [rows]
    if folds is not None:
        parts = rows_by_fold(rows, CropStore(folds), len(detectors), photographs=photographs)
    if len(parts) != len(detectors):
        raise UsageError(f"{len(detectors)} bundles: give one --bundle, or --folds STORE too")
    with click.progressbar(length=sum(map(len, parts)), label="judging", file=sys.stderr) as bar:
        evaluation = Evaluation.joined(
            [
                evaluate(detector, part, media, on_file=lambda: bar.update(1))
                for detector, part in zip(detectors, parts, strict=True)
            ]
        )
    report = summarise(evaluation, draws=draws)
    detector = detectors[0]
    bundle = bundles[0] if bundles else None
    thresholds = detector.decision.spec.thresholds
    facts = {
        "bundle": detector.bundle.manifest.name,
        "bundle_hash": detector.bundle.hash,
        "graphs": graph_hashes(detector.bundle, detector.provider.precision),
        "bundle_place": relative_path(out, detector.bundle.path),
        "precision": detector.provider.precision,
        "provider": detector.provider.actual,
        "table": table.name,
        "split": split,
        "thresholds": {name: limit.probability for name, limit in thresholds.items()},
    }
    if len(detectors) > 1:
        mistakes = 0  # no single bundle to show them with
        facts["bundle"] = f"{len(detectors)} bundles, each on the fold that it was fitted without"
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


@click.command("ladder")
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
@click.option(
    "--precision",
    type=click.Choice(PRECISION_CHOICES),
    default="auto",
    show_default=True,
)
@click.option("--provider", default="auto", show_default=True)
@click.option(
    "--max-seconds",
    default=6.0,
    show_default=True,
    help="Judged length of each clip, from its start.",
)
@click.option(
    "--only",
    type=click.Choice(["JPEG", "H.264", "resize", "blur", "noise", "gamma", "crop shift"]),
    multiple=True,
    help="Kind of corruption to judge beside the clean clips; repeatable. H.264 re-encodes whole "
    "clips: at full and half size, at 15 fps, and as phones do on sharing.  [default: all]",
)
@click.option("--draws", default=1000, show_default=True, help="Bootstrap samples.")
@click.option(
    "--replace", is_flag=True, help="Replace results of another bundle or with other options."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
def ladder_command(
    table: Path,
    bundle: Path | None,
    root: Path | None,
    split: str,
    precision: str,
    provider: str,
    max_seconds: float,
    only: tuple[str, ...],
    draws: int,
    replace: bool,
    out: Path,
) -> None:
    """Judge the clips of TABLE through the runtime, clean and under corruptions of rising strength.

    JPEG, H.264, downscaling, blur, noise, gamma and displaced crops, each over whole frames. Clean
    and H.264 clips are judged as files, with their consecutive frames; the others frame by frame.
    An interrupted run is resumed. Writes ladder.json, ladder.csv, ladder.md, ladder.png and
    clips.csv.
    """
    from dfd_training.data.table import read_table
    from dfd_training.evaluation.degradations import CLEAN, CORRUPTIONS
    from dfd_training.evaluation.robustness import (
        RobustnessJudge,
        clips_of,
        judge_clips,
        summarise_robustness,
    )
    from dfd_training.evaluation.robustness_report import robustness_to_text, write_robustness

    if max_seconds <= 0:
        raise UsageError(f"--max-seconds {max_seconds:g}: give a number above 0")
    folder = root or table.parent
    clips = clips_of(read_table(table), folder, split)
    judge = RobustnessJudge(bundle, provider=provider, precision=precision, max_seconds=max_seconds)
    facts = {
        "bundle": judge.detector.bundle.manifest.name,
        "bundle_hash": judge.detector.bundle.hash,
        "precision": judge.detector.provider.precision,
        "provider": judge.detector.provider.actual,
        "split": split,
        "max_seconds": max_seconds,
        "corruptions": ", ".join(sorted(only)) or "all",
    }
    ladder = [rung for rung in CORRUPTIONS if rung == CLEAN or not only or rung.kind.value in only]
    with click.progressbar(length=len(clips), label="judging", file=sys.stderr) as bar:
        results = judge_clips(
            judge,
            clips,
            folder,
            out,
            settings=facts,
            ladder=ladder,
            replace=replace,
            on_clip=lambda: bar.update(1),
        )
    figures = summarise_robustness(results, draws=draws)
    write_robustness(figures, out, facts)
    click.echo(robustness_to_text(figures))
    for row in results[results["error"].fillna("") != ""].itertuples():
        click.echo(f"Not judged: {row.path}: {row.error}")


@click.command("quality")
@click.argument("runs", type=click.Path(path_type=Path))
@click.option(
    "--page", type=click.Path(path_type=Path), required=True, help="The Markdown page to fill in."
)
@click.option(
    "--before",
    type=click.Path(path_type=Path),
    help="The same for an earlier bundle, to compare with.",
)
@click.option("--draws", default=1000, show_default=True, help="Bootstrap samples.")
def quality_command(runs: Path, page: Path, before: Path | None, draws: int) -> None:
    """Put the tables and the chart of RUNS into a page, between its marks.

    RUNS holds the results of the measuring commands: evaluation/ (evaluate), ladder/ (ladder),
    doctor.json (doctor-data) and baselines.json (score). A table without its file stays as it
    was.
    """
    from dfd_training.evaluation.quality_page import Measured, write_page

    now = Measured.read(runs, draws=draws)
    earlier = None if before is None else Measured.read(before, draws=draws)
    left = write_page(page, now, earlier, draws=draws)
    for name, reason in left.items():
        click.echo(f"table {name} left as it was: {reason}")
    click.echo(f"{page}: written")


@click.command("compare")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A folder for the page, the tables and the chart.  [default: the tables are printed only]",
)
@click.option("--names", metavar="A,B,...", help="Names of the runs.  [default: their folders]")
@click.option(
    "--latency/--no-latency",
    default=True,
    show_default=True,
    help="Time the frame graphs of runs with a bundle, here and now, on one thread.",
)
@click.option(
    "--draws",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Bootstrap samples.",
)
def compare_command(
    runs: tuple[Path, ...], out: Path | None, names: str | None, latency: bool, draws: int
) -> None:
    """Compare RUNs: quality, size, latency, and duration of their fits.

    A RUN is a folder that `fit frame` or `evaluate` wrote, or one that holds a fit or a bundle/
    with an evaluation/ beside. Differences are to the first RUN.
    """
    from dfd_training.evaluation.compare import (
        ROUNDS,
        WARM_UP,
        Comparison,
        Latency,
        compare_quality,
        cost_of,
        measure_latency,
        notes_on,
        precision_of,
    )
    from dfd_training.evaluation.compare_report import PAGE, comparison_to_text, write_comparison
    from dfd_training.evaluation.runs import read_runs

    found = read_runs(runs, None if names is None else [n.strip() for n in names.split(",")])
    bundles = {
        run.name: (run.bundle, precision)
        for run in found
        if run.bundle is not None and (precision := precision_of(run)) is not None
    }
    timed: dict[str, Latency] = {}
    if latency and bundles:
        with click.progressbar(length=WARM_UP + ROUNDS, label="timing", file=sys.stderr) as bar:
            timed = measure_latency(bundles, on_round=lambda: bar.update(1))
    with click.progressbar(length=2 * len(found), label="comparing", file=sys.stderr) as bar:
        levels = compare_quality(found, draws=draws, on_run=lambda: bar.update(1))
        costs = []
        for run in found:
            costs.append(cost_of(run, timed.get(run.name), "left out by --no-latency"))
            bar.update(1)
    comparison = Comparison([run.name for run in found], levels, costs, notes_on(found, levels))
    click.echo(comparison_to_text(comparison))
    if out is not None:
        write_comparison(comparison, out)
        click.echo(f"page: {out / PAGE}")


@click.command("submit")
@click.argument("source", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The submission, a CSV file.")
@click.option(
    "--sample",
    type=_PATH,
    help="A submission with the files and their order.  [default: "
    "sample_submission.csv in SOURCE or beside it]",
)
@click.option("--bundle", type=_PATH, help="Bundle to judge with.  [default: shipped]")
@click.option("--provider", default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
)
def submit_command(
    source: Path,
    out: Path,
    sample: Path | None,
    bundle: Path | None,
    provider: str,
    precision: str,
) -> None:
    """Judge the videos of SOURCE, a folder or a table, and write a DFDC submission file.

    Columns filename and label, the latter P(fake). A video that cannot be judged gets 0.5 and is
    reported. An interrupted run is resumed.
    """
    from dfd_edge import Detector
    from dfd_training.evaluation.submission import submission_files, submit

    files = submission_files(source, sample)
    if out.resolve() in {path.resolve() for _, path in files} | {source.resolve()}:
        raise UsageError(f"--out {out}: would replace a file that is read; give another name")
    detector = Detector.load(bundle, provider=provider, precision=precision)
    with click.progressbar(length=len(files), label="judging", file=sys.stderr) as bar:
        judged = submit(detector, files, out, on_file=lambda: bar.update(1))
    failed = [line for line in judged if line.reason]
    for line in failed:
        click.echo(f"0.5 for {line.filename}: {line.reason}", err=True)
    click.echo(f"{len(judged)} videos in {out}, {len(failed)} of them not judged")


@click.command("evaluate-archive")
@click.argument("results")
@click.option("--out", type=_PATH, required=True, help="A folder.")
@click.option(
    "--draws",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Bootstrap samples.",
)
def evaluate_archive_command(results: str, out: Path, draws: int) -> None:
    """Report how well the RESULTS of `dfd-edge archive` agree with the labels of its manifest.

    Nothing is judged again. Writes what `evaluate` writes, without the mistakes' pictures; faces
    and frames are in it where the archive has `--frame-rows`. Each clip is a group of its own.
    """
    try:
        from dfd_training.evaluation.archive import read_archive
    except ModuleNotFoundError as error:
        if error.name not in ("fsspec", "pyarrow"):
            raise
        raise UsageError(
            f"archives need {error.name}: run `pip install 'dfd-edge[archive]'`"
        ) from error
    from dfd_training.evaluation.evaluate import summarise
    from dfd_training.evaluation.page import PAGE, write_results
    from dfd_training.evaluation.report import to_text, write_report

    evaluation, facts = read_archive(results)
    facts = {"bundle": "an archive", "table": results, "split": "labelled", **facts}
    report = summarise(evaluation, draws=draws)
    write_report(evaluation, report, out, facts)
    write_results(evaluation, report, out, facts, draws=draws)
    click.echo(to_text(report))
    click.echo(f"page: {out / PAGE}")


COMMANDS = (
    evaluate_command,
    evaluate_archive_command,
    compare_command,
    ladder_command,
    quality_command,
    submit_command,
)
