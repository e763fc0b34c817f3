"""Verdicts in plain words, for people who have not read how the model works.

The sentences on scores, thresholds and times are those of the reports (`report/words.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dfd_edge.bundle.manifest import DecisionSpec, Manifest
from dfd_edge.judging.results import Label, Record
from dfd_edge.report import words

HEADLINES = {
    Label.FAKE: "The face looks forged.",
    Label.REAL: "No traces of a forgery that the model knows.",
    Label.UNSURE: "This cannot be decided.",
    Label.NO_FACE: "There was no face to judge.",
}
"""The verdict in one line."""
NOT_A_CHANCE = (
    "The score runs from 0 to 1 and orders files from ordinary to suspicious. It is not the chance "
    "that this one is forged: that depends as well on how common forgeries are where it comes from."
)


def headline(verdict: Record) -> str:
    """Returns the verdict in one line."""
    label = Label(verdict["label"])
    if label is Label.FAKE and len(verdict["people"]) > 1:
        return "At least one face looks forged."
    return HEADLINES[label]


def text(verdict: Record, spec: DecisionSpec, *, still: bool) -> str:
    """Explains the verdict in two or three sentences.

    Args:
        verdict: The `verdict` record.
        spec: Decision rules that it was found by: those for stills where it is one.
        still: Whether it is a picture.
    """
    label = Label(verdict["label"])
    if label is Label.FAKE:
        where = "marked in the picture" if still else "marked in the video and on the timeline"
        return (
            "The model sees traces that forged faces leave; they are "
            f"{where}. It can be wrong: look at them yourself before you act."
        )
    if label is Label.REAL:
        return (
            "That does not prove the file genuine: forgeries by methods that the model has not "
            "learned, and forged voices, pass unseen."
        )
    return words.verdict_words(verdict, spec, still=still)


def rests_on(
    verdict: Record, frames: Iterable[Record], spec: DecisionSpec, *, still: bool
) -> list[str]:
    """Returns sentences on what was judged, what was not, and how the answer follows.

    Args:
        verdict: The `verdict` record.
        frames: The `frame` records.
        spec: Decision rules that it was found by.
        still: Whether it is a picture.
    """
    reasons, faceless = _not_judged(frames)
    said = [_coverage(verdict, still=still)]
    if faceless and not still:
        said.append(f"In {words.count(faceless, 'frame', 'frames')} no face was found.")
    for reason, number in reasons.most_common():
        why = words.REASONS.get(reason, reason)
        seen = words.count(number, "sighting of a face was", "sightings of faces were")
        said.append(f"{seen} not judged: {why}.")
    if verdict["p_fake"] is not None:
        value = words.score(verdict["p_fake"], spec)
        whose = "highest score of a person" if len(verdict["people"]) > 1 else "score"
        said.append(f"The {whose} is {value}. {NOT_A_CHANCE}")
        for label in (Label.FAKE, Label.REAL):
            limit = words.threshold(spec, label)
            side = "from" if label is Label.FAKE else "up to"
            how = words.threshold_words(spec, label)
            said.append(f"“{words.NAMES[label]}” is said {side} {limit}: {how}.")
    return said


def cannot_tell(verdict: Record, manifest: Manifest) -> list[str]:
    """Returns sentences on what the verdict says nothing about: the limits of the model's card."""
    label = Label(verdict["label"])
    own = []
    if label is Label.UNSURE:
        own.append("Unsure is an answer too: neither real nor forged can be ruled out.")
    if label is Label.NO_FACE:
        own.append("A file without a face that was found can still be forged.")
    return [*own, *manifest.card.limits]


def person_text(person: Record, spec: DecisionSpec, *, still: bool) -> str:
    """Explains the verdict on one person."""
    steps = person["judged_steps"]
    if not steps or person["p_fake"] is None:
        return "Could not be judged."
    value = words.score(person["p_fake"], spec)
    if still:
        return f"Score {value}."
    seen = f"Score {value} over {words.count(steps, 'judged frame', 'judged frames')}."
    if steps < spec.min_steps:
        return f"{seen} That is too few: a verdict needs {spec.min_steps}."
    return seen


def _coverage(verdict: Record, *, still: bool) -> str:
    if still:
        return "One picture was judged. Films give more to go by."
    frames = words.count(verdict["frames"], "frame", "frames")
    share = words.percent(verdict["coverage"])
    return (
        f"{frames} over {words.clock(verdict['duration_s'])} were looked at; {share} of them had a "
        "face that could be judged."
    )


def _not_judged(frames: Iterable[Record]) -> tuple[Counter[str], int]:
    """Returns how many sightings of faces were not judged, by reason, and frames without one."""
    reasons: Counter[str] = Counter()
    faceless = 0
    for frame in frames:
        faceless += not frame["people"]
        reasons.update(person["reason"] for person in frame["people"] if person["reason"])
    return reasons, faceless
