"""Deepfake detection on the edge.

Example:
    >>> from dfd_edge import Detector
    >>> detector = Detector.load()
    >>> verdict = detector.analyze("clip.mp4")
    >>> print(verdict.label, verdict.p_fake)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# From 1.32 on, onnxruntime sends its maker what it runs on, and keeps an identifier of the machine
# in the user's cache folder. It reads this as it is imported, which happens after this line in
# every program of this distribution, and their child processes inherit it. Somebody who wants the
# telemetry sets the variable themselves, to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    __version__: str
    from dfd_edge.bundle import Bundle
    from dfd_edge.detector import Detector
    from dfd_edge.errors import BundleError, DfdError, ProviderError, SourceError, UsageError
    from dfd_edge.outputs.records import records_schema
    from dfd_edge.providers import ProviderOptions, ProviderReport
    from dfd_edge.results import (
        Event,
        EventKind,
        FrameResult,
        Interval,
        Label,
        PersonResult,
        PersonVerdict,
        Verdict,
    )
    from dfd_edge.stream import Stream
    from dfd_edge.watching import Watch

_HOMES = {
    "Bundle": "bundle",
    "BundleError": "errors",
    "Detector": "detector",
    "DfdError": "errors",
    "Event": "results",
    "EventKind": "results",
    "FrameResult": "results",
    "Interval": "results",
    "Label": "results",
    "PersonResult": "results",
    "PersonVerdict": "results",
    "ProviderError": "errors",
    "ProviderOptions": "providers",
    "ProviderReport": "providers",
    "SourceError": "errors",
    "Stream": "stream",
    "UsageError": "errors",
    "Verdict": "results",
    "Watch": "watching",
    "records_schema": "outputs.records",
}

__all__ = [
    "Bundle",
    "BundleError",
    "Detector",
    "DfdError",
    "Event",
    "EventKind",
    "FrameResult",
    "Interval",
    "Label",
    "PersonResult",
    "PersonVerdict",
    "ProviderError",
    "ProviderOptions",
    "ProviderReport",
    "SourceError",
    "Stream",
    "UsageError",
    "Verdict",
    "Watch",
    "records_schema",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Loads a public name on first use, so that `import dfd_edge` costs next to nothing."""
    if name == "__version__":
        from dfd_edge.version import version_of  # noqa: PLC0415

        return version_of("dfd-edge") or "unknown"
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{home}"), name)
    except AttributeError:
        # `from dfd_edge import Detector` would only say that there is no such name.
        from dfd_edge.libraries import check_opencv  # noqa: PLC0415

        check_opencv()
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
