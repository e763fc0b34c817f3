"""Writes bundles: all of one, or none of it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import (
    MANIFEST_NAME,
    CardInfo,
    DecisionSpec,
    FaceSpec,
    FileEntry,
    FrameSpec,
    Manifest,
    ProbeSpec,
    schema_version_of,
)
from dfd_edge.errors import UsageError
from dfd_edge.inference.names import Resize
from dfd_edge.inference.session import Session
from dfd_export.bundles.card import CARD_FILE, render_card
from dfd_export.bundles.metadata import GraphFacts, graph_metadata
from dfd_export.bundles.probe import PROBE_FILE, make_probe_crops, measure_probe, write_probe
from dfd_export.gate.parity import Extra, ParityReport, check_parity
from dfd_export.graphs.frame_graph import FRAME_FILE, describe_frame_model, export_frame_graph
from dfd_export.graphs.sequence_graph import (
    SEQUENCE_FILE,
    describe_sequence_model,
    export_sequence_graph,
)
from dfd_export.graphs.single_step import attach_single_step_logit, single_step_model
from dfd_training.data.croppers import check_exportable
from dfd_training.models import crop_scale_of, detector_of

PARITY_FILE = "parity.json"
NO_GAP_S = 3600.0
"""Longest gap of bundles that judge the first frames: the state is carried on over any of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInfo:
    """The parts of a manifest that do not come from the models.

    Attributes:
        name: The bundle's name.
        face: The face detector that the crops were made with.
        crop_scale: Side of the square crop over the longer side of the face's box.
        decision: Calibrators and thresholds of fp32, from the training's own folds.
        card: What people should know.
        rate_hz: Steps per second that the sequence model was trained at.
        max_gap_s: After a longer gap between two steps the sequence starts anew.
        first_frames: How many frames of a clip are judged, every one from the first on; None to
            judge on and on at `rate_hz`.
        resize: How a cut square comes to the size of the frame model's input.
    """

    name: str
    face: FaceSpec
    crop_scale: float
    decision: DecisionSpec
    card: CardInfo
    rate_hz: float = 5.0
    max_gap_s: float = 1.0
    first_frames: int | None = None
    resize: Resize = Resize.AREA


def write_bundle(
    frame_model: keras.Model,
    sequence_model: keras.Model,
    *,
    out: Path,
    info: BundleInfo,
    crops: NDArray[np.uint8],
    extra: Extra | None = None,
) -> ParityReport:
    """Exports two models, compares the graphs with them, and writes a bundle.

    Args:
        frame_model: As `dfd_training.models.build_frame_model` builds it. One that gives
            `features` only has the sequence model's verdict after one step as its logit.
        sequence_model: As `dfd_training.models.build_sequence_model` builds it.
        out: The bundle's folder. A bundle that is there is replaced, anything else is not.
        info: What is not in the models.
        crops: uint8 [n, S, S, 3], RGB: real crops for the comparison. They are not stored.
        extra: Makes further comparisons, which have to pass too.

    Returns:
        How far graphs and models differ.

    Raises:
        UsageError: A model cannot be exported or was fitted on crops of another scale than the
            bundle states, the crops do not fit, or `out` is taken.
        ParityError: A graph differs from its model. Nothing is written then.
    """
    check_free(out)
    features_model = frame_model
    if isinstance(features_model.output, dict) and "fake_logit" not in features_model.output:
        frame_model = single_step_model(features_model, sequence_model)
    for model in (features_model, sequence_model):
        check_exportable(detector_of(model), model.name)
        carried = crop_scale_of(model)
        if carried is not None and carried != info.crop_scale:
            raise UsageError(
                f"{model.name} was fitted on crops of {carried:g} times the face, the bundle would "
                f"cut them at {info.crop_scale:g}: export models that were fitted on one store"
            )
    frame = describe_frame_model(frame_model, crop_scale=info.crop_scale, resize=info.resize)
    sequence = describe_sequence_model(
        sequence_model,
        rate_hz=info.rate_hz,
        max_gap_s=info.max_gap_s,
        first_frames=info.first_frames,
    )
    wanted = (frame.input_size, frame.input_size, 3)
    if crops.dtype != np.uint8 or crops.shape[1:] != wanted or not len(crops):
        raise UsageError(
            f"crops are {crops.dtype} {list(crops.shape)}; the model takes uint8 "
            f"{['n', *wanted]}, one or more"
        )
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = GraphFacts(
        name=info.name,
        created=created,
        frame=frame,
        sequence=sequence,
        face=info.face,
        licence=info.card.licence,
    )
    sequence_graph = export_sequence_graph(
        sequence_model, frame, sequence, metadata=graph_metadata(facts, SEQUENCE_FILE)
    )
    frame_metadata = graph_metadata(facts, FRAME_FILE)
    if features_model is frame_model:
        frame_graph = export_frame_graph(frame_model, frame, metadata=frame_metadata)
    else:
        features_graph = export_frame_graph(
            features_model, frame, metadata=frame_metadata, outputs=("features",)
        )
        frame_graph = attach_single_step_logit(features_graph, sequence_graph)
    report = check_parity(
        frame_model,
        sequence_model,
        frame_graph,
        sequence_graph,
        frame=frame,
        sequence=sequence,
        crops=crops,
        extra=extra,
    )
    with new_bundle_folder(out) as folder:
        onnx.save(frame_graph, folder / FRAME_FILE)
        onnx.save(sequence_graph, folder / SEQUENCE_FILE)
        (folder / PARITY_FILE).write_text(report.to_json(), "utf-8")
        probe_crops = make_probe_crops(frame.input_size)
        write_probe(folder / PROBE_FILE, probe_crops)
        nothing_yet = ProbeSpec(PROBE_FILE, [0.0], [0.0], 1.0)
        manifest = Manifest(
            schema_version=schema_version_of(frame, sequence, [info.decision]),
            name=info.name,
            created=created,
            files=file_entries(folder),
            frame=frame,
            sequence=sequence,
            face=info.face,
            decision=info.decision,
            probe=nothing_yet,
            card=info.card,
        )
        session = Session.open(Bundle(folder, manifest, sha256=""), provider="cpu")
        probe = measure_probe(session, probe_crops)
        finish_bundle(folder, dataclasses.replace(manifest, probe=probe))
    return report


