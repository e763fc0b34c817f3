"""Real photographs that packages carry, and clips made from them, as a small data set."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from skimage import data

from dfd_edge.faces import FaceDetector, FaceMesh
from dfd_training.augment.synthesis import draw_swap, face_swap
from dfd_training.data.prepare import prepare
from dfd_training.data.store import CropStore, StoredCrop
from dfd_training.data.table import read_table
from sample_clips import moving, write_clip

#: Clips of 1.6 s, at a rate whose consecutive frames are near enough to be measured.
RATE, FRAMES = 25, 40


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A portrait, BGR (NASA, public domain)."""
    return np.ascontiguousarray(data.astronaut()[:300, 80:380, ::-1])


@pytest.fixture(scope="session")
def hopper() -> NDArray[np.uint8]:
    """A portrait, BGR (US Navy, public domain)."""
    path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    assert image is not None
    return np.ascontiguousarray(image[:420, 60:460])


def landmarks_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    faces = FaceDetector().detect(image)
    assert faces
    points = FaceMesh().landmarks(image, faces[0])
    assert points is not None
    return points


@pytest.fixture(scope="session")
def astronaut_crop(astronaut: NDArray[np.uint8]) -> StoredCrop:
    """The portrait as a crop with its landmarks."""
    face = FaceDetector().detect(astronaut)[0]
    return StoredCrop(astronaut, face.box, landmarks_of(astronaut), 1.5)


@pytest.fixture(scope="session")
def hopper_crop(hopper: NDArray[np.uint8]) -> StoredCrop:
    """The other portrait as a crop with its landmarks."""
    face = FaceDetector().detect(hopper)[0]
    return StoredCrop(hopper, face.box, landmarks_of(hopper), 1.5)


@pytest.fixture(scope="session")
def small_data(
    tmp_path_factory: pytest.TempPathFactory,
    astronaut: NDArray[np.uint8],
    hopper: NDArray[np.uint8],
) -> Path:
    """A folder with `labels.csv`: photographs and clips of two people, and swaps of both."""
    root = tmp_path_factory.mktemp("data")
    rows: list[dict[str, str]] = []
    people = {"astronaut": astronaut, "hopper": hopper}
    for name, image in people.items():
        for number in range(4):
            look = cv2.convertScaleAbs(image, alpha=1.0 + 0.08 * number, beta=5 * number)
            cv2.imwrite(str(root / f"{name}_{number}.png"), look[:, ::-1] if number % 2 else look)
            rows.append({"path": f"{name}_{number}.png", "label": "REAL", "source": "photographs"})
    marks = {name: landmarks_of(image) for name, image in people.items()}
    for number in range(6):
        name = ("astronaut", "hopper")[number % 2]
        other = ("hopper", "astronaut")[number % 2]
        swapped = face_swap(
            people[name],
            marks[name],
            people[other],
            marks[other],
            draw_swap(np.random.default_rng(number)),
        )
        write_clip(root / f"clip{number}_real.mp4", moving(people[name], number, FRAMES), RATE)
        write_clip(root / f"clip{number}_fake.mp4", moving(swapped, number, FRAMES), RATE)
        shared = {"group": f"clip{number}", "source": "clips"}
        rows.append({"path": f"clip{number}_real.mp4", "label": "REAL", **shared})
        rows.append(
            {
                "path": f"clip{number}_fake.mp4",
                "label": "FAKE",
                "original": f"clip{number}_real.mp4",
                "generator": "landmark swap",
                **shared,
            }
        )
    cv2.imwrite(str(root / "leaf.png"), np.full((200, 200, 3), (40, 160, 60), np.uint8))
    rows.append({"path": "leaf.png", "label": "REAL", "source": "photographs"})
    (root / "broken.mp4").write_bytes(b"\x00" * 100)
    rows.append({"path": "broken.mp4", "label": "REAL", "source": "clips"})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="session")
def small_store(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> CropStore:
    """The crops of `small_data`."""
    out = tmp_path_factory.mktemp("store")
    prepare(read_table(small_data / "labels.csv"), small_data, out, workers=2)
    return CropStore(out)
