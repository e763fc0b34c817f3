"""Manifests by which somebody attacks the reader end in a record, soon, and in little memory."""

from __future__ import annotations

import dataclasses
import os
import struct
import sys
from pathlib import Path

import pytest
from jumbf import box, chain, label_of, manifests_of, png_with, store_of, superbox, with_claim

from dfd_edge import Provenance, read_provenance
from dfd_edge.provenance import bounded, boxes
from dfd_edge.provenance.bounded import read_bounded
from dfd_edge.provenance.boxes import BoxError, check_store
from dfd_edge.provenance.record import Outcome

#: Outcomes of a manifest that does not hold, or is none.
USELESS = (Outcome.ERROR, Outcome.BROKEN, Outcome.NOTHING)
#: More than a name may be long, with all that a name should not hold.
HOSTILE = "\x1b[31m\x07\x00\u202e\u2066<script>alert(1)</script>\r\n" + "a" * 60_000


@pytest.fixture(scope="module")
def plain(media) -> Path:
    return media("png")


@pytest.fixture(scope="module")
def signed(plain, camera, tmp_path_factory) -> Path:
    from signing import sign

    target = tmp_path_factory.mktemp("signed") / "signed.png"
    sign(plain, target, camera)
    return target


@pytest.fixture(scope="module")
def store(plain, signed, camera, tmp_path_factory) -> bytes:
    """A store of two manifests: of the file, and of the two ingredients that it has."""
    from signing import sign

    target = tmp_path_factory.mktemp("signed") / "again.png"
    parts = [({"title": name, "relationship": "componentOf"}, signed) for name in ("one", "two")]
    return sign(plain, target, camera, ingredients=parts)


def check(provenance: Provenance) -> Provenance:
    """Checks what holds for every record."""
    from signing import texts

    assert "within" not in (provenance.error or ""), "it was ended for its time"
    for text in texts(provenance.to_record()):
        assert text.isprintable()
        assert len(text) < 1200
    assert (provenance.error is None) == (provenance.outcome is not Outcome.ERROR)
    return provenance


# Trees of ingredients


@pytest.mark.parametrize(
    "leads_to",
    [
        pytest.param([*range(1, 100), None], id="a hundred deep"),
        pytest.param([*range(1, 1000), None], id="a thousand deep"),
        pytest.param([0], id="of itself"),
        pytest.param([1, 0], id="of two in a circle"),
        pytest.param([*range(1, 1000), 0], id="of a thousand in a circle"),
    ],
)
def test_deep_and_circular_trees_come_to_an_end(plain, store, tmp_path, leads_to):
    path = png_with(plain, tmp_path / "case.png", chain(store, leads_to))
    assert check(read_provenance(path)).outcome in USELESS


def test_a_tree_that_doubles_with_each_of_its_levels_is_cut(plain, store, tmp_path):
    path = png_with(plain, tmp_path / "case.png", chain(store, [*range(1, 40), None]))
    provenance = check(read_provenance(path))
    assert provenance.outcome in USELESS
    assert provenance.manifest is None or provenance.manifest.cut


@pytest.mark.slow
def test_a_wide_tree_is_cut(plain, camera, trust, tmp_path):
    from signing import sign

    path = tmp_path / "wide.png"
    part = ({"title": "part", "relationship": "componentOf"}, plain)
    sign(plain, path, camera, ingredients=[part] * 1000)
    provenance = check(read_provenance(path, trust_list=trust))
    assert provenance.manifest is not None
    assert provenance.manifest.cut
    assert len(provenance.manifest.ingredients) == 500


# CBOR and boxes inside a store


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x81" * 1_000_000, id="lists in lists"),
        pytest.param(b"\xa1\0" * 1_000_000, id="maps in maps"),
        pytest.param(b"\xc1" * 1_000_000, id="tags of tags"),
        pytest.param(b"\x9f" * 1_000_000, id="lists without an end"),
        pytest.param(b"\x9b" + b"\x0f" * 8, id="a list of 10^18"),
        pytest.param(b"\x7b" + b"\x0f" * 8, id="a text of 10^18 bytes"),
        pytest.param(b"\xff" * 1000, id="ends of nothing"),
    ],
)
def test_bad_cbor_is_an_error(plain, store, tmp_path, claim):
    path = png_with(plain, tmp_path / "case.png", with_claim(store, claim))
    assert check(read_provenance(path)).outcome in USELESS


def test_cbor_that_unfolds_to_gigabytes_meets_the_limit_of_memory(plain, store, tmp_path):
    items = 0x1800000
    claim = b"\x9a" + struct.pack(">I", items) + b"\xf6" * items
    provenance = check(
        read_provenance(png_with(plain, tmp_path / "c.png", with_claim(store, claim)))
    )
    assert provenance.outcome is Outcome.ERROR
    assert "1,024 MB" in str(provenance.error)


