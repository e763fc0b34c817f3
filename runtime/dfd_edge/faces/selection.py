"""Selection of the faces that are judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dfd_edge.arguments import check_number
from dfd_edge.errors import UsageError
from dfd_edge.faces.tracker import TrackedFace

#: "all", "largest", or the least size in pixels, as `Face.size` measures it.
FacesOption = Literal["all", "largest"] | float

#: Why such a face is not judged.
LEFT_OUT = "left out"
#: Another face becomes the largest when it is larger by this; two of a size do not take turns.
LARGER = 1.25
#: The largest face is waited for so long while it is not found.
HOLD_S = 0.5


def parse_faces(text: str) -> FacesOption:
    """Reads `all`, `largest` or a number of pixels, as typed on the command line.

    Raises:
        UsageError: It is something else.
    """
    if text == "all":
        return "all"
    if text == "largest":
        return "largest"
    try:
        least = float(text)
    except ValueError:
        raise UsageError(_refusal(text)) from None
    return _checked(least)


class FaceChoice:
    """Selects the faces of a stream that are judged; one instance a stream.

    Faces that are left out are still found, followed and drawn, as not judged: the viewer sees
    that they were seen, and one that is judged later keeps its number. A clip that shows only
    such faces is `unsure`, not `no_face`. Models that judge whole frames know no choice.

    Args:
        faces: "all"; "largest", the largest face until another is larger by `LARGER` or it was
            not found for `HOLD_S`; or the least size in pixels.

    Raises:
        UsageError: It is something else.
    """

    def __init__(self, faces: FacesOption = "all") -> None:
        self._faces = _checked(faces)
        self._chosen: int | None = None
        self._last_s = 0.0

    def refusals(self, tracked: Sequence[TrackedFace], time_s: float) -> list[str | None]:
        """Returns why each face of a frame is left out: `LEFT_OUT`, or None where it is judged.

        Args:
            tracked: The faces of the frame.
            time_s: Time of the frame in seconds.
        """
        if self._faces == "all":
            return [None] * len(tracked)
        if self._faces == "largest":
            self._choose(tracked, time_s)
            return [None if face.track == self._chosen else LEFT_OUT for face in tracked]
        least = float(self._faces)
        return [LEFT_OUT if face.face.size < least else None for face in tracked]

    def _choose(self, tracked: Sequence[TrackedFace], time_s: float) -> None:
        if not tracked:
            return
        largest = max(tracked, key=lambda face: face.face.size)
        chosen = next((face for face in tracked if face.track == self._chosen), None)
        if chosen is None:
            if self._chosen is not None and 0.0 <= time_s - self._last_s <= HOLD_S:
                return
            chosen = largest
        elif largest.face.size > LARGER * chosen.face.size:
            chosen = largest
        self._chosen = chosen.track
        self._last_s = time_s


def _checked(faces: FacesOption) -> FacesOption:
    if isinstance(faces, str) and faces in {"all", "largest"}:
        return faces
    try:
        return check_number("faces", faces, above=0.0)
    except UsageError:
        raise UsageError(_refusal(faces)) from None


def _refusal(value: object) -> str:
    return f"faces {value!r:.60}: give all, largest, or the least size in pixels, such as 64"
