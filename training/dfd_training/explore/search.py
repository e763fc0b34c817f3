"""Work on single files, for processes: facts, face search, film strips and excerpts."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path, PurePath

import av
import numpy as np
import pandas as pd

from dfd_edge.errors import SourceError
from dfd_edge.faces import crop_region
from dfd_edge.faces.crop import CROP_SCALE
from dfd_edge.sources import Frame, Image, SourceItem, SourceKind, VideoFile, read_image
from dfd_edge.sources.containers import IMAGE_SUFFIXES
from dfd_edge.sources.frames import Sampler
from dfd_training.data.croppers import shrunk
from dfd_training.explore.detectors import Box, DetectorSet, HaarOptions, Pass, PassResult, faces_of
from dfd_training.explore.drawing import jpeg

#: Decoded length of a clip, from its start: decoding an hour would take too long.
MAX_SECONDS = 10.0
PICTURE_PX = 360
FACE_PX = 128
STRIP_PX = 176

#: Limits of an excerpt: seconds, frames per second, longer side in pixels, bytes.
EXCERPT_S = 3.0
EXCERPT_RATE_HZ = 15.0
EXCERPT_PX = 320
EXCERPT_BYTES = 250_000
_TIME_BASE = Fraction(1, 90_000)

#: Rate factors of x264, from the best quality to the smallest file.
_QUALITIES = (28, 34, 40)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts of a file whose first frame was decoded.

    Attributes:
        path: Path as in the table.
        still: Whether it is a photograph.
        width: Width of the upright picture in pixels; 0 where it could not be read.
        height: Height of the upright picture in pixels; 0 where it could not be read.
        length_s: Length in seconds that the container states, or None.
        rate_hz: Frames per second that the container states, or None.
        error: Reason why it could not be read, or "".
    """

    path: str
    still: bool
    width: int = 0
    height: int = 0
    length_s: float | None = None
    rate_hz: float | None = None
    error: str = ""


class _TimeSampler:
    """Sampler to which the first frame at or after each of some rising times is due."""

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


def is_still(path: Path) -> bool:
    """Returns whether a file is a still picture by its first bytes.

    Raises:
        SourceError: It cannot be opened.
    """
    return SourceItem.of(path).kind is SourceKind.IMAGE


def read_facts(path: str, *, root: Path) -> FileFacts:
    """Opens a file and decodes its first frame.

    Args:
        path: Path as in the table.
        root: The folder that relative paths start from.
    """
    still = False
    try:
        still = is_still(root / path)
        if still:
            height, width = read_image(root / path).shape[:2]
            return FileFacts(path, still, width, height)
        with VideoFile(root / path, threads=1) as video:
            image = next(iter(video.frames(_TimeSampler([0.0])))).image
            return FileFacts(
                path, still, image.shape[1], image.shape[0], video.duration_s, video.frame_rate
            )
    except StopIteration:
        return FileFacts(path, still, error=f"{path}: no frame could be decoded")
    except SourceError as error:
        return FileFacts(path, still, error=_message(error, root, path))


def spaced_frames(path: Path, count: int, *, max_seconds: float = MAX_SECONDS) -> Iterator[Frame]:
    """Yields frames spaced evenly over a clip's first seconds, or a photograph as one frame.

    Args:
        path: The file.
        count: Maximum number of frames; a clip shorter than its container states gives fewer.
        max_seconds: Decoded length, from the start of the clip.

    Raises:
        SourceError: It cannot be read.
    """
    if is_still(path):
        yield Frame(read_image(path), 0.0, 0)
        return
    with VideoFile(path, threads=1) as video:
        length_s = min(max_seconds, video.duration_s or max_seconds)
        wanted = _TimeSampler([(number + 0.5) * length_s / count for number in range(count)])
        for frame in video.frames(wanted):
            yield frame
            if wanted.done:
                return


def _message(error: SourceError, root: Path, path: str) -> str:
    """Returns the error's message with the path as in the table."""
    return str(error).replace(str(root / path), path, 1)


