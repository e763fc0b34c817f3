"""From what is typed to a list of sources."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from dfd_edge.errors import SourceError
from dfd_edge.sources import SourceItem, SourceKind, expand
from dfd_edge.sources.address import redact


@pytest.fixture
def folder(tmp_path, plain_clip):
    """b.mp4, a.png, sub/c.mkv, and things that are no media."""
    shutil.copy(plain_clip, tmp_path / "b.mp4")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "sub").mkdir()
    shutil.copy(plain_clip, tmp_path / "sub" / "c.mkv")
    (tmp_path / "notes.txt").write_text("notes")
    shutil.copy(plain_clip, tmp_path / ".hidden.mp4")
    return tmp_path


def names(items, folder):
    return [str(item.location).removeprefix(f"{folder}/") for item in items]


def test_a_folder_gives_its_videos_and_pictures_sorted(folder):
    items, errors = expand([folder])
    assert names(items, folder) == ["a.png", "b.mp4", "sub/c.mkv"]
    assert [item.kind for item in items] == [
        SourceKind.IMAGE,
        SourceKind.VIDEO,
        SourceKind.VIDEO,
    ]
    assert not errors


def test_each_file_comes_once(folder):
    items, _ = expand([folder / "b.mp4", folder, folder / "a.png"])
    assert names(items, folder) == ["b.mp4", "a.png", "sub/c.mkv"]


def test_globs(folder):
    items, errors = expand([f"{folder}/**/*.m*"])
    assert names(items, folder) == ["b.mp4", "sub/c.mkv"]
    assert not errors


def test_a_file_whose_name_looks_like_a_glob(folder):
    shutil.copy(folder / "b.mp4", folder / "b [1].mp4")
    items, errors = expand([folder / "b [1].mp4"])
    assert names(items, folder) == ["b [1].mp4"]
    assert not errors


def test_what_is_missing_is_told_and_the_rest_is_kept(folder):
    items, errors = expand([folder / "gone.mp4", folder / "b.mp4", f"{folder}/*.avi"])
    assert names(items, folder) == ["b.mp4"]
    assert [str(error) for error in errors] == [
        f"{folder}/gone.mp4: no such file or folder",
        f"{folder}/*.avi: no file matches this pattern",
    ]


def test_a_folder_without_media_is_told(tmp_path):
    items, errors = expand([tmp_path])
    assert not items
    assert "no video and no picture" in str(errors[0])


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (0, SourceKind.CAMERA),
        ("-", SourceKind.STANDARD_INPUT),
        ("rtsp://camera/stream", SourceKind.ADDRESS),
        ("HTTP://host/clip.mp4", SourceKind.ADDRESS),
    ],
)
def test_kinds(source, kind):
    assert SourceItem.of(source).kind is kind


def test_a_picture_under_a_strange_name_is_still_a_picture(folder):
    shutil.copy(folder / "a.png", folder / "picture.dat")
    assert SourceItem.of(folder / "picture.dat").kind is SourceKind.IMAGE


def test_missing_files_are_refused():
    with pytest.raises(SourceError, match="no such file"):
        SourceItem.of("gone.mp4")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:secret@host:554/live", "rtsp://host:554/live"),
        ("http://host/live?token=secret", "http://host/live?..."),
        ("http://us@er:se@cret@host/live", "http://host/live"),
        ("udp://@239.0.0.1:1234", "udp://239.0.0.1:1234"),
    ],
)
def test_credentials_are_never_shown(address, shown):
    assert redact(address) == shown
    assert "secret" not in SourceItem.of(address).name


def test_addresses_that_differ_in_what_is_not_shown_are_told_apart():
    items, errors = expand(
        [
            "rtsp://anna:secret@camera.local/stream?channel=1",
            "rtsp://ben:hidden@camera.local/stream?channel=1",
            "rtsp://camera.local/stream?channel=2",
            "rtsp://camera.local/stream",
        ]
    )
    assert not errors
    assert [item.name for item in items] == [
        "rtsp://camera.local/stream?...",
        "rtsp://camera.local/stream?... #2",
        "rtsp://camera.local/stream?... #3",
        "rtsp://camera.local/stream",
    ]
