"""The cost of each stage by itself, and the share of the cores that the whole uses.

The stages are those of `Detector.analyze` with JSON Lines written: decode, convert, detect, track,
crop, signals, frame model, sequence model, verdict, output. For a bundle that takes signals the
frames of a burst are decoded with the due one, `convert` contains their luma, and `signals` is the
cost of measuring them; for others it is nothing. Where only parts of a frame are converted to BGR,
a part counts for the stage that looks at it first. Each stage is run alone over the same frames, on
one thread that does not spin, and its CPU time and its elapsed time are taken frame by frame. The
CPU times, summed per judged frame and divided by the cores, say how many frames a second the
machine could judge if nothing were lost between the stages; `Detector.analyze` is held against
that.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from dfd_benchmarks.results.machine import BusyCores
from dfd_benchmarks.results.timing import StageTimer, StageTimes
from dfd_benchmarks.stages.replay import KnownFaces, RecordingSession, ReplayedSession
from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.faces import DetectorOptions, Face, FaceDetector
from dfd_edge.faces.crop import assess, crop_region, extract_crop, middle_square
from dfd_edge.faces.follower import FaceFollower
from dfd_edge.faces.signals import measure
from dfd_edge.faces.tracker import TrackedFace, Tracker
from dfd_edge.inference.processor import usable_cores
from dfd_edge.inference.session import MAX_BATCH, Session
from dfd_edge.judging.people import Observation
from dfd_edge.judging.results import FrameResult
from dfd_edge.judging.stream import Stream
from dfd_edge.sources.frames import DueFrames, Foreseeable, Frame
from dfd_edge.sources.video import VideoFile
from dfd_edge.text import json_line

#: Decoded frames that are held in memory for the stages behind the decoder.
MAX_HELD_FRAMES = 60

STAGES = {
    "decode": "decode",
    "convert": "convert",
    "detect": "detect",
    "track": "track",
    "crop": "crop",
    "signals": "signals",
    "frame_model": "frame model",
    "sequence_model": "sequence model",
    "verdict": "verdict",
    "output": "output",
}
"""The stages in the order in which a frame passes them: what figures call them, and people."""


@dataclass(frozen=True, slots=True)
class WholeTimes:
    """Times of one `Detector.analyze`.

    Attributes:
        elapsed_s: Elapsed seconds.
        cpu_s: CPU seconds of all its threads.
        seen_s: Seconds of video that were judged.
        others: Cores that other processes kept busy meanwhile; None where the system is silent.
    """

    elapsed_s: float
    cpu_s: float
    seen_s: float
    others: float | None


class _RecordingSampler:
    """Samples the due frames; each ends the lap of decoding and begins that of converting."""

    def __init__(self, sampler: Foreseeable, decode: StageTimer, convert: StageTimer) -> None:
        self._sampler = sampler
        self._decode, self._convert = decode, convert

    def is_due(self, time_s: float) -> bool:
        """Returns whether this frame is converted and handed out."""
        due = self._sampler.is_due(time_s)
        if due:
            self._decode.stop()
            self._convert.start()
        return due

    def foresee(self) -> DueFrames:
        """Returns the sampler that the decoder asks about frames to come: some need no decoding."""
        return self._sampler.foresee()


class StageBench:
    """The stages over one clip, each alone, on the CPU.

    Args:
        clip: A video file.
        model: A bundle; the shipped one by default.
        precision: A variant of the frame graph.

    Attributes:
        session: The loaded graphs.
        frames: Frames of the clip that are judged.
        held: The first of them, at most `MAX_HELD_FRAMES`; the stages behind the decoder are run
            over these.

    Raises:
        SourceError: The clip cannot be read, or shows no face that can be judged.
        BundleError, ProviderError: The bundle or the runtime cannot be used.
    """

    def __init__(self, clip: Path, *, model: Path | None = None, precision: str = "auto") -> None:
        self.clip = clip
        self.session = Session.open(Bundle.load(model), provider="cpu", precision=precision)
        manifest = self.session.bundle.manifest
        self._spec = manifest.frame
        takes_signals = manifest.sequence.signals is not None
        self._options = {"bursts": True} if takes_signals else {}
        self._faces: FaceDetector | None = None
        if manifest.face.detector != "none":
            self._faces = FaceDetector(options=DetectorOptions.from_dict(manifest.face.options))
        self._detector = Detector(self.session, self._faces)
        self.held: list[Frame] = []
        self.frames = len(self._decode_and_convert(keep=self.held)[0].cpu_ms)
        self._found = self._detect(StageTimer())
        self._tracked = self._track(StageTimer())
        self._observations = self._observe()
        self._crops = [
            np.stack([face.crop for face in seen.judged])
            for seen in self._observations
            if seen.judged
        ]
        if not self._crops:
            raise SourceError(clip, "no face in it that can be judged", "give a clip with one")
        self._recorded = RecordingSession(self.session)
        stream = Stream(cast(Session, self._recorded), None)
        self._results: list[FrameResult] = []
        for seen in self._observations:
            self._results += stream.score([seen])
            self._recorded.end_of_frame()

    @property
    def crops_per_frame(self) -> float:
        """Judged faces in a frame, the mean over the held frames."""
        return sum(map(len, self._crops)) / len(self.held)

    def stages(self) -> tuple[dict[str, StageTimes], int]:
        """Runs each stage once over the held frames; also the frame model's cheapest batch."""
        held: list[Frame] = []  # frames of which nothing was converted yet
        self._decode_and_convert(keep=held)
        self.held = held
        decode, convert = self._decode_and_convert()
        detect, track = StageTimer(), StageTimer()
        self._detect(detect)
        self._track(track)
        by_batch = {batch: self._run_frame(batch) for batch in (1, MAX_BATCH)}
        batch = min(by_batch, key=lambda batch: by_batch[batch].cpu_mean_ms)
        times = (
            decode,
            convert,
            detect.times(),
            track.times(),
            self._crop(),
            self._measure(),
            by_batch[batch],
            self._run_sequence(),
            self._judge(),
            self._write(),
        )
        return dict(zip(STAGES, times, strict=True)), batch

    def whole(self) -> WholeTimes:
        """Judges the clip once with `Detector.analyze`, JSON Lines written to nowhere."""
        busy = BusyCores()
        cpu_s, start_s = time.process_time(), time.perf_counter()
        with Path(os.devnull).open("w") as nowhere:

            def write(result: FrameResult) -> None:
                nowhere.write(json_line(result.to_record()) + "\n")

            verdict = self._detector.analyze(self.clip, on_frame=write)
        elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        everything = busy.all()
        others = None if everything is None else max(0.0, everything - busy.own())
        return WholeTimes(elapsed_s, cpu_s, verdict.duration_s, others)

    def _decode_and_convert(self, keep: list[Frame] | None = None) -> tuple[StageTimes, StageTimes]:
        decode, convert = StageTimer(), StageTimer()
        opening = StageTimer()
        sampler = Stream(self.session, None).sampler
        opening.start()
        with VideoFile(self.clip) as video:
            opening.stop()
            decode.start()
            for frame in video.frames(_RecordingSampler(sampler, decode, convert), **self._options):
                convert.stop()
                if keep is not None and len(keep) < MAX_HELD_FRAMES:
                    keep.append(frame)
                decode.start()
                if sampler.is_done:
                    break
            decode.stop()
        opened, times = opening.times(), decode.times(rest=1)
        return dataclasses.replace(
            times,
            rest_cpu_ms=times.rest_cpu_ms + float(opened.cpu_ms.sum()),
            rest_wall_ms=times.rest_wall_ms + float(opened.wall_ms.sum()),
        ), convert.times()

    def _detect(self, laps: StageTimer) -> list[list[Face]]:
        found = []
        follower = None if self._faces is None else FaceFollower(self._faces)
        for frame in self.held:
            laps.start()
            found.append([] if follower is None else follower.detect(frame.pixels, frame.time_s))
            laps.stop()
        return found

    def _track(self, laps: StageTimer) -> list[list[TrackedFace]]:
        tracker = Tracker()
        tracked = []
        for frame, faces in zip(self.held, self._found, strict=True):
            laps.start()
            tracked.append(tracker.update(faces, frame.time_s, frame.pixels) if self._faces else [])
            laps.stop()
        return tracked

    def _observe(self) -> list[Observation]:
        """Returns the runtime's own observations of the held frames."""
        stream = Stream(self.session, KnownFaces(self._found) if self._faces else None)
        return [stream.observe(f.pixels, f.time_s, burst=f.burst) for f in self.held]

    def _crop(self) -> StageTimes:
        laps = StageTimer()
        size, resize = self._spec.input_size, self._spec.resize
        for frame, people in zip(self.held, self._tracked, strict=True):
            laps.start()
            if self._faces is None:
                extract_crop(frame.pixels, middle_square(frame.pixels), size, resize)
            for person in people:
                region = crop_region(person.face.box, self._spec.crop_scale)
                assess(person.face, extract_crop(frame.pixels, region, size, resize))
            laps.stop()
        return laps.times()

    def _measure(self) -> StageTimes:
        """The signals of the judged faces, by the people's boxes and key points."""
        laps = StageTimer()
        for frame, people, seen in zip(self.held, self._tracked, self._observations, strict=True):
            judged = {face.track for face in seen.judged}
            laps.start()
            for person in people:
                if frame.burst is not None and person.track in judged:
                    face = person.face
                    measure(frame.burst, face.box, face.keypoints, frame.pixels.shape[:2])
            laps.stop()
        return laps.times()

    def _run_frame(self, batch: int) -> StageTimes:
        """The frame model; what a batch takes is shared out among its crops."""
        laps = StageTimer()
        crops = np.concatenate(self._crops)
        cpu_ms, wall_ms = np.zeros(len(crops)), np.zeros(len(crops))
        for number, start in enumerate(range(0, len(crops), batch)):
            rows = slice(start, min(start + batch, len(crops)))
            laps.start()
            self.session.run_frame(crops[rows])
            laps.stop()
            times, count = laps.times(), rows.stop - rows.start
            cpu_ms[rows] = times.cpu_ms[number] / count
            wall_ms[rows] = times.wall_ms[number] / count
        owner = np.repeat(
            np.arange(len(self.held)), [len(seen.judged) for seen in self._observations]
        )
        frames = len(self.held)
        return StageTimes(
            np.asarray(np.bincount(owner, cpu_ms, minlength=frames), np.float64),
            np.asarray(np.bincount(owner, wall_ms, minlength=frames), np.float64),
        )

    def _run_sequence(self) -> StageTimes:
        laps = StageTimer()
        for calls in self._recorded.sequence_inputs():
            laps.start()
            for inputs in calls:
                self.session.run_sequence(*inputs)
            laps.stop()
        return laps.times()

    def _judge(self) -> StageTimes:
        """Scores, labels and the verdict, the models' answers being known."""
        laps = StageTimer()
        stream = Stream(cast(Session, ReplayedSession(self._recorded)), None)
        for seen in self._observations:
            laps.start()
            stream.score([seen])
            laps.stop()
        laps.start()
        stream.verdict()
        laps.stop()
        return laps.times(rest=1)

    def _write(self) -> StageTimes:
        laps = StageTimer()
        with Path(os.devnull).open("w") as nowhere:
            for result in self._results:
                laps.start()
                nowhere.write(json_line(result.to_record()) + "\n")
                laps.stop()
        return laps.times()


