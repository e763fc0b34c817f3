"""Signed files with one byte changed: of video, sound, record, signature or certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from signing import TYPES, action, changed, sign

from dfd_edge import read_provenance
from dfd_edge.provenance.record import Outcome


@pytest.fixture(scope="module")
def signed(media, camera, tmp_path_factory):
    """Returns the bytes of a signed file of a format."""
    folder = tmp_path_factory.mktemp("signed")

    def signed_as(suffix: str) -> bytes:
        path = folder / f"signed.{suffix}"
        if not path.exists():
            sign(media(suffix), path, camera)
        return path.read_bytes()

    return signed_as


def encoded(credentials) -> bytes:
    return credentials.certificate.public_bytes(Encoding.DER)


def read(tmp_path: Path, suffix: str, data: bytes, trust):
    path = tmp_path / f"changed.{suffix}"
    path.write_bytes(data)
    return read_provenance(path, trust_list=trust)


def middle_of_the_data(data: bytes, suffix: str) -> int:
    """A byte of the picture, in the middle of what holds it."""
    if suffix == "jpg":
        start = data.rindex(b"\xff\xda")
        return start + (len(data) - start) // 2
    start = data.index({"png": b"IDAT", "webp": b"VP8"}.get(suffix, b"mdat"))
    size = data[start + 4 : start + 8] if suffix == "webp" else data[start - 4 : start]
    return start + 8 + int.from_bytes(size, "little" if suffix == "webp" else "big") // 2


@pytest.mark.parametrize("suffix", TYPES)
def test_a_byte_of_the_picture(suffix, signed, trust, tmp_path):
    data = signed(suffix)
    found = read(tmp_path, suffix, changed(data, middle_of_the_data(data, suffix)), trust)
    assert found.outcome is Outcome.BROKEN
    signature = found.manifest.signature
    assert signature.bytes_match is False
    assert signature.holds, "the signature over the record is whole"
    assert signature.trusted
    assert signature.problems == (
        "the file was changed after signing: its bytes are not those that were signed",
    )
    assert signature.codes[0].endswith("Hash.mismatch")
    assert "changed after signing" in found.summary
    assert "Nothing in that record can be relied on" in found.summary


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_byte_of_a_film(suffix, kind, signed, trust, tmp_path):
    """Of a packet of the video, and of one of the sound."""
    import av

    path = tmp_path / f"whole.{suffix}"
    path.write_bytes(signed(suffix))
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        packet = max(container.demux(stream), key=lambda packet: packet.size)
        position = packet.pos + packet.size // 2
    found = read(tmp_path, suffix, changed(signed(suffix), position), trust)
    assert found.outcome is Outcome.BROKEN
    assert found.manifest.signature.bytes_match is False
    assert found.manifest.signature.holds


@pytest.mark.parametrize("suffix", TYPES)
def test_a_byte_of_the_record(suffix, signed, trust, tmp_path):
    """`digitalCapture` becomes another word: the hash of the statement no longer fits."""
    data = signed(suffix)
    found = read(tmp_path, suffix, changed(data, data.index(b"digitalCapture") + 9), trust)
    assert found.outcome is Outcome.BROKEN
    signature = found.manifest.signature
    assert "assertion.hashedURI.mismatch" in signature.codes
    assert "statements in it are not those signed" in found.summary
    assert signature.bytes_match


@pytest.mark.parametrize("suffix", TYPES)
def test_a_byte_of_the_claim(suffix, signed, trust, tmp_path):
    """The title lies in what is signed itself."""
    data = signed(suffix)
    found = read(tmp_path, suffix, changed(data, data.index(b"A clip")), trust)
    assert found.outcome is Outcome.BROKEN
    assert not found.manifest.signature.holds
    assert "claimSignature.mismatch" in found.manifest.signature.codes
    assert "the signature does not fit the signed record" in found.summary


@pytest.mark.parametrize("suffix", TYPES)
def test_a_byte_of_the_signature(suffix, signed, camera, trust, tmp_path):
    data = signed(suffix)
    # ES256 has 64 bytes, behind the certificate in the structure of COSE (RFC 9052).
    start = data.index(b"\x58\x40", data.index(encoded(camera)) + len(encoded(camera)))
    found = read(tmp_path, suffix, changed(data, start + 40), trust)
    assert found.outcome is Outcome.BROKEN
    assert not found.manifest.signature.holds
    assert found.manifest.signature.bytes_match
    assert "the signature does not fit the signed record" in found.summary


@pytest.mark.parametrize("suffix", TYPES)
@pytest.mark.parametrize("part", ["name", "key", "structure"])
def test_a_byte_of_the_certificate(suffix, part, signed, camera, trust, tmp_path):
    data = signed(suffix)
    certificate = encoded(camera)
    start = data.index(certificate)
    key = camera.certificate.public_key().public_bytes(
        Encoding.X962, PublicFormat.UncompressedPoint
    )
    position = {
        "name": start + certificate.index(b"Example Cameras"),
        "key": start + certificate.index(key) + 20,
        "structure": start + 5,
    }[part]
    found = read(tmp_path, suffix, changed(data, position), trust)
    assert found.outcome is Outcome.BROKEN
    assert not found.manifest.signature.holds
    assert not found.manifest.signature.trusted
    assert found.manifest.signature.problems


def test_a_record_of_another_file(media, signed, trust, tmp_path):
    """The store of one picture, in front of the pixels of another."""
    data = signed("png")
    start = data.index(b"caBX") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    other = media("png").read_bytes()[:-20] + b"\x00" * 8 + media("png").read_bytes()[-12:]
    moved = other[:33] + data[start : start + length] + other[33:]
    found = read(tmp_path, "png", moved, trust)
    assert found.outcome is Outcome.BROKEN
    assert found.manifest.signature.bytes_match is False


def test_a_byte_of_an_ingredient_is_not_the_files_own_break(media, camera, trust, tmp_path):
    """The record of the parent was changed in the edited file, which holds it as an ingredient."""
    parent, edited = tmp_path / "parent.jpg", tmp_path / "edited.jpg"
    sign(media("jpg"), parent, camera)
    opened = action("opened", parameters={"ingredientIds": ["parent"]})
    described = {"title": "parent", "relationship": "parentOf", "label": "parent"}
    sign(parent, edited, camera, actions=[opened], ingredients=[(described, parent)])
    data = edited.read_bytes()
    found = read(tmp_path, "jpg", changed(data, data.index(b"digitalCapture") + 9), trust)
    assert found.outcome is Outcome.OTHER
    assert found.manifest.signature.problems == ()
    assert "record of the file that it comes from does not hold" in found.summary
    (ingredient,) = found.manifest.ingredients
    assert ingredient.state == "broken"
    assert ingredient.source_types == (), "statements that were not signed are not repeated"


def test_an_ingredient_that_was_broken_when_it_was_added(media, camera, trust, tmp_path):
    """Its picture was changed; its record is whole, so that what it says of AI still counts."""
    part, whole = tmp_path / "part.jpg", tmp_path / "whole.jpg"
    sign(media("jpg"), part, camera, actions=[action("created", "trainedAlgorithmicMedia")])
    data = part.read_bytes()
    part.write_bytes(changed(data, middle_of_the_data(data, "jpg")))
    actions = [
        action("created", "digitalCapture"),
        action("placed", parameters={"ingredientIds": ["part"]}),
    ]
    described = {"title": "part", "relationship": "componentOf", "label": "part"}
    sign(media("jpg"), whole, camera, actions=actions, ingredients=[(described, part)])
    found = read_provenance(whole, trust_list=trust)
    assert found.manifest.ingredients[0].state == "broken"
    assert found.outcome is Outcome.AI


@pytest.mark.parametrize("kind", [b"c2cl", b"cbor"])
def test_a_record_that_cannot_be_parsed_is_an_error(kind, signed, trust, tmp_path):
    data = signed("png")
    length_of_the_box = data.index(kind) - 2
    found = read(tmp_path, "png", changed(data, length_of_the_box), trust)
    assert found.outcome is Outcome.ERROR
    assert found.error.startswith("its signed record is damaged, or not as C2PA defines it")
    assert found.manifest is None
