"""Counts how often one judged frame crosses from one source file of the runtime to another.

`dfd-edge CLIP` runs in this process on a clip of one frame with a face, with the shipped bundle.
Profiling functions (`sys.setprofile`, `threading.setprofile`) see every call in every thread. A
crossing is a call, or the resumption of a generator, whose code lies in another source file of
`dfd_edge` than that of the nearest caller on the stack that belongs to `dfd_edge`; library code in
between is skipped. Returns do not count, nor do calls inside one file. The first call in a thread,
which has no caller in `dfd_edge`, counts as one from the file where the walk starts.

The walk starts with the call of `Detector.analyze` and ends with the command: opening the file,
reading, decoding, face detection, tracking, crop, both graphs, the decision, the result of the
frame, the verdict and its printing, closing. Parsing the command line, finding the sources and
loading the bundle happen once a run and are left out.

    python tests/walk.py [CLIP]
"""

from __future__ import annotations

import collections
import contextlib
import io
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import dfd_edge

PACKAGE = Path(dfd_edge.__file__).parent
#: Function that judges one file: the walk starts with its call.
START = "analyze"


@dataclass(frozen=True)
class Crossing:
    """One call from a source file into another."""

    caller: str
    callee: str
    function: str


class _Profile:
    """Notes crossings from the first call of `START` on."""

    def __init__(self) -> None:
        self.crossings: list[Crossing] = []
        self._names: dict[str, str | None] = {}
        self._started = False
        self._starter = ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        del argument
        if event != "call":
            return
        callee = self._name(frame)
        if callee is None:
            return
        if not self._started:
            if frame.f_code.co_name != START:
                return
            self._started = True
            self._starter = callee
        caller = self._caller(frame)
        if caller != callee:
            self.crossings.append(Crossing(caller, callee, frame.f_code.co_qualname))

    def _caller(self, frame: FrameType) -> str:
        above = frame.f_back
        while above is not None:
            name = self._name(above)
            if name is not None:
                return name
            above = above.f_back
        return self._starter

    def _name(self, frame: FrameType) -> str | None:
        """Path of a frame's source file in the package; None where it lies elsewhere."""
        file = frame.f_code.co_filename
        if file not in self._names:
            path = Path(file)
            inside = path.is_relative_to(PACKAGE)
            self._names[file] = str(path.relative_to(PACKAGE)) if inside else None
        return self._names[file]


def walk(clip: Path) -> list[Crossing]:
    """Judges a clip of one frame with `dfd-edge` and returns the crossings, in their order.

    Raises:
        AssertionError: The command failed, or judged more or less than one face.
    """
    from dfd_edge.cli import command

    command = getattr(command, "command", command)  # its module, where the command has one
    profile = _Profile()
    printed = io.StringIO()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        with contextlib.redirect_stdout(printed):
            command([str(clip)], standalone_mode=False)
    except SystemExit as ended:
        assert not ended.code, ended.code
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert "too little was seen: 1 judged frame" in printed.getvalue(), printed.getvalue()
    return profile.crossings


def one_frame(out: Path) -> Path:
    """Writes a clip of one frame: the first one of the clip that `--doctor` judges."""
    import av

    source = next(iter(PACKAGE.rglob("doctor.mp4")))
    with av.open(str(source)) as clip:
        picture = next(clip.decode(video=0)).to_ndarray(format="rgb24")
    with av.open(str(out), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    return out


def main() -> None:
    """Prints the crossings, the most frequent first, and their number."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(sys.argv[1]) if len(sys.argv) > 1 else one_frame(Path(folder) / "one.mp4")
        crossings = walk(clip)
    counted = collections.Counter(crossings)
    for crossing, times in counted.most_common():
        print(f"{times:4}  {crossing.caller} -> {crossing.callee}: {crossing.function}")
    print(f"{len(crossings)} crossings in the walk of one judged frame")


if __name__ == "__main__":
    main()
