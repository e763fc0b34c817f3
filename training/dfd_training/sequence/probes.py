"""Linear probes on signals of consecutive frames, one for each family of fakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES
from dfd_training.models.sequence import MOST_SPREADS, SIGNALS_TEMPERATURE

FEWEST_CLIPS = 4
"""A family with fewer clips gets no probe."""
FEWEST_STEPS = 3
"""Nor is a clip with fewer measured steps fitted on, or judged."""

Texts = Sequence[str] | NDArray[np.str_]
Truths = Sequence[bool] | NDArray[np.bool_]

_ALL = "all fakes"
_MAX_STEPS = 3000
_GROUP_EXPONENT = -0.5


PROBE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """Options of the probes.

    Attributes:
        inverse_penalty: C of the logistic regressions; small holds coefficients near 0.
        temperature: At which the probes' logits are combined: low is the largest, high the mean.
        share: Weight of the signals' score beside the network's, both in standard deviations.
        families: A probe for each family of fakes; or else one for all fakes together.
        without: Signals to leave out, by any part of their names.

    Raises:
        UsageError: A number is out of its range.
    """

    inverse_penalty: float = 0.1
    temperature: float = SIGNALS_TEMPERATURE
    share: float = PROBE_SHARE
    families: bool = True
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("inverse_penalty", "temperature"):
            if not getattr(self, name) > 0.0:
                raise UsageError(f"{name} is {getattr(self, name)}; more than 0")
        if self.share < 0.0:
            raise UsageError(f"share is {self.share}; 0 or more")

    def kept(self) -> NDArray[np.bool_]:
        """Returns which signals are looked at, bool [S]."""
        return np.array([not any(part in name for part in self.without) for name in NAMES])


@dataclass(frozen=True, eq=False)
class FamilyProbes:
    """A logistic regression for each family of fakes, against all reals.

    Each family leaves its own traces; one rule for all of them would average opposite ones away.
    The probes' logits are combined by log-mean-exp, so that one probe suffices to call a clip fake.

    Attributes:
        mean: float32 [S], of the signals.
        scale: float32 [S], their standard deviations; 1 for signals that never change.
        kernel: float32 [S, K], coefficients of the standardised signals.
        bias: float32 [K].
        families: The K names, sorted.
        temperature: At which the probes' logits are combined.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    families: tuple[str, ...]
    temperature: float = SIGNALS_TEMPERATURE

    @classmethod
    def fit(
        cls,
        signals: NDArray[np.floating],
        families: Texts,
        generators: Texts,
        groups: Texts,
        fakes: Truths,
        *,
        options: ProbeOptions | None = None,
    ) -> FamilyProbes:
        """Fits the probes.

        In each probe the fakes weigh as much as the reals; within a family every generator weighs
        the same, and the reals of a group weigh by the square root of their number.

        Args:
            signals: [N, S], finite, each the mean over a clip.
            families: Family of each fake; that of a real is not looked at.
            generators: Generator of each fake.
            groups: Group of footage of each clip.
            fakes: Whether each clip is a fake.
            options: Penalty, temperature and the like.

        Raises:
            UsageError: There is no real clip, or no family has enough clips.
        """
        options = options or ProbeOptions()
        values = np.asarray(signals, np.float64)
        fake = np.asarray(fakes, np.bool_)
        family = np.asarray(families, np.str_)
        judged = family if options.families else np.where(fake, _ALL, "")
        names, counts = np.unique(judged[fake], return_counts=True)
        names = names[counts >= FEWEST_CLIPS]
        if fake.all() or not len(names):
            raise UsageError(
                f"signals of {int((~fake).sum())} real clips and of {int(fake.sum())} fakes, at "
                f"most {max(counts, default=0)} of one family: no probe can be fitted; at least 1 "
                f"real clip and {FEWEST_CLIPS} fakes of one family are needed"
            )
        mean, scale = values.mean(axis=0), values.std(axis=0)
        scale[scale < 1e-9] = 1.0
        inputs = _standardised(values, mean, scale)
        if options.without:
            inputs = inputs * options.kept()
        weights = _weights(
            family, np.asarray(generators, np.str_), np.asarray(groups, np.str_), fake
        )
        probes: list[LogisticRegression] = []
        for name in names:
            use = ~fake | (judged == name)
            shares = np.where(fake, weights / weights[use & fake].sum(), weights)
            probe = LogisticRegression(C=options.inverse_penalty, max_iter=_MAX_STEPS)
            # As many effective clips as there are, half of them fakes.
            probes.append(
                probe.fit(inputs[use], fake[use], sample_weight=shares[use] * use.sum() / 2)
            )
        return cls(
            mean=mean.astype(np.float32),
            scale=scale.astype(np.float32),
            kernel=np.stack([probe.coef_[0] for probe in probes], axis=1).astype(np.float32),
            bias=np.array([probe.intercept_[0] for probe in probes], np.float32),
            families=tuple(str(name) for name in names),
            temperature=options.temperature,
        )

    def score(self, signals: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores clips, or steps of them.

        Args:
            signals: [..., S], finite.

        Returns:
            float64 [...], the combined logit of the probes; higher is more likely fake.
        """
        logits = self.logits(signals) / self.temperature
        most = logits.max(axis=-1, keepdims=True)
        means = np.log(np.exp(logits - most).mean(axis=-1)) + most[..., 0]
        return np.asarray(self.temperature * means, np.float64)

    def logits(self, signals: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the logit of each probe, float64 [..., K], for signals [..., S]."""
        inputs = _standardised(np.asarray(signals, np.float64), self.mean, self.scale)
        return np.asarray(inputs @ self.kernel.astype(np.float64) + self.bias, np.float64)


def _standardised(
    values: NDArray[np.float64], mean: NDArray[np.floating], scale: NDArray[np.floating]
) -> NDArray[np.float64]:
    return np.asarray(np.clip((values - mean) / scale, -MOST_SPREADS, MOST_SPREADS), np.float64)


def _weights(
    family: NDArray[np.str_],
    generator: NDArray[np.str_],
    group: NDArray[np.str_],
    fake: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Returns the weight of each clip; those of a family sum to 1, and those of all reals."""
    weights = np.zeros(len(fake))
    for name in np.unique(family[fake]):
        its = fake & (family == name)
        generators, number, counts = np.unique(
            generator[its], return_inverse=True, return_counts=True
        )
        weights[its] = 1.0 / len(generators) / counts[number]
    _, number, counts = np.unique(group[~fake], return_inverse=True, return_counts=True)
    reals = counts[number] ** _GROUP_EXPONENT
    weights[~fake] = reals / reals.sum()
    return weights
