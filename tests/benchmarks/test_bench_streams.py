"""`dfd-bench streams`: ages are taken from the sender's clock, and what is not carried is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from bench_results import read_valid
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.streams import measure as streams_module
from dfd_benchmarks.streams.footage import Footage, make_footage
from dfd_benchmarks.streams.measure import load_point, measure_streams, most_carried
from dfd_benchmarks.streams.receiver import Busy, Received, Verdict
from dfd_benchmarks.streams.rtsp import nal_units, rtp_packets
from dfd_benchmarks.streams.sender import Packets
from dfd_benchmarks.streams.senders import FrameClock, SenderCost, Senders
from dfd_benchmarks.streams.stamps import NUMBERS, read_stamp, write_stamp
from dfd_edge import SourceError, UsageError
from dfd_edge.judging.watch import Watch
from dfd_edge.sources.decoding import DecodedSource

FPS = 15
SIZE = (320, 240)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    """Footage of the sample clip."""
    path = tmp_path_factory.mktemp("footage") / "footage.ts"
    return make_footage(None, path, size=SIZE, fps=FPS)


# Stamps


@pytest.mark.parametrize("number", [0, 1, 235, 0x5555, 0xFF00, NUMBERS - 1])
@pytest.mark.parametrize("size", [(240, 320), (720, 1280)])
def test_a_stamp_is_read_as_written(number: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    write_stamp(image, number)
    assert read_stamp(image) == number


def test_no_stamp_is_read_where_none_is() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert read_stamp(noise) is None
    for level in (0, 128, 255):
        assert read_stamp(np.full((240, 320, 3), level, np.uint8)) is None


def test_a_damaged_stamp_is_not_read() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    write_stamp(image, 1234)
    for block in range(24):
        damaged = image.copy()
        damaged[232:, block * 8 : block * 8 + 8] = 255 - damaged[232:, block * 8 : block * 8 + 8]
        assert read_stamp(damaged) is None


def test_a_picture_that_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="100x100 cannot be stamped"):
        write_stamp(np.zeros((100, 100, 3), np.uint8), 1)


# Footage


def test_footage_is_stamped_throughout_and_looks_like_a_camera_stream(footage: Footage) -> None:
    with av.open(str(footage.path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == SIZE
        packets = [packet for packet in container.demux(stream) if packet.size]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert keys == list(range(0, footage.frames, FPS)), "a key frame a second"
    assert all(packet.pts == packet.dts for packet in packets), "no frame waits for a later one"
    with av.open(str(footage.path)) as container:
        stamps = [read_stamp(f.to_ndarray(format="bgr24")) for f in container.decode(video=0)]
    assert stamps == list(range(footage.frames))


def test_muxed_frames_go_on_in_time_where_the_footage_starts_anew(
    footage: Footage, tmp_path: Path
) -> None:
    packets = Packets(footage.path, FPS)
    count = footage.frames + 2 * FPS
    sent = tmp_path / "sent.ts"
    sent.write_bytes(b"".join(packets.mpegts(number) or b"" for number in range(count)))
    with av.open(str(sent)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == count
    steps = np.diff([frame.time for frame in frames])
    assert np.allclose(steps, 1 / FPS, atol=1e-4)
    stamps = [read_stamp(frame.to_ndarray(format="bgr24")) for frame in frames]
    assert stamps == [number % footage.frames for number in range(count)]
    assert packets.mpegts(0) is None, "what was sent long ago is not kept"


def test_rtp_carries_every_byte(footage: Footage) -> None:
    unit = Packets(footage.path, FPS).unit(0)
    sent = rtp_packets(unit, 65_534, 90_000)
    assert max(map(len, sent)) <= 1500
    assert [packet[1] & 0x80 for packet in sent] == [0] * (len(sent) - 1) + [0x80]
    numbers = [int.from_bytes(packet[2:4]) for packet in sent]
    assert numbers == [(65_534 + i) % 65_536 for i in range(len(sent))]
    nals: list[bytes] = []
    for payload in (packet[12:] for packet in sent):
        if payload[0] & 0x1F != 28:
            nals.append(payload)
        elif payload[1] & 0x80:
            nals.append(bytes([payload[0] & 0xE0 | payload[1] & 0x1F]) + payload[2:])
        else:
            nals[-1] += payload[2:]
    assert nals == nal_units(unit)


# Times


def test_the_clock_knows_a_repeated_stamp_by_the_frame_before_it() -> None:
    clock = FrameClock(100.0, 10, 40)
    assert clock.sent_s(5, 0.0, 100.6) == pytest.approx(100.5)
    assert clock.sent_s(7, 0.2, 100.9) == pytest.approx(100.7)
    # It came five seconds late, more than the footage lasts.
    assert clock.sent_s(9, 0.4, 105.9) == pytest.approx(100.9)
    # The stream lost eight seconds: two turns of the footage.
    assert clock.sent_s(9, 8.4, 109.0) == pytest.approx(108.9)


def test_a_frame_is_never_from_the_future() -> None:
    clock = FrameClock(100.0, 10, 40)
    assert clock.sent_s(39, 0.0, 100.5) < 100.5
    assert clock.sent_s(5, 50.0, 100.6) <= 100.6


@pytest.mark.parametrize("most", range(12))
def test_the_most_streams_are_found(most: int) -> None:
    asked: list[int] = []

    def carries(count: int) -> bool:
        asked.append(count)
        return count <= most

    assert most_carried(carries, most=10) == min(most, 10)
    assert all(1 <= count <= 10 for count in asked)
    assert len(asked) <= 12


def test_a_count_that_fails_once_is_tried_again() -> None:
    failed: set[int] = set()

    def carries(count: int) -> bool:
        if count not in failed:
            failed.add(count)
            return False
        return count <= 3

    assert most_carried(carries, most=10) == 3


def point(ages_ms: list[list[float | None]], *, gaps: int = 0) -> streams_module.LoadPoint:
    received = [
        Received(tuple(Verdict(0.0, age, 10.0, 1) for age in ages), dropped=0, gaps=gaps)
        for ages in ages_ms
    ]
    cost = SenderCost(cores=0.1, late_p99_ms=1.0)
    return load_point(received, Busy(1.0, 1.5), cost, duration_s=20, due_hz=5, limit_ms=250)


def test_what_is_carried() -> None:
    good: list[float | None] = [100.0] * 100
    assert point([good, good]).carried
    assert point([good, good]).other_cores == pytest.approx(0.4)
    assert not point([good, good], gaps=1).carried
    assert "3.00 frames a second judged instead of 5" in point([good, good[:60]]).why_not
    late: list[float | None] = [100.0] * 95 + [300.0] * 5
    assert "staleness p99 300 ms" in point([good, late]).why_not
    assert not point([[None] * 100]).carried, "nothing is known of frames without a stamp"


# The whole way


def measured(bundle: Path, **wanted: object) -> streams_module.StreamsReport:
    options = streams_module.StreamsOptions(
        **{"size": SIZE, "fps": FPS, "duration_s": 2.0, "limit_ms": 10_000.0, **wanted}
    )
    return measure_streams(None, options, model=bundle)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small streams settle at once."""
    monkeypatch.setattr(streams_module, "_SETTLE_S", 0.5)


