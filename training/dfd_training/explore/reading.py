"""Facts and a few frames of a file, through the runtime's own openers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.errors import SourceError
from dfd_edge.sources import Frame, SourceItem, SourceKind, VideoFile, read_image

#: Frames are taken from so many seconds of a clip's start: decoding an hour would take too long.
MAX_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file once its first frame was decoded.

    Attributes:
        path: as in the table.
        still: True for a photograph.
        width, height: of the upright picture, in pixels; 0 where it could not be read.
        length_s: seconds that the container states, or None.
        rate_hz: frames a second that the container states, or None.
        error: why it could not be read, or "".
    """

    path: str
    still: bool
    width: int = 0
    height: int = 0
    length_s: float | None = None
    rate_hz: float | None = None
    error: str = ""


class _AtTimes:
    """Asks for the first frame at or after each of some rising times."""

    def __init__(self, times_s: list[float]) -> None:
        self._times_s = times_s

    @property
    def done(self) -> bool:
        return not self._times_s

    def is_due(self, time_s: float) -> bool:
        due = not self.done and time_s >= self._times_s[0]
        if due:
            self._times_s = [later for later in self._times_s if later > time_s]
        return due


def is_photograph(path: Path) -> bool:
    """Whether a file is a still picture by its first bytes.

    Raises:
        SourceError: it cannot be opened.
    """
    return SourceItem.of(path).kind is SourceKind.IMAGE


def read_facts(path: str, *, root: Path) -> FileFacts:
    """Open a file and decode its first frame.

    Args:
        path: as in the table.
        root: the folder that relative paths start from.
    """
    still = False
    try:
        still = is_photograph(root / path)
        if still:
            height, width = read_image(root / path).shape[:2]
            return FileFacts(path, still, width, height)
        with VideoFile(root / path, threads=1) as video:
            image = next(iter(video.frames(_AtTimes([0.0])))).image
            return FileFacts(
                path, still, image.shape[1], image.shape[0], video.duration_s, video.frame_rate
            )
    except StopIteration:
        return FileFacts(path, still, error=f"{path}: no frame could be decoded")
    except SourceError as error:
        return FileFacts(path, still, error=_told(error, root, path))


def spread_frames(path: Path, count: int, *, max_seconds: float = MAX_SECONDS) -> Iterator[Frame]:
    """Frames spread evenly over a clip's first seconds, or a photograph as one frame.

    Args:
        path: the file.
        count: frames, at most; a clip that is shorter than its container states gives fewer.
        max_seconds: only so much of the clip's start is decoded.

    Raises:
        SourceError: it cannot be read.
    """
    if is_photograph(path):
        yield Frame(read_image(path), 0.0, 0)
        return
    with VideoFile(path, threads=1) as video:
        length_s = min(max_seconds, video.duration_s or max_seconds)
        wanted = _AtTimes([(number + 0.5) * length_s / count for number in range(count)])
        for frame in video.frames(wanted):
            yield frame
            if wanted.done:
                return


def _told(error: SourceError, root: Path, path: str) -> str:
    """The error's words with the file called as in the table."""
    return str(error).replace(str(root / path), path, 1)
