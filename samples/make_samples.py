"""Makes the sample clips from pictures in the public domain that Python packages carry.

A still picture becomes footage: a hand-held camera moves over it, the light changes, and a sensor
adds noise that is new in each frame. One clip is then forged with the project's own face swap.
The result depends on the seeds alone (and, in its last bits, on the versions of the encoder and
of OpenCV).

Run it with `make samples`, or `python samples/make_samples.py [FOLDER]`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from skimage import data as pictures

from dfd_edge.faces import FaceDetector, FaceMesh
from dfd_training.augment.synthesis import BlendParameters, face_swap
from dfd_training.augment.synthesis.colour import ColourChange
from dfd_training.augment.synthesis.detail import DetailChange, DetailKind
from dfd_training.augment.synthesis.geometry import WOBBLE_GRID, MaskRegion

WIDTH, HEIGHT = 640, 480
RATE_HZ = 25
DURATION_S = 4.0
FRAMES = round(DURATION_S * RATE_HZ)
CRF = 24
"""x264's constant rate factor: an ordinary quality for a clip that is shared."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shot:
    """How a still picture is filmed.

    Attributes:
        centre: where the camera looks, shares of the picture's width and height.
        view: width of what it sees, share of the picture's width, at the start and at the end.
        sway: how far the hand moves the camera, share of the view's width.
        noise: standard deviation of the sensor's noise in mid-grey, grey levels.
        seed: seed of the motion, the light and the noise.
    """

    centre: tuple[float, float]
    view: tuple[float, float]
    sway: float
    noise: float
    seed: int


ASTRONAUT = Shot(centre=(0.5, 0.34), view=(0.84, 0.7), sway=0.02, noise=3.0, seed=1)
HOPPER = Shot(centre=(0.5, 0.38), view=(0.9, 0.98), sway=0.02, noise=3.0, seed=2)
COFFEE = Shot(centre=(0.5, 0.5), view=(0.8, 0.9), sway=0.02, noise=3.0, seed=3)

FORGERY = BlendParameters(
    region=MaskRegion.BROWS_TO_CHIN,
    grow=1.0,
    wobble=np.zeros((WOBBLE_GRID, WOBBLE_GRID, 2), np.float32),
    feather=0.035,
    ratio=1.0,
    shift=np.zeros(2, np.float32),
    zoom=1.0,
    colour=ColourChange((0.0, 0.0, 0.0), contrast=1.0, gamma=1.0, saturation=1.0, hue=0.0),
    # Swap models paint softer faces than a camera records, and without its noise.
    detail=DetailChange(DetailKind.BLUR, strength=0.1),
    change_target=False,
    colour_share=0.85,
)
FORGERY_SEED = 4


DOCTOR_CLIP = Path(__file__).resolve().parents[1] / "runtime" / "dfd_edge" / "cli" / "doctor.mp4"
"""Clip that `dfd-edge --doctor` judges; small, since it is part of the wheel."""
DOCTOR_STEP, DOCTOR_FRAMES = 5, 8
DOCTOR_VIEW = (slice(20, 372), slice(144, 496))


def main() -> None:
    """Write the clips to the folder named on the command line, by default to this script's.

    The doctor's clip goes to the runtime, where no folder is named.
    """
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    doctor_clip = folder / DOCTOR_CLIP.name if len(sys.argv) > 1 else DOCTOR_CLIP
    astronaut = list(film(_bundled("astronaut"), ASTRONAUT))
    hopper = list(film(_grace_hopper(), HOPPER))
    for name, frames in (
        ("real_astronaut.mp4", astronaut),
        ("real_hopper.mp4", hopper),
        ("swapped_astronaut.mp4", swap(astronaut, hopper)),
        ("no_face.mp4", film(_bundled("coffee"), COFFEE)),
    ):
        encode(frames, folder / name)
    excerpt(folder / "swapped_astronaut.mp4", doctor_clip)


def excerpt(clip: Path, path: Path) -> None:
    """Write a few frames of a clip, cut to the face."""
    with av.open(str(clip)) as container:
        frames = itertools.islice(container.decode(video=0), DOCTOR_STEP * DOCTOR_FRAMES)
        few = [frame.to_ndarray(format="bgr24") for frame in frames][::DOCTOR_STEP]
    encode((frame[DOCTOR_VIEW] for frame in few), path, rate_hz=Fraction(RATE_HZ, DOCTOR_STEP))


