"""Leak checks of a data set: whether anything but the face tells fakes from reals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.evaluation.crops.classifiers import (
    ClassifierFactory,
    Features,
    fit_and_score,
    forest,
    linear,
    out_of_fold,
    paired_wins,
)
from dfd_training.evaluation.crops.leak_samples import Occlusion, Sample
from dfd_training.evaluation.statistics import Estimate, GroupBootstrap, Labels, Scores, auc

MIN_GROUPS = 6
"""With fewer groups, all fall on one side by chance in at least one case of 32."""

SHUFFLES = 20

#: Tolerance of the mean AUC over shuffles above chance.
SHUFFLE_MARGIN = 0.05
ALL_REALS = "against all real clips"
OWN = "against own originals"
_REST = {Occlusion.GREY: "the border", Occlusion.BLUR: "what is left without the face"}


class Finding(StrEnum):
    """Outcome of a check."""

    CLEAN = "clean"
    TELLING = "telling"
    REFERENCE = "reference"
    TOO_FEW = "too few"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    """A leak check: one row of the table.

    Attributes:
        name: Visible part of the data, such as "border only".
        by: Classifier or model that scored it.
        case: Which fakes against which reals.
        auc: AUC with an interval over groups; NaN where only pairs are judged.
        won: Share of pairs in which the fake scores above its own original, with its interval.
        finding: Outcome of the check.
        meaning: Its meaning, in a sentence.
    """

    name: str
    by: str
    case: str
    auc: Estimate
    won: Estimate
    finding: Finding
    meaning: str


def outcome_of(*figures: Estimate) -> Finding:
    """Returns `TELLING` where the interval of any figure lies above one half."""
    known = [figure for figure in figures if not math.isnan(figure.value)]
    if max((figure.groups for figure in known), default=0) < MIN_GROUPS:
        return Finding.TOO_FEW
    return Finding.TELLING if any(figure.low > 0.5 for figure in known) else Finding.CLEAN


def explanation_of(finding: Finding, telling: str, clean: str) -> str:
    """Returns the sentence for an outcome."""
    if finding is Finding.TOO_FEW:
        return f"fewer than {MIN_GROUPS} groups: too few to say"
    return telling if finding is Finding.TELLING else clean


def examine(sample: Sample, fitted_on: Sample | None = None, *, draws: int = 1000) -> list[Check]:
    """Runs all checks.

    Args:
        sample: The judged files.
        fitted_on: Files of other groups that quick classifiers are fitted on; None for
            cross-validation by group inside `sample`.
        draws: Bootstrap samples.

    Raises:
        UsageError: Fakes or reals are missing, or come from one group only.
    """
    doctor = _Doctor(sample, fitted_on, draws)
    return [
        *doctor.file_facts(),
        *doctor.hidden_face(Occlusion.GREY),
        *doctor.hidden_face(Occlusion.BLUR),
        doctor.shuffled(),
        *doctor.references(),
    ]


class _Doctor:
    def __init__(self, sample: Sample, fitted_on: Sample | None, draws: int) -> None:
        self._sample = sample
        self._fitted_on = fitted_on
        self._draws = draws
        self._paired = np.array(sorted({place for pair in sample.pairs for place in pair}), int)

    def file_facts(self) -> list[Check]:
        """Checks the facts of the file, against all reals and within pairs."""
        sample, other = self._sample, self._fitted_on
        names, mine, theirs = _aligned(sample.facts, None if other is None else other.facts)
        scores = self._quick(forest, mine, theirs)
        name = "file facts" if "bit rate" in names else "file facts (without the containers')"
        area = self._area(scores, None)
        finding = outcome_of(area)
        meaning = explanation_of(
            finding,
            "facts of the file alone tell fakes from reals of other sources: figures against all "
            "reals may rest on the source, compare within pairs",
            "facts of the file are not seen to tell fakes from reals of other sources",
        )
        won = self._won(scores)
        checks = [Check(name, "random forest", ALL_REALS, area, won, finding, meaning)]
        guide = None if other is None or theirs is None else _differences(theirs, other.pairs)
        groups = self._pair_groups()
        if len(set(groups)) < 2 or (guide is not None and not len(guide)):
            return checks
        differences = _differences(mine, sample.pairs)
        picked = paired_wins(differences, groups, guide)
        won = GroupBootstrap.of(groups, draws=self._draws).mean(picked)
        finding = outcome_of(won)
        meaning = explanation_of(
            finding,
            "a fake differs from its own original in facts of the file, most in "
            f"{_most_telling(differences, names)}",
            "no fact of the file is seen to tell a fake from its own original",
        )
        by = "logistic regression on differences"
        return [*checks, Check(name, by, OWN, _nothing(len(groups)), won, finding, meaning)]

    def hidden_face(self, cover: Occlusion) -> list[Check]:
        """Checks crops without the face, by a quick classifier and by the model."""
        checks: list[Check] = []
        for by, scores in self._judges(cover).items():
            if scores is None:
                meaning = "no --frame was given: whether the model needs the face is not known"
                nothing, finding = _nothing(0), Finding.NOT_CHECKED
                checks.append(Check(cover.value, by, OWN, nothing, nothing, finding, meaning))
                continue
            won = self._won(scores)
            area = self._area(scores, None)
            finding = outcome_of(area)
            meaning = explanation_of(
                finding,
                f"{_REST[cover]} tells fakes from reals of other sources, as far as sources differ",
                f"{_REST[cover]} is not seen to tell fakes from reals of other sources",
            )
            checks.append(Check(cover.value, by, ALL_REALS, area, won, finding, meaning))
            area = self._area(scores, self._paired)
            finding = outcome_of(area, won)
            meaning = explanation_of(
                finding,
                f"{_REST[cover]} tells a fake from its own original: overspill of masks, or coding",
                f"{_REST[cover]} is not seen to tell a fake from its own original",
            )
            checks.append(Check(cover.value, by, OWN, area, won, finding, meaning))
        return checks

    def shuffled(self) -> Check:
        """Checks the protocol with labels shuffled inside every source that has both."""
        sample = self._sample
        sources = np.array([file.source for file in sample.files])
        both = [name for name in set(sources) if len(set(sample.labels[sources == name])) == 2]
        inside = np.isin(sources, both)
        features, groups = sample.features[Occlusion.NOTHING][inside], sample.groups[inside]
        areas: list[float] = []
        for number in range(SHUFFLES):
            labels = _shuffled(sample.labels[inside], sources[inside], number)
            try:
                scores = out_of_fold(linear, features, labels, groups, seed=number)
            except UsageError:
                continue
            areas.append(auc(labels, scores))
        figure = _mean_of(areas, int(inside.sum()), len(set(groups)))
        finding = outcome_of(figure)
        if finding is Finding.TELLING and figure.value <= 0.5 + SHUFFLE_MARGIN:
            finding = Finding.CLEAN
        meaning = explanation_of(
            finding,
            "labels that mean nothing are learnt: groups leak between folds",
            "labels that mean nothing are not learnt: groups do not leak between folds",
        )
        case = f"labels shuffled inside sources, {len(areas)} times"
        nothing, by = _nothing(0), "ImageNet features"
        return Check("shuffled labels", by, case, figure, nothing, finding, meaning)

    def references(self) -> list[Check]:
        """Scores whole crops in the same ways, for reference."""
        meaning = "what the whole crop gives, to hold the checks against"
        return [
            Check(
                Occlusion.NOTHING.value,
                by,
                case,
                self._area(scores, rows),
                self._won(scores),
                Finding.REFERENCE,
                meaning,
            )
            for by, scores in self._judges(Occlusion.NOTHING).items()
            if scores is not None
            for case, rows in ((ALL_REALS, None), (OWN, self._paired))
        ]

    def _judges(self, cover: Occlusion) -> dict[str, Scores | None]:
        """Returns scores of the files with the face occluded, by classifier or model."""
        other = self._fitted_on
        theirs = None if other is None else other.features[cover]
        return {
            "ImageNet features": self._quick(linear, self._sample.features[cover], theirs),
            "the model": self._sample.logits.get(cover),
        }

    def _quick(self, make: ClassifierFactory, mine: Features, theirs: Features | None) -> Scores:
        sample, other = self._sample, self._fitted_on
        if other is None or theirs is None:
            return out_of_fold(make, mine, sample.labels, sample.groups)
        return fit_and_score(make, theirs, other.labels, mine)

    def _area(self, scores: Scores, rows: NDArray[np.int64] | None) -> Estimate:
        chosen = np.arange(len(scores)) if rows is None else rows
        samples = GroupBootstrap.of(self._sample.groups[chosen], draws=self._draws)
        return samples.auc(self._sample.labels[chosen], scores[chosen])

    def _won(self, scores: Scores) -> Estimate:
        won = [np.sign(scores[fake] - scores[real]) / 2 + 0.5 for fake, real in self._sample.pairs]
        samples = GroupBootstrap.of(self._pair_groups(), draws=self._draws)
        return samples.mean(np.array(won, np.float64))

    def _pair_groups(self) -> NDArray[np.str_]:
        return np.array([self._sample.files[fake].group for fake, _ in self._sample.pairs], np.str_)


def _nothing(n: int) -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, n, 0)


def _aligned(
    mine: pd.DataFrame, theirs: pd.DataFrame | None
) -> tuple[list[str], Features, Features | None]:
    """Returns both tables with the same columns; a codec that one lacks is 0 there."""
    names = [*mine.columns]
    if theirs is not None:
        names += [name for name in theirs.columns if name not in mine.columns]
    first, second = (
        None if table is None else table.reindex(columns=names, fill_value=0.0).to_numpy(np.float64)
        for table in (mine, theirs)
    )
    assert first is not None
    return names, first, second


def _differences(features: Features, pairs: Sequence[tuple[int, int]]) -> Features:
    """Returns each fake's features less its original's: float [pairs, F]."""
    return np.array([features[fake] - features[real] for fake, real in pairs]).reshape(
        len(pairs), features.shape[1]
    )


def _most_telling(differences: Features, names: Sequence[str]) -> str:
    """Returns the fact whose sign is the same in most pairs."""
    signs = np.abs(np.sign(differences).mean(axis=0))
    return names[int(np.argmax(signs))]


def _shuffled(labels: Labels, sources: NDArray[np.str_], seed: int) -> Labels:
    rng = np.random.default_rng(seed)
    mixed = labels.copy()
    for source in np.unique(sources):
        inside = np.flatnonzero(sources == source)
        mixed[inside] = rng.permutation(labels[inside])
    return mixed


def _mean_of(areas: list[float], n: int, groups: int) -> Estimate:
    """Returns the mean over shuffles with its own 95 % interval."""
    if len(areas) < 2:
        return _nothing(n)
    mean, error = float(np.mean(areas)), float(np.std(areas, ddof=1) / np.sqrt(len(areas)))
    return Estimate(mean, mean - 1.96 * error, mean + 1.96 * error, n, groups)


def checks_to_text(checks: Sequence[Check]) -> str:
    """Returns the checks as a Markdown table; intervals are 95 %, over groups."""
    lines = [
        "| check | judged by | case | n | groups | AUC | pairs won | finding |",
        "|---|---|---|---:|---:|---|---|---|",
    ]
    for check in checks:
        n, groups = (
            (check.auc.n, check.auc.groups)
            if check.auc.groups
            else (
                check.won.n,
                check.won.groups,
            )
        )
        cells = (
            check.name,
            check.by,
            check.case,
            str(n),
            str(groups),
            _figure(check.auc),
            _figure(check.won),
            f"{check.finding.value}: {check.meaning}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _figure(figure: Estimate) -> str:
    return "" if math.isnan(figure.value) else str(figure)
