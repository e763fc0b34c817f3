"""Sizes and lengths that a file states are checked before memory is spent on them."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
import zlib

import cv2
import pytest
from clip_maker import portrait, run_ffmpeg
from PIL import Image

from dfd_edge.errors import SourceError, UsageError
from dfd_edge.sources import SourceItem, SourceOptions, VideoFile, read_image
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.headers import HeaderError, check_fragments, stated

#: What a process that reads nothing takes, and some more, in bytes.
MOST_BYTES = 400 * 2**20

READ = """
import sys, threading
from dfd_edge.errors import SourceError
from dfd_edge.sources import SourceItem, SourceKind, read_image
from dfd_edge.sources.opening import open_file
from dfd_edge.sources.frames import Sampler
item = SourceItem.of(sys.argv[1])
try:
    if item.kind is SourceKind.IMAGE:
        read_image(item.location)
    else:
        with open_file(item, threading.Event(), threads=1) as opened:
            for frame in opened.frames(Sampler(5)):
                pass
except SourceError as error:
    print(error)
"""


def png_chunk(name, data, length=None):
    size = len(data) if length is None else length
    return struct.pack(">I", size) + name + data + struct.pack(">I", zlib.crc32(name + data))


def lying_png(width=64, height=64, length=None):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(bytes(100)), length)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")


def blank(form, **options):
    """A real picture of more pixels than are allowed, in a few kilobytes."""
    data = io.BytesIO()
    Image.new("L", (8200, 8200)).save(data, format=form, **options)
    return data.getvalue()


def animated(form, size):
    data = io.BytesIO()
    frames = [Image.new("L", size, shade) for shade in (0, 255)]
    frames[0].save(data, format=form, save_all=True, append_images=frames[1:], duration=200)
    return data.getvalue()


def large_film():
    source = "color=s=6000x6000:r=5:d=0.4"
    return run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "mjpeg", "-f", "matroska", "-")


def fragmented(*, at_once: int | None = None, length: int | None = None):
    """A film in fragments; the first may state another count of samples, or another length."""
    flags = "frag_keyframe+empty_moov"
    film = ["-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=2", "-c:v", "libx264", "-g", "10"]
    data = bytearray(run_ffmpeg(*film, "-movflags", flags, "-f", "mp4", "-"))
    at = data.index(b"trun")
    if at_once is not None:
        data[at + 8 : at + 12] = at_once.to_bytes(4, "big")
    if length is not None:
        data[at - 4 : at] = length.to_bytes(4, "big")
    return bytes(data)


HOSTILE = {
    "count.mp4": lambda: fragmented(at_once=1 << 26),
    "count_by_length.mp4": lambda: fragmented(length=1),
    "chunk.png": lambda: lying_png(length=2**30),
    "size.png": lambda: lying_png(width=100_000, height=100_000),
    "size.tif": lambda: blank("TIFF", compression="tiff_adobe_deflate"),
    "size.jp2": lambda: blank("JPEG2000"),
    "size.ppm": lambda: b"P6 # a comment\n100000 100000 255\n" + bytes(100),
    "size.bmp": lambda: blank("BMP")[:2000],
    "size.jpg": lambda: blank("JPEG"),
    "size.webp": lambda: blank("WEBP", quality=0, method=0),
    "size.gif": lambda: animated("GIF", (6000, 6000)),
    "size.apng": lambda: animated("PNG", (6000, 6000)),
    "size.mkv": large_film,
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
@pytest.mark.parametrize("name", HOSTILE)
def test_little_memory_is_spent(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name]())
    code = f"{READ}\nprint(*[line for line in open('/proc/self/status') if 'VmHWM' in line])"
    limit = 4 * 2**30
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    said, peak = done.stdout.strip().splitlines()
    assert str(path) in said
    causes = {"chunk": "cut off", "count": "state more than"}
    assert causes.get(path.stem.partition("_")[0], "--max-pixels") in said
    assert int(peak.split()[1]) * 1024 < MOST_BYTES


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_film_in_fragments_is_read_whole_or_cut_off(share):
    data = fragmented()
    film = io.BytesIO(data[: int(share * len(data))])
    check_fragments(film)
    assert film.tell() == 0
    with VideoFile(film) as opened:
        read = sum(1 for _ in opened.frames(Sampler(25)))
    assert read == 50 if share == 1.0 else 10 <= read < 50


def test_boxes_inside_boxes_and_parts_without_end_are_refused():
    box = struct.Struct(">I4s").pack
    nested = b"".join(box(0, b"moof") for _ in range(5000))
    check_fragments(io.BytesIO(nested))
    with pytest.raises(HeaderError, match="state more than"):
        check_fragments(io.BytesIO(box(8, b"free") * 1_000_002))
    many = box(24, b"trun") + struct.pack(">IIQ", 0, 300, 0)
    with pytest.raises(HeaderError, match="state more than"):
        check_fragments(io.BytesIO(box(8 + 10 * len(many), b"moof") + 10 * many))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm", ".jp2"])
def test_every_format_states_its_size(suffix):
    from dfd_edge.sources.containers import image_format

    data = cv2.imencode(suffix, portrait()[:300])[1].tobytes()
    size = stated(data, image_format(data[:64]))
    assert (size.width, size.height, size.pages) == (512, 300, 1)
    with pytest.raises(HeaderError, match=r"cut off|states no size"):
        stated(data[:9], image_format(data[:64]))


def tiff(*pages):
    data = io.BytesIO()
    pages[0].save(data, format="TIFF", save_all=True, append_images=pages[1:])
    return data.getvalue()


def test_pages_are_told_and_thumbnails_are_none(tmp_path):
    page = Image.fromarray(portrait())
    path = tmp_path / "pages.tif"
    path.write_bytes(tiff(page, page, page))
    with pytest.raises(SourceError, match="3 pictures in one file"):
        read_image(path)
    with_thumbnail = io.BytesIO()
    small = page.resize((64, 64))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(with_thumbnail, format="TIFF", save_all=True, append_images=[small])
    path.write_bytes(with_thumbnail.getvalue())
    assert read_image(path).shape == (512, 512, 3)


@pytest.mark.parametrize(
    ("tags", "cause"),
    [({50706: b"\x01\x04\x00\x00"}, "a camera's raw file"), ({254: 1}, "a thumbnail")],
)
def test_the_preview_in_a_raw_file_is_not_judged(tmp_path, tags, cause):
    """Raw files are TIFFs whose first page is a small picture for the camera's own display."""
    path = tmp_path / "photo.dng"
    Image.fromarray(portrait()).save(path, format="TIFF", tiffinfo=tags)
    with pytest.raises(SourceError, match=cause):
        read_image(path)


