"""Files with several video streams: which one is judged, and how another one is asked for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from clip_maker import face_frames, plain_frames, run_ffmpeg, write_clip

from dfd_edge import Detector, EventKind, Label, SourceError, UsageError
from dfd_edge.cli.command import command
from dfd_edge.sources import SourceOptions, VideoFile

SMALL = (320, 240)
FRAME = ["-frames:v", "1", "-c:v", "mjpeg", "-f", "image2pipe", "-"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("streams")


@pytest.fixture(scope="module")
def film(folder):
    return write_clip(folder / "film.mp4", face_frames(50, size=SMALL))


@pytest.fixture(scope="module")
def large(folder):
    return write_clip(folder / "large.mp4", plain_frames(40, size=(640, 480)))


@pytest.fixture(scope="module")
def picture(folder):
    path = folder / "picture.jpg"
    path.write_bytes(run_ffmpeg("-f", "lavfi", "-i", "testsrc=size=1280x720", *FRAME))
    return path


def joined(path, *inputs, options=()):
    given = [argument for file in inputs for argument in ("-i", file)]
    chosen = [argument for number in range(len(inputs)) for argument in ("-map", f"{number}:v")]
    run_ffmpeg(*given, *chosen, "-c", "copy", *options, path)
    return path


def size_of(path, **options):
    with VideoFile(path, **options) as video:
        return video.width, video.height


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_still_track_is_no_film_though_it_is_larger(folder, film, picture, suffix):
    path = joined(folder / f"still{suffix}", picture, film)
    assert size_of(path) == SMALL


def test_a_cover_is_no_film(folder, film, picture):
    options = ["-disposition:v:0", "attached_pic", "-disposition:v:1", "default"]
    path = joined(folder / "cover.mp4", picture, film, options=options)
    with VideoFile(path) as video:
        assert (video.width, video.height) == SMALL
        assert not video.notes


def test_thumbnails_are_no_film(folder, film, large):
    thumbnails = folder / "thumbnails.mp4"
    run_ffmpeg("-i", large, "-r", "0.5", "-t", "60", "-vf", "loop=-1:2", thumbnails)
    options = ["-disposition:v:0", "default", "-disposition:v:1", "0"]
    path = joined(folder / "thumbs.mp4", thumbnails, film, options=options)
    assert size_of(path) == SMALL


def test_a_still_by_itself_is_judged(folder, picture):
    assert size_of(joined(folder / "alone.mp4", picture)) == (1280, 720)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_default_track_comes_before_a_larger_one(folder, film, large, suffix):
    options = ["-disposition:v:0", "0", "-disposition:v:1", "default"]
    path = joined(folder / f"views{suffix}", large, film, options=options)
    with VideoFile(path) as video:
        assert (video.width, video.height) == SMALL
        (note,) = video.notes
    assert note.startswith("2 films in it: judges stream 1 (h264 320x240, 2.0 s, default), not")
    assert note.endswith("not 0 (h264 640x480, 1.6 s); --stream N chooses another")


def test_of_equals_the_longest_then_the_largest(folder, film, large):
    marks = ["-disposition:v:0", "default", "-disposition:v:1", "default"]
    path = joined(folder / "equal.mp4", large, film, options=marks)
    assert size_of(path) == SMALL
    cut = folder / "cut.mp4"
    run_ffmpeg("-i", film, "-t", "1.6", "-c", "copy", cut)
    path = joined(folder / "as_long.mp4", cut, large, options=marks)
    assert size_of(path) == (640, 480)


@pytest.fixture(scope="module")
def views(folder, film, large):
    """Stream 0 is the film, 1 sound, 2 another film."""
    path = folder / "both.mkv"
    inputs = ["-i", film, "-f", "lavfi", "-i", "sine=duration=2", "-i", large]
    run_ffmpeg(*inputs, "-map", "0", "-map", "1", "-map", "2", "-c:v", "copy", path)
    return path


class TestNumber:
    def test_it_is_that_of_the_container(self, views):
        assert size_of(views, stream=0) == SMALL
        assert size_of(views, stream=2) == (640, 480)

    @pytest.mark.parametrize(
        ("number", "said"), [(1, "stream 1 is audio, not video"), (7, "there is no stream 7")]
    )
    def test_one_that_is_none_is_told_with_those_there_are(self, views, number, said):
        with pytest.raises(SourceError, match=said) as caught:
            VideoFile(views, stream=number)
        assert "the video streams are 0 (h264 320x240, 2.0 s" in str(caught.value)
        assert " and 2 (h264 640x480, 1.6 s" in str(caught.value)

    @pytest.mark.parametrize("number", [-1, True])
    def test_one_that_cannot_be_is_refused(self, number):
        with pytest.raises(UsageError, match="give a whole number from 0"):
            SourceOptions(stream=number)

    def test_the_program_interface_takes_it_and_tells(self, tiny_bundle, views):
        detector = Detector.load(tiny_bundle)
        events = []
        verdict = detector.analyze(views, on_event=events.append)
        assert verdict.label is not Label.NO_FACE
        (event,) = events
        assert event.kind is EventKind.NOTE
        assert event.source == str(views)
        assert "2 films" in event.detail
        verdict = detector.analyze(views, options=SourceOptions(stream=2), on_event=events.append)
        assert verdict.label is Label.NO_FACE
        assert len(events) == 1

    def test_the_command_takes_it_and_tells(self, tiny_bundle, views, picture):
        def run(*arguments):
            return CliRunner().invoke(command, ["--model", str(tiny_bundle), *map(str, arguments)])

        done = run(views)
        assert done.exit_code == 0
        (line,) = [line for line in done.stderr.splitlines() if "2 films" in line]
        assert line.startswith(f"dfd-edge: {views}: note: ")
        done = run("--stream", 2, views)
        assert done.stdout.startswith("NO_FACE")
        assert "films" not in done.stderr
        done = run("--stream", 1, views)
        assert done.exit_code == 1
        assert "stream 1 is audio" in done.stderr
        assert run("--stream", 1, picture).exit_code == 2

    def test_a_watched_file_tells_too(self, tiny_bundle, views):
        events = []
        with Detector.load(tiny_bundle).watch(views, on_event=events.append) as watch:
            next(watch)
        assert [event.kind for event in events] == [EventKind.NOTE]
