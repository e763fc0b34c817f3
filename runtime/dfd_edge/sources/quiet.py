"""OpenCV's own log, silenced where its words would reach the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import cv2

#: Newer versions of OpenCV have a module for it; in 4.11 the same functions lie at the top.
_log: Any = getattr(cv2.utils, "logging", cv2)
_SILENT = 0


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keeps OpenCV from writing warnings of its own to standard error."""
    level = _log.getLogLevel()
    _log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        _log.setLogLevel(level)
