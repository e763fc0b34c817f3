"""Preparation: labelled photographs and clips to face crops, with the runtime's own detector."""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.errors import SourceError, UsageError
from dfd_edge.faces import (
    CroppedFaces,
    Face,
    FaceMesh,
    TrackedFace,
    Tracker,
    assess,
    crop_region,
    extract_crop,
)
from dfd_edge.faces.crop import CROP_SCALE
from dfd_edge.faces.signals import SIGNALS_VERSION, measure
from dfd_edge.sinks.files import written_whole
from dfd_edge.sources import SourceItem, SourceKind, VideoFile, read_image
from dfd_edge.sources.frames import Burst, Sampler
from dfd_training.data.croppers import Cropper, open_cropper
from dfd_training.data.names import CropperName
from dfd_training.data.store import (
    MAX_SIDE,
    REGION_SCALE,
    STORE_VERSION,
    UNRECORDED_CROP_SCALE,
    Shard,
    no_signals,
    shard_name,
    stored_signals_version,
)

RATE_HZ = 5.0
MIN_TRACK_CROPS = 3
ASSESSED_SIZE = 160
TIGHT_CROP_SCALE = 1.0
"""Crop scale for sets of face crops, whose pictures end at the face.

Where a face fills its picture, a crop at 1.5 is 1 - 1 / 1.5² = 56 % repeated border.
"""


def default_crop_scale(table: pd.DataFrame) -> float:
    """Returns the crop scale for a table: tight where it says of every row that it is a crop."""
    tight = "cropped" in table and len(table) > 0 and bool((table["cropped"] == "yes").all())
    return TIGHT_CROP_SCALE if tight else CROP_SCALE


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """Options of the preparation.

    Attributes:
        rate_hz: Frames a second taken from a clip.
        max_frames: Most frames of a clip.
        crop_scale: Side of the model's crop over the size of the face, 0.5 to 2.
        cropper: The detector that finds the faces.

    Raises:
        UsageError: The crop scale is out of range.
    """

    rate_hz: float = RATE_HZ
    max_frames: int = 100
    crop_scale: float = CROP_SCALE
    cropper: CropperName = CropperName.BLAZEFACE

    def __post_init__(self) -> None:
        if not 0.5 <= self.crop_scale <= 2.0:
            raise UsageError(f"crop scale {self.crop_scale:g} is out of range; 0.5 to 2")

    @property
    def region_scale(self) -> float:
        """Side of a stored crop over the size of the face: room to move the model's crop."""
        return max(REGION_SCALE, round(REGION_SCALE / CROP_SCALE * self.crop_scale, 6))


@dataclass(frozen=True, slots=True)
class Prepared:
    """The outcome of one file: the number of its crops, or why there is none."""

    path: str
    crops: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Crop:
    picture: NDArray[np.uint8]
    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    time_s: float
    track: int
    face_px: float
    judged: bool
    reason: str
    signals: NDArray[np.float32] | None


def prepare(
    table: pd.DataFrame,
    root: Path,
    out: Path,
    *,
    options: PrepareOptions | None = None,
    workers: int = 1,
    on_done: Callable[[Prepared], None] = lambda _: None,
) -> Counter[str]:
    """Cuts the faces of every file of a table and writes a crop store.

    An interrupted run is resumed: files whose shard exists are not read
    again, except for clips whose signals are of another version. A picture that the table calls
    cropped always gives a crop, if need be itself.

    Args:
        table: As `read_table` gives it.
        root: The folder that relative paths start from.
        out: The store's folder, made where it does not exist.
        options: Sampling of clips.
        workers: Processes that work side by side.
        on_done: Called after each file.

    Returns:
        How many files gave crops ("done"), and how many were skipped for each reason.

    Raises:
        UsageError: When `out` holds crops that were made with other settings.
    """
    options = options or PrepareOptions()
    (out / "crops").mkdir(parents=True, exist_ok=True)
    settings = _checked_settings(out, options)
    version = stored_signals_version(out)
    _write_settings(out, settings, SIGNALS_VERSION if version is None else version)
    results: list[Prepared] = []
    cropped = table["cropped"] == "yes" if "cropped" in table else [False] * len(table)
    jobs = list(zip(table["path"], table["label"], cropped, strict=True))
    paired = set(table["original"]) - {""}
    work = partial(_prepare_file, root=root, out=out, options=options)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        futures = [
            pool.submit(work, path, one_person=label == "FAKE" or path in paired, cropped=cropped)
            for path, label, cropped in jobs
        ]
        try:
            for future in as_completed(futures):
                results.append(future.result())
                on_done(results[-1])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _write_index(table, results, out)
    _write_settings(out, settings, SIGNALS_VERSION)
    return Counter(result.reason or "done" for result in results)