@pytest.mark.parametrize(
    ("protocol", "sender"),
    [
        pytest.param("http", "packets", marks=pytest.mark.slow),
        pytest.param("udp", "packets", marks=pytest.mark.slow),
        ("rtsp", "packets"),
        ("http", "ffmpeg"),
    ],
)
def test_streams_are_aged_from_the_senders_clock(
    tiny_bundle: Path, protocol: str, sender: str
) -> None:
    count = 2 if sender == "packets" else 1
    report = measured(tiny_bundle, count=count, protocol=protocol, sender=sender)
    (load,) = report.points
    assert load.count == count
    assert load.verdicts >= count * 2.0 * report.due_hz * 0.5
    assert load.unreadable == 0
    assert load.with_face == 1.0
    assert load.receiver_cores > 0 < load.sender_cores
    ages, own = load.staleness_ms, load.own_staleness_ms
    assert 0 < ages.p50 <= ages.p90 <= ages.p99 <= ages.max < 10_000
    # Sending, demuxing and decoding come before what the runtime counts itself.
    assert ages.p50 > own.p50


def test_a_delay_before_the_decoder_is_seen(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime's own figure starts behind the decoder, and misses it."""
    monkeypatch.setattr("dfd_edge.sources.opening._is_sandboxed", lambda item: False)
    report = measured(tiny_bundle, count=1)
    decode = DecodedSource._decode
    held_s = 0.5

    def delayed(self):
        if self.finite:  # the clip, before it is sent
            yield from decode(self)
        held = []
        for frame in decode(self):
            held.append((time.monotonic() + held_s, frame))
            while held and held[0][0] <= time.monotonic():
                yield held.pop(0)[1]

    monkeypatch.setattr(DecodedSource, "_decode", delayed)
    delayed_report = measured(tiny_bundle, count=1)
    before, after = report.points[0], delayed_report.points[0]
    assert after.staleness_ms.p50 - before.staleness_ms.p50 > 0.8 * held_s * 1e3


def test_a_slow_verdict_is_not_carried(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    following = Watch.__next__

    def slow(self):
        result = following(self)
        time.sleep(0.4)
        return result

    monkeypatch.setattr(Watch, "__next__", slow)
    report = measured(tiny_bundle, count=1, limit_ms=350.0)
    (load,) = report.points
    assert not load.carried
    assert load.staleness_ms.p50 > 400
    assert load.dropped > 0
    assert load.worst_rate_hz < 4


def test_streams_prints_what_it_writes(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "streams.json"
    arguments = ["streams", "--size", "320x240", "--fps", str(FPS), "--count", "1"]
    arguments += ["--duration", "2", "--staleness", "10000", "--model", str(tiny_bundle)]
    result = CliRunner().invoke(main, [*arguments, "--json", str(file)])
    assert result.exit_code == 0, result.output
    record = read_valid(file)
    assert record["benchmark"] == "streams"
    (load,) = record["details"]["points"]
    assert f"{load['staleness_ms']['p99']:.0f}" in result.stdout.splitlines()[-1].split()
    assert "1 streams: measuring" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.mp4"], 1, "missing.mp4"),
        (["--count", "some"], 2, "give a number of streams, or auto"),
        (["--count", "0"], 2, "count is 0; give 1 to"),
        (["--size", "big"], 2, "give WIDTHxHEIGHT"),
        (["--size", "321x240"], 2, "needs even sides"),
        (["--fps", "0"], 2, "fps is 0"),
        (["--protocol", "rtsp", "--sender", "ffmpeg", "--count", "1"], 2, "serves no RTSP"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    arguments: list[str], code: int, message: str, tiny_bundle: Path
) -> None:
    size = [] if "--size" in arguments else ["--size", "320x240"]
    result = CliRunner().invoke(main, ["streams", *arguments, *size, "--model", str(tiny_bundle)])
    assert result.exit_code == code, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_a_clip_without_a_face_is_refused(tiny_bundle: Path) -> None:
    clip = Path(__file__).parents[2] / "samples" / "no_face.mp4"
    options = streams_module.StreamsOptions(size=SIZE, fps=FPS, duration_s=1.0)
    with pytest.raises(SourceError, match="no face in it that can be judged"):
        measure_streams(clip, options, model=tiny_bundle)


def test_a_sender_that_dies_is_told(footage: Footage) -> None:
    with Senders(footage, 1, protocol="udp") as senders:
        senders._process.kill()
        with pytest.raises(Exception, match="ended by itself"):
            senders.close()


def test_ctrl_c_leaves_no_process_behind(tiny_bundle: Path) -> None:
    # A process that a shell started in the background ignores Ctrl-C.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from dfd_benchmarks.cli import main; main()"
    command = [sys.executable, "-c", program, "streams"]
    command += ["--size", "320x240", "--fps", str(FPS), "--count", "2", "--duration", "60"]
    process = subprocess.Popen(
        [*command, "--model", str(tiny_bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "measuring" in line:
            break
    time.sleep(3.0)
    os.killpg(process.pid, signal.SIGINT)
    overdue = threading.Timer(60, process.kill)
    overdue.start()
    _, errors = process.communicate()
    overdue.cancel()
    assert process.returncode == 1
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
