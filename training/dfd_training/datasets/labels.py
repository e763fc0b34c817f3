"""Names of classes and splits as data sets write them, understood as whole words only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dfd_edge.errors import UsageError
from dfd_training.table import FAKE, REAL

REAL_NAMES = ("real", "reals", "original", "originals", "genuine", "authentic", "pristine")
FAKE_NAMES = (
    "fake",
    "fakes",
    "deepfake",
    "deepfakes",
    "manipulated",
    "forged",
    "synthetic",
    "synthesis",
    "generated",
    "swapped",
)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class LabelNames:
    """What stands for the two classes, compared without regard to case.

    Numbers are not among the defaults: in some sets 1 is fake, in others real.

    Attributes:
        real: names of REAL.
        fake: names of FAKE.
    """

    real: frozenset[str] = frozenset(REAL_NAMES)
    fake: frozenset[str] = frozenset(FAKE_NAMES)

    @classmethod
    def exactly(cls) -> LabelNames:
        """REAL and FAKE alone."""
        return cls(frozenset(["real"]), frozenset(["fake"]))

    def replaced(self, real: Iterable[str], fake: Iterable[str]) -> LabelNames:
        """Other names where some are given.

        Raises:
            UsageError: A name stands for both classes, or is empty.
        """
        new = LabelNames(
            frozenset(name.casefold() for name in real) or self.real,
            frozenset(name.casefold() for name in fake) or self.fake,
        )
        if both := sorted(new.real & new.fake):
            raise UsageError(f"--real and --fake: {both[0]!r} stands for both classes")
        if "" in new.real | new.fake:
            raise UsageError("--real and --fake: give a name, not an empty one")
        return new

    def label_of(self, name: str) -> str | None:
        """REAL, FAKE, or None where the name is neither's."""
        folded = name.casefold()
        if folded in self.real:
            return REAL
        return FAKE if folded in self.fake else None

    def read(self, where: str, value: str) -> str:
        """The label that a cell stands for.

        Args:
            where: what errors call the cell's place.
            value: the cell, as the text that it is.

        Raises:
            UsageError: It is neither's.
        """
        label = self.label_of(value)
        if label is None:
            allowed = [*sorted(self.real), *sorted(self.fake)]
            raise UsageError(
                f"{where}: unknown label {value!r}; allowed are {allowed}; "
                "--real NAME and --fake NAME say what others stand for"
            )
        return label
