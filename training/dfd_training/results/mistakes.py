"""The worst mistakes of an evaluation: the crops, what they scored, and where the score is from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dfd_edge import Detector, FrameResult
from dfd_edge.errors import SourceError
from dfd_edge.report.pictures import CropPicture, KeptCrops
from dfd_edge.sources.frames import Frame
from dfd_training.evaluation import Evaluation
from dfd_training.metrics import SURE


@dataclass(frozen=True, eq=False)
class Mistake:
    """A file whose P(fake) is on the wrong side, or nearest to it.

    Attributes:
        path: of the file.
        label: REAL or FAKE, which it is.
        kind: clip or photograph.
        source: where it comes from.
        verdict: what it was called.
        p_fake: its score.
        crop: of a real file, the judged crop that scores highest; of a fake, the lowest of the
            person who has the highest score. None where the file cannot be read any more.
    """

    path: str
    label: str
    kind: str
    source: str
    verdict: str
    p_fake: float
    crop: CropPicture | None


def worst_files(evaluation: Evaluation, count: int) -> pd.DataFrame:
    """The reals with the highest P(fake), then the fakes with the lowest: `count` of each."""
    scored = evaluation.files[evaluation.files["p_fake"].notna()]
    ranked = scored.sort_values(["p_fake", "path"], kind="stable")
    reals = ranked[ranked["label"] == "REAL"].iloc[::-1].head(count)
    fakes = ranked[ranked["label"] == "FAKE"].head(count)
    return pd.concat([reals, fakes])


def worst_mistakes(
    detector: Detector,
    evaluation: Evaluation,
    root: Path,
    *,
    count: int = 8,
    on_file: Callable[[], None] = lambda: None,
) -> list[Mistake]:
    """Judge the worst files again, to see what the model saw.

    Args:
        detector: the bundle that the evaluation is of.
        evaluation: which files were wrong, and which of their people decided.
        root: the folder that relative paths start from.
        count: of reals, and of fakes.
        on_file: called after each file.
    """
    mistakes: list[Mistake] = []
    for row in worst_files(evaluation, count).to_dict("records"):
        path, label = str(row["path"]), str(row["label"])
        crop = _crop(detector, root / path, _deciding(evaluation, path), fake=label == "FAKE")
        mistakes.append(
            Mistake(
                path=path,
                label=label,
                kind=str(row["kind"]),
                source=str(row["source"]),
                verdict=str(row["verdict"]),
                p_fake=float(row["p_fake"]),
                crop=crop,
            )
        )
        on_file()
    return mistakes


def _deciding(evaluation: Evaluation, path: str) -> int | None:
    """The track whose crops score highest on average; None where no crop was judged."""
    rows = evaluation.frames[evaluation.frames["path"] == path]
    if rows.empty:
        return None
    p = rows["p_frame"].clip(SURE, 1.0 - SURE)
    logits = rows.assign(logit=np.log(p / (1.0 - p))).groupby("track")["logit"].mean()
    return int(logits.index[int(logits.argmax())])


def _crop(detector: Detector, path: Path, track: int | None, *, fake: bool) -> CropPicture | None:
    kept = KeptCrops()

    def keep(frame: Frame, result: FrameResult | None) -> None:
        for person in result.people if result is not None else ():
            p = person.p_frame
            if not person.judged or p is None or track not in (None, person.track):
                continue
            if kept.wants(frame.time_s, p):
                kept.add(CropPicture.of(frame.image, person, frame.time_s, p))

    try:
        detector.analyze(path, on_image=keep, every_image=False)
    except SourceError:
        return None
    crops = [*kept.suspicious, *kept.ordinary]
    if not crops:
        return None
    return min(crops, key=lambda crop: crop.p_frame if fake else -crop.p_frame)
