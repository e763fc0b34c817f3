"""A small archive: pictures and short clips of a face and of none, a copy, and broken files."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import cv2
import pytest
from clip_maker import face_frames, plain_frames


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory, face_clip: Path) -> Path:
    """Eight files, of which one is a copy and two are broken. Not to be written to."""
    folder = tmp_path_factory.mktemp("archive") / "media"
    (folder / "more").mkdir(parents=True)
    for number, frame in enumerate(face_frames(40)[::13]):
        cv2.imwrite(str(folder / f"face{number}.png"), frame)
    cv2.imwrite(str(folder / "more" / "plain.jpg"), plain_frames(1)[0])
    shutil.copy(face_clip, folder / "more" / "film.mp4")
    shutil.copy(folder / "face0.png", folder / "more" / "copy.png")
    (folder / "broken.mp4").write_bytes(face_clip.read_bytes()[:3000])
    (folder / "notes.txt").write_text("not media, and left out")
    return folder


@pytest.fixture
def sources() -> frozenset[str]:
    """The media of the small archive."""
    return frozenset(
        (*("face0.png", "face1.png", "face2.png", "face3.png", "broken.mp4"),)
        + ("more/plain.jpg", "more/film.mp4", "more/copy.png")
    )


@pytest.fixture(scope="session")
def archived(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the small archive, judged once. Not to be written to."""
    from dfd_edge.archive.run import ArchiveRequest, run_archive
    from dfd_edge.archive.settings import JudgeSettings

    out = tmp_path_factory.mktemp("archived") / "results"
    settings = JudgeSettings(frame_rows=True, thumbnails=True, duration_s=1.0)
    request = ArchiveRequest(inputs=(str(media),), out=str(out), judge=settings, jobs=2)
    run_archive(request, threading.Event())
    return out
