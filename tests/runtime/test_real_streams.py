"""Streams of a real ffmpeg in real time over loopback, whose senders die and come back."""

from __future__ import annotations

import functools
import http.server
import itertools
import socket
import threading
import time

import numpy as np
import pytest
from clip_maker import face_frames, run_ffmpeg, write_clip
from real_sender import Sender, free_port, open_files, reader_threads, system_threads

from dfd_edge import Detector, EventKind, SourceError
from dfd_edge.sources import SourceOptions
from dfd_edge.sources import network as network_module

GIVE_UP_S = 90.0


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    return Detector.load(tiny_bundle)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("sent") / "clip.ts"
    return write_clip(path, face_frames(75), options={"g": "5", "tune": "zerolatency"})


def udp_sender(clip):
    port = free_port(socket.SOCK_DGRAM)
    sent = f"udp://127.0.0.1:{port}?pkt_size=1316"
    return Sender(clip, sent), f"udp://127.0.0.1:{port}"


def http_sender(clip):
    address = f"http://127.0.0.1:{free_port()}/live.ts"
    return Sender(clip, address, "-listen", "1"), address


def open_when_sent(detector, address, **options):
    """ffmpeg takes a moment to listen."""
    deadline_s = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return detector.watch(address, **options)
        except SourceError:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)


class States:
    """Notes for each step whether the sequence model started anew."""

    def __init__(self, session, monkeypatch):
        self.fresh = []
        run = session.run_sequence

        def noted(_, features, lengths, state):
            self.fresh.append(not np.any(state))
            return run(features, lengths, state)

        monkeypatch.setattr(type(session), "run_sequence", noted)


@pytest.mark.parametrize("sender_of", [http_sender, udp_sender])
def test_a_sender_that_is_killed_and_started_again(detector, clip, monkeypatch, sender_of):
    monkeypatch.setattr(network_module, "_READ_TIMEOUT_S", 1.5)
    sender, address = sender_of(clip)
    events, before, after = [], [], []
    with sender, open_when_sent(detector, address, on_event=events.append) as watch:
        states = States(watch._stream._session, monkeypatch)
        for result in itertools.islice(watch, 6):
            before.append(result)
        sender.kill()
        restart = threading.Timer(2.5, sender.start)
        restart.start()
        for result in watch:
            if any(event.kind is EventKind.RECONNECT for event in events):
                after.append(result)
            else:
                before.append(result)
            if len(after) == 4:
                break
        restart.join()
        verdict = watch.verdict()
    assert [event.kind for event in events[:2]] == [EventKind.GAP, EventKind.RECONNECT]
    assert watch.gaps == 1
    times_s = [result.time_s for result in before + after]
    assert all(b > a for a, b in itertools.pairwise(times_s))
    assert after[0].time_s - before[-1].time_s > 2.0, "nothing stands in for what was not sent"
    first_after = len(states.fresh) - 4
    assert states.fresh[first_after], "the state of before the gap is not carried over it"
    assert not any(states.fresh[first_after + 1 :])
    assert not verdict.complete
    assert "lost 1 time" in verdict.reason


def test_a_udp_sender_that_is_back_before_it_counts_as_lost(detector, clip):
    """Its clock starts at zero again in the same connection."""
    sender, address = udp_sender(clip)
    events = []
    with sender, open_when_sent(detector, address, on_event=events.append) as watch:
        times_s = [result.time_s for result in itertools.islice(watch, 8)]
        sender.kill()
        time.sleep(2.5)
        sender.start()
        for result in watch:
            times_s.append(result.time_s)
            if events and result.time_s > times_s[7] + 4.0:
                break
    told = [event for event in events if event.kind is not EventKind.DROP]
    assert [event.kind for event in told] == [EventKind.GAP, EventKind.RECONNECT]
    assert "nothing came for" in told[0].detail
    steps_s = np.diff(times_s)
    assert (steps_s > 0).all()
    assert 2.0 < steps_s.max() < 30.0


def alternate(detector, clip, rounds):
    """Kills two streams in turn and returns threads, files and gaps after each round.

    The first round is for what libraries allocate once.
    """
    pairs = [http_sender(clip), udp_sender(clip)]
    counts = []
    with pairs[0][0], pairs[1][0]:
        watches = [open_when_sent(detector, address) for _, address in pairs]
        threads = [threading.Thread(target=lambda w=w: list(w), daemon=True) for w in watches]
        for thread in threads:
            thread.start()
        for number in range(rounds):
            sender = pairs[number % 2][0]
            watch = watches[number % 2]
            gaps = watch.gaps
            sender.kill()
            wait_for(lambda watch=watch, gaps=gaps: watch.gaps > gaps)
            sender.start()
            seen = watch.verdict().frames
            wait_for(lambda watch=watch, seen=seen: watch.verdict().frames > seen + 2)
            counts.append((reader_threads(), system_threads(), open_files()))
        for watch in watches:
            watch.close()
        for thread in threads:
            thread.join(10)
    return counts, [watch.gaps for watch in watches]


