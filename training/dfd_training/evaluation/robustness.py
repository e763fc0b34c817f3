"""Robustness of a bundle: clips judged through the runtime under corruptions of rising strength."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dfd_edge import Detector, FrameResult, Verdict
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.faces import DetectorOptions, Face, FaceDetector
from dfd_edge.inference.session import MAX_BATCH, Session
from dfd_edge.judging.results import Label
from dfd_edge.sinks.files import written_whole
from dfd_edge.sources import Frame, SourceItem, SourceKind, VideoFile
from dfd_edge.sources.frames import AllFrames, Pixels, Sampler
from dfd_training.evaluation.degradations import (
    CLEAN,
    CORRUPTIONS,
    Corruption,
    H264Writer,
    Kind,
    corrupt,
    shrink,
)
from dfd_training.evaluation.report import plain, write_json
from dfd_training.evaluation.statistics import (
    Estimate,
    GroupBootstrap,
    Labels,
    Scores,
    rate_upper_bound,
)

RESULTS_NAME = "clips.csv"
SETTINGS_NAME = "run.json"


class ShiftedFaces(FaceDetector):
    """The runtime's face detector with displaced boxes.

    Args:
        share: Length of the displacement over the size of the face.
        angle: Direction of the displacement in radians.
        options: Options of the detector.
    """

    followed = False  # which would search without displacing boxes

    def __init__(self, share: float, angle: float, *, options: DetectorOptions) -> None:
        super().__init__(options=options)
        self._move = share * np.array([math.cos(angle), math.sin(angle)] * 2, np.float32)

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """Finds the faces of a frame, each box displaced."""
        return [
            dataclasses.replace(face, box=face.box + self._move * np.float32(face.size))
            for face in super().detect(frame, thorough=thorough)
        ]


@dataclass(frozen=True, slots=True)
class CorruptionResult:
    """Verdict of the runtime on one clip under one corruption.

    Attributes:
        rung: Name of the corruption.
        verdict: Label of the verdict.
        p_fake: P(fake) of the verdict, or NaN where nobody was judged long enough.
        logit: Logit of `p_fake`.
        frames: Number of sampled frames.
        judged: Number of judged faces in them.
        kbps: Bit rate of the re-encoded clip, or NaN.
    """

    rung: str
    verdict: str
    p_fake: float
    logit: float
    frames: int
    judged: int
    kbps: float


class RobustnessJudge:
    """Judges clips under all corruptions with one bundle.

    Args:
        bundle: Folder of the bundle; None for the shipped one.
        provider: As for `Detector.load`.
        precision: As for `Detector.load`.
        max_seconds: Judged length of each clip, from its start.
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

    def rungs(self, ladder: Sequence[Corruption] = CORRUPTIONS) -> list[Corruption]:
        """Returns the corruptions that apply; whole-frame models have no crop to shift."""
        shiftable = self._face_options is not None
        return [rung for rung in ladder if shiftable or rung.kind is not Kind.SHIFT]

    def judge_clip(
        self, path: Path, ladder: Sequence[Corruption] = CORRUPTIONS
    ) -> list[CorruptionResult]:
        """Judges a clip under every corruption.

        Clean and re-encoded clips are judged as files. The other corruptions are of single
        pictures, which are judged without the frames before them, so without signals.

        Raises:
            SourceError: The clip cannot be read.
        """
        rungs = self.rungs(ladder)
        seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big")
        with tempfile.TemporaryDirectory(prefix="dfd-ladder-") as folder:
            coded = {
                rung: Path(folder, f"{number}.mp4")
                for number, rung in enumerate(rungs)
                if rung.kind is Kind.H264
            }
            frames, end_s = self._read(path, coded)
            results: list[CorruptionResult] = []
            for rung in rungs:
                if rung in coded:
                    bits = coded[rung].stat().st_size * 8
                    results.append(self._analyse(rung, coded[rung], kbps=bits / 1e3 / end_s))
                elif rung.kind is Kind.CLEAN:
                    results.append(self._analyse(rung, path, kbps=math.nan))
                else:
                    results.append(self._push(rung, frames, seed))
        return results

    def _read(self, path: Path, coded: dict[Corruption, Path]) -> tuple[list[Frame], float]:
        """Decodes a clip once: returns due frames, and writes every frame into the coded files."""
        sampler = Sampler(self._rate_hz)
        due: list[Frame] = []
        end_s = 0.0
        with VideoFile(path) as video, contextlib.ExitStack() as open_files:
            writers = [
                (
                    rung,
                    Sampler(rung.most_fps) if rung.most_fps else AllFrames(),
                    open_files.enter_context(
                        H264Writer(
                            file,
                            int(rung.strength),
                            rate=min(video.frame_rate, rung.most_fps or math.inf),
                        )
                    ),
                )
                for rung, file in coded.items()
            ]
            for frame in video.frames(AllFrames()):
                if frame.time_s >= self._max_seconds:
                    break
                for rung, kept, writer in writers:
                    if kept.is_due(frame.time_s):
                        small = rung.size < 1.0
                        image = shrink(frame.image, rung.size) if small else frame.image
                        writer.write(image, frame.time_s)
                if sampler.is_due(frame.time_s):
                    due.append(frame)
                end_s = frame.time_s + 1.0 / video.frame_rate
        return due, end_s

    def _analyse(self, rung: Corruption, file: Path, *, kbps: float) -> CorruptionResult:
        """Judges a file as a user would, so that consecutive frames are those of the file."""
        results: list[FrameResult] = []
        verdict = self.detector.analyze(file, on_frame=results.append, duration_s=self._max_seconds)
        return _result(rung, verdict, results, kbps)

    def _push(self, rung: Corruption, frames: list[Frame], seed: int) -> CorruptionResult:
        """Pushes frames in batches, as `Detector.analyze` does."""
        rng = np.random.default_rng(seed)
        stream = self._detector_of(rung, seed).stream(rung.name)
        results: list[FrameResult] = []
        for start in range(0, len(frames), MAX_BATCH):
            batch = [f for f in frames[start : start + MAX_BATCH] if stream.is_due(f.time_s)]
            results += stream.score(
                [stream.observe(corrupt(rung, f.image, rng), f.time_s) for f in batch]
            )
        return _result(rung, stream.verdict(), results, math.nan)

    def _detector_of(self, rung: Corruption, seed: int) -> Detector:
        if rung.kind is not Kind.SHIFT or self._face_options is None:
            return self.detector
        # Each clip has a direction of its own, the same for both strengths and for every bundle.
        angle = 2 * math.pi * (seed % 360) / 360
        faces = ShiftedFaces(rung.strength, angle, options=self._face_options)
        return Detector(self._session, faces)


