"""Clips of an archive are listed from folders, globs and manifests, each once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is of the extra `archive`")
pytest.importorskip("fsspec", reason="fsspec is not installed: it is of the extra `archive`")

import pyarrow as pa
import pyarrow.parquet as pq

from dfd_edge.archive.inputs import ManifestColumns, Selection, clips_of
from dfd_edge.errors import SourceNotFoundError, UsageError


def names(media: Path, *inputs: str, **options) -> list[str]:
    found = clips_of([str(media / text) if text else str(media) for text in inputs], **options)
    return [str(Path(clip.source).relative_to(media)) for clip in found]


def test_a_folder_stands_for_the_media_below_it(media: Path, sources):
    found = names(media, "")
    assert set(found) == sources
    assert found == names(media, ""), "the order is fixed"


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (("face0.png",), ["face0.png"]),
        (("face*.png", "face1.png"), [f"face{number}.png" for number in range(4)]),
        (("**/*.jpg",), ["more/plain.jpg"]),
        (("more", "more/film.mp4"), ["more/copy.png", "more/film.mp4", "more/plain.jpg"]),
    ],
)
def test_files_and_globs_stand_for_files_each_once(media: Path, inputs, expected):
    assert names(media, *inputs) == expected


ROWS = [
    {"path": "face0.png", "label": "FAKE", "note": "x"},
    {"path": "more/film.mp4", "label": "real", "note": "y"},
    {"path": "gone.mp4", "label": "", "note": "z"},
]


def write_manifest(folder: Path, suffix: str, rows: list[dict[str, str]] = ROWS) -> Path:
    path = folder / f"manifest{suffix}"
    if suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_manifests_name_clips_and_their_labels(tmp_path: Path, suffix: str):
    found = list(clips_of([str(write_manifest(tmp_path, suffix))]))
    folder = str(tmp_path)
    assert [(clip.source, clip.expected) for clip in found] == [
        (f"{folder}/face0.png", "fake"),
        (f"{folder}/more/film.mp4", "real"),
        (f"{folder}/gone.mp4", None),  # its row will say that it is missing
    ]


def test_columns_of_manifests_can_be_named(tmp_path: Path):
    rows = [{"where": "a.mp4", "truth": "1"}, {"where": "/b.mp4", "truth": "0"}]
    manifest = str(write_manifest(tmp_path, ".csv", rows))
    with pytest.raises(UsageError, match="name it with --column, there are where, truth"):
        list(clips_of([manifest]))
    found = list(clips_of([manifest], ManifestColumns("where", "truth")))
    assert [(clip.source, clip.expected) for clip in found] == [
        (f"{tmp_path}/a.mp4", "fake"),
        ("/b.mp4", "real"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a.csv", "path,label\nx.mp4,maybe\n", "row 1: the label 'maybe' is unknown"),
        ("a.csv", "path,label\n,real\n", "row 1: path is '', not an address"),
        ("a.jsonl", "[1]\n", "not an object"),
        ("a.jsonl", "{\n", "not a manifest that can be read"),
        ("a.parquet", "text", "not a manifest that can be read"),
        ("a.csv", "", "stands for no video, no picture and no row"),
    ],
)
def test_broken_manifests_are_refused_in_a_line(tmp_path: Path, name, text, error):
    (tmp_path / name).write_text(text)
    with pytest.raises((UsageError, SourceNotFoundError), match=error) as caught:
        list(clips_of([str(tmp_path / name)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["no-such-folder", "nothing*.mp4", "no.csv"])
def test_inputs_that_stand_for_nothing_are_refused(tmp_path: Path, text: str):
    with pytest.raises(SourceNotFoundError):
        list(clips_of([str(tmp_path / text)]))


def test_shards_divide_the_clips(media: Path, sources):
    parts = [names(media, "", selection=Selection(shard=n, shards=3)) for n in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(sources)
    assert sum(bool(part) for part in parts) > 1


def test_since_leaves_out_what_was_not_changed(media: Path, tmp_path: Path):
    for name, time_s in (("old.png", 1_000.0), ("new.png", 3_000.0)):
        (tmp_path / name).write_bytes((media / "face0.png").read_bytes())
        os.utime(tmp_path / name, (time_s, time_s))
    assert names(tmp_path, "", selection=Selection(since_s=2_000.0)) == ["new.png"]


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(UsageError, match="credentials come from the environment") as caught:
        list(clips_of(["s3://user:secret@bucket/clips"]))
    assert "secret" not in str(caught.value)
