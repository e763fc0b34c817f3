"""Splits, balanced samples and class weights of tables, with related files kept together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.data.table import (
    FAKE,
    LABELS,
    REAL,
    SPLITS,
    is_fake,
    mark_originals,
    with_defaults,
)


class DisjointSets:
    """Disjoint sets of keys, with path halving (Tarjan, 1975)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, key: str) -> str:
        """Returns the key that stands for all that this one is joined with."""
        parent = self._parent
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def join(self, keys: Iterable[str]) -> None:
        """Joins keys; the least of them in the order of text stands for all."""
        roots = sorted({self.find(key) for key in keys})
        for root in roots[1:]:
            self._parent[root] = roots[0]


def related_groups(keys: Sequence[Iterable[str]]) -> list[str]:
    """Returns groups of files that share a key, directly or by way of other files.

    Args:
        keys: Keys of each file, such as the people in it; one or more a file.

    Returns:
        The group of each file, named after the least key in it.
    """
    listed = [list(own) for own in keys]
    sets = DisjointSets()
    for own in listed:
        sets.join(own)
    return [sets.find(own[0]) for own in listed]


def shares_with_later(keys: Sequence[Iterable[str]], splits: Sequence[str]) -> list[bool]:
    """Returns which files share a key with a split that is to be kept cleaner than their own.

    Args:
        keys: Keys of each file, such as the people in it.
        splits: Split of each file: test is kept cleanest, then val; all others are training.

    Returns:
        True for a file of val that shares a key with test, and for a file of training that
        Shares one with test or with what is left of val.
    """
    listed = [frozenset(own) for own in keys]
    taken: set[str] = set()
    shared = [False] * len(listed)
    order = {"test": 0, "val": 1}
    for rank in range(3):
        members = [i for i, split in enumerate(splits) if order.get(split, 2) == rank]
        for i in members:
            shared[i] = bool(listed[i] & taken)
        taken |= {key for i in members if not shared[i] for key in listed[i]}
    return shared


Counts = NDArray[np.float64]


