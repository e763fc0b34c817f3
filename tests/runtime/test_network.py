"""Network streams, from a server on this machine that sends a clip in real time."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import subprocess
import sys
import threading
import time

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from clip_maker import face_frames, write_clip

from dfd_edge import Detector, EventKind, SourceError

SECONDS = 3.0
CHUNK_S = 0.1


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends a clip at its own speed and breaks off at its end, like a sender that dies."""

    def do_GET(self):
        if self.path.startswith("/playlist"):
            self.answer("application/vnd.apple.mpegurl")
            self.wfile.write(b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n/etc/passwd\n")
            return
        if self.path.startswith("/video"):
            self.send_pictures()
            return
        recording = self.server.recordings.get(self.path)
        if recording is not None:
            self.send_recording(recording)
            return
        if not self.path.startswith("/live"):
            self.send_error(404)
            return
        self.answer("video/mp2t")
        data = self.server.noise if "noise" in self.path else self.server.clip
        size = max(188, int(len(data) * CHUNK_S / SECONDS))
        for start in range(0, len(data), size):
            try:
                self.wfile.write(data[start : start + size])
                self.wfile.flush()
            except OSError:
                return
            time.sleep(CHUNK_S)

    def send_pictures(self):
        """Like a phone's camera app: JPEG after JPEG, ten a second, without any time."""
        self.answer("multipart/x-mixed-replace; boundary=frame")
        start_s = time.monotonic()
        for number, image in enumerate(face_frames(60)):
            data = cv2.imencode(".jpg", image)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + data + b"\r\n")
                self.wfile.flush()
            except OSError:
                return
            time.sleep(max(0.0, start_s + 0.1 * (number + 1) - time.monotonic()))

    def send_recording(self, data):
        """Like a file server, with its length and ranges."""
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") :].partition("-")[0])
        self.send_response(206)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data[start:])

    def answer(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def as_live(recording):
    """The same packets in a container that states no length."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(recording)]
    command += ["-c", "copy", "-f", "matroska", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def recordings(folder, frames):
    """By path: a whole recording, one with noise in it, one cut off, one stored on its side."""
    whole = write_clip(folder / "whole.mp4", frames, options={"g": "5"}).read_bytes()
    noise = bytearray(whole)
    middle = noise.index(b"mdat") + len(noise) // 3
    noise[middle : middle + 20_000] = np.random.default_rng(0).bytes(20_000)
    (folder / "noise.mp4").write_bytes(noise)
    rubbish = bytearray(whole)
    start, end = rubbish.index(b"mdat") + 4, len(rubbish)
    rubbish[start:end] = bytes(end - start)
    turned = write_clip(folder / "turned.mp4", frames[:10], rotation=90).read_bytes()
    return {
        "/whole.mp4": whole,
        "/noise.mp4": bytes(noise),
        "/rubbish.mp4": bytes(rubbish),
        "/cut.mp4": whole[: len(whole) // 2],
        "/turned.mp4": turned,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of the server."""
    path = tmp_path_factory.mktemp("stream") / "clip.ts"
    frames = face_frames(int(25 * SECONDS))
    write_clip(path, frames, options={"g": "5", "tune": "zerolatency", "preset": "ultrafast"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.clip = path.read_bytes()
    server.recordings = recordings(path.parent, frames)
    server.noise = as_live(path.parent / "noise.mp4")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


def test_a_stream_is_judged_while_it_plays(detector, server):
    with detector.watch(f"http://{server}/live.ts", duration_s=1.5) as watch:
        results = list(watch)
    assert results
    assert all(result.staleness_ms is not None for result in results)
    assert watch.verdict().people


def test_a_sender_that_dies_is_a_gap_and_comes_back(detector, server):
    events = []
    with detector.watch(f"http://{server}/live.ts", on_event=events.append) as watch:
        times_s = []
        for result in watch:
            times_s.append(result.time_s)
            if watch.gaps and result.time_s > SECONDS + 0.3:
                break
    assert [event.kind for event in events[:2]] == [EventKind.GAP, EventKind.RECONNECT]
    assert all(b > a for a, b in itertools.pairwise(times_s))


@pytest.mark.parametrize(
    ("name", "frames", "reason"),
    [
        ("whole", range(15, 16), None),
        ("noise", range(5, 16), "could not be decoded"),
        ("cut", range(4, 12), "cut off"),
    ],
)
def test_a_recording_is_read_once_to_its_end(detector, server, name, frames, reason):
    events = []
    with detector.watch(f"http://{server}/{name}.mp4", on_event=events.append) as watch:
        results = list(watch)
        verdict = watch.verdict()
    assert len(results) in frames
    assert events == []
    assert verdict.complete is (reason is None)
    assert reason is None or reason in verdict.reason


def test_damaged_packets_are_no_loss_of_a_live_stream(detector, server):
    events = []
    address = f"http://{server}/live_noise.mkv"
    with detector.watch(address, on_event=events.append, duration_s=2.0) as watch:
        assert list(watch)
        verdict = watch.verdict()
    assert events == []
    assert "could not be decoded" in verdict.reason


def test_pictures_of_a_network_stream_come_upright(detector, server):
    shapes = set()
    with detector.watch(
        f"http://{server}/turned.mp4", on_image=lambda frame, _: shapes.add(frame.image.shape)
    ) as watch:
        list(watch)
    assert shapes == {(320, 240, 3)}


def test_pictures_without_times_have_those_at_which_they_came(detector, server):
    """FFmpeg takes a phone's stream of JPEGs for 25 frames a second, whatever it is."""
    start_s = time.monotonic()
    with detector.watch(f"http://{server}/video") as watch:
        results = list(itertools.islice(watch, 12))
        took_s = time.monotonic() - start_s
    seen_s = results[-1].time_s - results[0].time_s
    assert seen_s == pytest.approx(11 / 5, abs=0.8)
    assert seen_s < took_s
    assert watch.gaps == 0


def test_an_address_that_cannot_be_reached(detector):
    with pytest.raises(
        SourceError, match=r"http://127\.0\.0\.1:9/live: cannot be opened"
    ) as caught:
        detector.watch("http://user:secret@127.0.0.1:9/live")
    assert "secret" not in str(caught.value)


def test_an_address_that_is_not_there(detector, server):
    with pytest.raises(SourceError, match="cannot be opened"):
        detector.watch(f"http://{server}/gone.ts")


def test_a_playlist_cannot_name_local_files(detector, server):
    with pytest.raises(SourceError):
        detector.watch(f"http://{server}/playlist.m3u8")


def test_an_unknown_scheme_is_refused(detector):
    with pytest.raises(SourceError, match="gopher is not supported"):
        detector.watch("gopher://host/clip")


def test_the_command_line_watches_and_ends(tiny_bundle, server):
    address = f"http://user:secret@{server}/live.ts?token=secret"
    arguments = ["--model", str(tiny_bundle), "--json", "--duration", "1.5", address]
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["record"] == "run"
    assert rows[-1]["record"] == "verdict"
    assert rows[-1]["frames"] >= 1
    assert "secret" not in done.stdout + done.stderr


def test_a_scheme_in_capitals(tiny_bundle, server):
    with Detector.load(tiny_bundle).watch(f"HTTP://{server}/live.ts", duration_s=1.0) as watch:
        assert next(watch).people


def test_a_stream_that_cannot_be_read_gives_an_error_and_no_verdict(tiny_bundle, server):
    """It opens, and nothing in it can be decoded."""
    arguments = ["--model", str(tiny_bundle), "--json", f"http://{server}/rubbish.mp4"]
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["record"], row.get("kind")) for row in rows] == [("run", None), ("event", "error")]
    assert "no frame could be decoded" in rows[1]["detail"]


def test_two_streams_at_once(tiny_bundle, server):
    addresses = [f"http://{server}/live{number}.ts" for number in (1, 2)]
    arguments = ["--model", str(tiny_bundle), "--duration", "1.5", *addresses]
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for address in addresses:
        assert address in done.stdout
