"""From what is typed to a list of sources."""

from __future__ import annotations

import json
import shutil

import cv2
import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from dfd_edge import EventKind, records_schema
from dfd_edge.cli.command import command
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


class TestLeftOut:
    def told(self, folder):
        events = []
        items, errors = expand([folder], on_event=events.append)
        assert not errors
        assert {(event.source, event.kind) for event in events} <= {(str(folder), EventKind.NOTE)}
        return names(items, folder), [event.detail for event in events]

    def test_files_of_other_kinds_are_told(self, folder):
        for number in range(12):
            (folder / "sub" / f"{number:02}.json").write_text("{}")
        found, (detail,) = self.told(folder)
        assert found == ["a.png", "b.mp4", "sub/c.mkv"]
        assert detail.startswith("13 files of other kinds left out: notes.txt, sub/00.json, ")
        assert detail.endswith(" and 5 more")

    def test_a_folder_of_media_alone_has_nothing_to_tell(self, folder):
        (folder / "notes.txt").unlink()
        assert self.told(folder)[1] == []

    def test_linked_folders_are_gone_through_once(self, folder, tmp_path_factory, plain_clip):
        store = tmp_path_factory.mktemp("store")
        shutil.copy(plain_clip, store / "d.mp4")
        (store / "again").symlink_to(folder)
        (store / "self").symlink_to(store)
        for name in ("link", "twice"):
            (folder / name).symlink_to(store)
        (folder / "a sub").symlink_to(folder / "sub")
        found, details = self.told(folder)
        assert found == ["a.png", "b.mp4", "sub/c.mkv", "link/d.mp4"]
        assert len(details) == 1, "the notes"

    def test_links_out_of_the_folder_are_told(self, folder):
        (folder / "sub" / "up").symlink_to(folder.parent)
        found, (up, _) = self.told(folder)
        assert found == ["a.png", "b.mp4", "sub/c.mkv"]
        assert up == "1 link to a folder around this one not followed: sub/up"

    def test_a_linked_file_that_is_gone_is_an_error(self, folder):
        (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
        _, (error,) = expand([folder])
        assert str(error) == f"{folder}/gone.mp4: no such file or folder"

    def test_the_command_says_it(self, folder, tiny_bundle):
        arguments = ["--model", str(tiny_bundle), str(folder)]
        done = CliRunner().invoke(command, arguments)
        (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
        assert line == f"dfd-edge: {folder}: note: 1 file of other kinds left out: notes.txt"
        done = CliRunner().invoke(command, ["--json", *arguments])
        rows = [json.loads(row) for row in done.stdout.splitlines()]
        (row,) = [row for row in rows if row["record"] == "event"]
        assert row["kind"] == "note"
        jsonschema.validate(row, records_schema())


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