@dataclass(frozen=True, slots=True)
class Detections:
    """Detections in a file.

    Attributes:
        path: Path as in the table.
        frames: Results of each pass, for each searched frame.
        times_s: Times of the frames.
        shown: Index of the frame that `picture` shows.
        picture: That frame as JPEG, at most `PICTURE_PX` wide and tall, without drawings.
        face: The largest face of BlazeFace in it as JPEG, at most `FACE_PX` squared, or None.
        error: Reason why not all could be read, or "".
    """

    path: str
    frames: tuple[dict[Pass, PassResult], ...]
    times_s: tuple[float, ...]
    shown: int
    picture: bytes
    face: bytes | None
    error: str = ""

    @property
    def found(self) -> dict[Pass, PassResult]:
        """Results in the shown frame."""
        return self.frames[self.shown]

    def faces(self, detector: str) -> list[int]:
        """Counts the faces a detector found in each frame; empty where it did not run."""
        found = [faces_of(frame, detector) for frame in self.frames]
        return [len(boxes) for boxes in found if boxes is not None]


@cache
def _detector_set(haar: HaarOptions, *, with_smile: bool) -> DetectorSet:
    """Returns the detectors of this process, opened once."""
    return DetectorSet(with_smile=with_smile, haar=haar)


def search_file(
    path: str, *, root: Path, frames: int, haar: HaarOptions, with_smile: bool
) -> Detections:
    """Searches a few frames of a file by every detector.

    Args:
        path: Path as in the table.
        root: Folder that relative paths start from.
        frames: Maximum number of frames of a clip.
        haar: Parameters of the cascades.
        with_smile: Search for smiles too.
    """
    searcher = _detector_set(haar, with_smile=with_smile)
    found: list[dict[Pass, PassResult]] = []
    times_s: list[float] = []
    shown, picture, face = 0, b"", None
    error = ""
    try:
        for number, frame in enumerate(spaced_frames(root / path, frames)):
            found.append(searcher.search(frame.image))
            times_s.append(frame.time_s)
            # The shown frame is the last with a face up to the middle, or else the first with one.
            if number <= frames // 2 or face is None:
                cropped = _face(frame.image, found[-1][Pass.BLAZEFACE].boxes)
                if cropped is not None or not picture:
                    shown, face = number, cropped
                    picture = jpeg(shrunk(frame.image, PICTURE_PX))
    except SourceError as broken:
        error = str(broken).replace(str(root / path), path, 1)
    if not found and not error:
        error = f"{path}: no frame could be decoded"
    return Detections(path, tuple(found), tuple(times_s), shown, picture, face, error)


def film_strip(path: str, *, root: Path, frames: int) -> tuple[bytes, ...]:
    """Returns a few frames of a file as small JPEG pictures; fewer where it is truncated.

    Args:
        path: Path as in the table.
        root: Folder that relative paths start from.
        frames: Maximum number of frames of a clip.
    """
    pictures: list[bytes] = []
    try:
        for frame in spaced_frames(root / path, frames):
            pictures.append(jpeg(shrunk(frame.image, STRIP_PX)))
    except SourceError:
        pass
    return tuple(pictures)


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """The first frame of a clip, or a photograph.

    Attributes:
        path: Path as in the table.
        picture: The whole frame as JPEG, at most `PICTURE_PX` wide and tall; None where the file
            cannot be read.
        face: The largest face in it as JPEG, at most `FACE_PX` squared; None without one.
    """

    path: str
    picture: bytes | None
    face: bytes | None = None


