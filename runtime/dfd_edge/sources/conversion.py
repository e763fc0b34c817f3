"""Conversion of decoded frames: deinterlacing, tone mapping, colour counts."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av.error
import cv2
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from dfd_edge.sources.bursts import Plane, shrunk_luma
from dfd_edge.sources.frames import Image, Pixels
from dfd_edge.sources.orientation import orientation_of
from dfd_edge.sources.planes import PlanePicture, has_parts

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame


def colour_code(decoded: VideoFrame, context: VideoCodecContext, name: str) -> int:
    """Returns the code (H.273) of a frame's transfer curve or primaries; 2 if unknown."""
    code = getattr(decoded, name, None)  # PyAV before 17 has only the decoder's
    if code is None:
        code = getattr(context, name, None)
    return 2 if code is None else int(code)


#: One picture a frame; frames that are not flagged as interlaced pass as they are.
_FILTER = "bwdif"
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"
#: For frames without times.
_ANY_TIME_BASE = Fraction(1, 90_000)


class Deinterlacer:
    """Deinterlaces frames that are flagged as interlaced, and passes the others on.

    An interlaced frame is held back until the next one, from which the filter takes the motion.
    Before the first interlaced frame nothing is held back, at no cost.

    Args:
        threads: Threads that the filter may use.

    Attributes:
        used: Whether there was an interlaced frame so far.
    """

    def __init__(self, threads: int = 1) -> None:
        self.used = False
        self._threads = threads
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def feed(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Takes the next frame and yields those that are ready, in order."""
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and shape != self._shape:
            yield from self.flush()
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._graph = self._build(frame)
            self._shape = shape
        self._graph.vpush(frame)
        yield from self._ready(self._graph)

    def flush(self) -> Iterator[VideoFrame]:
        """Yields what is still held back."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.vpush(None)
            yield from self._ready(graph)

    def _build(self, frame: VideoFrame) -> Graph:
        self.used = True
        graph = Graph()
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base or _ANY_TIME_BASE,
            ),
            # The filter's own option: PyAV sets the graph's only from version 18 on.
            graph.add(_FILTER, f"{_OPTIONS}:threads={self._threads}"),
            graph.add("buffersink"),
        ).configure()
        return graph

    @staticmethod
    def _ready(graph: Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                yield graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


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
    """Turns HDR and wide-gamut pictures into SDR ones, as the models were trained on.

    The steps are those of the standards, in light: the transfer curve of the file is undone (PQ:
    SMPTE ST 2084; HLG: ITU-R BT.2100 with the system gamma of a 1000 cd/m² display), luminance
    above the knee is rolled off (ITU-R BT.2390, section 5.4: the Hermite spline of its EETF, from
    1000 cd/m² to the 203 cd/m² that ITU-R BT.2408 gives to SDR white), BT.2020 primaries become
    BT.709 (ITU-R BT.2087), and the result is coded for a BT.1886 display.

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
        """Returns the mapper for a picture with these codes (H.273); None where it needs none."""
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
    """Returns factors for colours, for even steps of the fourth root of their luminance.

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


#: Why a picture of few colours is not decided on. Of 26 frames of face swaps, the shipped model
#: calls 2 real as they are, 4 to 6 with 256 colours and 25 with 1 bit; P(fake) moves by up to 0.8.
FEW_COLOURS = "few colours, as in a GIF or a palette picture, hide what forgeries leave"
#: A palette has 256 colours; a grey picture has as many, so it counts by its few levels.
_PALETTE_COLOURS = 256
_FEW_GREYS = 32
#: FFmpeg's names of lossless codecs, whose pixel format does not show a palette.
_EXACT_CODECS = frozenset(["apng", "png", "qtrle"])
#: FFmpeg's names of the pixel formats of few colours.
_PALETTE_PIXELS = frozenset(["pal8", "monowhite", "monoblack", "rgb8", "bgr8", "rgb4_byte"])
_SAMPLED_PIXELS = 200_000


def few_colours(image: Image) -> bool:
    """Returns whether a picture has so few colours that it has a palette or was dithered.

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
    """Counts pictures of few colours in a film; single blank ones are no sign."""

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


class Converter:
    """Converts the decoded frames of one stream to upright BGR pictures with square pixels.

    Args:
        context: Decoder of the stream.
        aspect: Width of a pixel over its height.
    """

    def __init__(self, context: VideoCodecContext, aspect: float) -> None:
        self._context = context
        self._aspect = aspect
        self._colours = ColourCount()
        self._lock = threading.RLock()  # pictures are looked at in other threads

    def convert(self, decoded: VideoFrame) -> Pixels:
        """Returns the picture, HDR and wide gamut as SDR.

        Where parts can be converted without the rest, none is converted yet.

        Raises:
            av.error.FFmpegError: The frame states colours that FFmpeg does not convert.
        """
        context = self._context
        mapper = ToneMapper.of(
            colour_code(decoded, context, "color_trc"),
            colour_code(decoded, context, "color_primaries"),
        )
        orientation = orientation_of(decoded)
        width = round(decoded.width * self._aspect)
        if mapper is None and width == decoded.width and has_parts(decoded):
            self._colours.add(False)
            return PlanePicture(decoded, orientation, self._lock)
        # Resizing is done by the same pass that converts the colours; it is off for square pixels.
        with self._lock:
            array = decoded.to_ndarray(
                format="bgr24" if mapper is None else "rgb48le",
                width=width,
                height=decoded.height,
                threads=1,
            )
        if mapper is None:
            image = np.asarray(array, dtype=np.uint8)
        else:
            image = mapper.apply(np.asarray(array, dtype=np.uint16))
        few = context.name == "gif" or decoded.format.name in _PALETTE_PIXELS
        self._colours.add(few or (context.name in _EXACT_CODECS and few_colours(image)))
        return orientation.apply(image)

    def luma(self, decoded: VideoFrame) -> Plane | None:
        """Returns the luma of a frame as `Burst` has it, None where it is HDR.

        Raises:
            av.error.FFmpegError: The frame states colours that FFmpeg does not convert.
        """
        with self._lock:
            if colour_code(decoded, self._context, "color_trc") in (_PQ, _HLG):
                return None
            width = round(decoded.width * self._aspect)
            luma = shrunk_luma(decoded, width, decoded.height)
        return orientation_of(decoded).apply(luma)

    @property
    def doubt(self) -> str | None:
        """`FEW_COLOURS` where more than half of the pictures were, else None."""
        return self._colours.doubt
