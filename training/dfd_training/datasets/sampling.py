"""As many reals as fakes, and class weights as the alternative."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.table import FAKE, REAL, filled, is_fake


@dataclass
class Sampled:
    """A balanced sample.

    Attributes:
        table: its rows, in the table's order.
        pairs: fakes whose original is in the sample.
        notes: what could not be as asked, a line each.
    """

    table: pd.DataFrame
    pairs: int
    notes: list[str] = field(default_factory=list)


def sample_balanced(rows: pd.DataFrame, *, per_class: int, seed: int) -> Sampled:
    """Draw as many reals as fakes, a fake with its original wherever there is one.

    Pairs of an original and one fake of it are drawn first; where they are not enough, the
    others fill up. So no original is lost while its fake is kept, but where the original is not
    a REAL row.

    Args:
        rows: as `read_rows` gives them.
        per_class: rows of each class; as many as the smaller class has where that is fewer.
        seed: of the draw.

    Returns:
        The rows; what loses its original keeps its group.

    Raises:
        UsageError: for a number below 1, or an empty class.
    """
    if per_class < 1:
        raise UsageError(f"--per-class {per_class}: give 1 or more")
    fake = is_fake(rows)
    counts = {REAL: int((~fake).sum()), FAKE: int(fake.sum())}
    if not min(counts.values()):
        empty = REAL if not counts[REAL] else FAKE
        raise UsageError(f"the class {empty} is empty: nothing can be balanced against it")
    count = min(per_class, *counts.values())
    notes = []
    if count < per_class:
        least = min(counts, key=lambda label: counts[label])
        notes.append(
            f"there are only {counts[least]} {least} rows: {count} of each class, not {per_class}"
        )
    rng = np.random.default_rng(seed)
    pairs = _pairs(rows, fake, rng)[:count]
    chosen = np.zeros(len(rows), np.bool_)
    chosen[pairs.ravel()] = True
    for side in (~fake, fake):
        others = rng.permutation(np.flatnonzero(side & ~chosen))
        chosen[others[: count - len(pairs)]] = True
    table = filled(rows)[chosen].assign(split=rows["split"][chosen])
    lost = ~table["original"].isin(set(table["path"])) & (table["original"] != "")
    table["original"] = table["original"].where(~lost, "")
    paired = int((table["original"] != "").sum())
    if lost.any():
        notes.append(f"{lost.sum()} fakes stand without their original")
    if alone := count - paired:
        notes.append(f"{alone} fakes have no original among the rows: they stand alone")
    return Sampled(table, paired, notes)


def _pairs(
    rows: pd.DataFrame, fake: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places of an original and one fake of it, each original once, in an order drawn at random."""
    place = {path: i for i, path in enumerate(rows["path"])}
    originals = rows["original"].to_list()
    fake_of: dict[int, int] = {}
    for i in rng.permutation(np.flatnonzero(fake)):
        original = place.get(originals[i], -1)
        if original >= 0 and not fake[original]:
            fake_of.setdefault(original, int(i))
    pairs = np.array(sorted(fake_of.items()), np.int64).reshape(-1, 2)
    return rng.permutation(pairs)


def class_weights(rows: pd.DataFrame) -> dict[str, float]:
    """Weights under which both classes count alike: n / (2 n_class), 1 in the mean over rows.

    Raises:
        UsageError: for an empty class.
    """
    fake = is_fake(rows)
    for label, there in ((REAL, (~fake).any()), (FAKE, fake.any())):
        if not there:
            raise UsageError(f"the class {label} is empty: it has no weight")
    return {
        REAL: len(rows) / (2.0 * float((~fake).sum())),
        FAKE: len(rows) / (2.0 * float(fake.sum())),
    }
