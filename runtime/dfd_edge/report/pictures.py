"""Crops of a person that a report shows, as small JPEG pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dfd_edge.faces.crop import CropRegion, extract_crop
from dfd_edge.judging.results import PersonResult
from dfd_edge.sources.frames import Image
from dfd_edge.view.drawing import draw_evidence

PICTURE_PX = 176
MOST_ENLARGED = 2
"""A crop smaller than `PICTURE_PX` is enlarged by this much at most: more would only smear it."""
KEPT = 3
"""Crops kept of each kind: most suspicious and most ordinary."""
APART_S = 1.0
"""Least distance in time between kept crops of one kind."""
#: Grey of what lies beyond the frame.
_BEYOND = 160
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 85)


@dataclass(frozen=True, slots=True, eq=False)
class CropPicture:
    """A judged crop.

    Attributes:
        time_s: Seconds since the start of the source.
        p_frame: Score of this crop alone.
        plain: JPEG of `side` squared.
        evidence: The same with the evidence map; None for models without one.
        side: Width and height of the pictures in pixels, at most `PICTURE_PX`.
    """

    time_s: float
    p_frame: float
    plain: bytes
    evidence: bytes | None
    side: int = PICTURE_PX

    @property
    def size(self) -> int:
        """Size of both pictures in bytes."""
        return len(self.plain) + len(self.evidence or b"")

    @classmethod
    def of(cls, image: Image, person: PersonResult, time_s: float, p_frame: float) -> CropPicture:
        """Crops a person from a frame.

        The model is shown the frame's edge repeated where a crop reaches beyond it; the picture has
        flat grey there.

        Args:
            image: uint8 [height, width, 3], BGR. Not changed.
            person: Position and evidence of the crop.
            time_s: Time of the frame.
            p_frame: Score of the crop.
        """
        region = CropRegion(*person.crop)
        side = min(PICTURE_PX, MOST_ENLARGED * region.side)
        rgb = extract_crop(image, region, side)
        crop = np.ascontiguousarray(rgb[:, :, ::-1])
        inside = _inside(image, region, side)
        evidence = None
        if person.evidence is not None:
            evidence = _jpeg(_only(inside, draw_evidence(crop, person.evidence)))
        return cls(time_s, p_frame, _jpeg(_only(inside, crop)), evidence, side)


class KeptCrops:
    """The crops with the highest and the lowest scores so far, a few of each."""

    def __init__(self) -> None:
        self._highest = _Extremes(1.0)
        self._lowest = _Extremes(-1.0)

    def wants(self, time_s: float, p_frame: float) -> bool:
        """Returns whether a crop with this score would be kept."""
        return any(kind.wants(time_s, p_frame) for kind in (self._highest, self._lowest))

    def add(self, crop: CropPicture) -> None:
        """Adds a crop; it is kept if its score is among the extremes."""
        for kind in (self._highest, self._lowest):
            if kind.wants(crop.time_s, crop.p_frame):
                kind.add(crop)

    def clear(self) -> None:
        """Removes all crops."""
        self._highest.kept.clear()
        self._lowest.kept.clear()

    @property
    def size(self) -> int:
        """Size of all pictures in bytes."""
        return sum(crop.size for crop in self._all())

    @property
    def suspicious(self) -> list[CropPicture]:
        """The highest scores, the highest first."""
        crops = self._all()
        return crops[: min(KEPT, -(-len(crops) // 2))]

    @property
    def ordinary(self) -> list[CropPicture]:
        """The lowest scores, the lowest first; none of them is among the suspicious ones."""
        crops = self._all()
        return crops[len(self.suspicious) :][::-1][:KEPT]

    def _all(self) -> list[CropPicture]:
        by_time = {crop.time_s: crop for crop in self._highest.kept + self._lowest.kept}
        return sorted(by_time.values(), key=lambda crop: crop.p_frame, reverse=True)


class _Extremes:
    """The highest scores, or the lowest with `sign` -1: at most `KEPT`, some time apart."""

    def __init__(self, sign: float) -> None:
        self.kept: list[CropPicture] = []
        self._sign = sign

    def wants(self, time_s: float, p_frame: float) -> bool:
        rivals = self._near(time_s)
        if not rivals and len(self.kept) >= KEPT:
            rivals = self.kept[-1:]
        return all(self._sign * (p_frame - rival.p_frame) > 0.0 for rival in rivals)

    def add(self, crop: CropPicture) -> None:
        near = self._near(crop.time_s)
        self.kept = [other for other in self.kept if other not in near] + [crop]
        self.kept.sort(key=lambda other: -self._sign * other.p_frame)
        del self.kept[KEPT:]

    def _near(self, time_s: float) -> list[CropPicture]:
        return [crop for crop in self.kept if abs(crop.time_s - time_s) < APART_S]


def _inside(image: Image, region: CropRegion, side: int) -> tuple[slice, slice]:
    """Returns the rows and columns of a crop of `side` pixels that lie within the frame."""
    scale = side / region.side

    def span(start: int, length: int) -> slice:
        return slice(max(0, round(-start * scale)), max(0, round((length - start) * scale)))

    return span(region.y0, image.shape[0]), span(region.x0, image.shape[1])


def _only(inside: tuple[slice, slice], picture: Image) -> Image:
    """Returns a copy of a picture with grey outside some rows and columns."""
    shown = np.full_like(picture, _BEYOND)
    shown[inside] = picture[inside]
    return shown


def _jpeg(image: Image) -> bytes:
    return bytes(cv2.imencode(".jpg", image, _QUALITY)[1])
