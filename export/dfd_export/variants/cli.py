"""Options and steps that `bundle`, `variant` and `revise` share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import DecisionSpec, FaceSpec
from dfd_edge.errors import UsageError
from dfd_edge.inference.names import Resize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dfd_export.variants.samples import Sample
    from dfd_export.variants.writer import VariantOptions


class GroupedOption(click.Option):
    """An option that the help shows under a heading.

    Args:
        group: The heading.
    """

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists `GroupedOption`s under their headings, after the others."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options into the help."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                heading = parameter.group if isinstance(parameter, GroupedOption) else "Options"
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


_VARIANTS = "Variants of the frame graph, each written with its measured change against fp32"

Command = TypeVar("Command", bound=Callable[..., object])


def variant_options(command: Command) -> Command:
    """The options of `VariantOptions`."""
    options = (
        GroupedOption(
            ["--int8"], group=_VARIANTS, is_flag=True, help="For processors that multiply bytes."
        ),
        GroupedOption(["--fp16"], group=_VARIANTS, is_flag=True, help="For accelerators."),
        GroupedOption(
            ["--max-auc-drop"],
            group=_VARIANTS,
            type=click.FloatRange(min=0.0),
            default=0.01,
            show_default=True,
            help="A variant whose frame AUC drops by more is refused.",
        ),
        GroupedOption(
            ["--calibration-crops"],
            group=_VARIANTS,
            type=click.IntRange(min=8),
            default=128,
            show_default=True,
            help="Crops that int8 is calibrated on.",
        ),
        GroupedOption(
            ["--holdout"],
            group=_VARIANTS,
            type=click.IntRange(min=0),
            help="Fold that the model was fitted without, whose crops do not calibrate int8 "
            "either.  [default: as in run.json beside FRAME]",
        ),
        GroupedOption(
            ["--optimized/--no-optimized"],
            group=_VARIANTS,
            default=True,
            show_default=True,
            help="Also store graphs as onnxruntime optimises them, where they load faster.",
        ),
    )
    for option in reversed(options):
        command.__dict__.setdefault("__click_params__", []).append(option)
    return command


def variant_samples(
    crops: Path,
    face: FaceSpec,
    size: int,
    crop_scale: float,
    resize: Resize,
    options: VariantOptions,
) -> tuple[NDArray[np.uint8], Sample]:
    """The crops that variants are calibrated on, and those that they are compared on."""
    from dfd_export.gate.crops import face_spec, is_store
    from dfd_export.variants.samples import read_samples

    if not is_store(crops):
        raise UsageError(
            f"{crops}: a variant is calibrated and compared on labelled crops, real and fake: give "
            "a crop store, which `dfd-train prepare` makes from a table of files and labels"
        )
    if (found := face_spec(crops).detector) != face.detector:
        raise UsageError(
            f"{crops}: its crops were found by {found}, but the model judges those of "
            f"{face.detector}: a variant has to be compared on the model's own kind of pictures"
        )
    return read_samples(
        crops,
        size=size,
        crop_scale=crop_scale,
        calibration_crops=options.calibration_crops,
        holdout=options.holdout,
        resize=resize,
    )


def make_variants(
    bundle: Bundle,
    out: Path,
    options: VariantOptions,
    samples: tuple[NDArray[np.uint8], Sample],
    decisions: Mapping[str, DecisionSpec],
) -> None:
    """Adds variants to a bundle and says what they change."""
    from dfd_export.variants.measure import describe_changes
    from dfd_export.variants.writer import add_variants

    calibration, sample = samples
    click.echo(
        f"making variants and comparing them on {len(sample)} crops: a minute or more", err=True
    )
    measured = add_variants(
        bundle,
        out=out,
        options=options,
        calibration=calibration,
        sample=sample,
        decisions=decisions,
    )
    for precision, changes in measured.items():
        click.echo(describe_changes(precision, changes))


def report_decisions(bundle: Bundle, decisions: Mapping[str, DecisionSpec]) -> None:
    """Reports variants without a decision of their own, and decisions without a variant."""
    for precision, variant in bundle.manifest.frame.variants.items():
        if precision != "fp32" and variant.decision is None:
            click.echo(f"{precision} shares the decision of fp32: none was set on its own logits")
    for precision in decisions:
        if precision not in bundle.manifest.frame.variants:
            click.echo(f"the decision of {precision} is left out: the bundle has no {precision}")


def held_out_fold(frame: Path) -> int | None:
    """The fold that a run of `dfd-train fit frame` left out, from what it wrote of itself."""
    try:
        held = json.loads((frame.parent / "run.json").read_text("utf-8"))["options"]["holdout"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return held if isinstance(held, int) and held >= 0 else None
