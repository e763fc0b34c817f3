"""Observations of people: the faces of a frame detected, tracked, selected and cropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfd_edge.faces.crop import Quality, assess, crop_region, extract_crop, middle_square
from dfd_edge.faces.detector import FaceDetector
from dfd_edge.faces.follower import FaceFollower
from dfd_edge.faces.selection import FaceChoice, FacesOption
from dfd_edge.faces.signals import measure
from dfd_edge.faces.tracker import Tracker

if TYPE_CHECKING:
    from dfd_edge.bundle.manifest import FrameSpec
    from dfd_edge.faces.detector import FaceFinder
    from dfd_edge.sources.frames import Burst, Pixels

_WHOLE_FRAME = 1
"""Track number of the only "person" of models that judge whole frames."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrop:
    """A cropped face of one frame.

    Attributes:
        track: Number of the person.
        box: float32 [4], x0, y0, x1, y1 in pixels of the frame.
        region: x0, y0 and side in pixels of the cropped square.
        crop: uint8 [size, size, 3], RGB.
        quality: Whether it is judged, and why not.
        signals: float32 [len(signals.NAMES)], measured on consecutive frames; None where there
            were none or nothing could be measured on them, and for faces that are not judged.
    """

    track: int
    box: NDArray[np.float32]
    region: tuple[int, int, int]
    crop: NDArray[np.uint8]
    quality: Quality
    signals: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The faces of one due frame, before the models judge them.

    Attributes:
        time_s: Time of the frame in seconds.
        faces: The faces, the largest first.
        captured_s: `time.monotonic()` at capture, or None.
        has_burst: Whether consecutive frames were given with it.
        judged: The faces that are judged.
    """

    time_s: float
    faces: tuple[FaceCrop, ...]
    captured_s: float | None = None
    has_burst: bool = False
    judged: tuple[FaceCrop, ...] = field(init=False)

    def __post_init__(self) -> None:
        judged = tuple(face for face in self.faces if face.quality.judged)
        object.__setattr__(self, "judged", judged)


class Observer:
    """Observes the frames of one source in their order; owns the tracker.

    Args:
        finder: The face detector, or None for models that judge whole frames.
        frame: Crop geometry and input size of the frame model.
        faces: Which faces are judged.
        apart: Whether the frames may lie any time apart: people are then recognised by looks.
    """

    def __init__(
        self,
        finder: FaceFinder | None,
        frame: FrameSpec,
        *,
        faces: FacesOption = "all",
        apart: bool = False,
    ) -> None:
        self._finder = finder
        self._follower: FaceFollower | None = None
        if isinstance(finder, FaceDetector) and finder.followed:
            self._follower = FaceFollower(finder)
        self._size = frame.input_size
        self._crop_scale = frame.crop_scale
        self._resize = frame.resize
        self._tracker = Tracker(apart=apart)
        self._choice = FaceChoice(faces)

    def observe(
        self,
        frame: Pixels,
        time_s: float,
        *,
        burst: Burst | None = None,
        captured_s: float | None = None,
        thorough: bool = False,
    ) -> Observation:
        """Detects, tracks and crops the faces of a frame, and measures a burst round them.

        Args:
            frame: uint8 [height, width, 3], BGR, or a picture that gives parts of that.
            time_s: Its time in seconds.
            burst: The frames up to this one, on which the judged faces are measured; models of
                whole frames have no face to measure.
            captured_s: `time.monotonic()` when it was captured, passed on.
            thorough: Whether small faces are searched for as in a still.
        """
        finder = self._finder
        if finder is None:
            return Observation(time_s, (self._whole(frame),), captured_s)
        faces = []
        if self._follower is not None:
            found = self._follower.detect(frame, time_s, thorough=thorough)
        else:
            found = finder.detect(frame, thorough=thorough)
        people = self._tracker.update(found, time_s, frame)
        refusals = self._choice.refusals(people, time_s)
        for tracked, refusal in zip(people, refusals, strict=True):
            region = crop_region(tracked.face.box, self._crop_scale)
            crop = extract_crop(frame, region, self._size, self._resize)
            left_out = refusal is not None
            quality = Quality(False, refusal) if left_out else assess(tracked.face, crop)
            square = (region.x0, region.y0, region.side)
            face = tracked.face
            signals = None
            if burst is not None and quality.judged:
                signals = measure(burst, face.box, face.keypoints, frame.shape[:2])
            faces.append(FaceCrop(tracked.track, face.box, square, crop, quality, signals))
        return Observation(time_s, tuple(faces), captured_s, has_burst=burst is not None)

    def _whole(self, frame: Pixels) -> FaceCrop:
        """Returns the middle of a frame as one "person", the same one also after a cut or a gap."""
        region = middle_square(frame)
        x1, y1 = region.x0 + region.side, region.y0 + region.side
        return FaceCrop(
            track=_WHOLE_FRAME,
            box=np.array([region.x0, region.y0, x1, y1], np.float32),
            region=(region.x0, region.y0, region.side),
            crop=extract_crop(frame, region, self._size, self._resize),
            quality=Quality(True),
        )
