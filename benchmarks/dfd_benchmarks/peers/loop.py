"""A whole clip: the notebooks' loop against `Detector.analyze`, with the same weights.

The notebooks' loop is that of notebooks on deepfake videos from Keras' CNN-RNN example (2021) on.
Frames are read with OpenCV, cut to the middle square, resized, put through the CNN by `predict` one
at a time, and the padded features of the clip by `predict` through the recurrent network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from dfd_benchmarks.peers.engines import (
    Crops,
    check_distinguishes,
    check_same,
    difference,
    tensorflow_threads,
)
from dfd_benchmarks.peers.networks import Kind, Networks
from dfd_benchmarks.results.schema import Figure, Result, RunInfo
from dfd_edge import Detector
from dfd_edge.bundle import Bundle
from dfd_edge.errors import DfdError, SourceError, UsageError
from dfd_edge.inference.session import Session
from dfd_training.recipes.networks import last_logit_model


class NotebookLoop:
    """A clip to its P(fake), the notebooks' way.

    Args:
        networks: The Keras models.
        frames: Number of frames of a clip that are judged, from the first on.
    """

    def __init__(self, networks: Networks, frames: int) -> None:
        self._size = networks.size
        self._frames = frames
        self._extractor = keras.Model(networks.frame.input, networks.frame.output["features"])
        logit = last_logit_model(networks.sequence)
        self._recurrent = keras.Model(logit.input, keras.ops.sigmoid(logit.output))
        self._width = networks.feature_width

    def judge(self, clip: Path) -> float:
        """P(fake) of a clip.

        Raises:
            SourceError: It cannot be read.
        """
        return self.judge_pictures(self.read(clip))

    def read(self, clip: Path) -> NDArray[np.uint8]:
        """The first frames of a clip: uint8 [T, S, S, 3], RGB, T at most `frames`.

        Raises:
            SourceError: OpenCV reads none.
        """
        video = cv2.VideoCapture(str(clip))
        pictures: list[NDArray[Any]] = []
        try:
            while len(pictures) < self._frames:
                found, frame = video.read()
                if not found:
                    break
                height, width = frame.shape[:2]
                side = min(height, width)
                top, left = (height - side) // 2, (width - side) // 2
                square = frame[top : top + side, left : left + side]
                pictures.append(cv2.resize(square, (self._size, self._size))[:, :, [2, 1, 0]])
        finally:
            video.release()
        if not pictures:
            raise SourceError(clip, "OpenCV reads no frame of it", "give a clip that it reads")
        return np.array(pictures, np.uint8)

    def judge_pictures(self, pictures: NDArray[np.uint8]) -> float:
        """P(fake) of pictures as `read` gives them."""
        features = np.zeros((1, self._frames, self._width), np.float32)
        mask = np.zeros((1, self._frames), np.bool_)
        features[0, : len(pictures)] = self.features(pictures)
        mask[0, : len(pictures)] = True
        given = {"features": features, "mask": mask}
        return float(self._recurrent.predict(given, verbose=0)[0, 0])

    def features(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of pictures, one after the other: float32 [T, F]."""
        found = np.empty((len(pictures), self._width), np.float32)
        for index, picture in enumerate(pictures):
            batch = picture[None].astype(np.float32)
            found[index] = self._extractor.predict(batch, verbose=0)[0]
        return found


BARS: dict[tuple[Kind, str], float] = {
    ("inception", "fp32"): 2.5,
    ("shipped", "fp32"): 8.0,
    ("shipped", "int8"): 15.0,
}
"""By network and precision, how many times faster than the notebooks' loop."""
MAX_PICTURE_DIFFERENCE = 6.0
"""Allowed mean difference of the pictures, of 255: the two decoders may differ."""


