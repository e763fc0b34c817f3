"""Opens model files of any origin as the models of a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle.manifest import CardInfo, DecisionSpec, FaceSpec, PersonScore
from dfd_edge.errors import UsageError
from dfd_edge.faces.crop import CROP_SCALE
from dfd_edge.inference.names import Resize
from dfd_export.foreign.frame import ForeignFrame, FrameSettings, Scaling, build_frame, open_frame
from dfd_export.foreign.keras_graph import Classes
from dfd_export.foreign.model_file import ModelFile
from dfd_export.foreign.options import (
    GivenOptions,
    MissingOption,
    first_frames,
    missing_options,
)
from dfd_export.foreign.reference import ForeignModels, compare_foreign
from dfd_export.foreign.sequence import (
    ForeignSequence,
    build_sequence,
    mean_model,
    open_sequence,
    verdict_weights,
)
from dfd_export.gate.parity import Extra
from dfd_training.calibration.decision_file import uncalibrated
from dfd_training.data.store import UNRECORDED_CROP_SCALE
from dfd_training.models import SEQUENCE_INPUTS, load_frame_model, load_sequence_model

_UNRECORDED = (
    "{} carries no crop scale: {:g} times the face is taken; --crop-scale gives another one."
)
NOT_MEASURED = (
    "Nothing was calibrated and nothing was measured: a probability is the sigmoid of the model's "
    "own logit, and `fake` starts at one half. How often it is wrong is not known."
)
USUAL_RATE_HZ = 30.0
"""Frames a second of the clips of a model that judges the first frames, unless `--rate` says."""


def unmeasured_card(sources: Sequence[str], facts: Sequence[str], *, own: bool) -> CardInfo:
    """A card that says so.

    Args:
        sources: The model files, a phrase each.
        facts: Facts about the models that limit their use, a sentence each.
        own: Whether `dfd-train` fitted all of them.
    """
    if own:
        return CardInfo(
            training_data=f"Not recorded in {' and '.join(sources)}: see run.json beside it.",
            protocol="Fitted by `dfd-train` and exported without a decision of `dfd-train "
            f"calibrate`. {NOT_MEASURED}",
            metrics={},
            licence="Not stated: that of the weights which training started from applies.",
            limits=[NOT_MEASURED, *facts],
        )
    return CardInfo(
        training_data=f"Not known here. Taken over from {' and '.join(sources)}.",
        protocol=f"Converted from published files and compared with them. {NOT_MEASURED}",
        metrics={},
        licence="Not known here: the terms of the published model apply.",
        limits=[NOT_MEASURED, *facts],
    )


WHOLE_FRAME = FaceSpec("none", "")
"""Face detector entry of a bundle that judges whole frames."""

_RESIZED = {
    Resize.AREA: "Large crops are shrunk by averaging areas, which is softer than most notebooks "
    "do it.",
    Resize.BILINEAR: "Pictures are resized bilinearly, as most notebooks do it.",
    Resize.NEAREST: "Pictures are resized by taking the nearest pixel.",
}
_MEAN = "A person's score is the mean of the CNN's logits, in whatever order they came."
_MASK_FIXED = (3, 11)
"""Before this Keras, a mask given to one layer did not reach the next."""

Prompt = Callable[[Sequence[MissingOption], Path], dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BundleModels:
    """The models that a bundle is written from, and their settings.

    Attributes:
        frame_model: In the standard form; without a logit where the sequence model gives it.
        sequence_model: In the standard form.
        size: Side of the crops in pixels.
        crop_scale: Side of the square crop over the longer side of the face's box.
        face: The face detector; None to take that of the crops.
        rate_hz: Steps a second; None to take that of the crops.
        person_score: The logits from which a person's score is computed.
        first_frames: How many frames of a clip are judged; None to go on for as long as it lasts.
        resize: How a cut square comes to the size of the crops.
        sources: Each file, a phrase.
        facts: Facts about the models for the card, a sentence each.
        own: Whether `dfd-train` wrote every file.
    """

    frame_model: keras.Model
    sequence_model: keras.Model
    size: int
    crop_scale: float = CROP_SCALE
    face: FaceSpec | None = None
    rate_hz: float | None = None
    person_score: PersonScore = PersonScore.SEQUENCE
    first_frames: int | None = None
    resize: Resize = Resize.AREA
    sources: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    own: bool = True
    foreign: ForeignModels = field(default_factory=ForeignModels)

    def extra(self, crops: NDArray[np.uint8]) -> Extra:
        """The comparison with the published models themselves, for the gate.

        Args:
            crops: uint8 [n, size, size, 3], RGB.
        """
        return partial(compare_foreign, self.foreign, crops)

    def decision(self) -> DecisionSpec:
        """The decision where none was made."""
        return uncalibrated(self.person_score)

    def card(self) -> CardInfo:
        """The card where none was written."""
        return unmeasured_card(self.sources, self.facts, own=self.own)


def open_models(
    frame_path: Path, sequence_path: Path | None, given: GivenOptions, ask: Prompt
) -> BundleModels:
    """Opens model files and asks what they cannot tell.

    Args:
        frame_path: A CNN: of `dfd-train`, or published.
        sequence_path: A sequence model: of `dfd-train`, or published; None to judge a person by
            the mean of the frame logits.
        given: The options that were given.
        ask: Gets answers to open questions.

    Raises:
        UsageError: A file is refused, an answer is missing, or an option does not apply.
    """
    frame_file = ModelFile.read(frame_path)
    sequence_file = None if sequence_path is None else ModelFile.read(sequence_path)
    frame = None if _is_own_frame(frame_file) else open_frame(frame_file)
    sequence = None
    if sequence_file is not None and not _is_own_sequence(sequence_file):
        sequence = open_sequence(sequence_file)
    carried = _crop_scale(frame_file)
    _check_given(frame_path, given, frame, sequence, carried)
    if carried is None and sequence_file is not None:
        carried = _crop_scale(sequence_file)
    if sequence_file is None and frame is not None and frame.head is None:
        raise UsageError(
            f"{frame_path}: gives features and no verdict: give the sequence model that takes them "
            "as SEQUENCE"
        )
    answers = ask(missing_options(given, frame, sequence), frame_path)
    given = dataclasses.replace(given, **answers)  # type: ignore[arg-type] # of the fields' types
    classes = Classes(given.classes) if given.classes else Classes.REAL_FAKE
    to_frame = None if frame is None else _frame_answers(given, frame, classes)
    frame_model = (
        load_frame_model(frame_path)
        if frame is None or to_frame is None
        else build_frame(frame, to_frame)
    )
    if sequence is not None:
        _check_widths(frame_path, frame_model, sequence)
        sequence_model = build_sequence(sequence, classes)
    elif sequence_path is not None:
        sequence_model = load_sequence_model(sequence_path)
    else:
        sequence_model = mean_model(*_verdict(frame, frame_model, classes))
    whole_frames = given.crop == "frame"
    first = _first_frames(frame_path, given, sequence)
    score = PersonScore.FRAME if sequence_path is None else PersonScore.SEQUENCE
    if first is not None and sequence_path is not None:
        score = PersonScore.LAST
    unrecorded = UNRECORDED_CROP_SCALE if frame is None else CROP_SCALE
    unstated = frame is None and given.crop_scale is None and carried is None
    return BundleModels(
        frame_model=frame_model,
        sequence_model=sequence_model,
        size=int(frame_model.inputs[0].shape[1]),
        crop_scale=1.0 if whole_frames else given.crop_scale or carried or unrecorded,
        face=WHOLE_FRAME if whole_frames else None,
        rate_hz=given.rate or (None if first is None else USUAL_RATE_HZ),
        person_score=score,
        first_frames=first,
        resize=Resize.AREA if to_frame is None else to_frame.resize,
        sources=[_source(file) for file in (frame_file, sequence_file) if file is not None],
        facts=[
            *([_UNRECORDED.format(frame_path.name, unrecorded)] if unstated else []),
            *(_frame_facts(frame, to_frame) if frame is not None and to_frame is not None else []),
            *(_sequence_facts(sequence, first) if sequence is not None else []),
            *([_MEAN] if sequence_path is None else []),
        ],
        own=frame is None and sequence is None,
        foreign=ForeignModels(frame, to_frame, sequence, classes),
    )


def _frame_answers(given: GivenOptions, frame: ForeignFrame, classes: Classes) -> FrameSettings:
    found = frame.resizing
    size = given.size or frame.size or (0 if found is None else found.size)
    stated = found.resize if found is not None and found.size == size else Resize.BILINEAR
    return FrameSettings(
        size=size,
        scaling=Scaling(given.scaling) if given.scaling else Scaling.NONE,
        bgr=given.channels == "bgr",
        classes=classes,
        resize=stated if given.resize is None else Resize(given.resize),
    )


def _first_frames(path: Path, given: GivenOptions, sequence: ForeignSequence | None) -> int | None:
    """Returns how many frames of a clip are judged; None to go on for as long as it lasts.

    Raises:
        UsageError: `--frames-first` does not fit the models.
    """
    wanted = given.frames_first
    if wanted and given.crop != "frame":
        raise UsageError(
            f"{path}: --frames-first {wanted} is for models of whole frames; faces are judged for "
            "as long as a clip lasts: leave it out"
        )
    most = None if sequence is None else sequence.steps
    if wanted and most is not None and wanted > most:
        raise UsageError(
            f"{path}: --frames-first is {wanted}, but the sequence model takes clips of {most} "
            f"steps: give at most {most}, or 0 to go on for as long as a clip lasts"
        )
    return first_frames(given, sequence)


def _is_own_frame(file: ModelFile) -> bool:
    """Returns whether `dfd-train` wrote it: such a model names its outputs."""
    outputs = _graph(file).get("output_layers")
    return isinstance(outputs, dict) and {"features", "fake_logit"} <= outputs.keys()


def _is_own_sequence(file: ModelFile) -> bool:
    """Returns whether `dfd-train` wrote it: such a model names its inputs, and gives every step."""
    graph = _graph(file)
    inputs, layers = graph.get("input_layers"), graph.get("layers")
    named = isinstance(inputs, dict) and {"features", "mask"} <= inputs.keys() <= SEQUENCE_INPUTS
    configs = [entry.get("config") for entry in layers] if isinstance(layers, list) else []
    ends = [c for c in configs if isinstance(c, dict) and c.get("return_sequences") is False]
    return named and not ends


def _graph(file: ModelFile) -> dict[str, Any]:
    config = file.config.get("config")
    return config if isinstance(config, dict) else {}


def _verdict(
    frame: ForeignFrame | None, frame_model: keras.Model, classes: Classes
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if frame is not None and frame.head is not None:
        return frame.head.weights(classes)
    return verdict_weights(frame_model)


def _crop_scale(file: ModelFile) -> float | None:
    """Returns the crop scale that a model of `dfd-train` carries; older ones carry none."""
    scale = _graph(file).get("crop_scale")
    return float(scale) if isinstance(scale, int | float) else None


def _check_given(
    path: Path,
    given: GivenOptions,
    frame: ForeignFrame | None,
    sequence: ForeignSequence | None,
    carried: float | None,
) -> None:
    """Refuses options that the models answer themselves."""
    of_frame = ("scaling", "size", "channels", "crop", "crop_scale", "resize", "frames_first")
    for name in (*of_frame, "classes"):
        applies = (
            frame is not None
            or (name == "classes" and sequence is not None)
            or (name == "crop_scale" and carried is None)
        )
        if getattr(given, name) is not None and not applies:
            option = name.replace("_", "-")
            raise UsageError(
                f"{path}: dfd-train wrote this model, which fixes --{option}: leave it out"
            )
    if given.crop == "frame" and given.crop_scale is not None:
        raise UsageError("--crop-scale is about face crops: leave it out with --crop frame")
    if frame is not None and frame.size is not None and given.size not in (None, frame.size):
        raise UsageError(
            f"{path}: takes pictures of {frame.size} px, not --size {given.size}: leave it out"
        )


def _check_widths(path: Path, frame_model: keras.Model, sequence: ForeignSequence) -> None:
    width = int(frame_model.output["features"].shape[-1])
    if width != sequence.feature_width:
        raise UsageError(
            f"{sequence.file.path}: takes features of width {sequence.feature_width}, but {path} "
            f"gives {width}: give as FRAME the model whose output it was trained on"
        )


def _source(file: ModelFile) -> str:
    written = f"Keras {file.keras_version}" if file.keras_version else "an unknown Keras"
    return f"{file.path.name} (written by {written})"


def _frame_facts(frame: ForeignFrame, answers: FrameSettings) -> list[str]:
    order = "BGR" if answers.bgr else "RGB"
    facts = [
        f"The CNN was taken to have seen {order} pictures, {_scaled(frame, answers)}.",
        _RESIZED[answers.resize],
    ]
    if frame.head is None:
        facts.append("It has no verdict: a frame's is that of the sequence model after one step.")
    else:
        facts.append(
            f"It ends in {frame.head.form.value}; its classes were said to be {answers.classes}."
        )
    return facts


def _scaled(frame: ForeignFrame, answers: FrameSettings) -> str:
    """Describes where the pixels are scaled, and to which range."""
    if frame.scaling is None:
        return f"scaled: {answers.scaling.value}"
    low, high = frame.scaling.low, frame.scaling.high
    before = "" if answers.scaling.value == "none" else f", after {answers.scaling.value}"
    return (
        f"which it scales itself{before} ({', '.join(frame.scaling.layers)}: 0..255 become "
        f"{low:.3g}..{high:.3g})"
    )


def _sequence_facts(sequence: ForeignSequence, first: int | None) -> list[str]:
    facts = []
    if first is not None:
        facts.append(
            f"The first {first} frames of a clip are judged, as in its notebook, and none after "
            "them; the verdict is the one after the last of these."
        )
    elif sequence.steps is not None:
        facts.append(
            f"The sequence model was made for clips of {sequence.steps} steps; here it goes on for "
            "as long as the stream does."
        )
    if sequence.reads_padding:
        names = ", ".join(sequence.reads_padding)
        facts.append(
            f"No mask reaches {names}: in its notebook the padding of a short clip moved the "
            "verdict. Here a step's verdict is that of a clip that ends there, without padding."
        )
    elif _version(sequence.file.keras_version) < _MASK_FIXED and sequence.mask is not None:
        facts.append(
            f"It was written by Keras {sequence.file.keras_version}, which handed the mask to the "
            "first recurrent layer only, so that in training padding moved the others. Here it "
            "moves none, as was meant."
        )
    return facts


def _version(text: str) -> tuple[int, ...]:
    """Major and minor version of Keras; of Keras 2, which had no such fault, as of the newest."""
    numbers = [int(part) for part in text.split(".")[:2] if part.isdigit()]
    return tuple(numbers) if numbers[:1] == [3] else _MASK_FIXED
