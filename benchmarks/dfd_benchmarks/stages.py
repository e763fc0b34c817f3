"""What each stage costs by itself, and how much of the cores the whole makes use of.

The stages are those of `Detector.analyze`: decoding, face detection, tracking and cropping, the
frame graph, the sequence graph. Each is run alone over the same frames and its CPU time counted.
Summed per judged frame and divided by the cores, they say how many frames a second the machine
could judge if nothing were lost between the stages; `Detector.analyze` is held against that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfd_benchmarks.machine import usable_cores
from dfd_benchmarks.timing import Spread, cpu_seconds, wall_seconds
from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.faces import DetectorOptions, Face, FaceDetector
from dfd_edge.observing import Observation
from dfd_edge.sampling import Sampler
from dfd_edge.session import MAX_BATCH, FrameOutputs, Session
from dfd_edge.sources.frame import Frame, Image
from dfd_edge.sources.video import VideoFile
from dfd_edge.stream import Stream

#: Decoded frames that are held in memory for the stages behind the decoder.
MAX_HELD_FRAMES = 60

DECODING = "decoding"
DETECTION = "face detection"
CROPPING = "tracking and cropping"
FRAME_GRAPH = "frame graph"
SEQUENCE_GRAPH = "sequence graph"


@dataclass(frozen=True, slots=True)
class StageReport:
    """The costs of the stages over one clip.

    Attributes:
        clip: The file.
        frames: Frames of it that are judged at the bundle's rate.
        crops_per_frame: Judged faces in a frame, the mean.
        cores: Cores that the process may use.
        cpu_ms: CPU milliseconds per judged frame, by stage.
        frame_graph_batch: The batch at which the frame graph was cheapest; its cost is given.
        allowed_hz: Judged frames per second that the summed costs allow on these cores.
        reached_hz: Judged frames per second of `Detector.analyze`, elapsed time.
        efficiency: `reached_hz / allowed_hz`, run by run.
        speed: Seconds of video that `Detector.analyze` judges in a second.
    """

    clip: str
    frames: int
    crops_per_frame: float
    cores: float
    cpu_ms: dict[str, Spread]
    frame_graph_batch: int
    allowed_hz: Spread
    reached_hz: Spread
    efficiency: Spread
    speed: Spread


class _Replay(FaceDetector):
    """Gives the faces that were found before, so that what follows detection is run alone."""

    def __init__(self, found: list[list[Face]]) -> None:
        self._found = iter(found)

    def detect(self, frame: Image) -> list[Face]:
        """The faces of the next frame."""
        return next(self._found)


class StageBench:
    """The stages over one clip, each alone.

    Args:
        clip: A video file.
        model: A bundle; the shipped one by default.
        precision: A variant of the frame graph.

    Raises:
        SourceError: The clip cannot be read, or shows no face that can be judged.
        BundleError, ProviderError: The bundle or the runtime cannot be used.
    """

    def __init__(self, clip: Path, *, model: Path | None = None, precision: str = "auto") -> None:
        self.clip = clip
        self.session = Session.open(Bundle.load(model), provider="cpu", precision=precision)
        manifest = self.session.bundle.manifest
        self.rate_hz = manifest.sequence.rate_hz
        self.faces: FaceDetector | None = None
        if manifest.face.detector != "none":
            self.faces = FaceDetector(options=DetectorOptions.from_dict(manifest.face.options))
        self.detector = Detector(self.session, self.faces)
        self.held: list[Frame] = []
        self.frames = self._decode(keep=self.held)
        self.found = self._detect()
        self.observations = self._crop()
        judged = [face.crop for seen in self.observations for face in seen.judged]
        if not judged:
            raise SourceError(f"{clip}: no face in it that can be judged; give a clip with one")
        self.crops = np.stack(judged)
        self.outputs = self._run_frame(MAX_BATCH)

    @property
    def crops_per_frame(self) -> float:
        """Judged faces in a frame, the mean over the held frames."""
        return len(self.crops) / len(self.held)

    def cpu_ms(self) -> tuple[dict[str, float], int]:
        """Run each stage once: CPU milliseconds per judged frame, and the frame graph's batch."""
        held = len(self.held)
        by_batch = {
            batch: self._cost(functools.partial(self._run_frame, batch), held)
            for batch in (1, MAX_BATCH)
        }
        batch = min(by_batch, key=by_batch.__getitem__)
        return {
            DECODING: self._cost(self._decode, self.frames),
            DETECTION: self._cost(self._detect, held),
            CROPPING: self._cost(self._crop, held),
            FRAME_GRAPH: by_batch[batch],
            SEQUENCE_GRAPH: self._cost(self._run_sequence, held),
        }, batch

    def elapsed_s(self) -> tuple[float, float]:
        """Judge the clip once: elapsed seconds, and the seconds of video judged."""
        seen_s = 0.0

        def judge() -> None:
            nonlocal seen_s
            seen_s = self.detector.analyze(self.clip).duration_s

        return wall_seconds(judge), seen_s

    @staticmethod
    def _cost(work: Callable[[], object], frames: int) -> float:
        return cpu_seconds(work) * 1e3 / frames

    def _decode(self, keep: list[Frame] | None = None) -> int:
        """Decode the clip as `analyze` does and count the judged frames; keep the first few."""
        count = 0
        with VideoFile(self.clip) as video:
            for frame in video.frames(Sampler(self.rate_hz)):
                count += 1
                if keep is not None and len(keep) < MAX_HELD_FRAMES:
                    keep.append(frame)
        return count

    def _detect(self) -> list[list[Face]]:
        if self.faces is None:
            return [[] for _ in self.held]
        return [self.faces.detect(frame.image) for frame in self.held]

    def _crop(self) -> list[Observation]:
        replay = None if self.faces is None else _Replay(self.found)
        stream = Stream(self.session, replay)
        return [stream.observe(frame.image, frame.time_s) for frame in self.held]

    def _run_frame(self, batch: int) -> list[FrameOutputs]:
        starts = range(0, len(self.crops), batch)
        return [self.session.run_frame(self.crops[start : start + batch]) for start in starts]

    def _run_sequence(self) -> None:
        state = self.session.initial_state(1)
        one = np.ones(1, np.int32)
        for outputs in self.outputs:
            for row in range(len(outputs.features)):
                features = outputs.features[row : row + 1, None, :]
                state = self.session.run_sequence(features, one, state).next_state


