"""Fakes from real faces: blends, swaps, reenactments and rebuilt pictures, stills and clips."""

from dfd_training.synthesis.blend import BlendParameters, draw_blend, draw_swap
from dfd_training.synthesis.clip import synthesise_clip
from dfd_training.synthesis.face_swap import face_swap
from dfd_training.synthesis.faults import TemporalFaults, draw_faults
from dfd_training.synthesis.forgery import Forged, ForgeryKind, forge
from dfd_training.synthesis.self_blend import self_blend

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
