"""Who stands in which files, and which files therefore belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Relations:
    """Keys that are joined with one another: a union-find with path halving (Tarjan, 1975)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, key: str) -> str:
        """The key that stands for all that this one is joined with."""
        parent = self._parent
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def join(self, keys: Iterable[str]) -> None:
        """Join keys; the least of them in the order of text stands for all."""
        roots = sorted({self.find(key) for key in keys})
        for root in roots[1:]:
            self._parent[root] = roots[0]


def joined_groups(keys: Sequence[Iterable[str]]) -> list[str]:
    """Groups of files that share a key, directly or by way of other files.

    Args:
        keys: of each file, such as the people in it; one or more a file.

    Returns:
        The group of each file, named after the least key in it.
    """
    listed = [list(own) for own in keys]
    relations = Relations()
    for own in listed:
        relations.join(own)
    return [relations.find(own[0]) for own in listed]


def shares_with_later(keys: Sequence[Iterable[str]], splits: Sequence[str]) -> list[bool]:
    """Which files share a key with a split that is to be kept cleaner than their own.

    Args:
        keys: of each file, such as the people in it.
        splits: of each file: test is kept cleanest, then val; all others are training.

    Returns:
        True for a file of val that shares a key with test, and for a file of training that
        shares one with test or with what is left of val.
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