@pytest.mark.parametrize("levels", [20, 100_000])
def test_boxes_in_boxes_are_an_error(plain, tmp_path, levels):
    unit = len(superbox(b""))
    nested = b"".join(superbox(b"", (n - 1) * unit) for n in range(levels, 0, -1))
    path = png_with(plain, tmp_path / "case.png", nested)
    assert check(read_provenance(path)).outcome in USELESS


@pytest.mark.slow
def test_ten_thousand_manifests_are_read_in_time(plain, store, tmp_path):
    below = manifests_of(store)[0]
    labels = (f"urn:c2pa:00000000-0000-0000-0000-{n:012d}".encode() for n in range(10_000))
    copies = [below.replace(label_of(below), label) for label in labels]
    path = png_with(plain, tmp_path / "case.png", store_of(copies))
    assert check(read_provenance(path)).outcome in USELESS


@pytest.mark.parametrize("length", [0, 1, 2, 7, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("where", ["store", "description", "manifest"])
def test_wrong_lengths_in_a_store_end_in_a_record(plain, store, tmp_path, where, length):
    at = {"store": 0, "description": 8, "manifest": store.index(b"jumb", 8) - 4}[where]
    wrong = store[:at] + struct.pack(">I", length) + store[at + 4 :]
    provenance = check(read_provenance(png_with(plain, tmp_path / "case.png", wrong)))
    # The length of a whole store is not signed, and a longer one ends where its chunk does.
    assert provenance.outcome in (USELESS if where != "store" else (*USELESS, Outcome.OTHER))


# Boxes around a store


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "mp4", "heic"])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wrong_lengths_around_a_store_end_in_a_record(media, camera, tmp_path, suffix, length):
    from signing import sign

    path = tmp_path / f"case.{suffix}"
    sign(media(suffix), path, camera)
    data = bytearray(path.read_bytes())
    name = {"jpg": b"\xff\xeb", "png": b"caBX", "webp": b"C2PA"}.get(suffix, boxes._UUID_C2PA)
    at = data.index(name)
    kind, start = {"jpg": (">H", at + 2), "png": (">I", at - 4), "webp": ("<I", at + 4)}.get(
        suffix, (">I", at - 8)
    )
    struct.pack_into(kind, data, start, length & (0xFFFF if suffix == "jpg" else 0xFFFFFFFF))
    path.write_bytes(data)
    assert check(read_provenance(path)).outcome in USELESS


FILE_TYPE = box(b"ftyp", b"isom\0\0\0\0")
C2PA = boxes._UUID_C2PA
RIFF = b"RIFF\x10\0\0\0WEBP"
JUMBF = b"JP\0\x01\0\0\0\x01"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (FILE_TYPE + struct.pack(">I4s", 7, b"free"), "7 bytes long, at byte 16"),
        (FILE_TYPE + struct.pack(">I4sQ", 1, b"free", 15), "15 bytes long, at byte 16"),
        (FILE_TYPE + struct.pack(">I4sQ", 1, b"uuid", 1 << 63) + C2PA, "part of its manifest"),
        (FILE_TYPE + struct.pack(">I4s", 99, b"uuid") + C2PA, "91 bytes long, but 16 are left"),
        (FILE_TYPE + struct.pack(">I4s", 0, b"uuid") + C2PA, None),
        (FILE_TYPE + struct.pack(">I4s", 1 << 31, b"mdat"), None),
        (FILE_TYPE + struct.pack(">I4sQ", 1, b"mdat", (1 << 64) - 1), None),
        (FILE_TYPE + b"\0" * 64, None),
        (FILE_TYPE + box(b"free", b"") * 1000, "more than 1,000 boxes"),
        (boxes._PNG + struct.pack(">I4s", 1 << 30, b"caBX"), "part of its manifest"),
        (boxes._PNG + struct.pack(">I4s", 1 << 30, b"IDAT"), None),
        (boxes._PNG + struct.pack(">I4sI", 0, b"tEXt", 0) * 1001, "more than 1,000 chunks"),
        (boxes._PNG + struct.pack(">I4sII4s", 0, b"IEND", 0, 1 << 30, b"caBX"), None),
        (RIFF + struct.pack("<4sI", b"C2PA", 0xFFFFFFFF), "4,294,967,295 bytes long, but 0 are"),
        (RIFF + struct.pack("<4sI", b"JUNK", 0xFFFFFFFF), None),
        (RIFF + struct.pack("<4sI", b"JUNK", 0) * 1001, "more than 1,000 chunks"),
        (b"\xff\xd8\xff\xeb\0\x01", "1 bytes long, at byte 2"),
        (b"\xff\xd8\xff\xeb\0\x40" + JUMBF, "part of its manifest"),
        (
            b"\xff\xd8\xff\xeb\0\x1a" + JUMBF + struct.pack(">I4sQ", 0xFFFFFFFF, b"jumb", 0),
            "4,294,967,295 bytes long",
        ),
        (
            b"\xff\xd8\xff\xeb\0\x1a" + JUMBF + struct.pack(">I4sQ", 1, b"jumb", 1 << 62),
            "4,611,686,018,427,387,904 bytes long",
        ),
        (b"\xff\xd8" + b"\xff" * 3000, "more than 1,000 segments"),
        (b"\xff\xd8\xff\xda\0\x02" + b"\xff\xeb\0\x01", None),
        (b"", None),
        (b"\x1aE\xdf\xa3" * 9, None),
    ],
)
def test_lengths_are_checked_before_anything_is_parsed(tmp_path, monkeypatch, data, error):
    monkeypatch.setattr(boxes, "_MOST_BOXES", 1000)
    path = tmp_path / "case"
    path.write_bytes(data)
    if error is None:
        check_store(path)
        return
    with pytest.raises(BoxError, match=error):
        check_store(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "mp4", "c2pa"])
