"""Footage arrives through codecs: a crop that passes one looks like a crop out of such a clip."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfd_training.augment.codecs import Codec, Coding, code
from dfd_training.augment.degrade import draw_degradation


@pytest.mark.parametrize("codec", Codec)
def test_a_higher_loss_costs_more_of_the_picture(
    codec: Codec, astronaut: NDArray[np.uint8]
) -> None:
    good, poor = (code(astronaut, Coding(codec, loss)) for loss in (0.0, 1.0))
    assert good.shape == astronaut.shape
    assert good.dtype == np.uint8
    assert cv2.PSNR(good, astronaut) > cv2.PSNR(poor, astronaut) + 2.0
    assert cv2.PSNR(poor, astronaut) > 18.0, "the picture must stay what it is"


@pytest.mark.parametrize("codec", Codec)
def test_pictures_of_odd_sides_pass(codec: Codec, astronaut: NDArray[np.uint8]) -> None:
    odd = np.ascontiguousarray(astronaut[:151, :133])
    coded = code(odd, Coding(codec, 0.3, drift=(1.5, -0.5)))
    assert coded.shape == odd.shape
    assert cv2.PSNR(coded, odd) > 24.0, "the last frame is the picture, in its place"


def test_the_share_of_coded_pictures_is_what_was_asked() -> None:
    rng = np.random.default_rng(0)
    assert not any(draw_degradation(rng, codec_share=0.0).coding for _ in range(100))
    coded = sum(draw_degradation(rng, codec_share=1.0).coding is not None for _ in range(400))
    assert coded / 400 == pytest.approx(0.75, abs=0.06), "one in four stays as it is"
