"""Reads what a file says of its own origin."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from dfd_edge.errors import SourceError, SourceNotFoundError
from dfd_edge.provenance.bounded import read_bounded
from dfd_edge.provenance.boxes import BoxError, check_store
from dfd_edge.provenance.child import Request
from dfd_edge.provenance.manifests import Found, UnreadableManifest, read_manifest
from dfd_edge.provenance.metadata.marks import read_marks
from dfd_edge.provenance.outcome import conclude
from dfd_edge.provenance.record import Mark, Provenance
from dfd_edge.provenance.trust import TrustList


def read_provenance(
    path: str | os.PathLike[str], *, trust_list: TrustList | str | os.PathLike[str] | None = None
) -> Provenance:
    """Reads what a file says of its own origin: signed manifests (C2PA) and plain metadata.

    Nothing is fetched. The outcome is no verdict: a file that says nothing is the usual case, and
    a signed one is signed, no more. A process of its own parses the file, with limits of time and
    memory; where one is exceeded, the outcome is `ERROR` and `error` names it.

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
    if importlib.util.find_spec("c2pa") is None:
        raise ModuleNotFoundError(
            "provenance needs c2pa-python: pip install 'dfd-edge[provenance]'", name="c2pa"
        )
    path = Path(path)
    if not path.is_file():
        raise SourceNotFoundError(path, "there is no such file")
    if trust_list is None:
        trust_list = TrustList.shipped()
    elif not isinstance(trust_list, TrustList):
        trust_list = TrustList.load(trust_list)
    return read_bounded(path, trust_list)


def read_here(path: Path, trust: TrustList) -> Provenance:
    """Reads a file's provenance in this process, without limits of time and memory.

    Raises:
        ModuleNotFoundError: The extra `provenance` is not installed.
    """
    try:
        return _with_marks(path, read_manifest(path, trust))
    except UnreadableManifest as unreadable:
        return _with_marks(path, error=str(unreadable))
    except OSError as failure:
        return _with_marks(path, error=f"it cannot be read ({failure.strerror})")


def read_request(request: Request) -> Provenance:
    """Reads what a process was asked for, once the size of the manifest was checked."""
    if request.marks_only:
        return _with_marks(request.path)
    try:
        check_store(request.path)
    except BoxError as error:
        return _with_marks(request.path, error=str(error))
    except OSError as failure:
        return conclude(None, error=f"it cannot be read ({failure.strerror})")
    return read_here(request.path, request.trust)


def _with_marks(path: Path, found: Found | None = None, error: str | None = None) -> Provenance:
    """Concludes from a manifest and the marks of the file, which are read here."""
    found = found or Found()
    marks: tuple[Mark, ...] = ()
    try:
        marks = read_marks(path)
    except SourceError as failure:
        error = error or failure.cause
    return conclude(found.manifest, found.remote, marks, error)