def _result(
    rung: Corruption, verdict: Verdict, results: list[FrameResult], kbps: float
) -> CorruptionResult:
    p_fake = math.nan if verdict.p_fake is None else verdict.p_fake
    return CorruptionResult(
        rung=rung.name,
        verdict=verdict.label.value,
        p_fake=p_fake,
        logit=math.nan if verdict.logit is None else verdict.logit,
        frames=verdict.frames,
        judged=sum(person.judged for result in results for person in result.people),
        kbps=kbps,
    )


@dataclass(frozen=True, slots=True)
class CorruptionFigures:
    """Figures under one corruption.

    Attributes:
        rung: Name of the corruption.
        fakes: Number of fakes that were judged long enough.
        reals: Number of reals that were judged long enough.
        auc: AUC of the clips' logits, fakes against all reals.
        auc_change: Paired change from the clean clips, on the clips judged in both.
        pairs_won: Fakes above their own original.
        pairs: Fakes judged beside their own original.
        real_clips: Number of reals, judged or not.
        reals_called_fake: Number of reals called fake.
        reals_called_fake_upper: One-sided 95 % upper bound of that share.
        reals_unsure: Number of reals called unsure, or without a detected face.
        fake_clips: Number of fakes.
        fakes_called_fake: Number of fakes called fake.
        real_shift: Mean change of the reals' logits from the clean clips.
        fake_shift: The same for the fakes.
        kbps: Mean bit rate of re-encoded clips, or NaN.
    """

    rung: str
    fakes: int
    reals: int
    auc: Estimate
    auc_change: Estimate
    pairs_won: int
    pairs: int
    real_clips: int
    reals_called_fake: int
    reals_called_fake_upper: float
    reals_unsure: int
    fake_clips: int
    fakes_called_fake: int
    real_shift: Estimate
    fake_shift: Estimate
    kbps: float


def clips_of(table: pd.DataFrame, root: Path, split: str) -> pd.DataFrame:
    """Returns the rows of a table that are clips of a split.

    Raises:
        UsageError: There is none.
    """
    rows = table[table["split"] == split]
    clips = rows[[_is_clip(root / str(path)) for path in rows["path"]]]
    if clips.empty:
        raise UsageError(f"no clip among the {len(rows)} rows of split {split}")
    return clips


def _is_clip(path: Path) -> bool:
    try:
        return SourceItem.of(path).kind is SourceKind.VIDEO
    except SourceError:
        return False


