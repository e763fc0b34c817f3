"""Differences between graphs and models: their tolerances, their report, and the gate's errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import DfdError
from dfd_edge.schema import dump_json

ROUNDING_SHARE: Final = 10.0
"""How many times as far as rounding moves the Keras model the graph may be from it.

Over seven networks, real and random crops and all outputs, right graphs were 0.4 to 1.6 times as
far. A kernel that is 1 % too large moves the outputs thousands of times as far.
"""

SMALLEST_SHARE: Final = 32 * float(np.finfo(np.float32).eps)
"""Share of an output's largest value that is always allowed: summing in another order costs it."""

SUM_SHARE: Final = 128 * float(np.finfo(np.float32).eps)
"""The same for long sums: the mean over a map of 220 x 220 px differs by 64 roundings of float32
between two libraries, both right. Of the output's spread it may be `SUM_SPREAD` at most."""

SUM_SPREAD: Final = 0.01

FLOOR: Final = float(np.finfo(np.float32).tiny)
"""Always allowed, whatever the output's size: the smallest normal float32, 1.2e-38.

Below it numbers have fewer digits the smaller they are, and most libraries let the processor take
them for zero; which ones, no two have to agree about. A saturated sigmoid or softmax gives them.
"""

DISTINCT_SHARE: Final = 20.0
"""How many times the allowed difference a logit has to vary by, to say anything."""

_TINY = float(np.finfo(np.float64).tiny)

Array = NDArray[Any]


class ParityError(DfdError):
    """The exported graph differs from its Keras model. The message lists every difference."""


class ContractMismatch(ParityError):
    """Inputs, outputs, element types or axes are not those of the contract."""


class ShapeMismatch(ParityError):
    """An output has another shape than the Keras model's."""


class ValueMismatch(ParityError):
    """An output's values differ by more than the tolerance."""


class CollapsedModel(ParityError):
    """A model says the same of every input, so that no graph can be told from another."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The variation of an output, and the part of it that is rounding.

    A fixed tolerance is wrong both ways: a graph of a network that hardly varies passes whatever
    it computes, and one of a network with large values fails for rounding alone. So rounding is
    measured, on the very model: its weights and inputs are moved by less than float32 can tell
    apart, and what that does to the output is the unit of the tolerance.

    Attributes:
        rounding: Largest change of the output when weights and inputs move by a rounding error.
        spread: Standard deviation over the inputs, root mean square over the output's elements.
        magnitude: Largest absolute value.
    """

    rounding: float
    spread: float
    magnitude: float

    @classmethod
    def of(cls, values: Array, moved: Array) -> Scale:
        """Measures an output.

        Args:
            values: float [n, ...], one row an input.
            moved: The same after weights and inputs moved by a rounding error.
        """
        exact = values.astype(np.float64)
        return cls(
            rounding=float(np.abs(moved - exact).max()),
            spread=float(np.sqrt(exact.var(axis=0).mean())),
            magnitude=float(np.abs(exact).max()),
        )

    @property
    def tolerance(self) -> float:
        """The largest difference that is allowed."""
        sums = min(SUM_SHARE * self.magnitude, SUM_SPREAD * self.spread)
        return max(self._noise, sums)

    @property
    def is_distinct(self) -> bool:
        """Whether the output varies by much more than rounding does."""
        return self.spread > DISTINCT_SHARE * self._noise

    @property
    def _noise(self) -> float:
        return max(ROUNDING_SHARE * self.rounding, SMALLEST_SHARE * self.magnitude, FLOOR)


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """The expected values of an output.

    Attributes:
        values: One row an input.
        scale: Scale of these values, or of more of the same model.
    """

    values: Array
    scale: Scale

    def take(self, rows: slice | Array) -> Expected:
        """Some of the rows, on the same scale."""
        return Expected(self.values[rows], self.scale)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output in one case.

    Attributes:
        graph: "frame" or "sequence".
        case: The inputs.
        output: Name of the output.
        shape: Its shape.
        max_difference: Largest absolute difference.
        where: Index of that difference.
        tolerance: The allowed difference.
        spread: How much the output varies from input to input, as standard deviation.
    """

    graph: str
    case: str
    output: str
    shape: list[int]
    max_difference: float
    where: list[int]
    tolerance: float
    spread: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; a NaN never is."""
        return self.max_difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.graph}, {self.case}: {self.output} {self.shape} differs by "
            f"{self.max_difference:.3g} at {self.where} (allowed: {self.tolerance:.2g}, "
            f"its spread: {self.spread:.2g})"
        )