def _one_thread() -> None:
    cv2.setNumThreads(1)


@functools.cache  # once in each worker process
def _cropper(name: CropperName) -> Cropper:
    return open_cropper(name)


@functools.cache
def _mesh() -> FaceMesh:
    return FaceMesh(threads=1)


def _prepare_file(
    path: str, *, one_person: bool, cropped: bool, root: Path, out: Path, options: PrepareOptions
) -> Prepared:
    shard_path = out / "crops" / shard_name(path)
    stored = 0
    if shard_path.is_file():
        shard = Shard.load(shard_path)
        stored = len(shard)
        if stored == 1 or shard.signals_version == SIGNALS_VERSION:
            return Prepared(path, stored)
    try:
        crops = list(_crops(root / path, one_person=one_person, cropped=cropped, options=options))
    except SourceError as error:
        kept = "; its crops are kept, without signals" if stored else ""
        return Prepared(path, stored, f"{error}{kept}")
    if not crops:
        return Prepared(path, 0, "no face found")
    _to_shard(crops).save(shard_path)
    return Prepared(path, len(crops))


def _crops(
    path: Path, *, one_person: bool, cropped: bool, options: PrepareOptions
) -> Iterator[_Crop]:
    detector = _cropper(options.cropper)
    if SourceItem.of(path).kind is SourceKind.IMAGE:
        image = read_image(path)
        finder = CroppedFaces(detector, crop_scale=options.crop_scale) if cropped else detector
        faces = finder.detect(image)
        if faces:
            yield _cut_crop(image, TrackedFace(track=1, face=faces[0]), faces[0], 0.0, options)
        return
    tracker = Tracker()
    crops: list[_Crop] = []
    with VideoFile(path, threads=1) as video:
        due = video.frames(Sampler(options.rate_hz), bursts=True)
        for count, frame in enumerate(due, start=1):
            faces = detector.detect(frame.pixels)
            tracked = tracker.update(faces, frame.time_s, frame.pixels)
            crops += [
                _cut_crop(frame.image, item, face, frame.time_s, options, burst=frame.burst)
                for item, face in zip(tracked, faces, strict=True)
            ]
            if count >= options.max_frames:
                break
    kept = _kept_tracks(crops, one_person=one_person)
    yield from (crop for crop in crops if crop.track in kept)


def _kept_tracks(crops: list[_Crop], *, one_person: bool) -> set[int]:
    """Returns the tracks of a clip to keep; for a label of one person, the one seen most."""
    seen: Counter[int] = Counter()
    for crop in crops:
        seen[crop.track] += 1
    kept = {track for track, count in seen.items() if count >= MIN_TRACK_CROPS}
    if one_person and kept:
        area = {
            track: sum(crop.face_px**2 for crop in crops if crop.track == track) for track in kept
        }
        kept = {max(kept, key=lambda track: area[track])}
    return kept


def _cut_crop(
    frame: NDArray[np.uint8],
    tracked: TrackedFace,
    detected: Face,
    time_s: float,
    options: PrepareOptions,
    *,
    burst: Burst | None = None,
) -> _Crop:
    box = tracked.face.box
    region = crop_region(box, options.region_scale)
    side = min(region.side, MAX_SIDE)
    picture = extract_crop(frame, region, side)
    scale = side / region.side
    origin = np.array([region.x0, region.y0], np.float32)
    landmarks = _mesh().landmarks(frame, detected)
    if landmarks is None:
        landmarks = np.full((468, 2), np.nan, np.float32)
    model_crop = extract_crop(frame, crop_region(box, options.crop_scale), ASSESSED_SIZE)
    quality = assess(tracked.face, model_crop)
    signals = None
    if quality.judged and burst is not None:
        signals = measure(burst, box, tracked.face.keypoints, (frame.shape[0], frame.shape[1]))
    ok, encoded = cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise SourceError(f"a crop of {side} px", "cannot be encoded as PNG")
    return _Crop(
        picture=np.asarray(encoded, np.uint8).ravel(),
        box=((box - np.tile(origin, 2)) * scale).astype(np.float32),
        landmarks=((landmarks - origin) * scale).astype(np.float32),
        time_s=time_s,
        track=tracked.track,
        face_px=tracked.face.size,
        judged=quality.judged,
        reason=quality.reason or "",
        signals=signals,
    )


