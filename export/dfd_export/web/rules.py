"""Constants of the runtime that the page's modules take as data, so that each is stated once."""

from __future__ import annotations

from typing import Any

from dfd_edge.faces import crop, detector, signals, tracker
from dfd_edge.judging import decision, stream
from dfd_edge.report import words
from dfd_edge.sources import bursts, frames


def rules() -> dict[str, Any]:
    """Returns the constants of each part, by the names that the page's modules use."""
    return {
        "sampling": {
            "earlyTolerance": frames.EARLY_TOLERANCE,
            "minSpacing": frames.MIN_SPACING,
            "burstFrames": frames.BURST_FRAMES,
            "burstSide": frames.BURST_SIDE,
            "burstStepS": frames.BURST_STEP_S,
            "stepsAhead": bursts._STEPS_AHEAD,
        },
        "detector": {
            "inputSize": detector.INPUT_SIZE,
            "grid": detector.INPUT_SIZE // detector._CELL,
            "logitLimit": detector._SCORE_LOGIT_LIMIT,
            "halvedFrom": frames._HALVED_FROM,
            "borderedShare": detector._BORDERED_SHARE,
            "tileShare": detector._TILE_SHARE,
            "tileStep": detector._TILE_STEP,
            "maxTiles": detector._MAX_TILES,
            "largeShare": detector._LARGE_SHARE,
            "smallShare": detector._SMALL_SHARE,
            "crowd": detector._CROWD,
            "fineTile": detector._FINE_TILE,
            "maxFineTiles": detector._MAX_FINE_TILES,
            "maxCrowdTiles": detector._MAX_CROWD_TILES,
            "maxFaces": detector.MAX_FACES,
            "sameShare": detector._SAME_SHARE,
        },
        "tracker": _tracker(),
        "quality": {
            "minFacePx": crop.MIN_FACE_PX,
            "minLuma": crop.MIN_LUMA,
            "minDetail": crop.MIN_DETAIL,
            "minEyeDistance": crop.MIN_EYE_DISTANCE,
        },
        "signals": {
            "cellsPerFace": signals._CELLS_PER_FACE,
            "leastFace": signals._LEAST_FACE,
            "leastCells": signals._LEAST_CELLS,
            "repeated": signals._REPEATED,
            "scale": signals._SCALE,
            "moving": signals._MOVING,
            "window": signals._WINDOW,
            "noiseFloor": signals._NOISE_FLOOR,
            "detailFloor": signals._DETAIL_FLOOR,
            "contrastFloor": signals._CONTRAST_FLOOR,
        },
        "decision": {
            "intervalWindowS": decision.INTERVAL_WINDOW_S,
            "holdS": decision.HOLD_S,
            "leaveShare": decision.LEAVE_SHARE,
            "forgetAfterS": stream.FORGET_AFTER_S,
        },
    }


def _tracker() -> dict[str, Any]:
    return {
        "appearance": {
            "scale": tracker._SCALE,
            "side": tracker._SIDE,
            "patternSide": tracker._PATTERN_SIDE,
            "flat": tracker._FLAT,
            "bins": tracker._BINS,
            "chroma": tracker._CHROMA,
            "otherPerson": tracker.OTHER_PERSON,
        },
        "maxGapS": tracker.MAX_GAP_S,
        "maxShift": tracker.MAX_SHIFT,
        "maxGrowth": tracker.MAX_GROWTH,
        "stillWeight": tracker.STILL_WEIGHT,
        "motionGain": tracker.MOTION_GAIN,
        "coastS": tracker.COAST_S,
        "velocityWeight": tracker.VELOCITY_WEIGHT,
        "colourCost": tracker.COLOUR_COST,
        "patternCost": tracker.PATTERN_COST,
        "unpairedCost": tracker.UNPAIRED_COST,
        "maxSharedLook": tracker.MAX_SHARED_LOOK,
    }


def verdict_names() -> dict[str, Any]:
    """Returns the names, symbols and explanations of the report, by label and reason."""
    return {
        "names": {label.value: name for label, name in words.NAMES.items()},
        "symbols": {label.value: symbol for label, symbol in words.SYMBOLS.items()},
        "reasons": words.REASONS,
    }