@dataclass
class SplitResult:
    """A table with its new splits.

    Attributes:
        table: The rows; `group` joins all that belongs together, `split` is filled in.
        notes: Notes for the reader, a line each.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def split_table(
    rows: pd.DataFrame,
    *,
    val: float,
    test: float,
    seed: int,
    keep: bool = False,
    together: Sequence[str] = (),
) -> SplitResult:
    """Deals the rows of a table.

    Rows belong together that share a group, or are a fake and its original, directly or by way
    of others (connected components). Components are dealt whole, the largest first, each to the
    split where it brings the counts of every label in every data set nearest to their shares, much
    as scikit-learn's StratifiedGroupKFold does.

    Args:
        rows: As `read_rows` gives them.
        val: Share of the rows for val, in [0, 1).
        test: Share for test.
        seed: Seed of the order in which components of one size are dealt.
        keep: Rows that have a split keep it, and so does what belongs to them; the shares are of
            the others.
        together: More columns whose equal values must not be divided, such as `model`.

    Returns:
        The table, and what could not be as asked.

    Raises:
        UsageError: For shares out of range, an empty class, what belongs together but has two
            splits, or too few components for both classes in every split.
    """
    shares = {"train": 1.0 - val - test, "val": val, "test": test}
    if min(val, test) < 0 or shares["train"] <= 1e-9:
        raise UsageError(
            f"--val {val:g} --test {test:g}: give shares of at least 0, below 1 in all"
        )
    for column in together:
        if column not in rows:
            raise UsageError(f"--together {column}: no such column; there are {list(rows)}")
    groups = components(rows, together)
    notes = []
    own = with_defaults(rows)["group"]
    if joined := own.nunique() - groups.nunique():
        notes.append(f"{joined} groups were joined with others that they share files with")
    split_of = _kept(rows, groups) if keep else {}
    free = rows[~groups.isin(split_of.keys())]
    if keep and free.empty:
        notes.append("every row has a split: nothing was dealt; leave --keep out to deal anew")
    if not keep and (marked := int((rows["split"] != "").sum())):
        notes.append(f"the splits of {marked} rows were dealt anew; --keep keeps them")
    if not free.empty:
        wanted = {split: share for split, share in shares.items() if share > 0}
        _check_classes_there(free)
        split_of |= _deal(free, groups[free.index], wanted, seed)
        size = int(groups[free.index].value_counts().iloc[0])
        if size > max(1, (1.0 - max(wanted.values())) * len(free)) and len(wanted) > 1:
            notes.append(
                f"the largest group of related files has {size} of {len(free)} rows: the shares "
                "cannot be as asked"
            )
    table = rows.assign(group=groups, split=groups.map(split_of))
    return SplitResult(table, notes)


def components(rows: pd.DataFrame, together: Sequence[str] = ()) -> pd.Series[str]:
    """Returns the component of each row: rows that share a group, an original, or a `together`."""
    columns = ["group", *together]
    own = with_defaults(rows)["group"]
    keys: list[list[str]] = []
    for i, (path, original) in enumerate(zip(rows["path"], rows["original"], strict=True)):
        # A group's own name comes first, so that it goes on to name the component.
        mine = [f"0 {own.iloc[i]}", f"1 {path}"]
        if original:
            mine.append(f"1 {original}")
        mine += [f"2 {c} {value}" for c in columns[1:] if (value := rows[c].iloc[i])]
        keys.append(mine)
    names = related_groups(keys)
    return pd.Series([name[2:] for name in names], index=rows.index, dtype=object)


def _kept(rows: pd.DataFrame, groups: pd.Series[str]) -> dict[str, str]:
    marked = rows["split"] != ""
    split_of: dict[str, str] = {}
    for group, split in zip(groups[marked], rows["split"][marked], strict=True):
        if split_of.setdefault(group, split) != split:
            raise UsageError(
                f"--keep: {group!r} and what belongs to it has rows marked {split_of[group]} and "
                f"rows marked {split}: leave --keep out to deal them anew"
            )
    return split_of


def _check_classes_there(rows: pd.DataFrame) -> None:
    fake = is_fake(rows)
    if fake.all() or not fake.any():
        raise UsageError(
            f"the rows to be dealt are all {LABELS[int(fake[0])]}: no split can hold both classes"
        )


def _deal(
    rows: pd.DataFrame, groups: pd.Series[str], shares: dict[str, float], seed: int
) -> dict[str, str]:
    names, number = np.unique(groups.to_numpy(str), return_inverse=True)
    strata = (rows["dataset"] + "\0" + rows["label"]).to_numpy(str)
    kinds, kind = np.unique(strata, return_inverse=True)
    counts = np.zeros((len(names), len(kinds)))
    np.add.at(counts, (number, kind), 1.0)
    fake = np.zeros((len(names), 2))
    np.add.at(fake, (number, is_fake(rows).astype(np.int64)), 1.0)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    chosen = _greedy(counts, order, np.array(list(shares.values())))
    _give_both_classes(chosen, fake, list(shares))
    return {str(name): list(shares)[side] for name, side in zip(names, chosen, strict=True)}


def _greedy(counts: Counts, order: NDArray[np.int64], shares: Counts) -> NDArray[np.int64]:
    """Returns the side of each component: the one where the distance to the shares grows least.

    The distance is chi-squared's, relative to the share: large components are dealt in proportion
    too, where the plain square would give all of them to the largest side.
    """
    total = counts.sum(axis=0)
    held = np.zeros((len(shares), counts.shape[1]))
    chosen = np.zeros(len(counts), np.int64)
    for component in order:
        more = counts[component] / total
        lack = shares[:, None] - held / total
        cost = (more * (more - 2.0 * lack)).sum(axis=1) / shares
        side = int(np.argmin(cost))
        held[side] += counts[component]
        chosen[component] = side
    return chosen


def _give_both_classes(chosen: NDArray[np.int64], classes: Counts, sides: list[str]) -> None:
    """Moves small components to sides that lack a class, from those that can spare them.

    Raises:
        UsageError: There are too few components.
    """
    for _ in range(2 * len(sides)):
        held = np.stack([classes[chosen == side].sum(axis=0) for side in range(len(sides))])
        lacking = np.argwhere(held == 0)
        if not len(lacking):
            return
        side, label = lacking[0]
        # The side that a component leaves must still hold both classes.
        left = held[chosen] - classes
        spare = (classes[:, label] > 0) & (chosen != side) & (left > 0)[:, label]
        spare &= ((left > 0) | (held[chosen] == 0)).all(axis=1)
        if not spare.any():
            break
        sizes = np.where(spare, classes.sum(axis=1), np.inf)
        chosen[int(np.argmin(sizes))] = side
    raise UsageError(
        f"split {sides[lacking[0][0]]} would hold no {LABELS[lacking[0][1]]} row: too few files "
        f"are unrelated ({len(chosen)} groups of footage and people); ask for fewer splits"
    )


@dataclass
class SampleResult:
    """A balanced sample.

    Attributes:
        table: Its rows, in the table's order.
        pairs: Fakes whose original is in the sample.
        notes: What could not be done as asked, a line each.
    """

    table: pd.DataFrame
    pairs: int
    notes: list[str] = field(default_factory=list)


def sample_balanced(rows: pd.DataFrame, *, per_class: int, seed: int) -> SampleResult:
    """Draws as many reals as fakes, a fake with its original wherever there is one.

    Pairs of an original and one fake of it are drawn first; where they are not enough, the
    others fill up. So no original is lost while its fake is kept, but where the original is not
    a REAL row.

    Args:
        rows: As `read_rows` gives them.
        per_class: Rows of each class; as many as the smaller class has where that is fewer.
        seed: Seed of the draw.

    Returns:
        The rows; a fake whose original is not drawn still names it, and keeps its group.

    Raises:
        UsageError: For a number below 1, or an empty class.
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
    table = with_defaults(rows)[chosen].assign(split=rows["split"][chosen])
    lost = mark_originals(rows)["original_here"][chosen] == "yes"
    table = mark_originals(table)
    lost &= table["original_here"] == "no"
    paired = int((table["original_here"] == "yes").sum())
    if lost.any():
        notes.append(f"{lost.sum()} fakes stand without their original")
    if alone := count - paired:
        notes.append(f"{alone} fakes have no original among the rows: they stand alone")
    return SampleResult(table, paired, notes)


def _pairs(
    rows: pd.DataFrame, fake: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Returns rows of an original and one fake of it, each original once, in random order."""
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
    """Returns weights that balance the classes: n / (2 n_class), 1 in the mean over rows.

    Raises:
        UsageError: For an empty class.
    """
    fake = is_fake(rows)
    for label, there in ((REAL, (~fake).any()), (FAKE, fake.any())):
        if not there:
            raise UsageError(f"the class {label} is empty: it has no weight")
    return {
        REAL: len(rows) / (2.0 * float((~fake).sum())),
        FAKE: len(rows) / (2.0 * float(fake.sum())),
    }


def tally(table: pd.DataFrame) -> list[str]:
    """Returns counts of a table by split and label, a line each."""
    rows = with_defaults(table).assign(
        label=table["label"].where(table["label"] != "", "unlabelled")
    )
    lines = []
    for split in [s for s in SPLITS if (rows["split"] == s).any()]:
        part = rows[rows["split"] == split]
        counts = ", ".join(
            f"{(part['label'] == label).sum()} {label}"
            for label in (*LABELS, "unlabelled")
            if label in LABELS or (part["label"] == label).any()
        )
        lines.append(f"{split}: {counts}, {part['group'].nunique()} groups")
    return lines
