"""Measures what `--frames` and `--scan` find on footage that no bundle was fitted on.

Each clip of a table is judged by the bundle of the fold that it lies in, fitted without it.

    python benchmarks/long_films.py moments labels.csv --folds data/store FOLD0 FOLD1 FOLD2 FOLD3
    python benchmarks/long_films.py scan labels.csv --folds data/store FOLD0 FOLD1 FOLD2 FOLD3

`moments` compares labels with those of whole clips. `scan` cuts a film for each fold together from
its real clips, each several times, with forged passages between them, and looks for these.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import click
import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from dfd_edge import Detector, FrameResult, Interval, Verdict
from dfd_edge.judging.scanning import judge_passages
from dfd_edge.sources import SourceItem, SourceKind
from dfd_training.data.store import CropStore
from dfd_training.data.table import read_table
from dfd_training.evaluation.evaluate import rows_by_fold

WIDTH, HEIGHT, RATE, KEY_FRAMES = 1280, 720, 25, 250
LENGTHS_S = (1, 2, 5, 10)
MOMENTS = (8, 16, 32, 64)

Image = NDArray[np.uint8]
"""BGR pixels, uint8 [height, width, 3]."""


@click.group()
def main() -> None:
    """Measures what `--frames` and `--scan` find on unseen footage."""


table_argument = click.argument("table", type=click.Path(path_type=Path, exists=True))
bundles_argument = click.argument("bundles", nargs=4, type=click.Path(path_type=Path))
folds_option = click.option("--folds", type=click.Path(path_type=Path), required=True)


def clips_by_fold(table: Path, folds: Path) -> list[pd.DataFrame]:
    """Returns the clips of each fold that a bundle was fitted without."""
    rows = read_table(table)
    kinds = [SourceItem.of(table.parent / path).kind for path in rows["path"]]
    rows = rows[(rows["split"] == "train") & (pd.Series(kinds, rows.index) == SourceKind.VIDEO)]
    return rows_by_fold(rows, CropStore(folds), bundles=4)


@main.command()
@table_argument
@bundles_argument
@folds_option
def moments(table: Path, bundles: Sequence[Path], folds: Path) -> None:
    """Compares labels and AUC at so many moments with those of whole clips."""
    rows: list[dict[str, object]] = []
    parts = clips_by_fold(table, folds)
    with click.progressbar(length=sum(map(len, parts)), label="clips") as bar:
        for bundle, part in zip(bundles, parts, strict=True):
            detector = Detector.load(bundle)
            for path, label in zip(part["path"], part["label"], strict=True):
                for count in (None, *MOMENTS):
                    verdict = detector.analyze(table.parent / path, max_frames=count)
                    facts = {"moments": count or 0, "label": verdict.label, "p": verdict.p_fake}
                    rows.append({"path": path, "fake": label == "FAKE", **facts})
                bar.update(1)
    found = pd.DataFrame(rows).pivot(index="path", columns="moments")
    fake = found["fake"][0].astype(bool)
    for count in (0, *MOMENTS):
        scored = found["p"][count].notna()
        auc = roc_auc_score(fake[scored], found["p"][count][scored].astype(float))
        same = (found["label"][count] == found["label"][0]).mean()
        turned = [{"real", "fake"} == set(pair) for pair in found["label"][[0, count]].to_numpy()]
        click.echo(
            f"{count or 'all'} moments of {len(found)} clips: same label {same:.1%}, real to fake "
            f"or back {sum(turned)}, AUC {auc:.3f}"
        )


@dataclass(frozen=True)
class Passage:
    """A forged passage of a film."""

    start_s: float
    length_s: int

    def is_in(self, interval: Interval) -> bool:
        """Returns whether an interval names some of it."""
        return interval.start_s < self.start_s + self.length_s and interval.end_s > self.start_s


def pictures(path: Path) -> list[Image]:
    """Returns the frames of a clip at `RATE`, fitted into the film's picture."""
    frames: list[Image] = []
    shown: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
            scale = min(WIDTH / image.shape[1], HEIGHT / image.shape[0])
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
            right, bottom = WIDTH - size[0] - left, HEIGHT - size[1] - top
            frames.append(np.pad(small, ((top, bottom), (left, right), (0, 0))))
            shown.append(frame.time or 0.0)
    times = np.arange(shown[0], shown[-1], 1 / RATE)
    return [frames[int(np.searchsorted(shown, moment, "right")) - 1] for moment in times]


def there_and_back(frames: Sequence[Image], count: int) -> list[Image]:
    """Returns so many frames: the clip forwards and backwards in turn, without a cut."""
    once = [*frames, *frames[-2:0:-1]]
    return [once[n % len(once)] for n in range(count)]


class Film:
    """A film that is cut together from parts, each of which is encoded once.

    Args:
        container: Where it is written.
    """

    def __init__(self, container: av.container.OutputContainer) -> None:
        self._container = container
        self._stream = container.add_stream("libx264", rate=RATE)
        _set_up(self._stream.codec_context)
        self._frames = 0

    @property
    def now_s(self) -> float:
        """Its length so far in seconds."""
        return self._frames / RATE

    def append(self, part: Sequence[tuple[int, int, bool, bytes]]) -> None:
        """Appends an encoded part."""
        for pts, dts, is_keyframe, data in part:
            packet = av.Packet(data)
            packet.stream, packet.time_base = self._stream, Fraction(1, RATE)
            packet.pts, packet.dts = self._frames + pts, self._frames + dts
            packet.is_keyframe = is_keyframe
            self._container.mux(packet)
        self._frames += len(part)


