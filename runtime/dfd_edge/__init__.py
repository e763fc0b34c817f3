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

# Since 1.32, onnxruntime reports its platform to its vendor and keeps an identifier of the machine
# in the user's cache folder, unless this variable is set when it is imported. Every program of this
# distribution imports it after this line, and child processes inherit the variable. To allow the
# telemetry, set the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from dfd_edge.bundle import Bundle
    from dfd_edge.detector import Detector
    from dfd_edge.errors import (
        BundleError,
        CameraError,
        DfdError,
        NotMediaError,
        ProviderError,
        SourceError,
        SourceFaultError,
        SourceNotFoundError,
        UnreachableError,
        UnsupportedError,
        UsageError,
    )
    from dfd_edge.inference.provider_options import ProviderOptions
    from dfd_edge.inference.providers import ProviderReport
    from dfd_edge.judging.results import (
        Event,
        EventKind,
        FrameResult,
        Interval,
        Label,
        PersonResult,
        PersonSignals,
        PersonVerdict,
        Verdict,
    )
    from dfd_edge.judging.stream import Stream
    from dfd_edge.judging.watch import Watch
    from dfd_edge.provenance.reading import read_provenance
    from dfd_edge.provenance.record import Provenance
    from dfd_edge.sinks.json_lines import records_schema

    __version__: str

#: Public names by the module that defines them.
_PUBLIC = {
    "bundle": ("Bundle",),
    "detector": ("Detector",),
    "errors": (
        *("BundleError", "CameraError", "DfdError", "NotMediaError", "ProviderError"),
        *("SourceError", "SourceFaultError", "SourceNotFoundError", "UnreachableError"),
        *("UnsupportedError", "UsageError"),
    ),
    "inference.provider_options": ("ProviderOptions",),
    "inference.providers": ("ProviderReport",),
    "judging.results": (
        *("Event", "EventKind", "FrameResult", "Interval", "Label"),
        *("PersonResult", "PersonSignals", "PersonVerdict", "Verdict"),
    ),
    "judging.stream": ("Stream",),
    "judging.watch": ("Watch",),
    "provenance.reading": ("read_provenance",),
    "provenance.record": ("Provenance",),
    "sinks.json_lines": ("records_schema",),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "Bundle",
    "BundleError",
    "CameraError",
    "Detector",
    "DfdError",
    "Event",
    "EventKind",
    "FrameResult",
    "Interval",
    "Label",
    "NotMediaError",
    "PersonResult",
    "PersonSignals",
    "PersonVerdict",
    "Provenance",
    "ProviderError",
    "ProviderOptions",
    "ProviderReport",
    "SourceError",
    "SourceFaultError",
    "SourceNotFoundError",
    "Stream",
    "UnreachableError",
    "UnsupportedError",
    "UsageError",
    "Verdict",
    "Watch",
    "__version__",
    "read_provenance",
    "records_schema",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Loads a public name on first use, so that `import dfd_edge` costs next to nothing."""
    if name == "__version__":
        from dfd_edge.version import own_version  # noqa: PLC0415

        return own_version()
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
