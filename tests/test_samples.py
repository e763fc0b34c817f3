"""The sample clips are what their page says."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dfd_edge.faces import FaceDetector, FaceMesh

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
WITH_FACE = ("real_astronaut.mp4", "real_hopper.mp4", "swapped_astronaut.mp4")
ALL = (*WITH_FACE, "no_face.mp4")


def frames(name: str, every: int) -> list[NDArray[np.uint8]]:
    with av.open(str(SAMPLES / name)) as container:
        decoded = itertools.islice(container.decode(video=0), 0, None, every)
        return [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in decoded]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that makes the clips, imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SAMPLES))
        return importlib.import_module("make_samples")


def test_every_clip_is_documented() -> None:
    clips = {path.name for path in SAMPLES.glob("*.mp4")}
    page = (SAMPLES / "README.md").read_text()
    assert clips == set(ALL)
    assert all(f"`{name}`" in page for name in clips)


@pytest.mark.parametrize("name", ALL)
def test_clip_is_small_and_ordinary(name: str) -> None:
    assert (SAMPLES / name).stat().st_size < 400_000
    with av.open(str(SAMPLES / name)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (640, 480)
        assert stream.average_rate == 25
        assert stream.frames == 100


@pytest.mark.parametrize("name", WITH_FACE)
def test_one_face_is_seen_throughout(name: str) -> None:
    detector = FaceDetector()
    assert {len(detector.detect(image)) for image in frames(name, every=10)} == {1}


def test_no_face_is_seen_in_the_clip_without_one() -> None:
    detector = FaceDetector()
    assert {len(detector.detect(image)) for image in frames("no_face.mp4", every=10)} == {0}


def test_the_swap_changes_the_face_and_nothing_else() -> None:
    detector, mesh = FaceDetector(), FaceMesh()
    pairs = zip(
        frames("real_astronaut.mp4", every=25),
        frames("swapped_astronaut.mp4", every=25),
        strict=True,
    )
    for real, swapped in pairs:
        landmarks = mesh.landmarks(real, detector.detect(real)[0])
        assert landmarks is not None
        (x0, y0), (x1, y1) = landmarks.min(axis=0).astype(int), landmarks.max(axis=0).astype(int)
        margin = (y1 - y0) // 5
        change = np.abs(real.astype(np.int16) - swapped).mean(axis=2)
        face = change[y0:y1, x0:x1].mean()
        change[y0 - margin : y1 + margin, x0 - margin : x1 + margin] = 0
        # What remains outside is the encoder's: the same picture, coded in another context.
        assert change.mean() < 2.0
        assert face > 5 * change.mean()


def test_footage_depends_on_its_seed_alone(script: ModuleType) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    first, again = (
        list(itertools.islice(script.film(picture, script.ASTRONAUT), 3)) for _ in range(2)
    )
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    # The camera stands almost still from one frame to the next; the noise is new.
    assert not np.array_equal(first[0], first[1])


def test_noise_is_drawn_anew_in_each_frame(script: ModuleType) -> None:
    grey = np.full((512, 512, 3), 128, np.uint8)
    # Differences of neighbouring pixels: the light is smooth, what is left is noise.
    first, second = (
        np.diff(image.astype(np.float32), axis=1)
        for image in itertools.islice(script.film(grey, script.ASTRONAUT), 2)
    )
    assert first.std() > 1.0
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