@dataclass(frozen=True, slots=True, eq=False)
class StageRun:
    """One turn: every stage alone, then the whole.

    Attributes:
        stages: By the names of `STAGES`.
        frame_batch: The batch at which the frame model was cheapest.
        whole: `Detector.analyze`.
    """

    stages: dict[str, StageTimes]
    frame_batch: int
    whole: WholeTimes

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per judged frame, all stages."""
        return sum(times.cpu_mean_ms for times in self.stages.values())


@dataclass(frozen=True, slots=True, eq=False)
class StageReport:
    """The stages over one clip, turn by turn.

    Attributes:
        bench: The measurements.
        cores: Cores that the process may use.
        runs: The turns.
    """

    bench: StageBench
    cores: float
    runs: tuple[StageRun, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The clip and how it was measured, in plain values."""
        batches = [run.frame_batch for run in self.runs]
        height, width = self.bench.held[0].pixels.shape[:2]
        return {
            "frames": self.bench.frames,
            "held_frames": len(self.bench.held),
            "crops_per_frame": self.bench.crops_per_frame,
            "width": width,
            "height": height,
            "cores": self.cores,
            "frame_model_batch": max(set(batches), key=batches.count),
            "spinning": False,
        }


def measure_stages(
    clip: Path,
    *,
    model: Path | None = None,
    precision: str = "auto",
    runs: int = 5,
    on_run: Callable[[], object] = lambda: None,
) -> StageReport:
    """Measures the stages and the whole, turn by turn, `runs` times.

    Args:
        clip: A video file with a face in it; the longer, the less its start and end count.
        model: A bundle; the shipped one by default.
        precision: A variant of the frame graph.
        runs: How often everything is measured; a first turn that is not counted warms up.
        on_run: Called after each turn.

    Raises:
        UsageError: `runs` is below 1.
        SourceError: The clip cannot be read, or shows no face that can be judged.
    """
    if runs < 1:
        raise UsageError(f"runs is {runs}; give 1 or more")
    bench = StageBench(clip, model=model, precision=precision)
    bench.stages()
    bench.whole()
    turns = []
    for _ in range(runs):
        stages, batch = bench.stages()
        turns.append(StageRun(stages, batch, bench.whole()))
        on_run()
    return StageReport(bench, usable_cores(), tuple(turns))
