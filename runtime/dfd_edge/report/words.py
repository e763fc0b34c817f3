"""Texts of a report: verdicts, scores, times and thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dfd_edge.bundle.manifest import DecisionSpec
from dfd_edge.faces.crop import MIN_FACE_PX
from dfd_edge.judging.results import Label, Record

NAMES = {
    Label.FAKE: "Fake",
    Label.REAL: "Real",
    Label.UNSURE: "Unsure",
    Label.NO_FACE: "No face",
}
"""Names of the verdicts."""
SYMBOLS = {Label.FAKE: "▲", Label.REAL: "●", Label.UNSURE: "?", Label.NO_FACE: "○"}
"""Symbols of the verdicts, which do not depend on colours."""
REASONS = {
    "too small": f"the face is smaller than {MIN_FACE_PX:.0f} pixels",
    "dark": "the picture is too dark there",
    "blurred": "the face is out of focus, in motion, or compressed to a blur",
    "turned away": "the face is turned away from the camera",
    "left out": "only the largest face, or faces of some size, were asked for",
    "not finite": "the model gave numbers that are not finite: its bundle does not work here",
}
"""Explanations of the reasons in the records why a face is not judged."""
_SHOWN_INTERVALS = 12
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict or another conclusion as name, symbol and CSS class."""

    name: str
    symbol: str
    style: str

    @classmethod
    def of(cls, label: Label) -> Badge:
        """Returns the badge of a label."""
        return cls(NAMES[label], SYMBOLS[label], label.value)


def score(p: float | None, spec: DecisionSpec) -> str:
    """Returns a probability with two digits, or with four.

    Four are used where two would hide the side of a threshold, or make the score look certain.
    """
    if p is None:
        return "-"
    short = f"{p:.2f}"
    hidden = {"0.00", "1.00", *(f"{limit.probability:.2f}" for limit in spec.thresholds.values())}
    return f"{p:.4f}" if short in hidden else short


