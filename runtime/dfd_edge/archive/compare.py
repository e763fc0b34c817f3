"""Drift between two runs: changed labels, and shifts of scores by source."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass

from dfd_edge.archive.dataset import read_clips
from dfd_edge.archive.engine import contents_key
from dfd_edge.archive.storage import Store
from dfd_edge.report.figures import shortened

_NO_VERDICT = "no verdict"
_COLUMNS = ("source", "sha256", "label", "p_fake")


@dataclass(frozen=True, slots=True)
class Change:
    """A clip in both runs.

    Attributes:
        source: Its source in the second run.
        labels: Its labels in the first and the second run.
        scores: Its P(fake) in both; None where it has none.
    """

    source: str
    labels: tuple[str, str]
    scores: tuple[float | None, float | None]

    @property
    def shift(self) -> float | None:
        """P(fake) in the second run less that in the first."""
        before, after = self.scores
        return None if before is None or after is None else after - before


@dataclass(frozen=True, slots=True)
class Drift:
    """Two runs side by side.

    Attributes:
        both: Clips in both runs, by their contents; each contents counts once.
        only: Contents in the first alone, and in the second alone.
    """

    both: list[Change]
    only: tuple[int, int]


def drift_of(before: Store, after: Store) -> Drift:
    """Matches two archives by the contents of their clips.

    Raises:
        UsageError: One of them has no results, or cannot be read.
    """
    first: dict[bytes, tuple[str, float | None]] = {}
    for batch in read_clips(before, _COLUMNS):
        for row in batch.to_pylist():
            if row["sha256"] is not None:
                first[contents_key(row["sha256"])] = row["label"] or _NO_VERDICT, row["p_fake"]
    seen: set[bytes] = set()
    both: list[Change] = []
    new = 0
    for batch in read_clips(after, _COLUMNS):
        for row in batch.to_pylist():
            if row["sha256"] is None or (key := contents_key(row["sha256"])) in seen:
                continue
            seen.add(key)
            if key not in first:
                new += 1
                continue
            label, score = first[key]
            labels = (label, row["label"] or _NO_VERDICT)
            both.append(Change(row["source"], labels, (score, row["p_fake"])))
    return Drift(both, (len(first) - len(both), new))


def compare(before: Store, after: Store, *, depth: int = 1, shown: int = 20) -> str:
    """Compares two archives.

    Args:
        before: The first run.
        after: The second one.
        depth: Folders below the common one that make a source of their own.
        shown: Clips with the largest changes to list.

    Returns:
        Markdown tables: changed labels, shifts by source, and the clips that changed most.

    Raises:
        UsageError: One of them has no results, or cannot be read.
    """
    drift = drift_of(before, after)
    changed = [change for change in drift.both if change.labels[0] != change.labels[1]]
    lines = [
        f"{len(drift.both):,} contents in both, {drift.only[0]:,} in {before} alone, "
        f"{drift.only[1]:,} in {after} alone; {len(changed):,} labels changed",
        "",
    ]
    if changed:
        lines += ["| before | after | clips |", "|---|---|---:|"]
        counts = Counter(change.labels for change in changed)
        lines += [f"| {old} | {new} | {number:,} |" for (old, new), number in counts.most_common()]
        lines.append("")
    lines += _by_source(drift.both, depth)
    shifted = sorted(
        (change for change in drift.both if change.shift), key=lambda change: -abs(_shift(change))
    )
    if shifted and shown:
        lines += ["", "| clip | before | after | shift |", "|---|---|---|---:|"]
        lines += [
            f"| {shortened(change.source)} | {_told(change, 0)} | {_told(change, 1)} | "
            f"{_shift(change):+.4f} |"
            for change in shifted[:shown]
        ]
    return "\n".join(lines)


def _by_source(changes: list[Change], depth: int) -> list[str]:
    """Returns a table of the shifts of scores by folder."""
    folders = [change.source.rpartition("/")[0].split("/") for change in changes]
    common = _common(folders)
    groups: defaultdict[str, list[Change]] = defaultdict(list)
    for folder, change in zip(folders, changes, strict=True):
        groups["/".join(folder[: common + depth])].append(change)
    lines = ["| source | clips | labels changed | mean shift | largest shift |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, group in sorted(groups.items()):
        shifts = [shift for change in group if (shift := change.shift) is not None]
        labels = sum(change.labels[0] != change.labels[1] for change in group)
        mean = f"{sum(shifts) / len(shifts):+.4f}" if shifts else "-"
        largest = f"{max(shifts, key=abs):+.4f}" if shifts else "-"
        lines.append(f"| {name} | {len(group):,} | {labels:,} | {mean} | {largest} |")
    return lines


def _common(folders: list[list[str]]) -> int:
    """Returns how many parts all folders begin with."""
    levels = zip(*folders, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, levels))


def _shift(change: Change) -> float:
    return change.shift or 0.0


def _told(change: Change, run: int) -> str:
    score = change.scores[run]
    return change.labels[run] if score is None else f"{change.labels[run]} {score:.3f}"