def test_a_manifest_of_a_hundred_megabytes_is_not_parsed(media, tmp_path, suffix):
    path, size = tmp_path / f"case.{suffix}", 100 << 20
    if suffix == "c2pa":
        path = tmp_path / "case.png"
        path.write_bytes(media("png").read_bytes())
        with (tmp_path / "case.c2pa").open("wb") as file:
            file.truncate(size)
    elif suffix == "jpg":
        segment = b"\xff\xeb\xff\xff" + JUMBF + b"\0" * 65_525
        path.write_bytes(b"\xff\xd8" + segment * (size // len(segment)))
    else:
        head = {
            "png": boxes._PNG + struct.pack(">I4s", size, b"caBX"),
            "webp": RIFF + struct.pack("<4sI", b"C2PA", size),
            "mp4": FILE_TYPE + struct.pack(">I4s", size, b"uuid") + C2PA,
        }[suffix]
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size + 100)
    provenance = check(read_provenance(path))
    assert provenance.outcome is Outcome.ERROR
    assert "larger than" in str(provenance.error)
    assert "32 MB" in str(provenance.error)


# Names


def test_names_come_out_clean_and_short(plain, root, signed, trust, tmp_path):
    from signing import action, sign

    path = tmp_path / "case.png"
    hostile = root.issue("\x1b[31m\u202e<b>Org</b>", "\x1b[0m<i>\u2066name</i>")
    acted = action("edited", softwareAgent={"name": HOSTILE}, description=HOSTILE)
    part = ({"title": HOSTILE, "relationship": "parentOf"}, signed)
    created = action("created", "digitalCapture")
    names = {"title": "\x1b[2J" + "b" * 600_000, "generator": HOSTILE}
    sign(plain, path, hostile, actions=[created, acted], ingredients=[part], **names)
    provenance = check(read_provenance(path, trust_list=trust))
    manifest = provenance.manifest
    assert manifest is not None
    assert manifest.signature.signer == "[31m<b>Org</b>"
    assert manifest.signature.holds
    for name in (manifest.title, manifest.claim_generator, manifest.ingredients[0].title):
        assert name is not None
        assert len(name) <= 220


def test_a_certificate_that_is_out_of_date_does_not_hold(plain, root, trust, tmp_path):
    from signing import sign, sign_and_expire

    path = tmp_path / "case.png"
    sign_and_expire(root, lambda brief: sign(plain, path, brief))
    provenance = check(read_provenance(path, trust_list=trust))
    assert provenance.outcome is Outcome.BROKEN
    assert "expired" in provenance.summary or "valid" in provenance.summary


# Limits, with the real reader


def test_a_limit_of_time_is_named(signed, trust):
    provenance = read_bounded(signed, trust, timeout_s=1e-4)
    assert provenance.outcome is Outcome.ERROR
    assert "0.0001 s" in str(provenance.error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks for each file")
def test_the_process_that_forks_has_one_thread(signed, trust):
    assert read_bounded(signed, trust).outcome is Outcome.CAPTURE
    server = bounded._idle[-1]
    assert server.function == bounded._FUNCTION
    status = Path(f"/proc/{server._process.pid}/status").read_text()
    assert "\nThreads:\t1\n" in status


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "mp4"])
def test_it_is_read_where_no_process_can_be_started(
    media, camera, trust, tmp_path, monkeypatch, suffix
):
    from signing import sign

    path = tmp_path / f"signed.{suffix}"
    sign(media(suffix), path, camera)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.delattr(os, "pread", raising=False)  # as on Windows
    provenance = check(read_provenance(path, trust_list=trust))
    assert provenance.outcome is Outcome.CAPTURE
    monkeypatch.setattr(boxes, "MOST_STORE_BYTES", 1000)
    assert "larger than" in str(check(read_provenance(path, trust_list=trust)).error)


def test_a_limit_takes_no_marks(media, trust, tmp_path):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path, notes = tmp_path / "marked.png", PngInfo()
    notes.add_text("Software", "NovelAI")
    with Image.open(media("png")) as picture:
        picture.save(path, pnginfo=notes)
    whole = read_bounded(path, trust)
    assert whole.error is None
    png_with(path, path, b"\0" * (33 << 20))
    limited = read_bounded(path, trust)
    assert "32 MB" in str(limited.error)
    assert limited.marks == whole.marks
    assert dataclasses.replace(limited, error=None).marks