def judge_clips(
    judge: RobustnessJudge,
    clips: pd.DataFrame,
    root: Path,
    out: Path,
    *,
    settings: dict[str, object],
    ladder: Sequence[Corruption] = CORRUPTIONS,
    replace: bool = False,
    on_clip: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Judges every clip under every corruption; an interrupted run is resumed.

    Args:
        judge: Judges clips with a bundle.
        clips: Rows of a table.
        root: Folder that relative paths start from.
        out: Folder of the run; results are written after each clip.
        settings: Settings that the results depend on.
        ladder: The corruptions; CLEAN among them.
        replace: Discard the results of other settings.
        on_clip: Called after each clip.

    Returns:
        One row for each clip and corruption: the table's columns and those of
        `CorruptionResult`; for clips that cannot be read, one row with the text in `error`.

    Raises:
        UsageError: `out` holds the results of other settings, and `replace` is False.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_settings(out, settings, replace=replace)
    path = out / RESULTS_NAME
    done = pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.is_file() else None
    finished = set() if done is None else set(done["path"])
    parts = [] if done is None else [done]
    for row in clips.to_dict("records"):
        if row["path"] not in finished:
            facts = {str(key): value for key, value in row.items()}
            parts.append(_judge_row(judge, facts, root, ladder))
            _write_table(pd.concat(parts, ignore_index=True), path)
        on_clip()
    results = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return results[results["path"].isin(set(clips["path"]))]


def _judge_row(
    judge: RobustnessJudge, row: dict[str, object], root: Path, ladder: Sequence[Corruption]
) -> pd.DataFrame:
    facts = {name: row[name] for name in ("path", "label", "original", "group", "source")}
    try:
        results = judge.judge_clip(root / str(row["path"]), ladder)
    except SourceError as error:
        return pd.DataFrame([{**facts, "rung": "", "error": str(error)}])
    return pd.DataFrame([{**facts, **dataclasses.asdict(item), "error": ""} for item in results])


def _check_settings(out: Path, settings: dict[str, object], *, replace: bool) -> None:
    path = out / SETTINGS_NAME
    if path.is_file() and (before := json.loads(path.read_text("utf-8"))) != plain(settings):
        key = next(key for key in settings if before.get(key) != settings[key])
        if not replace:
            raise UsageError(
                f"{out}: holds results with {key} {before.get(key)}, not {settings[key]}: give "
                "another --out, or --replace"
            )
        (out / RESULTS_NAME).unlink(missing_ok=True)
    write_json(path, settings)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    with written_whole(path) as partial:
        table.to_csv(partial, index=False)


def summarise_robustness(results: pd.DataFrame, *, draws: int = 1000) -> list[CorruptionFigures]:
    """Computes the figures under every corruption.

    Args:
        results: From `judge_clips`.
        draws: Bootstrap samples.
    """
    results = results[results["error"].fillna("") == ""]
    present = set(results["rung"])
    logits = results.pivot(index="path", columns="rung", values="logit")
    facts = results.drop_duplicates("path").set_index("path").loc[logits.index]
    return [
        _figures(rung.name, results[results["rung"] == rung.name], logits, facts, draws)
        for rung in CORRUPTIONS
        if rung.name in present
    ]


def _figures(
    name: str, rows: pd.DataFrame, logits: pd.DataFrame, facts: pd.DataFrame, draws: int
) -> CorruptionFigures:
    here = logits[name]
    known = here.notna()
    both = known & logits[CLEAN.name].notna()
    score = here[known].to_dict()
    fakes = facts[(facts["label"] == "FAKE") & known]
    pairs = [(p, o) for p, o in zip(fakes.index, fakes["original"], strict=True) if o in score]
    reals = rows[rows["label"] == "REAL"]
    called = int((reals["verdict"] == Label.FAKE.value).sum())
    neither = reals["verdict"].isin([Label.UNSURE.value, Label.NO_FACE.value])
    shift = here - logits[CLEAN.name]
    fake = facts["label"] == "FAKE"
    return CorruptionFigures(
        rung=name,
        fakes=len(fakes),
        reals=int(known.sum()) - len(fakes),
        auc=_draws(facts[known], draws).auc(_labels(facts[known]), _values(here[known])),
        auc_change=_draws(facts[both], draws).auc_difference(
            _labels(facts[both]), _values(here[both]), _values(logits.loc[both, CLEAN.name])
        ),
        pairs_won=sum(score[fake_path] > score[original] for fake_path, original in pairs),
        pairs=len(pairs),
        real_clips=len(reals),
        reals_called_fake=called,
        reals_called_fake_upper=rate_upper_bound(called, len(reals)),
        reals_unsure=int(neither.sum()),
        fake_clips=int((rows["label"] == "FAKE").sum()),
        fakes_called_fake=int(
            ((rows["label"] == "FAKE") & (rows["verdict"] == Label.FAKE.value)).sum()
        ),
        real_shift=_draws(facts[both & ~fake], draws).mean(_values(shift[both & ~fake])),
        fake_shift=_draws(facts[both & fake], draws).mean(_values(shift[both & fake])),
        kbps=float(rows["kbps"].astype(float).mean()),
    )


def _draws(facts: pd.DataFrame, draws: int) -> GroupBootstrap:
    return GroupBootstrap.of(facts["group"].to_numpy(str), draws=draws)


def _labels(facts: pd.DataFrame) -> Labels:
    return np.asarray(facts["label"] == "FAKE", np.int64)


def _values(column: pd.Series[float]) -> Scores:
    return np.asarray(column, np.float64)
