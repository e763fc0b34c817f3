"""Names on the command line, apart from the code behind them, which takes a while to load."""

from __future__ import annotations

from enum import StrEnum


class CropperName(StrEnum):
    """Detectors that `dfd-train prepare` cuts faces by."""

    BLAZEFACE = "blazeface"
    HAAR = "haar"
    DLIB = "dlib"