def film(picture: Picture, shot: Shot) -> Iterator[Picture]:
    """Film a still picture.

    Args:
        picture: uint8 [any, any, 3], BGR.
        shot: how.

    Yields:
        `FRAMES` frames, uint8 [HEIGHT, WIDTH, 3], BGR.
    """
    rng = np.random.default_rng(shot.seed)
    sway = _wander(rng, 8)
    light = _wander(rng, 4)
    for number in range(FRAMES):
        still = cv2.warpPerspective(
            picture,
            _camera(picture.shape, shot, number / (FRAMES - 1), sway[number]),
            (WIDTH, HEIGHT),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        lit = _light(still.astype(np.float32), light[number])
        yield _sensor(lit, shot.noise, rng)


def swap(frames: list[Picture], donors: list[Picture]) -> Iterator[Picture]:
    """Lay the donor's face over each frame, the parameters drifting from frame to frame."""
    detector, mesh = FaceDetector(), FaceMesh()
    rng = np.random.default_rng(FORGERY_SEED)
    parameters = FORGERY
    for frame, donor in zip(frames, donors, strict=True):
        parameters = parameters.drifted(rng)
        yield face_swap(
            frame,
            _landmarks(detector, mesh, frame),
            donor,
            _landmarks(detector, mesh, donor),
            parameters,
        )


def encode(frames: Iterable[Picture], path: Path, *, rate_hz: Fraction = Fraction(RATE_HZ)) -> None:
    """Write frames as H.264 in MP4; under a temporary name until the file is whole."""
    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate_hz)
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / rate_hz
        # One thread: x264 divides a picture among its threads, and the bits depend on how.
        stream.options = {"crf": str(CRF), "preset": "slow", "threads": "1"}
        for number, picture in enumerate(frames):
            if not number:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    partial.replace(path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def _wander(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Smooth random curves, float32 [FRAMES, count], about in [-1, 1]."""
    time = np.arange(FRAMES)[:, None, None] / RATE_HZ
    rates_hz = np.array([0.18, 0.45, 1.1])[None, :, None]
    weights = np.array([0.55, 0.3, 0.15])[None, :, None]
    phase = rng.uniform(0, 2 * np.pi, (1, 3, count))
    pace = rng.uniform(0.8, 1.25, (1, 3, count))
    curves = (weights * np.sin(2 * np.pi * rates_hz * pace * time + phase)).sum(axis=1)
    return np.asarray(curves, np.float32)


def _camera(
    shape: tuple[int, ...], shot: Shot, progress: float, sway: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The map from pixels of the frame to pixels of the picture, [3, 3]."""
    height, width = shape[:2]
    eased = 0.5 - 0.5 * np.cos(np.pi * progress)
    view = width * (shot.view[0] + (shot.view[1] - shot.view[0]) * eased)
    scale = view / WIDTH
    turn = np.deg2rad(1.5) * float(sway[2])
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    centre = np.array([shot.centre[0] * width, shot.centre[1] * height])
    centre = centre + shot.sway * view * sway[:2]
    move = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    move[:2, 2] = centre - move[:2, :2] @ (WIDTH / 2, HEIGHT / 2)
    tilt = np.eye(3)
    tilt[2, :2] = 0.05 * sway[3] / WIDTH, 0.05 * sway[4] / HEIGHT
    tilt[2, 2] -= tilt[2, :2] @ (WIDTH / 2, HEIGHT / 2)
    result: NDArray[np.float64] = move @ tilt
    return result


def _light(picture: NDArray[np.float32], change: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brightness, warmth, and a lamp that wanders: float32 in and out, grey levels."""
    across = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :] * change[0]
    down = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None] * change[1]
    gain = 1.0 + 0.1 * change[2] + 0.08 * (across + down)
    warmth = 1.0 + 0.04 * change[3] * np.array([-1.0, 0.0, 1.0], np.float32)
    return np.asarray(picture * gain[:, :, None] * warmth, np.float32)


def _sensor(picture: NDArray[np.float32], noise: float, rng: np.random.Generator) -> Picture:
    """Photon and read-out noise, the colours of neighbouring pixels partly mixed."""
    grain = rng.standard_normal(picture.shape, np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * 2.0
    spread = noise * np.sqrt(np.clip(picture, 0, 255) / 170.0 + 0.25)
    return np.asarray(np.rint(np.clip(picture + grain * spread, 0, 255)), np.uint8)


def _landmarks(detector: FaceDetector, mesh: FaceMesh, frame: Picture) -> NDArray[np.float32]:
    faces = detector.detect(frame)
    landmarks = mesh.landmarks(frame, faces[0]) if faces else None
    if landmarks is None:
        raise SystemExit("no face found in the footage: the shot does not show it")
    return landmarks


def _bundled(name: str) -> Picture:
    """A picture that scikit-image carries, as BGR."""
    return np.ascontiguousarray(getattr(pictures, name)()[:, :, ::-1])


def _grace_hopper() -> Picture:
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path}: missing; install matplotlib with its sample data")
    return np.asarray(image, np.uint8)


if __name__ == "__main__":
    main()