def test_the_limit_can_be_set(tmp_path):
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), portrait())
    clip = tmp_path / "clip.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=320x240:d=1", clip)
    with pytest.raises(SourceError, match="512x512: at most 262,143 pixels are read; --max-pixels"):
        read_image(path, max_pixels=512 * 512 - 1)
    assert read_image(path, max_pixels=512 * 512).shape == (512, 512, 3)
    with pytest.raises(SourceError, match="too large, 320x240"):
        VideoFile(clip, max_pixels=320 * 240 - 1)
    VideoFile(clip, max_pixels=320 * 240).close()


def test_the_limit_goes_all_the_way(tmp_path, tiny_bundle):
    from click.testing import CliRunner

    from dfd_edge import Detector
    from dfd_edge.cli.command import command

    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), portrait())
    with pytest.raises(SourceError, match="too large"):
        Detector.load(tiny_bundle).analyze(path, options=SourceOptions(max_pixels=1000))
    arguments = [str(path), "--model", str(tiny_bundle), "--max-pixels"]
    assert CliRunner().invoke(command, [*arguments, "1000"]).exit_code == 1
    assert CliRunner().invoke(command, [*arguments, "300000"]).exit_code == 0
    assert CliRunner().invoke(command, [*arguments, "0"]).exit_code == 2


@pytest.mark.parametrize("value", [0, -1, 255, 2**29 + 1])
def test_limits_out_of_range_are_refused(value):
    with pytest.raises(UsageError, match=f"max_pixels {value}: give"):
        SourceOptions(max_pixels=value)


def test_a_file_that_never_ends_is_no_picture(tmp_path):
    path = tmp_path / "long.jpg"
    path.write_bytes(cv2.imencode(".jpg", portrait())[1].tobytes())
    with path.open("r+b") as file:
        file.truncate(2**33)  # no bytes on the disk
    assert SourceItem.of(path).name == str(path)
    with pytest.raises(SourceError, match="more than 512 MiB, too large for a picture"):
        read_image(path)
