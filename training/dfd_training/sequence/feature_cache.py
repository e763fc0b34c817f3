"""Cache of clip features on disk, keyed by the clip's bytes and the network."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_edge.sinks.files import written_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ClipFeatures:
    """Features of the first frames of a clip.

    Attributes:
        features: float32 [T, F], one row a frame, T at least 1.
        rate_hz: Frames a second that the clip states.
    """

    features: NDArray[np.float32]
    rate_hz: float


class FeatureCache:
    """A folder with one file for each clip and network.

    An entry is found by the hash of the clip's bytes and by the network's: a clip under another
    name is found, a changed one is not. Each entry is written whole; one that is damaged, or is
    not what its name says, is reported and computed anew.

    Args:
        folder: Made with the first entry.
        network: Everything else that the features depend on: backbone, weights, sizes.
    """

    def __init__(self, folder: Path, network: str) -> None:
        self.folder = folder
        self._network = hashlib.sha256(network.encode()).hexdigest()

    def load(self, clip: str) -> ClipFeatures | None:
        """Returns the features of a clip; None where there are none, or none that can be used.

        Args:
            clip: SHA-256 of its bytes, as `hash_of` gives it.
        """
        path = self._path(clip)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as saved:
                whole = str(saved["clip"]) == clip and str(saved["network"]) == self._network
                features, rate_hz = saved["features"], float(saved["rate_hz"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            logger.warning("%s: a damaged cache entry (%s); computed anew", path, reason)
            return None
        fits = features.ndim == 2 and len(features) and features.dtype == np.float32
        if not (whole and fits and np.isfinite(features).all() and rate_hz > 0):
            logger.warning("%s: not the cache entry that its name says; computed anew", path)
            return None
        return ClipFeatures(features, rate_hz)

    def save(self, clip: str, found: ClipFeatures) -> None:
        """Keeps the features of a clip.

        Args:
            clip: SHA-256 of its bytes.
            found: Its features.

        Raises:
            UsageError: The folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self._path(clip)) as partial:
            np.savez(
                partial,
                allow_pickle=False,
                clip=np.array(clip),
                network=np.array(self._network),
                features=found.features.astype(np.float32),
                rate_hz=np.array(found.rate_hz),
            )

    def _path(self, clip: str) -> Path:
        return self.folder / f"{clip[:20]}-{self._network[:12]}.npz"


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