_SUSPICIOUS_SPREAD = 1e-3
"""A trained model's logit varies by far more, from one face to another."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """All comparisons of a bundle's graphs, in the order in which they were made."""

    comparisons: list[Comparison]

    def to_json(self) -> str:
        """Writes it as JSON, for the bundle."""
        return dump_json(self)

    def warning(self) -> str | None:
        """Returns a warning about a model that passed; None where nothing is odd."""
        spreads = [c.spread for c in self.comparisons if c.output == "fake_logit"]
        if min(spreads, default=1.0) >= _SUSPICIOUS_SPREAD:
            return None
        return (
            f"a model says nearly the same of every input (its logit varies by {min(spreads):.1e})"
            ": were its weights loaded, and is the scaling of its input right?"
        )

    def table(self) -> str:
        """One line for each output of each graph: cases, worst case, largest difference."""
        lines = [
            f"{'graph':<9} {'output':<11} {'cases':>5} {'largest':>9} {'allowed':>9} "
            f"{'spread':>9}  worst case"
        ]
        for key in dict.fromkeys((c.graph, c.output) for c in self.comparisons):
            group = [c for c in self.comparisons if (c.graph, c.output) == key]
            worst = max(group, key=lambda c: c.max_difference / max(c.tolerance, _TINY))
            lines.append(
                f"{worst.graph:<9} {worst.output:<11} {len(group):>5} {worst.max_difference:>9.1e} "
                f"{worst.tolerance:>9.1e} {worst.spread:>9.1e}  {worst.case}"
            )
        return "\n".join(lines)

    def check(self) -> None:
        """Raises an error that names what failed.

        Raises:
            ValueMismatch: A comparison failed.
        """
        if failed := [c for c in self.comparisons if not c.passed]:
            raise ValueMismatch(
                f"{len(failed)} of {len(self.comparisons)} comparisons failed, nothing was "
                "written: " + "; ".join(str(c) for c in failed[:5])
            )


def compare(graph: str, case: str, output: str, found: Array, wanted: Expected) -> Comparison:
    """Compares one output of a graph with what it should be.

    Args:
        graph: "frame" or "sequence".
        case: The inputs, for the report.
        output: Name of the output.
        found: The graph's output.
        wanted: The expected output; see `dfd_export.gate.oracle.Oracle`.

    Raises:
        ShapeMismatch: They have different shapes.
    """
    if found.shape != wanted.values.shape:
        raise ShapeMismatch(
            f"{graph}, {case}: {output} has shape {list(found.shape)}, but the Keras model gives "
            f"{list(wanted.values.shape)}; nothing was written"
        )
    difference = np.abs(found.astype(np.float64) - wanted.values.astype(np.float64))
    # A NaN is the largest of all differences, and no JSON number.
    difference = np.where(np.isfinite(difference), difference, np.finfo(np.float64).max)
    where = np.unravel_index(int(difference.argmax()), difference.shape)
    return Comparison(
        graph=graph,
        case=case,
        output=output,
        shape=list(found.shape),
        max_difference=float(difference[where]),
        where=[int(index) for index in where],
        tolerance=wanted.scale.tolerance,
        spread=wanted.scale.spread,
    )


def check_distinct(model: str, logits: Expected, inputs: str) -> None:
    """Refuses a model whose logits cannot be told from rounding.

    Args:
        model: Its name, for the message.
        logits: Its logits.
        inputs: The inputs, for the message.

    Raises:
        CollapsedModel: They hardly vary, or are no numbers.
    """
    scale, mend = logits.scale, "check its weights and the scaling of its input"
    if not np.isfinite(scale.magnitude):
        raise CollapsedModel(
            f"model {model}: its logit is no finite number for some of {inputs}: {mend}; nothing "
            "was written"
        )
    if not scale.is_distinct:
        raise CollapsedModel(
            f"model {model}: its logit varies by {scale.spread:.1e} (standard deviation) over "
            f"{inputs}, of which {scale.rounding:.1e} is rounding: it says the same of all of "
            f"them: {mend}; nothing was written"
        )