def wait_for(condition):
    deadline_s = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("rounds", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_two_streams_killed_in_turn_leave_nothing_behind(detector, clip, monkeypatch, rounds):
    monkeypatch.setattr(network_module, "_READ_TIMEOUT_S", 1.0)
    wait_for(lambda: reader_threads() == 0)
    before = system_threads(), open_files()
    counts, gaps = alternate(detector, clip, rounds)
    wait_for(lambda: reader_threads() == 0)
    wait_for(lambda: (system_threads(), open_files()) <= before)
    assert sum(gaps) >= rounds
    assert {readers for readers, _, _ in counts} == {2}
    if before[0] is not None:
        first, last = counts[1], counts[-1]
        assert last[1] <= first[1]
        assert last[2] <= first[2]


class Served(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which it is served."""
    handler = functools.partial(Served, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write_playlist(clip, folder):
    options = ["-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod"]
    run_ffmpeg("-i", clip, *options, folder / "list.m3u8")
    return (folder / "list.m3u8").read_text()


def test_a_recording_in_segments(detector, clip, served):
    folder, address = served
    write_playlist(clip, folder)
    with detector.watch(f"{address}/list.m3u8") as watch:
        results = list(watch)
    assert len(results) == 15
    assert watch.verdict().complete


def test_a_recording_in_encrypted_segments(detector, clip, served):
    folder, address = served
    (folder / "key").write_bytes(bytes(range(16)))
    (folder / "key.txt").write_text(f"{address}/key\n{folder / 'key'}\n")
    options = ["-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod"]
    run_ffmpeg("-i", clip, *options, "-hls_key_info_file", folder / "key.txt", folder / "list.m3u8")
    assert "#EXT-X-KEY" in (folder / "list.m3u8").read_text()
    with detector.watch(f"{address}/list.m3u8") as watch:
        assert len(list(watch)) == 15


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("list1.ts", "file://{secret}"),
        ("list1.ts", "{secret}"),
        ("list1.ts", "concat:{secret}"),
        ("list1.ts", "subfile,,start,0,end,0,,:{secret}"),
        ("#EXTINF", '#EXT-X-MAP:URI="file://{secret}"\n#EXTINF'),
        ("#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="file://{secret}"\n#EXTINF'),
    ],
)
def test_a_playlist_from_the_network_reads_no_file_of_this_machine(
    detector, clip, served, tmp_path_factory, old, new
):
    folder, address = served
    text = write_playlist(clip, folder)
    secret = tmp_path_factory.mktemp("secret") / "clip.ts"
    write_clip(secret, face_frames(25, size=(480, 360)), options={"g": "5"})
    assert old in text
    (folder / "bad.m3u8").write_text(text.replace(old, new.format(secret=secret), 1))
    shapes = set()
    with pytest.raises(SourceError):
        read_shapes(detector, f"{address}/bad.m3u8", shapes, folder, secret)
    assert (360, 480, 3) not in shapes


def read_shapes(detector, address, shapes, folder, secret):
    """Reads it all, and raises where it was not whole: a segment may only be missing."""
    accessed_ns = secret.stat().st_atime_ns
    with detector.watch(address, on_image=lambda frame, _: shapes.add(frame.image.shape)) as watch:
        count = len(list(watch))
    assert secret.stat().st_atime_ns == accessed_ns
    if count < 15 or not watch.verdict().complete:
        raise SourceError(address, "not whole")


def test_a_live_stream_in_segments(detector, clip, served):
    folder, address = served
    options = ["-hls_time", "0.4", "-hls_list_size", "4", "-hls_flags", "delete_segments"]
    with Sender(clip, str(folder / "live.m3u8"), "-f", "hls", *options):
        wait_for((folder / "live.m3u8").exists)
        with open_when_sent(detector, f"{address}/live.m3u8", duration_s=3.0) as watch:
            results = list(watch)
    assert len(results) >= 3
    assert watch.gaps == 0


def test_what_is_not_opened_again(detector, clip):
    sender, address = http_sender(clip)
    options = SourceOptions(reconnect_s=0.0)
    with sender, open_when_sent(detector, address, options=options) as watch:
        next(watch)
        sender.kill()
        try:
            list(watch)
        except SourceError as error:
            assert "lost" in str(error)
    assert watch.gaps == 0
