"""HDR and wide-gamut video to the SDR picture that models were trained on.

The steps are those of the standards, in light: the transfer curve of the file is undone (PQ: SMPTE
ST 2084; HLG: ITU-R BT.2100 with the system gamma of a 1000 cd/m² display), luminance above the
knee is rolled off (ITU-R BT.2390, section 5.4: the Hermite spline of its EETF, from 1000 cd/m² to
the 203 cd/m² that ITU-R BT.2408 gives to SDR white), BT.2020 primaries become BT.709 (ITU-R
BT.2087), and the result is coded for a BT.1886 display.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.sources.frame import Image

Float = NDArray[np.float64]

#: Codes of ITU-T H.273, which FFmpeg uses.
_UNSPECIFIED = 2
_PQ = 16
_HLG = 18
_BT2020 = 9
_SDR_CURVES = frozenset([1, 6, 14, 15])

_WHITE = 203.0  # cd/m² of SDR white
_PEAK = 1000.0  # cd/m² of the brightest that keeps a shade of its own
_DISPLAY_GAMMA = 2.4
_SYSTEM_GAMMA = 1.2

#: Luminance of linear BT.2020 red, green and blue.
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
#: Linear BT.2020 to linear BT.709.
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
#: Rows that are worked on together: what they need fits into a processor's cache.
_ROWS = 32
_GAIN_STEPS = 4096


class ToneMapper:
    """Turns coded HDR or wide-gamut pictures into SDR ones.

    Args:
        transfer: Code of the transfer curve (H.273).
        primaries: Code of the primaries; BT.2020 where HDR does not state any.
    """

    def __init__(self, transfer: int, primaries: int) -> None:
        codes = np.linspace(0.0, 1.0, 2**16)
        if transfer == _PQ:
            linear = _pq_to_light(codes) / _WHITE
        elif transfer == _HLG:
            linear = _hlg_to_scene(codes)
        else:
            linear = codes**_DISPLAY_GAMMA
        self._linear = linear.astype(np.float32)
        brightest = float(linear[-1])
        self._gain = _gain(transfer, brightest)
        wide = primaries in (_BT2020, _UNSPECIFIED)
        to_rgb = _TO_BT709 if wide else np.eye(3)
        self._to_bgr = np.ascontiguousarray(to_rgb[::-1], dtype=np.float32)
        # In shares of the brightest.
        self._luminance = (_LUMINANCE[None] / brightest).astype(np.float32)

    @staticmethod
    def of(transfer: int, primaries: int) -> ToneMapper | None:
        """The mapper for a picture with these codes (H.273), or None where it needs none."""
        wide = primaries == _BT2020 and transfer in _SDR_CURVES
        if transfer not in (_PQ, _HLG) and not wide:
            return None
        return _mapper(transfer, primaries)

    def apply(self, coded: NDArray[np.uint16]) -> Image:
        """Returns the picture as SDR.

        Args:
            coded: uint16 [height, width, 3], RGB in the file's transfer curve, full range.

        Returns:
            uint8 [height, width, 3], BGR.
        """
        image = np.empty(coded.shape, np.uint8)
        for top in range(0, len(coded), _ROWS):
            rows = slice(top, top + _ROWS)
            light = np.take(self._linear, coded[rows], mode="clip")
            bgr = cv2.transform(light, self._to_bgr)
            if self._gain is not None:
                relative = cv2.transform(light, self._luminance)
                # Even steps of the fourth root: dark shades need the finest.
                root = np.asarray(cv2.sqrt(cv2.sqrt(relative)), dtype=np.float32)
                places = (root * (_GAIN_STEPS - 1)).astype(np.uint16)
                bgr = bgr * np.take(self._gain, places, mode="clip")[..., None]
            shown = cv2.pow(np.clip(bgr, 0.0, 1.0), 1.0 / _DISPLAY_GAMMA)
            image[rows] = cv2.convertScaleAbs(shown, alpha=255.0)
        return image


@functools.cache
def _mapper(transfer: int, primaries: int) -> ToneMapper:
    return ToneMapper(transfer, primaries)


def _gain(transfer: int, brightest: float) -> NDArray[np.float32] | None:
    """Factors for colours, for even steps of the fourth root of their luminance.

    Table of float32 [_GAIN_STEPS]; None where nothing is changed.
    """
    if transfer not in (_PQ, _HLG):
        return None
    luminance = np.linspace(1.0 / _GAIN_STEPS, 1.0, _GAIN_STEPS) ** 4 * brightest
    shown = luminance * _WHITE if transfer == _PQ else _PEAK * luminance**_SYSTEM_GAMMA
    return (_rolled_off(shown) / _WHITE / luminance).astype(np.float32)


def _rolled_off(light: Float) -> Float:
    """The EETF of BT.2390, black kept: cd/m² up to `_PEAK` to cd/m² up to `_WHITE`."""
    top = _light_to_pq(np.array(_PEAK))
    e1 = _light_to_pq(np.minimum(light, _PEAK)) / top
    white = _light_to_pq(np.array(_WHITE)) / top
    knee = 1.5 * white - 0.5
    t = (e1 - knee) / (1.0 - knee)
    spline = (
        (2.0 * t**3 - 3.0 * t**2 + 1.0) * knee
        + (t**3 - 2.0 * t**2 + t) * (1.0 - knee)
        + (3.0 * t**2 - 2.0 * t**3) * white
    )
    return _pq_to_light(np.where(e1 < knee, e1, spline) * top)


def _pq_to_light(code: Float) -> Float:
    """ST 2084: code in [0, 1] to cd/m²."""
    root = code ** (4096 / (2523 * 128))
    c2, c3 = 2413 / 128, 2392 / 128
    return 1e4 * (np.maximum(root - 3424 / 4096, 0.0) / (c2 - c3 * root)) ** (16384 / 2610)


def _light_to_pq(light: Float) -> Float:
    """ST 2084: cd/m² to a code in [0, 1]."""
    power = (light / 1e4) ** (2610 / 16384)
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    return ((c1 + c2 * power) / (1.0 + c3 * power)) ** (2523 * 128 / 4096)


def _hlg_to_scene(code: Float) -> Float:
    """BT.2100: code in [0, 1] to the light of the scene, in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3.0, (np.exp((code - c) / a) + b) / 12.0)