def measure_loop(
    networks: Networks,
    bundle: Bundle,
    crops: Crops,
    *,
    clip: Path,
    kind: Kind | None,
    threads: int,
    runs: int,
    on_run: Callable[[], object] = lambda: None,
) -> Result:
    """Judges a clip both ways, turn by turn.

    Decoding, cutting and resizing count; loading models and libraries does not. TensorFlow has all
    cores, as in notebooks.

    Args:
        networks: The Keras models.
        bundle: The same, exported; it judges as many first frames as there are crops.
        crops: uint8 [n, S, S, 3], RGB: what the runtime cuts from the clip.
        clip: The clip.
        kind: Which networks they are, for the bars; None has none.
        threads: Inside an operator of the runtime.
        runs: How often the clip is judged each way.
        on_run: Called after each run.

    Raises:
        UsageError: `runs` is below 1.
        SourceError: The clip cannot be read, or has fewer frames.
        DfdError: Both do not say the same.
    """
    if runs < 1:
        raise UsageError(f"runs is {runs}; give 1 or more")
    notebook = NotebookLoop(networks, len(crops))
    detectors = {
        precision: Detector.load(bundle.path, provider="cpu", precision=precision, threads=threads)
        for precision in bundle.manifest.frame.variants
    }
    session = Session.open(bundle, provider="cpu", precision="fp32", threads=threads)
    checked = _check(notebook, session, detectors, crops, clip)
    ways: dict[str, Callable[[], object]] = {"notebook": lambda: notebook.judge(clip)}
    for precision, detector in detectors.items():
        ways[precision] = lambda detector=detector: detector.analyze(clip)  # type: ignore[misc]
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for work in ways.values():
        work()
    for _ in range(runs):
        for name, work in ways.items():
            started_s = time.perf_counter()
            work()
            costs[name].append(time.perf_counter() - started_s)
        on_run()
    return Result(
        benchmark="peers",
        arguments={
            "network": networks.name,
            "size": networks.size,
            "frames": len(crops),
            "threads": threads,
            "loop": True,
        },
        ran=RunInfo.of(session, precision="fp32", threads=threads),
        figures=_figures(costs, kind),
        details={
            "clip": clip.name,
            "weights": networks.weights,
            "precisions": list(detectors),
            "tensorflow_threads": tensorflow_threads() or "all cores",
            **checked,
        },
    )


def _check(
    notebook: NotebookLoop,
    session: Session,
    detectors: dict[str, Detector],
    crops: Crops,
    clip: Path,
) -> dict[str, Any]:
    """Both say the same of the same pictures, and read the same pictures from the clip.

    Raises:
        DfdError: They do not; int8 alone may differ.
    """
    pictures = notebook.read(clip)
    if pictures.shape != crops.shape:
        raise SourceError(clip, f"OpenCV reads {len(pictures)} of its {len(crops)} first frames")
    distance = float(np.abs(pictures.astype(np.int16) - crops).mean())
    if distance > MAX_PICTURE_DIFFERENCE:
        raise DfdError(
            f"{clip}: its frames as OpenCV reads them differ from the runtime's by {distance:.1f} "
            f"of 255 (allowed: {MAX_PICTURE_DIFFERENCE:g}): nothing was measured: give another clip"
        )
    wanted_features = session.run_frame(crops).features
    check_distinguishes(wanted_features)
    features = difference([notebook.features(crops)], [wanted_features])
    check_same("the notebooks' CNN", features)
    wanted = _logit(notebook.judge_pictures(crops))
    differences = {}
    for precision, detector in detectors.items():
        p_fake = detector.analyze(clip).p_fake
        if p_fake is None:
            raise SourceError(clip, "too short to be judged", "give one of 4 frames or more")
        differences[precision] = abs(_logit(p_fake) - wanted)
    check_same("the notebooks' loop", differences["fp32"] / abs(wanted))
    return {
        "picture_difference": distance,
        "feature_difference": features,
        "logit_difference": differences,
    }


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability)) if 0 < probability < 1 else math.inf


def _figures(costs: dict[str, list[float]], kind: Kind | None) -> list[Figure]:
    notebook = costs["notebook"]
    figures = [Figure("clip.notebook", "a clip, notebooks' loop", "s", "lower", tuple(notebook))]
    for precision, values in costs.items():
        if precision == "notebook":
            continue
        bar = BARS.get((kind, precision)) if kind is not None else None
        label = f"Detector.analyze, {precision}"
        figures += [
            Figure(f"clip.{precision}", f"a clip, {label}", "s", "lower", tuple(values)),
            Figure(
                f"ratio.{precision}",
                f"{label}: times faster",
                "x",
                "higher",
                _ratio(notebook, values),
                bar,
            ),
        ]
    return figures


def _ratio(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    return tuple(n / d for n, d in zip(numerators, denominators, strict=True))
