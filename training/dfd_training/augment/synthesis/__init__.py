"""Fakes from real faces: blends, swaps, reenactments and rebuilt pictures, stills and clips."""

from dfd_training.augment.synthesis.blend import (
    BlendParameters,
    draw_blend,
    draw_swap,
    face_swap,
    self_blend,
)
from dfd_training.augment.synthesis.clip import TemporalFaults, draw_faults, synthesise_clip
from dfd_training.augment.synthesis.forgery import Forged, ForgeryKind, forge

__all__ = [
    "BlendParameters",
    "Forged",
    "ForgeryKind",
    "TemporalFaults",
    "draw_blend",
    "draw_faults",
    "draw_swap",
    "face_swap",
    "forge",
    "self_blend",
    "synthesise_clip",
]