def first_frame(path: str, *, root: Path, haar: HaarOptions, with_smile: bool) -> FirstFrame:
    """Decodes the first frame of a file and cuts its largest face out.

    Args:
        path: Path as in the table.
        root: Folder that relative paths start from.
        haar: As `search_file` has them, so that both share a process's detectors.
        with_smile: The same.
    """
    try:
        if is_still(root / path):
            image = read_image(root / path)
        else:
            with VideoFile(root / path, threads=1) as video:
                image = next(iter(video.frames(_TimeSampler([0.0])))).image
    except (SourceError, StopIteration):
        return FirstFrame(path, None)
    boxes = _detector_set(haar, with_smile=with_smile).blazeface(image).boxes
    return FirstFrame(path, jpeg(shrunk(image, PICTURE_PX)), _face(image, boxes))


def _face(image: Image, boxes: Sequence[Box]) -> bytes | None:
    """Returns a square around the largest face, as far as the picture reaches.

    Models see more where a face is near the edge: the edge repeated. That shows nothing of a face.
    """
    if not boxes:
        return None
    height, width = image.shape[:2]
    box = max(boxes, key=lambda sides: (sides[2] - sides[0]) * (sides[3] - sides[1]))
    pixels = np.array(box, np.float32) * np.array([width, height] * 2, np.float32)
    region = crop_region(pixels, CROP_SCALE)
    side = min(region.side, width, height)
    shift = (region.side - side) // 2
    left = min(max(region.x0 + shift, 0), width - side)
    top = min(max(region.y0 + shift, 0), height - side)
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    return jpeg(shrunk(square, FACE_PX))


def excerpt(path: str, *, root: Path, seconds: float = EXCERPT_S) -> bytes | None:
    """Encodes the start of a clip as H.264 in MP4, without sound.

    Args:
        path: Path as in the table.
        root: Folder that relative paths start from.
        seconds: Length of the excerpt.

    Returns:
        At most `EXCERPT_BYTES`; None where the clip gives fewer than two frames or cannot be
        encoded as small.
    """
    frames: list[Frame] = []
    try:
        with VideoFile(root / path, threads=1) as video:
            for frame in video.frames(Sampler(EXCERPT_RATE_HZ)):
                if frame.time_s >= seconds:
                    break
                frames.append(Frame(shrunk(frame.image, EXCERPT_PX), frame.time_s, frame.index))
    except SourceError:
        pass
    if len(frames) < 2:
        return None
    for quality in _QUALITIES:
        encoded = _encoded(frames, quality)
        if len(encoded) <= EXCERPT_BYTES:
            return encoded
    return None


def _encoded(frames: list[Frame], quality: int) -> bytes:
    buffer = io.BytesIO()
    height, width = (side // 2 * 2 for side in frames[0].image.shape[:2])
    options = {"crf": str(quality), "preset": "veryfast", "profile": "main"}
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=round(EXCERPT_RATE_HZ), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.thread_count = 1
        for item in frames:
            image = np.ascontiguousarray(item.image[:height, :width])
            if image.shape[:2] != (height, width):
                continue
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = round(item.time_s / _TIME_BASE)
            frame.time_base = _TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def has_image_suffix(path: str) -> bool:
    """Returns whether a file is a still picture by its name; nothing is opened."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES


def stratified(table: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Draws files evenly over labels, and within a label over data sets, sources and kinds.

    A stratum with fewer files than its share contributes all of them, and the others more, so
    that rare labels and sources are represented.

    Args:
        table: A table from `read_table`.
        count: Maximum number of files.
        seed: Seed of the drawing.

    Returns:
        Paths as in the table, in its order.
    """
    rng = np.random.default_rng(seed)
    rows = table.iloc[rng.permutation(len(table))]
    kind = rows["path"].map(has_image_suffix)
    dataset = rows.get("dataset", "")
    within = rows.assign(_kind=kind, _dataset=dataset)
    # Rank of a file inside its stratum, then inside its label.
    turn = within.groupby(["label", "_dataset", "source", "_kind"]).cumcount()
    ordered = within.assign(_turn=turn).sort_values("_turn", kind="stable")
    turn = ordered.groupby("label").cumcount()
    drawn = ordered.assign(_turn=turn).sort_values("_turn", kind="stable")["path"][:count]
    kept = set(drawn)
    return [path for path in table["path"] if path in kept]
