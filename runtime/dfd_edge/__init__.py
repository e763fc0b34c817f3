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
    from dfd_edge.bundle import Bundle
    from dfd_edge.detector import Detector
    from dfd_edge.errors import BundleError, DfdError, ProviderError, SourceError, UsageError
    from dfd_edge.judging.results import (
        Event,
        EventKind,
        FrameResult,
        Interval,
        Label,
        PersonResult,
        PersonVerdict,
        Verdict,
    )
    from dfd_edge.judging.stream import Stream
    from dfd_edge.judging.watch import Watch
    from dfd_edge.providers import ProviderOptions, ProviderReport
    from dfd_edge.sinks.json_lines import records_schema

_HOMES = {
    "Bundle": "bundle",
    "BundleError": "errors",
    "Detector": "detector",
    "DfdError": "errors",
    "Event": "judging.results",
    "EventKind": "judging.results",
    "FrameResult": "judging.results",
    "Interval": "judging.results",
    "Label": "judging.results",
    "PersonResult": "judging.results",
    "PersonVerdict": "judging.results",
    "ProviderError": "errors",
    "ProviderOptions": "providers",
    "ProviderReport": "providers",
    "SourceError": "errors",
    "Stream": "judging.stream",
    "UsageError": "errors",
    "Verdict": "judging.results",
    "Watch": "judging.watch",
    "records_schema": "sinks.json_lines",
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
