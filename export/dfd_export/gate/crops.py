"""Crops for the parity gate, and the face detector that real ones were made with."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfd_edge.bundle.manifest import FaceSpec
from dfd_edge.errors import UsageError
from dfd_edge.faces import DETECTOR_NAME, DetectorOptions, FaceDetector, crop_region, extract_crop
from dfd_edge.inference.names import Resize
from dfd_edge.sources import read_image
from dfd_training.data.croppers import check_exportable
from dfd_training.data.store import CropStore

MAX_CROPS = 16
"""As many as the gate's largest batch needs, twice over."""

DEFAULT_RATE_HZ = 5.0

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}

Crops = NDArray[np.uint8]


def read_crops(path: Path, *, size: int, crop_scale: float) -> Crops:
    """Reads up to `MAX_CROPS` crops, evenly spread over what is there.

    Args:
        path: A crop store of `dfd-train prepare`, a folder of pictures of faces, or a `.npy`
            file with uint8 [n, size, size, 3], RGB.
        size: Side of the crops in pixels.
        crop_scale: Side of the model's crop over the size of the face, to cut from a store.

    Returns:
        uint8 [n, size, size, 3], RGB, n at least 1.

    Raises:
        UsageError: There are no crops, or the array has another shape.
    """
    if path.suffix == ".npy":
        crops = _read_array(path, size)
    elif is_store(path):
        store = CropStore(path)
        rows = store.index.iloc[_spread(len(store.index))]
        crops = cut_crops(store, rows, size=size, crop_scale=crop_scale)
    else:
        crops = _read_pictures(path, size)
    if not len(crops):
        raise UsageError(f"{path}: holds no crops: give a crop store, pictures or a .npy file")
    return crops


def random_crops(rng: np.random.Generator, count: int, size: int) -> Crops:
    """Draws noise at two scales, of random colour, brightness and contrast.

    Even noise would not do: averaged over a picture it is the same grey each time, and networks
    say nearly the same of it.

    Args:
        rng: Draws it.
        count: How many.
        size: Side in pixels.

    Returns:
        uint8 [count, size, size, 3].
    """
    crops = []
    for _ in range(count):
        places = int(rng.integers(2, 12))
        coarse = rng.uniform(0, 255, (places, places, 3)).astype(np.float32)
        field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
        grain = rng.normal(0, rng.uniform(2, 60), (size, size, 3))
        level, contrast = rng.uniform(60, 195), rng.uniform(0.3, 1.5)
        crops.append(np.clip((field - 127.5) * contrast + level + grain, 0, 255))
    return np.array(crops, np.uint8)


def crop_rate(path: Path) -> float:
    """The rate at which a store's clips were sampled; for other crops, the default."""
    return CropStore(path).rate_hz if is_store(path) else DEFAULT_RATE_HZ


def face_spec(path: Path) -> FaceSpec:
    """The face detector that a store was made with; for other crops, the runtime's own.

    Raises:
        UsageError: The runtime does not have the store's detector.
    """
    if is_store(path):
        store = CropStore(path)
        check_exportable(store.detector, path)
        settings = store.settings
        options = settings["detector_options"]
        assert isinstance(options, dict)
        return FaceSpec(store.detector, str(settings["detector_sha256"]), options)
    return FaceSpec(DETECTOR_NAME, FaceDetector().sha256, DetectorOptions().to_dict())


def is_store(path: Path) -> bool:
    """Returns whether a folder is a crop store."""
    return (path / "store.json").is_file()


def _read_array(path: Path, size: int) -> Crops:
    try:
        crops = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not an array file ({error})") from error
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise UsageError(
            f"{path}: {crops.dtype} {list(crops.shape)}, but the model takes uint8 "
            f"[n, {size}, {size}, 3]"
        )
    return np.asarray(crops[_spread(len(crops))], np.uint8)


def cut_crops(
    store: CropStore,
    rows: pd.DataFrame,
    *,
    size: int,
    crop_scale: float,
    resize: Resize = Resize.AREA,
) -> Crops:
    """Cuts the model's crops out of those of a store: uint8 [n, size, size, 3], RGB.

    Args:
        store: The store.
        rows: Rows of its index.
        size: Side of the crops in pixels.
        crop_scale: Side of the model's crop over the size of the face.
        resize: How they come to that size.
    """
    crops = np.empty((len(rows), size, size, 3), np.uint8)
    for index, (shard, position) in enumerate(zip(rows["shard"], rows["position"], strict=True)):
        stored = store.crop(shard, int(position))
        region = crop_region(stored.box, crop_scale)
        crops[index] = extract_crop(stored.image, region, size, resize)
    return crops


def _read_pictures(path: Path, size: int) -> Crops:
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder of crops")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _PICTURES)
    pictures = [read_image(files[index]) for index in _spread(len(files))]
    resized = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in pictures]
    return np.array([picture[:, :, ::-1] for picture in resized], np.uint8)


def _spread(count: int) -> list[int]:
    """Up to `MAX_CROPS` positions, evenly spread over `count`."""
    taken = min(count, MAX_CROPS)
    return [index * count // taken for index in range(taken)]
