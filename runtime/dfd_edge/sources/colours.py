"""Pictures of few colours: GIFs, palettes and dither, which cannot be decided on."""

from __future__ import annotations

import numpy as np

from dfd_edge.sources.frame import Image

#: Why a picture of few colours is not decided on. Of 26 frames of face swaps, the shipped model
#: calls 2 real as they are, 4 to 6 with 256 colours and 25 with 1 bit; P(fake) moves by up to 0.8.
FEW_COLOURS = "few colours, as in a GIF or a palette picture, hide what forgeries leave"
#: A palette has so many colours; a grey picture has as many, so few levels are its mark.
_PALETTE_COLOURS = 256
_FEW_GREYS = 32
_SAMPLED_PIXELS = 200_000


def few_colours(image: Image) -> bool:
    """Whether a picture has so few colours that it was made with a palette, or dithered.

    None of 1,500 photographs of faces, some of them tight and grey, has so few.

    Args:
        image: uint8 [height, width, 3], BGR.
    """
    step = max(1, int((image.shape[0] * image.shape[1] / _SAMPLED_PIXELS) ** 0.5))
    pixels = image[::step, ::step].reshape(-1, 3).astype(np.uint32)
    colours = np.unique(pixels @ np.array([1, 1 << 8, 1 << 16], np.uint32))
    grey = bool((pixels[:, 0] == pixels[:, 1]).all() and (pixels[:, 1] == pixels[:, 2]).all())
    return len(colours) <= (_FEW_GREYS if grey else _PALETTE_COLOURS)


class ColourCount:
    """Says of a film whether its pictures are of few colours; a blank one among them is no sign."""

    def __init__(self) -> None:
        self._frames = self._few = 0

    def add(self, few: bool) -> None:
        """Takes a frame, by whether it is of few colours."""
        self._frames += 1
        self._few += few

    @property
    def doubt(self) -> str | None:
        """`FEW_COLOURS` where more than half of the frames were, else None."""
        return FEW_COLOURS if 2 * self._few > self._frames else None
