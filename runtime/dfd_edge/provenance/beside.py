"""Reads provenance beside a judgement: what has to be there before, and a thread for each file."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from dfd_edge.errors import DfdError, UsageError
from dfd_edge.provenance.outcome import conclude
from dfd_edge.provenance.reading import read_provenance
from dfd_edge.provenance.record import Provenance
from dfd_edge.provenance.trust import TrustList

logger = logging.getLogger(__name__)

_POLL_S = 0.05


def open_trust_list(path: Path | None) -> TrustList:
    """Returns the trust list of a run, once it is known that provenance can be read at all.

    Args:
        path: Certificates in PEM; None for the list that is shipped.

    Raises:
        UsageError: The library of the extra is missing, or the list cannot be read.
    """
    try:
        import c2pa  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(
            f"--provenance needs c2pa, which cannot be imported ({error}): run "
            "`pip install 'dfd-edge[provenance]'`"
        ) from error
    return TrustList.shipped() if path is None else TrustList.load(path)


def read_beside(path: Path, name: str, trust_list: TrustList) -> Provenance:
    """Reads the provenance of a file; whatever is raised becomes its error.

    Args:
        path: The file.
        name: Name of the file in messages.
        trust_list: Certificates that are trusted.
    """
    try:
        return read_provenance(path, trust_list=trust_list)
    except Exception as error:  # a verdict must not be lost over it
        if not isinstance(error, DfdError):
            logger.warning("%s: its provenance cannot be read", name, exc_info=error)
        cause = str(error) or type(error).__name__
        return conclude(None, error=cause.replace(str(path), name))


class Reading:
    """The provenance of one file, read in a thread while the file is judged.

    Args:
        path: The file.
        name: Name of the file in messages.
        trust_list: Certificates that are trusted.
    """

    def __init__(self, path: Path, name: str, trust_list: TrustList) -> None:
        self._found: Provenance | None = None
        self._thread = threading.Thread(
            target=self._read, args=(path, name, trust_list), name="provenance", daemon=True
        )
        self._thread.start()

    def result(self, stop: threading.Event | None = None) -> Provenance | None:
        """Waits until it is read; reading has its own limit of time.

        Args:
            stop: Set it to wait no longer.

        Returns:
            The provenance; None where the wait was ended.
        """
        while self._thread.is_alive() and not (stop is not None and stop.is_set()):
            self._thread.join(_POLL_S)
        return self._found

    def _read(self, path: Path, name: str, trust_list: TrustList) -> None:
        self._found = read_beside(path, name, trust_list)