def threshold(spec: DecisionSpec, label: Label) -> str:
    """Returns a threshold with all its digits."""
    return f"{spec.thresholds[label.value].probability:.4f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """Returns a share in percent, with a decimal where it is small."""
    if 0.0 < share < 0.1:
        return f"{share * 100:.1f}".removesuffix(".0") + " %"
    return f"{share * 100:.0f} %"


def clock(time_s: float) -> str:
    """Returns a time as text: seconds, or minutes and seconds from a minute on."""
    tenths = round(time_s * 10)
    if tenths < _MINUTE_S * 10:
        return f"{tenths / 10:.1f} s"
    minutes, rest = divmod(tenths, 600)
    return f"{minutes}:{rest / 10:04.1f} min"


def spans(intervals: Iterable[Iterable[float]]) -> str:
    """Returns the intervals in which a person looked fake."""
    texts = [f"{clock(start)} to {clock(end)}" for start, end in intervals]
    more = len(texts) - _SHOWN_INTERVALS
    shown = ", ".join(texts[:_SHOWN_INTERVALS])
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, one: str, many: str) -> str:
    """Returns a number with its noun."""
    return f"{number} {one if number == 1 else many}"


def verdict_words(verdict: Record, spec: DecisionSpec, *, still: bool) -> str:
    """Explains the verdict on a source in a few sentences."""
    label = Label(verdict["label"])
    kind = "picture" if still else "clip"
    if label is Label.NO_FACE:
        return (
            f"No face was found, so there was nothing to judge. That does not make the {kind} real."
        )
    if verdict["p_fake"] is None:
        return _too_little(verdict, spec, still=still)
    value = score(verdict["p_fake"], spec)
    whose = "The highest score of a person" if len(verdict["people"]) > 1 else "The score"
    if label is Label.FAKE:
        limit = threshold(spec, Label.FAKE)
        return (
            f"{whose} is {value}, at or above {limit}, where “fake” starts. The model sees traces "
            "that forged faces leave. It can be wrong: look at the crops below yourself."
        )
    if label is Label.REAL:
        limit = threshold(spec, Label.REAL)
        return (
            f"{whose} is {value}, at or below {limit}, up to which the answer is “real”. The model "
            "found no traces of the forgeries that it knows; others can pass it unseen."
        )
    low, high = threshold(spec, Label.REAL), threshold(spec, Label.FAKE)
    if verdict["complete"] and verdict["reason"]:
        return f"{whose} is {value}, which decides nothing here: {verdict['reason']}."
    return (
        f"{whose} is {value}, between {low} and {high}. Both real and forged faces are found "
        "there, so the model does not decide."
    )


def signals_words(person: Record) -> list[str]:
    """Explains what consecutive frames showed of a person, in sentences.

    Args:
        person: An entry of a `verdict` record.

    Returns:
        Nothing where the model takes no such measurements, or no frame was judged.
    """
    signals, judged = person["signals"], person["judged_steps"]
    if signals is None or not judged:
        return []
    measured, without = signals["measured_steps"], signals["without_burst"]
    frames = count(judged, "judged frame", "judged frames")
    said = [f"Consecutive frames were compared in {measured} of {frames}."]
    if without:
        said.append(
            f"{without} came without consecutive frames: at the start, after a gap, where the "
            "source is slower than 14 frames a second, interlaced, HDR or a still, or where "
            "single frames were pushed."
        )
    if other := judged - measured - without:
        said.append(
            f"In {other} the consecutive frames repeat one picture, or the face is too small or "
            "too near the border."
        )
    return said + ([] if signals["means"] is None else _levels_words(signals["means"]))


def _levels_words(means: Mapping[str, float]) -> list[str]:
    """Compares a face with its background, from mean logarithms."""
    noise, sharpness = (
        f"{math.exp(means[f'face_{name}'] - means[f'background_{name}']):.1f}"
        for name in ("noise", "fine_detail")
    )
    face, behind = (f"{means[f'{name}_noise_correlation']:.2f}" for name in ("face", "background"))
    return [
        f"The noise in the face is {noise} of that of the background, its fine detail {sharpness}.",
        f"From one difference of frames to the next, the noise correlates at {face} in the face "
        f"and {behind} in the background; noise that is new in each frame gives -0.5.",
        "Alone this proves nothing: compression, noise reduction and beauty filters change noise "
        "as well.",
    ]


def _too_little(verdict: Record, spec: DecisionSpec, *, still: bool) -> str:
    if still:
        return "A face was found, but it could not be judged; the reason is given below."
    most = max((person["judged_steps"] for person in verdict["people"]), default=0)
    return (
        f"Too little was seen: {count(most, 'frame', 'frames')} of one person could be judged, "
        f"and a verdict needs {spec.min_steps}."
    )


def threshold_words(spec: DecisionSpec, label: Label) -> str:
    """Explains how a threshold was set, and its measured rate."""
    limit = spec.thresholds[label.value]
    other = "real" if label is Label.FAKE else "fake"
    text = (
        f"set so that at most {percent(limit.target_rate)} of {other} clips are called "
        f"{label.value}"
    )
    if limit.n:
        text += (
            f"; of {limit.n} training clips, scored by models that had not seen them, "
            f"{percent(limit.rate)} were "
            f"(fewer than {percent(limit.upper_bound)} in general, with 95 % confidence)"
        )
    return text


def summary_words(labels: list[Label], failed: int, undone: int) -> str:
    """Summarises the verdicts of a run in one sentence."""
    done = [f"{labels.count(label)} {NAMES[label].lower()}" for label in NAMES if label in labels]
    parts = [f"{count(len(labels), 'source', 'sources')} judged" if labels else "Nothing judged"]
    if done:
        parts[0] += f": {', '.join(done)}"
    if failed:
        parts.append(f"{failed} could not be judged")
    if undone:
        parts.append(f"{undone} not reached before the run was stopped")
    return "; ".join(parts) + "."
