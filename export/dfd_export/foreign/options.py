"""Options that model files cannot answer: asked for at a terminal, or listed in one error."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dfd_edge.errors import UsageError
from dfd_export.foreign.frame import MEANINGS, ForeignFrame, Scaling
from dfd_export.foreign.keras_graph import Classes, ClassifierHead, HeadForm
from dfd_export.foreign.sequence import ForeignSequence

CROPS = ("face", "frame")
CHANNELS = ("rgb", "bgr")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOptions:
    """The options that were given; None where one was not.

    Attributes:
        classes: Order of the classes.
        scaling: A name of `Scaling`.
        size: Side of the pictures in pixels.
        channels: A name of `CHANNELS`.
        crop: A name of `CROPS`.
        crop_scale: Side of the crop over the longer side of the face's box.
        rate: Steps a second.
        resize: A name of `Resize`.
        frames_first: How many frames of a clip are judged, from its start; 0 for all.
    """

    classes: str | None = None
    scaling: str | None = None
    size: int | None = None
    channels: str | None = None
    crop: str | None = None
    crop_scale: float | None = None
    rate: float | None = None
    resize: str | None = None
    frames_first: int | None = None


@dataclass(frozen=True, slots=True)
class MissingOption:
    """An option that a file cannot answer.

    Attributes:
        option: The name of the option, and of the field of `GivenOptions`.
        values: The possible answers: choices, or a type.
        meaning: The question in words.
        unless: Option and value that answer it too; None where nothing does.
    """

    option: str
    values: Sequence[str] | click.ParamType[Any]
    meaning: str
    unless: tuple[str, str] | None = None

    def __str__(self) -> str:
        values = self.values
        shown = values.name.upper() if isinstance(values, click.ParamType) else "|".join(values)
        return f"--{self.option} {shown} ({self.meaning})"


def first_frames(given: GivenOptions, sequence: ForeignSequence | None) -> int | None:
    """Returns how many frames of a clip are judged; None to go on for as long as it lasts.

    A model of whole frames with a sequence model for clips of one length judges that many, as
    its notebook does, unless another number is given.
    """
    if given.crop != "frame":
        return None
    if given.frames_first is not None:
        return given.frames_first or None
    return None if sequence is None else sequence.steps


def missing_options(
    given: GivenOptions, frame: ForeignFrame | None, sequence: ForeignSequence | None
) -> list[MissingOption]:
    """Returns the options that are missing for foreign models; None for a model of `dfd-train`."""
    questions = []
    endings = [model.head for model in (frame, sequence) if model is not None]
    head = next((found for found in endings if found is not None), None)
    if head is not None and given.classes is None:
        questions.append(
            MissingOption("classes", [c.value for c in Classes], _classes_meaning(head))
        )
    if frame is not None:
        questions += _frame_questions(given, frame)
    if sequence is not None and given.rate is None and first_frames(given, sequence) is None:
        questions.append(_rate_question(given, frame, sequence))
    return questions


def _rate_question(
    given: GivenOptions, frame: ForeignFrame | None, sequence: ForeignSequence
) -> MissingOption:
    meaning = "frames a second of the clips that the sequence model was trained on"
    unless = None
    if frame is not None and given.crop is None:
        first = first_frames(dataclasses.replace(given, crop="frame"), sequence)
        if first is not None:
            unless = ("crop", "frame")
            meaning += f"; not with --crop frame, which judges the first {first} frames of a clip"
    elif given.crop == "frame" and given.frames_first is None:
        meaning += "; or give --frames-first, to judge so many frames from the start"
    return MissingOption("rate", click.FLOAT, meaning, unless)


def ask(questions: Sequence[MissingOption], path: Path, *, interactive: bool) -> dict[str, object]:
    """Asks for missing options at the terminal.

    Args:
        questions: The options that are missing.
        path: The model file, for messages.
        interactive: Whether questions can be answered.

    Returns:
        Answers by name of the option.

    Raises:
        UsageError: They cannot; the message lists all options that are missing.
    """
    if not questions:
        return {}
    if not interactive:
        raise UsageError(
            f"{path}: a model file does not say everything; give also "
            + "; ".join(str(question) for question in questions)
        )
    click.echo(f"{path} does not say everything:")
    answers: dict[str, object] = {}
    for question in questions:
        if question.unless is None or answers.get(question.unless[0]) != question.unless[1]:
            answers[question.option] = _prompt(question)
    return answers


def _prompt(question: MissingOption) -> object:
    values = question.values
    kind = values if isinstance(values, click.ParamType) else click.Choice(list(values))
    click.echo(f"  {question}")
    answer: object = click.prompt(f"  {question.option}", type=kind, show_choices=False)
    return answer


def _classes_meaning(head: ClassifierHead) -> str:
    if head.form in (HeadForm.SIGMOID, HeadForm.LOGIT):
        return (
            f"the model ends in {head.form.value}: what 0 and what 1 stand for; with "
            "flow_from_directory the folders in alphabetical order, so fake,real"
        )
    return f"the model ends in {head.form.value}: which comes first"


def _frame_questions(given: GivenOptions, frame: ForeignFrame) -> list[MissingOption]:
    questions = []
    if given.scaling is None and (frame.scaling is None or not frame.scaling.takes_bytes):
        meaning = "what was done to pixels of 0..255 before the model: "
        meaning += ", ".join(f"{mode.value} = {text}" for mode, text in MEANINGS.items())
        if frame.scaling is not None:
            layers = ", ".join(frame.scaling.layers)
            meaning += f"; its own {layers} would make {frame.scaling.high:.3g} of 255"
        questions.append(MissingOption("scaling", [s.value for s in Scaling], meaning))
    if given.size is None and frame.size is None and frame.resizing is None:
        meaning = "side of its pictures in pixels, since the model takes any"
        questions.append(MissingOption("size", click.INT, meaning))
    if given.crop is None:
        meaning = (
            "what its pictures showed: face = faces cut out, frame = the middle square of frames"
        )
        questions.append(MissingOption("crop", CROPS, meaning))
    return questions
