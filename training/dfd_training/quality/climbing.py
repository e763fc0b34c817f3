"""One clip up the robustness ladder, through the runtime."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_edge import Detector, FrameResult, Verdict
from dfd_edge.faces import DetectorOptions, Face, FaceDetector
from dfd_edge.sampling import Sampler
from dfd_edge.session import MAX_BATCH, Session
from dfd_edge.sources import Frame, VideoFile
from dfd_training.quality.recoding import H264File
from dfd_training.quality.rungs import LADDER, Kind, Rung, distort


class ShiftedFaces(FaceDetector):
    """The runtime's face detector, whose boxes lie beside the faces.

    Args:
        share: length of the displacement over the size of the face.
        angle: its direction in radians.
        options: of the detector.
    """

    def __init__(self, share: float, angle: float, *, options: DetectorOptions) -> None:
        super().__init__(options=options)
        self._move = share * np.array([math.cos(angle), math.sin(angle)] * 2, np.float32)

    def detect(self, frame: NDArray[np.uint8], *, thorough: bool = False) -> list[Face]:
        """Find the faces of a frame, each box displaced."""
        return [
            dataclasses.replace(face, box=face.box + self._move * np.float32(face.size))
            for face in super().detect(frame, thorough=thorough)
        ]


@dataclass(frozen=True, slots=True)
class RungResult:
    """What the runtime said of one clip on one rung.

    Attributes:
        rung: its name.
        verdict: its label.
        p_fake: the verdict's, or NaN where nobody was judged long enough.
        logit: of `p_fake`.
        frames: sampled frames.
        judged: judged faces in them.
        kbps: bit rate of the re-encoded clip, or NaN.
    """

    rung: str
    verdict: str
    p_fake: float
    logit: float
    frames: int
    judged: int
    kbps: float


class Climber:
    """Takes clips up the ladder with one bundle.

    Args:
        bundle: folder of the bundle; None for the shipped one.
        provider: as for `Detector.load`.
        precision: as for `Detector.load`.
        max_seconds: only so much of each clip's start is judged.
    """

    def __init__(
        self,
        bundle: Path | None,
        *,
        provider: str = "auto",
        precision: str = "auto",
        max_seconds: float = 6.0,
    ) -> None:
        self.detector = Detector.load(bundle, provider=provider, precision=precision)
        manifest = self.detector.bundle.manifest
        self._session = Session.open(
            self.detector.bundle, provider=provider, precision=precision, threads=1
        )
        self._max_seconds = max_seconds
        self._rate_hz = manifest.sequence.rate_hz
        self._face_options: DetectorOptions | None = None
        if manifest.face.detector != "none":
            self._face_options = DetectorOptions.from_dict(manifest.face.options)

    def rungs(self, ladder: Sequence[Rung] = LADDER) -> list[Rung]:
        """The rungs that the bundle can be taken up; whole-frame models have no crop to shift."""
        shiftable = self._face_options is not None
        return [rung for rung in ladder if shiftable or rung.kind is not Kind.SHIFT]

    def climb(self, path: Path, ladder: Sequence[Rung] = LADDER) -> list[RungResult]:
        """Judge a clip on every rung.

        Raises:
            SourceError: when the clip cannot be read.
        """
        rungs = self.rungs(ladder)
        seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big")
        with tempfile.TemporaryDirectory(prefix="dfd-ladder-") as folder:
            coded = {rung: Path(folder, f"{rung.strength:g}.mp4") for rung in rungs if _coded(rung)}
            frames, end_s = self._read(path, coded)
            results: list[RungResult] = []
            for rung in rungs:
                if rung in coded:
                    bits = coded[rung].stat().st_size * 8
                    results.append(self._analyse(rung, coded[rung], kbps=bits / 1e3 / end_s))
                else:
                    results.append(self._push(rung, frames, seed))
        return results

    def _read(self, path: Path, coded: dict[Rung, Path]) -> tuple[list[Frame], float]:
        """Decode a clip once: the frames that are due, and every frame into the coded files."""
        sampler = Sampler(self._rate_hz)
        due: list[Frame] = []
        end_s = 0.0
        with VideoFile(path) as video, contextlib.ExitStack() as open_files:
            writers = [
                open_files.enter_context(H264File(file, int(rung.strength), rate=video.frame_rate))
                for rung, file in coded.items()
            ]
            for frame in video.frames(_All()):
                if frame.time_s >= self._max_seconds:
                    break
                for writer in writers:
                    writer.write(frame.image, frame.time_s)
                if sampler.is_due(frame.time_s):
                    due.append(frame)
                end_s = frame.time_s + 1.0 / video.frame_rate
        return due, end_s

    def _analyse(self, rung: Rung, file: Path, *, kbps: float) -> RungResult:
        results: list[FrameResult] = []
        verdict = self.detector.analyze(file, on_frame=results.append)
        return _result(rung, verdict, results, kbps)

    def _push(self, rung: Rung, frames: list[Frame], seed: int) -> RungResult:
        """Push frames as `Detector.analyze` does, several to a batch."""
        rng = np.random.default_rng(seed)
        stream = self._detector_of(rung, seed).stream(rung.name)
        results: list[FrameResult] = []
        for start in range(0, len(frames), MAX_BATCH):
            batch = [f for f in frames[start : start + MAX_BATCH] if stream.is_due(f.time_s)]
            results += stream.score(
                [stream.observe(distort(rung, f.image, rng), f.time_s) for f in batch]
            )
        return _result(rung, stream.verdict(), results, math.nan)

    def _detector_of(self, rung: Rung, seed: int) -> Detector:
        if rung.kind is not Kind.SHIFT or self._face_options is None:
            return self.detector
        # Each clip has a direction of its own, the same for both strengths and for every bundle.
        angle = 2 * math.pi * (seed % 360) / 360
        faces = ShiftedFaces(rung.strength, angle, options=self._face_options)
        return Detector(self._session, faces)


class _All:
    """Asks for every frame."""

    def is_due(self, time_s: float) -> bool:
        """Always."""
        del time_s
        return True


def _coded(rung: Rung) -> bool:
    return rung.kind is Kind.H264


def _result(rung: Rung, verdict: Verdict, results: list[FrameResult], kbps: float) -> RungResult:
    p_fake = math.nan if verdict.p_fake is None else verdict.p_fake
    return RungResult(
        rung=rung.name,
        verdict=verdict.label.value,
        p_fake=p_fake,
        logit=math.nan if verdict.logit is None else verdict.logit,
        frames=verdict.frames,
        judged=sum(person.judged for result in results for person in result.people),
        kbps=kbps,
    )