def _set_up(encoder: av.VideoCodecContext) -> None:
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(RATE), Fraction(1, RATE)
    encoder.options = {"crf": "20", "preset": "veryfast", "g": str(KEY_FRAMES)}
    encoder.flags |= av.codec.context.Flags.global_header


def encoded(frames: Sequence[Image]) -> list[tuple[int, int, bool, bytes]]:
    """Returns pts, dts, whether it is a key frame, and the bytes of each packet."""
    encoder = av.CodecContext.create("libx264", "w")
    _set_up(encoder)
    packets = []
    for number, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [(p.pts or 0, p.dts or 0, p.is_keyframe, bytes(p)) for p in packets]


def compose(rows: pd.DataFrame, root: Path, out: Path, *, length_s: float) -> list[Passage]:
    """Writes a film of real clips with ten forged passages between them, and returns these."""
    real = [root / path for path in rows[rows["label"] == "REAL"]["path"]]
    fakes = [root / path for path in rows[rows["label"] == "FAKE"]["path"]]
    rng = np.random.default_rng(0)
    drawn = rng.permutation(len(fakes))[:10]
    part = functools.cache(lambda path: encoded(pictures(path)))
    passages: list[Passage] = []
    with av.open(str(out), "w") as container:
        film = Film(container)
        for number in range(11):
            until_s = length_s * min(1.0, (number + 0.5) / 10)
            while film.now_s < until_s:
                film.append(part(real[int(rng.integers(len(real)))]))
            if number < 10:
                passages.append(Passage(film.now_s, LENGTHS_S[number % 4]))
                frames = pictures(fakes[int(drawn[number])])
                film.append(encoded(there_and_back(frames, LENGTHS_S[number % 4] * RATE)))
    return passages


@dataclass(frozen=True)
class Reading:
    """One way of reading a film: which intervals it calls fake, and what it costs."""

    intervals: tuple[Interval, ...]
    frames: int
    cpu_s: float


def scanned(detector: Detector, film: Path) -> Reading:
    """Returns what `--scan` finds."""
    started_s = time.process_time()
    verdict = detector.analyze(film, scan=True)
    intervals = tuple(fake_intervals(verdict))
    return Reading(intervals, verdict.frames, time.process_time() - started_s)


def fake_intervals(verdict: Verdict) -> Iterator[Interval]:
    """Yields the intervals of those whom a verdict calls fake."""
    for person in verdict.people:
        if person.label == "fake":
            yield from person.intervals


def read_whole(detector: Detector, film: Path) -> Reading:
    """Returns what the scan's own rule finds where all of a film is judged."""
    started_s = time.process_time()
    steps: dict[int, list[tuple[float, float]]] = {}

    def keep(result: FrameResult) -> None:
        for person in result.people:
            if person.frame_logit is not None and person.step_logit is not None:
                logit = detector.decision.choose(person.frame_logit, person.step_logit)
                steps.setdefault(person.track, []).append((result.time_s, logit))

    verdict = detector.analyze(film, on_frame=keep)
    rate_hz = detector.bundle.manifest.sequence.rate_hz
    intervals: list[Interval] = []
    for own in steps.values():
        found = judge_passages(own, detector.decision, rate_hz)
        intervals += found[1] if found else ()
    return Reading(tuple(intervals), verdict.frames, time.process_time() - started_s)


@main.command()
@table_argument
@bundles_argument
@folds_option
@click.option(
    "--minutes", default=15.0, show_default=True, help="Length of each of the four films."
)
@click.option("--films", default=Path("films"), type=click.Path(path_type=Path), show_default=True)
def scan(table: Path, bundles: Sequence[Path], folds: Path, minutes: float, films: Path) -> None:
    """Looks for forged passages in four films, by scanning them and by reading all of them."""
    films.mkdir(parents=True, exist_ok=True)
    ways: dict[str, list[tuple[list[Passage], Reading]]] = {"--scan": [], "all of it": []}
    for fold, (bundle, rows) in enumerate(zip(bundles, clips_by_fold(table, folds), strict=True)):
        film = films / f"{fold}.mp4"
        passages = compose(rows, table.parent, film, length_s=minutes * 60)
        detector = Detector.load(bundle)
        ways["--scan"].append((passages, scanned(detector, film)))
        ways["all of it"].append((passages, read_whole(detector, film)))
        click.echo(f"fold {fold}: {film.stat().st_size / 1e6:.0f} MB", err=True)
    for way, found in ways.items():
        shares = []
        for length_s in LENGTHS_S:
            own = [(p, r) for ps, r in found for p in ps if p.length_s == length_s]
            hits = sum(any(p.is_in(interval) for interval in r.intervals) for p, r in own)
            shares.append(f"{length_s} s {hits} of {len(own)}")
        false = [i for ps, r in found for i in r.intervals if not any(p.is_in(i) for p in ps)]
        readings = [reading for _, reading in found]
        click.echo(
            f"{way}: {', '.join(shares)}; {len(false)} real passages called fake, "
            f"{sum(i.end_s - i.start_s for i in false):.0f} s; "
            f"{sum(r.frames for r in readings)} frames, "
            f"{sum(r.cpu_s for r in readings):.0f} s of processor time"
        )


if __name__ == "__main__":
    main()