def _to_shard(crops: list[_Crop]) -> Shard:
    lengths = [len(crop.picture) for crop in crops]
    signals = no_signals(len(crops))
    for row, crop in zip(signals, crops, strict=True):
        if crop.signals is not None:
            row[:] = crop.signals
    return Shard(
        data=np.concatenate([crop.picture for crop in crops]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        boxes=np.stack([crop.box for crop in crops]),
        landmarks=np.stack([crop.landmarks for crop in crops]),
        time_s=np.array([crop.time_s for crop in crops], np.float64),
        track=np.array([crop.track for crop in crops], np.int32),
        face_px=np.array([crop.face_px for crop in crops], np.float32),
        judged=np.array([crop.judged for crop in crops], np.bool_),
        reason=np.array([crop.reason for crop in crops], np.str_),
        signals=signals,
    )


def _write_index(table: pd.DataFrame, results: list[Prepared], out: Path) -> None:
    parts: list[pd.DataFrame] = []
    optional = [name for name in ("dataset", "kind", "cropped") if name in table]
    rows = table.drop(columns=[name for name in optional if (table[name] == "").all()])
    # It holds for the table. The store may lack files, and generated fakes join it later.
    rows = rows.drop(columns="original_here", errors="ignore")
    columns = rows.columns
    rows = rows.set_index("path", drop=False)
    for result in sorted(results, key=lambda item: item.path):
        if not result.crops:
            continue
        name = shard_name(result.path)
        shard = Shard.load(out / "crops" / name)
        count = len(shard)
        part = pd.DataFrame(
            {
                **{column: [rows.loc[result.path, column]] * count for column in columns},
                "shard": [name] * count,
                "position": np.arange(count),
                "track": shard.track,
                "time_s": shard.time_s,
                "face_px": shard.face_px,
                "judged": shard.judged,
                "has_landmarks": ~np.isnan(shard.landmarks).any(axis=(1, 2)),
                "reason": shard.reason,
            }
        )
        parts.append(part)
    index = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["path"])
    index.to_csv(out / "index.csv", index=False)
    skipped = [(result.path, result.reason) for result in results if result.reason]
    pd.DataFrame(sorted(skipped), columns=["path", "reason"]).to_csv(
        out / "skipped.csv", index=False
    )


def _checked_settings(out: Path, options: PrepareOptions) -> dict[str, object]:
    """Returns a store's settings, without the version of the signals.

    Raises:
        UsageError: `out` holds crops that were made with other settings.
    """
    detector = _cropper(options.cropper)
    settings: dict[str, object] = {
        "version": STORE_VERSION,
        "detector": detector.name,
        "detector_sha256": detector.sha256,
        "detector_options": detector.settings,
        "crop_scale": options.crop_scale,
        "region_scale": options.region_scale,
        "max_side": MAX_SIDE,
        "rate_hz": options.rate_hz,
        "max_frames": options.max_frames,
    }
    path = out / "store.json"
    before = settings
    if path.is_file():
        before = {"crop_scale": UNRECORDED_CROP_SCALE, **json.loads(path.read_text())}
        before.pop("signals_version", None)
    if before != settings:
        changed = sorted(key for key in settings if before.get(key) != settings[key])
        key = changed[0] if changed else "version"
        raise UsageError(
            f"{out}: its crops were made with {key} {before.get(key)}, not {settings.get(key)}: "
            "give another --out"
        )
    return settings


def _write_settings(out: Path, settings: dict[str, object], signals_version: int) -> None:
    text = json.dumps({**settings, "signals_version": signals_version}, indent=2)
    with written_whole(out / "store.json") as partial:
        partial.write_text(text + "\n")