def revise_bundle(
    bundle: Bundle,
    *,
    out: Path,
    decisions: Mapping[str, DecisionSpec] | None,
    card: CardInfo | None,
) -> None:
    """Writes a bundle with other decisions or another card; its graphs stay as they are.

    Args:
        bundle: The bundle to start from.
        out: The new bundle's folder; may be the old one's.
        decisions: The new decisions by precision, "fp32" among them, or None to keep the old
            ones. A variant without one shares that of fp32.
        card: The new card, or None to keep the old one.

    Raises:
        UsageError: `out` is taken by something that is no bundle.
        BundleError: A file of the old bundle was changed.
    """
    manifest = dataclasses.replace(bundle.manifest, card=card or bundle.manifest.card)
    if decisions is not None:
        manifest = dataclasses.replace(
            manifest,
            schema_version=schema_version_of(manifest.frame, manifest.sequence, decisions.values()),
            decision=decisions["fp32"],
            frame=_decided(manifest.frame, decisions),
        )
        before = bundle.manifest
        if any(manifest.decision_of(p) != before.decision_of(p) for p in manifest.frame.variants):
            manifest = dataclasses.replace(manifest, frame=_without_labels(manifest.frame))
    with new_bundle_folder(out) as folder:
        copy_bundle(bundle, folder)
        finish_bundle(folder, manifest)


def _decided(frame: FrameSpec, decisions: Mapping[str, DecisionSpec]) -> FrameSpec:
    """The frame model whose variants have these decisions; that of fp32 is the bundle's."""
    variants = {
        precision: dataclasses.replace(
            variant, decision=None if precision == "fp32" else decisions.get(precision)
        )
        for precision, variant in frame.variants.items()
    }
    return dataclasses.replace(frame, variants=variants)


def _without_labels(frame: FrameSpec) -> FrameSpec:
    """The frame model without what was counted under another decision: labels that changed."""
    variants = {
        precision: dataclasses.replace(
            variant,
            changes=variant.changes
            and dataclasses.replace(variant.changes, clips=0, labels_changed=0),
        )
        for precision, variant in frame.variants.items()
    }
    return dataclasses.replace(frame, variants=variants)


def copy_bundle(bundle: Bundle, folder: Path) -> Manifest:
    """Copies a bundle's files, but for the manifest, which is returned."""
    for name in bundle.manifest.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bundle.read(name))
    return bundle.manifest


def finish_bundle(folder: Path, manifest: Manifest) -> None:
    """Writes card and manifest into a folder that has all else, and checks the whole."""
    (folder / CARD_FILE).write_text(render_card(manifest), "utf-8")
    manifest = dataclasses.replace(manifest, files=file_entries(folder))
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    Bundle.load(folder)


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Hash and size of every file in a folder, by its path inside."""
    entries = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        entries[name] = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
    return entries


def check_free(out: Path) -> None:
    """Refuses to write where something else than a bundle is.

    Raises:
        UsageError: There is.
    """
    taken = out.is_file() or (out.is_dir() and any(out.iterdir()))
    if taken and not (out / MANIFEST_NAME).is_file():
        raise UsageError(f"{out}: is there and is no bundle: name a new or empty folder")


@contextlib.contextmanager
def new_bundle_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place once the block ends without error.

    Raises:
        UsageError: `out` is taken by something that is no bundle.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder, old = Path(temporary) / "new", Path(temporary) / "old"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(old)
        try:
            folder.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
