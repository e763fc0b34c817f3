"""What a leak check found, and what that means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from dfd_training.metrics import Estimate

MIN_GROUPS = 6
"""Of fewer, all fall on one side by chance in one case of 32 or more."""


class Finding(StrEnum):
    """What a check found."""

    CLEAN = "clean"
    TELLING = "telling"
    REFERENCE = "reference"
    TOO_FEW = "too few"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the doctor's table.

    Attributes:
        name: what was looked at.
        by: what judged it.
        case: which fakes against which reals.
        auc: with an interval over groups; NaN where pairs alone are judged.
        won: share of pairs in which the fake scores above its own original, with its interval.
        finding: whether that is as it should be.
        meaning: what it means, in a sentence.
    """

    name: str
    by: str
    case: str
    auc: Estimate
    won: Estimate
    finding: Finding
    meaning: str


def finding_of(*figures: Estimate) -> Finding:
    """Telling where the interval of any figure lies above one half; too few groups tell nothing."""
    known = [figure for figure in figures if not math.isnan(figure.value)]
    if max((figure.groups for figure in known), default=0) < MIN_GROUPS:
        return Finding.TOO_FEW
    return Finding.TELLING if any(figure.low > 0.5 for figure in known) else Finding.CLEAN


def meaning_of(finding: Finding, telling: str, clean: str) -> str:
    """The sentence for a finding: one of the two, or that there are too few groups."""
    if finding is Finding.TOO_FEW:
        return f"fewer than {MIN_GROUPS} groups: too few to say"
    return telling if finding is Finding.TELLING else clean
