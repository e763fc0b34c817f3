"""From the folder of a recipe's run to a bundle that judges whole frames."""

from __future__ import annotations

from pathlib import Path

from dfd_edge.bundle.manifest import CardInfo
from dfd_edge.errors import UsageError
from dfd_edge.schema import SchemaError
from dfd_export.bundles.bundle_writer import NO_GAP_S, BundleInfo, write_bundle
from dfd_export.foreign.models import WHOLE_FRAME
from dfd_export.gate.crops import read_crops
from dfd_export.gate.parity import ParityReport
from dfd_training.calibration.decision_file import decisions_from_json
from dfd_training.models import load_frame_model, load_sequence_model
from dfd_training.recipes.run import (
    CARD_NAME,
    CROPS_NAME,
    DECISION_NAME,
    FRAME_NAME,
    SEQUENCE_NAME,
    RecipeRun,
)


def bundle_of_run(folder: Path, *, out: Path, name: str) -> ParityReport:
    """Writes the bundle of a run of `dfd-train recipe`.

    Args:
        folder: The run's.
        out: The bundle's folder, as `write_bundle` takes it.
        name: The bundle's name.

    Returns:
        How far graphs and models differ.

    Raises:
        UsageError: The folder holds no such run, or a file in it is damaged.
        ParityError: A graph differs from its model. Nothing is written then.
    """
    run = RecipeRun.read(folder)
    frame = load_frame_model(folder / FRAME_NAME)
    try:
        decision = decisions_from_json((folder / DECISION_NAME).read_text("utf-8"))["fp32"]
        card = CardInfo.from_json((folder / CARD_NAME).read_text("utf-8"))
    except SchemaError as error:
        raise UsageError(f"{folder}: {error}: run the recipe once more") from error
    size = int(frame.inputs[0].shape[1])
    info = BundleInfo(
        name=name,
        face=WHOLE_FRAME,
        crop_scale=1.0,
        decision=decision,
        card=card,
        rate_hz=run.rate_hz,
        max_gap_s=NO_GAP_S,
        first_frames=run.first_frames,
        resize=run.resize,
    )
    return write_bundle(
        frame,
        load_sequence_model(folder / SEQUENCE_NAME),
        out=out,
        info=info,
        crops=read_crops(folder / CROPS_NAME, size=size, crop_scale=1.0),
    )
