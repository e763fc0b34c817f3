"""Clips that the tests of the runtime share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clip_maker import face_frames, plain_frames, write_clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for clips that are made once."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="session")
def face_clip(clips: Path) -> Path:
    """Three seconds of one face, 25 frames a second."""
    return write_clip(clips / "face.mp4", face_frames(75))


@pytest.fixture(scope="session")
def plain_clip(clips: Path) -> Path:
    """Two seconds without a face."""
    return write_clip(clips / "plain.mp4", plain_frames(50))


@pytest.fixture(scope="session")
def development_data() -> Path:
    """The development data, where the environment variable DFD_DATA names its folder."""
    folder = os.environ.get("DFD_DATA")
    if not folder:
        pytest.skip("DFD_DATA is not set: it names the folder of the development data")
    if not Path(folder, "labels.csv").is_file():
        pytest.skip(f"DFD_DATA={folder} holds no labels.csv")
    return Path(folder)
