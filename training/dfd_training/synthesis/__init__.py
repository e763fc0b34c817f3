"""Fakes from real faces: self-blended images and landmark face swaps, for pictures and clips."""

from dfd_training.synthesis.blend import BlendParameters, draw_blend
from dfd_training.synthesis.clip import synthesise_clip
from dfd_training.synthesis.face_swap import face_swap
from dfd_training.synthesis.self_blend import self_blend

__all__ = ["BlendParameters", "draw_blend", "face_swap", "self_blend", "synthesise_clip"]
