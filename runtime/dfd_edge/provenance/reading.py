"""Reads what a file says of its own origin."""

from __future__ import annotations

import os
from pathlib import Path

from dfd_edge.errors import SourceError, SourceNotFoundError
from dfd_edge.provenance.manifests import Found, UnreadableManifest, read_manifest
from dfd_edge.provenance.metadata import read_marks
from dfd_edge.provenance.outcome import conclude
from dfd_edge.provenance.record import Mark, Provenance
from dfd_edge.provenance.trust import TrustList


def read_provenance(
    path: str | os.PathLike[str], *, trust_list: TrustList | str | os.PathLike[str] | None = None
) -> Provenance:
    """Reads what a file says of its own origin: signed manifests (C2PA) and plain metadata.

    Nothing is fetched. The outcome is no verdict: a file that says nothing is the usual case, and
    a signed one is signed, no more.

    Args:
        path: A video or picture. Beside it, a manifest may lie in a sidecar: `clip.mp4.c2pa` or
            `clip.c2pa` for `clip.mp4`, which counts where the file itself holds none.
        trust_list: Certificates of the authorities whose signers are trusted, or a file of them in
            PEM. Default: the official lists of C2PA that the package carries.

    Raises:
        SourceNotFoundError: There is no such file.
        UsageError: The trust list cannot be read.
        ModuleNotFoundError: The extra `provenance` is not installed.

    Example:
        >>> from dfd_edge import read_provenance
        >>> provenance = read_provenance("clip.mp4")
        >>> print(provenance.outcome.value, provenance.summary)
    """
    path = Path(path)
    if not path.is_file():
        raise SourceNotFoundError(path, "there is no such file")
    if trust_list is None:
        trust_list = TrustList.shipped()
    elif not isinstance(trust_list, TrustList):
        trust_list = TrustList.load(trust_list)
    return read_here(path, trust_list)


def read_here(path: Path, trust: TrustList) -> Provenance:
    """Reads a file's provenance in this process, without limits of time and memory.

    Raises:
        ModuleNotFoundError: The extra `provenance` is not installed.
    """
    error = None
    found = Found()
    try:
        found = read_manifest(path, trust)
    except UnreadableManifest as unreadable:
        error = str(unreadable)
    except OSError as failure:
        error = f"it cannot be read ({failure.strerror})"
    marks: tuple[Mark, ...] = ()
    try:
        marks = read_marks(path)
    except SourceError as failure:
        error = error or failure.cause
    return conclude(found.manifest, found.remote, marks, error)