def measure_stages(
    clip: Path,
    *,
    model: Path | None = None,
    precision: str = "auto",
    runs: int = 5,
    on_run: Callable[[], object] = lambda: None,
) -> StageReport:
    """Measure the stages and the whole, turn by turn, `runs` times.

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
    cores = usable_cores()
    costs: list[dict[str, float]] = []
    batches: list[int] = []
    allowed: list[float] = []
    reached: list[float] = []
    speed: list[float] = []
    bench.cpu_ms()
    bench.elapsed_s()
    for _ in range(runs):
        cost, batch = bench.cpu_ms()
        elapsed_s, seen_s = bench.elapsed_s()
        costs.append(cost)
        batches.append(batch)
        allowed.append(cores * 1e3 / sum(cost.values()))
        reached.append(bench.frames / elapsed_s)
        speed.append(seen_s / elapsed_s)
        on_run()
    return StageReport(
        clip=str(clip),
        frames=bench.frames,
        crops_per_frame=bench.crops_per_frame,
        cores=cores,
        cpu_ms={stage: Spread.of([cost[stage] for cost in costs]) for stage in costs[0]},
        frame_graph_batch=max(set(batches), key=batches.count),
        allowed_hz=Spread.of(allowed),
        reached_hz=Spread.of(reached),
        efficiency=Spread.of([r / a for r, a in zip(reached, allowed, strict=True)]),
        speed=Spread.of(speed),
    )
