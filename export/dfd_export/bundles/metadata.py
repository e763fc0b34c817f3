"""Metadata of a graph's file: enough to identify a stray file and to run it.

onnxruntime gives it as `session.get_modelmeta().custom_metadata_map`.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

from dfd_edge.bundle import METADATA_PREFIX, graph_identity
from dfd_edge.bundle.manifest import FaceSpec, FrameSpec, SequenceSpec, schema_version_of
from dfd_edge.version import version_of

PRECISION_KEY = METADATA_PREFIX + "precision"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """The source of the metadata of a bundle's graphs.

    Attributes:
        name: The bundle's name.
        created: When it is written, ISO 8601 in UTC.
        frame: The frame model.
        sequence: The sequence model.
        face: The face detector that the crops were made with.
        licence: Terms of the model files.
    """

    name: str
    created: str
    frame: FrameSpec
    sequence: SequenceSpec
    face: FaceSpec
    licence: str


def graph_metadata(facts: GraphFacts, file: str) -> dict[str, str]:
    """Metadata of one of a bundle's graphs.

    Args:
        facts: The bundle's facts.
        file: The graph's file; `facts` names it as a variant of the frame model or as the
            sequence model.

    Returns:
        Values by key: what may not contradict the manifest (`graph_identity`), what goes in and
        comes out, and where the file comes from.
    """
    identity = graph_identity(facts.name, facts.frame, facts.sequence, facts.face)[file]
    takes, gives = (
        _sequence_sides(facts.sequence) if file == facts.sequence.file else _frame_sides(facts)
    )
    text = {
        "input": takes,
        "output": gives,
        "schema_version": str(schema_version_of(facts.frame, facts.sequence, ())),
        "created": facts.created,
        "exporter": f"dfd-export {version_of('dfd-edge') or 'of unknown version'}",
        "licence": facts.licence,
    }
    return identity | {METADATA_PREFIX + key: value for key, value in text.items()}


def set_precision(model: onnx.ModelProto, precision: str) -> None:
    """Writes the variant into the metadata of a frame graph."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, {**metadata, PRECISION_KEY: precision})


def _frame_sides(facts: GraphFacts) -> tuple[str, str]:
    size, scale = facts.frame.input_size, facts.frame.crop_scale
    cut = (
        "the middle square of the whole frame"
        if facts.face.detector == "none"
        else f"a square of {scale:g} times the longer side of the face's box, round its centre"
    )
    takes = (
        f"image: uint8 [batch, {size}, {size}, 3], RGB, 0 to 255, batch 1 or more: {cut}, "
        f"resized ({facts.frame.resize.value}); the graph itself scales and normalises"
    )
    gives = (
        "fake_logit: higher = more fake, not calibrated; "
        f"features: float32 [batch, {facts.frame.feature_width}], for the sequence graph of the "
        "same bundle"
    )
    if facts.frame.evidence_size is not None:
        gives += "; evidence: the logit place by place, its mean is fake_logit"
    return takes, gives


def _sequence_sides(sequence: SequenceSpec) -> tuple[str, str]:
    steps = (
        f"{sequence.rate_hz:g} steps a second"
        if sequence.first_frames is None
        else f"each of the first {sequence.first_frames} frames of a clip a step"
    )
    takes = (
        "features: what the frame graph of the same bundle gives, "
        f"{steps}; lengths: real steps of each sequence, 1 to time; "
        f"state: zeros at the start and after a gap of more than {sequence.max_gap_s:g} s, else "
        "the next_state of the last call"
    )
    if sequence.signals is not None:
        takes += (
            f"; signals: {sequence.signals.width} measurements of consecutive frames, version "
            f"{sequence.signals.version}, named in the manifest; measured: 1 where a step has "
            "them, else 0"
        )
    gives = (
        "fake_logit: after each step, higher = more fake, not calibrated; "
        "next_state: the state for the next call"
    )
    return takes, gives
