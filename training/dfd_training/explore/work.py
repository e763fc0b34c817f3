"""Options of an exploration, choice of its files, and the work on them in processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import cv2
import numpy as np
import pandas as pd

from dfd_edge.errors import UsageError
from dfd_training.data.table import FAKE, REAL
from dfd_training.explore.detectors import HaarOptions
from dfd_training.explore.search import (
    Detections,
    FileFacts,
    FirstFrame,
    excerpt,
    film_strip,
    first_frame,
    has_image_suffix,
    read_facts,
    search_file,
    stratified,
)
from dfd_training.explore.sheets import FIRST_FRAMES, PICTURES_ACROSS
from dfd_training.explore.tables import most_faked

Job = TypeVar("Job")
Result = TypeVar("Result")
MAX_CLIPS = 24
STRIP_FRAMES = 4
#: Originals with the most fakes, and files of each, the original among them.
FAMILIES_SHOWN, FAMILY_SHOWN = 4, 6
ProgressStage = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Called with the name of a stage and its number of jobs; returns a context manager that gives a
function to call after each job."""


@dataclass(frozen=True, slots=True)
class ExploreOptions:
    """Options of an exploration.

    Attributes:
        sample: Number of files to search for faces.
        frames: Searched frames of each clip.
        probe: Number of files to open for their size, length and rate.
        max_clips: Number of excerpts on the page.
        with_smile: Search for smiles too.
        haar: Parameters of the Haar cascades.
        seed: Seed of all random choices.
        workers: Number of processes.

    Raises:
        UsageError: A value is out of range.
    """

    sample: int = 100
    frames: int = 4
    probe: int = 5000
    max_clips: int = 6
    with_smile: bool = False
    haar: HaarOptions = field(default_factory=HaarOptions)
    seed: int = 0
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        ranges = {
            "sample": (1, 10_000),
            "frames": (1, 64),
            "probe": (1, 1_000_000),
            "max_clips": (0, MAX_CLIPS),
            "seed": (0, 2**32 - 1),
            "workers": (1, 256),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} {value}: give a number from {least} to {most}")

    def as_dict(self) -> dict[str, Any]:
        """Returns the options by name, those of the cascades as haar_NAME."""
        values = asdict(self)
        haar: dict[str, Any] = values.pop("haar")
        return values | {f"haar_{name}": value for name, value in haar.items()}


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of an exploration.

    Attributes:
        frames: First frames, by path.
        drawn: Paths of those on the sheet of pictures.
        clips: Paths of the clips whose first frames are shown.
        families: Paths of originals and of their fakes.
        strips: Frames over time of the clips of the first family.
        excerpts: Clips to play, by path; None where one cannot be encoded.
    """

    frames: dict[str, FirstFrame]
    drawn: list[str]
    clips: list[str]
    families: list[list[str]]
    strips: dict[str, tuple[bytes, ...]]
    excerpts: dict[str, bytes | None]


@dataclass(frozen=True, slots=True)
class FileWork:
    """The work on files, in processes.

    Attributes:
        root: Folder that relative paths start from.
        options: Options of the exploration.
        workers: The processes.
        stage: Shows the progress of each stage.
    """

    root: Path
    options: ExploreOptions
    workers: Workers
    stage: ProgressStage

    def opened_and_searched(
        self, there: pd.DataFrame
    ) -> tuple[list[FileFacts], list[Detections], dict[str, str]]:
        """Opens a sample of the files that are there, and searches some of them for faces.

        Returns:
            Facts of the opened files, detections, and the reason for each file that could not be
            read, by path.
        """
        options, root = self.options, self.root
        sampled = stratified(there, options.sample, options.seed)
        facts = self._do(
            "opening files", partial(read_facts, root=root), _to_open(there, sampled, options)
        )
        broken = {item.path: item.error for item in facts if item.error}
        search = partial(
            search_file,
            root=root,
            frames=options.frames,
            haar=options.haar,
            with_smile=options.with_smile,
        )
        searchable = [path for path in sampled if path not in broken]
        detections = self._do("searching for faces", search, searchable)
        broken.update({file.path: file.error for file in detections if file.error})
        return facts, [file for file in detections if file.frames], broken

    def pictures(self, there: pd.DataFrame, readable: list[str], clips: list[str]) -> Pictures:
        """Decodes the pictures and excerpts of the page.

        Args:
            there: Rows of the files that are there.
            readable: Paths of the opened files.
            clips: Those that are clips.
        """
        options = self.options
        families = _families(there)
        moving = there[there["path"].isin(clips)]
        drawn = stratified(there[there["path"].isin(readable)], PICTURES_ACROSS**2, options.seed)
        kinds = moving["label"].nunique()
        whole = stratified(moving, kinds * FIRST_FRAMES, options.seed)
        first = partial(
            first_frame, root=self.root, haar=options.haar, with_smile=options.with_smile
        )
        played = _choose_clips(moving, options)
        family_files = [path for members in families for path in members]
        wanted = list(dict.fromkeys([*drawn, *whole, *family_files, *played]))
        frames = self._do("decoding first frames", first, wanted)
        family = [p for p in families[0] if not has_image_suffix(p)] if families else []
        strip = partial(film_strip, root=self.root, frames=STRIP_FRAMES)
        strips = self._do("cutting strips", strip, family)
        cut = self._do("cutting excerpts", partial(excerpt, root=self.root), played)
        return Pictures(
            frames={frame.path: frame for frame in frames},
            drawn=drawn,
            clips=whole,
            families=families,
            strips=dict(zip(family, strips, strict=True)),
            excerpts=dict(zip(played, cut, strict=True)),
        )

    def _do(self, name: str, work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        if not jobs:
            return []
        with self.stage(name, len(jobs)) as on_done:
            return self.workers.do(work, jobs, on_done)


def _to_open(there: pd.DataFrame, sampled: list[str], options: ExploreOptions) -> list[str]:
    """Returns a plain random sample, so that shares are unbiased, and the searched files."""
    count = min(options.probe, len(there))
    rng = np.random.default_rng(options.seed)
    plain = there["path"].iloc[np.sort(rng.choice(len(there), count, replace=False))]
    # Originals are played beside their fakes.
    made_from = set(there["original"][there["path"].isin(sampled)]) & set(there["path"])
    return list(dict.fromkeys([*plain, *sampled, *sorted(made_from)]))


def _families(there: pd.DataFrame) -> list[list[str]]:
    """Returns the originals with the most fakes, where they are there, each with some of these."""
    known = set(there["path"])
    families = []
    for original in most_faked(there).index[:FAMILIES_SHOWN]:
        fakes = there["path"][(there["original"] == original) & (there["label"] == FAKE)]
        members = [*([original] if original in known else []), *fakes]
        families.append(members[:FAMILY_SHOWN])
    return families


def _choose_clips(readable: pd.DataFrame, options: ExploreOptions) -> list[str]:
    """Returns fake clips, each after its original where that can be read, then other real ones."""
    fakes = stratified(readable[readable["label"] == FAKE], options.max_clips // 2, options.seed)
    original = dict(zip(readable["path"], readable["original"], strict=True))
    chosen: list[str] = []
    for fake in fakes:
        pair = [path for path in (original[fake],) if path in original]
        chosen += [path for path in [*pair, fake] if path not in chosen]
    left = readable[(readable["label"] == REAL) & ~readable["path"].isin(chosen)]
    return chosen + stratified(left, options.max_clips - len(chosen), options.seed)


class Workers:
    """Pool of single-threaded processes. Use as a context manager.

    Args:
        count: Number of processes.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def do(
        self,
        work: Callable[[Job], Result],
        jobs: Sequence[Job],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Result]:
        """Runs a function on every job.

        Args:
            work: A function of a module, or a `functools.partial` of one.
            jobs: Its arguments.
            on_done: Called after each job.

        Returns:
            The results in the order of the jobs.
        """
        futures = [self._pool.submit(work, job) for job in jobs]
        for future in as_completed(futures):
            future.result()
            on_done()
        return [future.result() for future in futures]


def _begin() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes of the terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
