"""HEIC and AVIF photographs: read as the stills that they are, or refused with the mend."""

from __future__ import annotations

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from clip_maker import portrait
from PIL import Image, ImageCms

from dfd_edge.errors import SourceError
from dfd_edge.sources import SourceItem, SourceKind, read_image

pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")

#: Where a mark in the upper left corner is seen, by EXIF orientation, and whether sides change.
SEEN = {
    1: ((0, 0), False),
    2: ((0, 1), False),
    3: ((1, 1), False),
    4: ((1, 0), False),
    5: ((0, 0), True),
    6: ((0, 1), True),
    7: ((1, 1), True),
    8: ((1, 0), True),
}


def picture():
    """Upper left quarter red; 120 high, 160 wide, RGB."""
    pixels = np.full((120, 160, 3), 30, np.uint8)
    pixels[:60, :80] = (240, 40, 20)
    return Image.fromarray(pixels)


def heic(image, **options):
    data = io.BytesIO()
    pillow_heif.from_pillow(image).save(data, **options)
    return data.getvalue()


def avif(image, **options):
    data = io.BytesIO()
    image.save(data, format="AVIF", **options)
    return data.getvalue()


@pytest.mark.parametrize("encode", [heic, avif])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_and_in_colour(tmp_path, encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo"
    path.write_bytes(encode(picture(), exif=exif.tobytes()))
    assert SourceItem.of(path).kind is SourceKind.IMAGE
    image = read_image(path)
    corner, turned = SEEN[orientation]
    assert image.shape == ((160, 120, 3) if turned else (120, 160, 3))
    red = np.array(
        [
            [half[..., 2].mean() for half in np.array_split(rows, 2, axis=1)]
            for rows in np.array_split(image, 2, axis=0)
        ]
    )
    assert np.unravel_index(red.argmax(), (2, 2)) == corner
    assert image[..., 2].max() > 225
    assert image[..., 0].max() < 60


def test_the_tiles_of_a_photograph_are_put_together(tmp_path):
    path = tmp_path / "tiled.heic"
    path.write_bytes(heic(Image.fromarray(portrait()[:, :, ::-1]), tile_size=256, quality=90))
    if not pillow_heif.open_heif(path).info.get("tiling"):
        pytest.skip("this pillow-heif does not write tiles")
    assert np.abs(read_image(path).astype(int) - portrait()).mean() < 4


def test_a_colour_profile_is_applied(tmp_path):
    """By this one, red and green change places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    path = tmp_path / "photo.avif"
    for icc_profile, green in ((profile, False), (swapped, True), (b"no profile", False)):
        path.write_bytes(avif(picture(), icc_profile=icc_profile))
        blue_green_red = read_image(path)[20, 20].tolist()
        assert blue_green_red.index(max(blue_green_red)) == (1 if green else 2)


@pytest.mark.parametrize(("encode", "title"), [(heic, "HEIC"), (avif, "AVIF")])
def test_what_is_cut_off_or_too_large_is_refused(tmp_path, encode, title):
    data = encode(Image.fromarray(portrait()[:, :, ::-1]))
    path = tmp_path / "photo"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=f"{title} picture cannot be decoded; damaged or cut off"):
        read_image(path)
    path.write_bytes(data)
    with pytest.raises(SourceError, match="too large, 512x512"):
        read_image(path, max_pixels=512 * 511)


@pytest.mark.parametrize("encode", [heic, avif])
def test_an_hdr_photograph_is_refused(tmp_path, encode):
    data = encode(picture())
    assert data.count(b"colrnclx") == 1
    at = data.index(b"colrnclx") + 10
    path = tmp_path / "photo"
    path.write_bytes(data[:at] + b"\x00\x10" + data[at + 2 :])
    with pytest.raises(SourceError, match=r"an HDR picture \(PQ\)"):
        read_image(path)


def test_several_photographs_in_one_file_are_refused(tmp_path):
    both = pillow_heif.from_pillow(picture())
    both.add_from_pillow(picture())
    both.save(tmp_path / "both.heic")
    with pytest.raises(SourceError, match="2 pictures in one file"):
        read_image(tmp_path / "both.heic")


@pytest.mark.parametrize(("encode", "missing"), [(heic, "pillow_heif"), (avif, "PIL")])
def test_without_the_extra_the_mend_is_named(tmp_path, encode, missing):
    path = tmp_path / "photo"
    path.write_bytes(encode(picture()))
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from dfd_edge.errors import SourceError\n"
        "from dfd_edge.sources import read_image\n"
        "try: read_image(sys.argv[1])\n"
        "except SourceError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "run `pip install 'dfd-edge[heic]'`" in done.stdout
    assert done.stdout.count("\n") == 1


def test_pictures_are_judged_alike(tmp_path, tiny_bundle):
    """A photograph is a still, with one score, whatever it is stored in."""
    from dfd_edge import Detector

    photograph = Image.fromarray(portrait()[:, :, ::-1])
    (tmp_path / "a.heic").write_bytes(heic(photograph, quality=95))
    (tmp_path / "a.avif").write_bytes(avif(photograph, quality=95))
    cv2.imwrite(str(tmp_path / "a.png"), portrait())
    detector = Detector.load(tiny_bundle)
    same = detector.analyze(tmp_path / "a.png")
    for name in ("a.heic", "a.avif"):
        verdict = detector.analyze(tmp_path / name)
        assert (verdict.label, verdict.frames, verdict.coverage) == (same.label, 1, 1.0)
        assert verdict.p_fake == pytest.approx(same.p_fake, abs=0.05)
