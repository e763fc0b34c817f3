"""Live sources: watched together, shown, streamed, and opened again when they cannot be reached."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator

import cv2
import httpx
import numpy as np
import pytest
from real_sender import Sender, free_port

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import jsonschema

from dfd_edge import records_schema
from dfd_edge.detector import Detector
from dfd_edge.errors import UsageError
from dfd_edge.serve import live
from dfd_edge.serve.judging.hub import Hub
from dfd_edge.serve.live import LiveSource, LiveState
from dfd_edge.serve.settings import CameraSource, ServiceSettings
from dfd_edge.sources.expand import SourceItem
from serving import ScriptedWorker, serving

WAIT_S = 40.0


def events_of(client: httpx.Client, address: str) -> Iterator[tuple[str, dict]]:
    """The server-sent events of an address: name and data."""
    with client.stream("GET", address) as answer:
        answer.raise_for_status()
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def status_when(client: httpx.Client, name: str, state: str) -> dict:
    """The status of a source, once it is in a state."""
    until = time.monotonic() + WAIT_S
    while True:
        (found,) = [s for s in client.get("/v1/live").json()["sources"] if s["name"] == name]
        if found["state"] == state:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.05)


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_bundle, face_clip, plain_clip):
    """A service that watches a stream, a file, one without a face, and one that is not there."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/live.ts"
    cameras = (
        CameraSource("stream", address),
        CameraSource("file", str(face_clip)),
        CameraSource("plain", str(plain_clip)),
        CameraSource("gone", f"http://127.0.0.1:{free_port()}/none"),
    )
    loaded = []
    load = Detector.load
    with pytest.MonkeyPatch.context() as patch, Sender(face_clip, address, "-listen", "1"):
        patch.setattr(Detector, "load", lambda *a, **k: loaded.append(1) or load(*a, **k))
        folder = tmp_path_factory.mktemp("live")
        with serving(folder, [ScriptedWorker()], model=tiny_bundle, cameras=cameras) as served:
            assert loaded == [1], "the sources share one detector"
            yield served


@pytest.fixture
def client(watched):
    with watched.client() as client:
        yield client


def test_sources_are_watched_together(client):
    stream = status_when(client, "stream", "watching")
    ended = status_when(client, "file", "ended")
    assert ended["label"] in ("real", "fake", "unsure")
    assert 0.0 <= ended["p_fake"] <= 1.0
    assert status_when(client, "plain", "ended")["label"] == "no_face"
    assert stream["since"].endswith("Z")


def test_staleness_grows_when_nothing_comes(client):
    first = status_when(client, "file", "ended")["staleness_ms"]
    time.sleep(0.2)
    assert status_when(client, "file", "ended")["staleness_ms"] >= first + 150


def test_what_cannot_be_reached_says_why_and_holds_up_nothing(client):
    gone = status_when(client, "gone", "waiting")
    assert "gone" in gone["detail"]
    assert "refused" in gone["detail"]
    assert gone["label"] is None
    assert gone["staleness_ms"] is None


def test_events_are_the_status_the_last_minute_and_published_records(client):
    status_when(client, "file", "ended")
    check = jsonschema.Draft202012Validator(records_schema()).validate
    stream = events_of(client, "/v1/live/file/events")
    assert next(stream)[0] == "state"
    records = []
    for name, record in stream:
        assert name == "record"
        check(record)
        records.append(record)
        if record["record"] == "verdict":
            break
    assert [record["source"] for record in records] == ["file"] * len(records)
    frames = [record["time_s"] for record in records if record["record"] == "frame"]
    assert len(frames) == 15, "3 s at 5 Hz"
    assert frames == sorted(set(frames))


def test_one_stream_has_all_sources_and_nothing_twice(client):
    status_when(client, "stream", "watching")
    status_when(client, "file", "ended")
    taken = itertools.islice(events_of(client, "/v1/live/events"), 70)
    records = [record for name, record in taken if name == "record"]
    assert {record["source"] for record in records} >= {"stream", "file", "plain"}
    seen = [json.dumps(record) for record in records if record["record"] != "event"]
    assert len(seen) == len(set(seen))


def test_a_live_stream_goes_on(client):
    status_when(client, "stream", "watching")
    times = []
    for name, record in events_of(client, "/v1/live/stream/events"):
        if name == "record" and record["record"] == "frame":
            times.append((record["time_s"], record["staleness_ms"]))
        if len(times) > 1 and times[-1][0] - times[0][0] > 1.0:
            break
    assert all(stale is not None for _, stale in times)


def test_the_picture_is_annotated(client, face_clip):
    status_when(client, "file", "ended")
    answer = client.get("/v1/live/file/picture?still=true")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (240, 320, 3)
    reading = cv2.VideoCapture(str(face_clip))
    reading.set(cv2.CAP_PROP_POS_FRAMES, 70)  # the last that is judged
    _, plain = reading.read()
    reading.release()
    different = np.abs(shown.astype(int) - plain).max(axis=2) > 60
    assert different[:30].any(), "the header"
    assert different[30:180].sum() > 200, "the box"


def test_pictures_come_one_after_the_other(client):
    status_when(client, "stream", "watching")
    pictures, buffer = [], b""
    with client.stream("GET", "/v1/live/stream/picture") as answer:
        kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
        assert kind == "multipart/x-mixed-replace"
        for chunk in answer.iter_raw():
            buffer += chunk
            *parts, buffer = buffer.split(f"--{boundary}\r\n".encode())
            for part in filter(None, parts):
                head, _, jpeg = part.partition(b"\r\n\r\n")
                assert b"image/jpeg" in head
                pictures.append(jpeg[:-2])
            if len(pictures) >= 3:
                break
    assert len(set(pictures)) == len(pictures), "each is another frame"
    for jpeg in pictures:
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None


@pytest.mark.parametrize("what", ["events", "picture", "picture?still=true"])
def test_an_unknown_source_is_a_problem(client, what):
    answer = client.get(f"/v1/live/nobody/{what}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_before_the_first_frame_there_is_no_picture(client):
    status_when(client, "gone", "waiting")
    assert client.get("/v1/live/gone/picture?still=true").status_code == 404


def test_the_end_of_the_service_ends_streams_and_threads(tmp_path, tiny_bundle, face_clip):
    port = free_port()
    address = f"http://127.0.0.1:{port}/live.ts"
    cameras = (CameraSource("ending", address),)
    ended = threading.Event()

    def follow(client: httpx.Client) -> None:
        for _ in events_of(client, "/v1/live/events"):
            pass
        ended.set()

    with Sender(face_clip, address, "-listen", "1"):
        with serving(tmp_path, [ScriptedWorker()], model=tiny_bundle, cameras=cameras) as served:
            client = served.client()
            status_when(client, "ending", "watching")
            threading.Thread(target=follow, args=(client,), daemon=True).start()
            time.sleep(0.3)
        assert ended.wait(WAIT_S)
        client.close()
    assert not [one.name for one in threading.enumerate() if one.name == "dfd-edge ending"]


class Watching:
    """Stands for a detector whose source cannot be watched, for one reason or another."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.tries = 0
        self.decision = Detector.load().decision

    def watch(self, *_, **__):
        self.tries += 1
        raise self.error


def source_with(error: Exception, pauses: list[float], most: int = 8) -> tuple[LiveSource, list]:
    sent = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) >= most

    source = LiveSource(
        "door",
        SourceItem.of(0),
        Watching(error),
        lambda topic, event: sent.append((topic, event)),
        itertools.count(1),
        pause=pause,
    )
    source.start()
    source._thread.join(WAIT_S)
    return source, sent


def test_an_unreachable_source_is_tried_again_ever_less_often():
    pauses: list[float] = []
    source, sent = source_with(OSError(5, "no signal"), pauses)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert source.status().state is LiveState.WAITING
    errors = [event for topic, event in sent if topic == "live/door" and event.name == "record"]
    assert len(errors) == 8
    assert "no signal" in json.loads(errors[0].data)["detail"]


def test_what_would_fail_again_is_not_tried_again():
    pauses: list[float] = []
    source, _ = source_with(UsageError("the bundle judges the first frames of a clip"), pauses)
    assert pauses == []
    assert source.status().state is LiveState.FAILED
    assert "first frames" in source.status().detail


def test_nothing_is_encoded_while_nobody_looks(monkeypatch, tiny_bundle, face_clip):
    encoded = []
    jpeg = live._jpeg
    monkeypatch.setattr(live, "_jpeg", lambda scene: encoded.append(1) or jpeg(scene))
    detector = Detector.load(tiny_bundle)
    source = LiveSource(
        "file", SourceItem.of(face_clip), detector, lambda *_: None, itertools.count(1)
    )
    source.start()
    source._thread.join(WAIT_S)
    assert source.status().state is LiveState.ENDED
    assert encoded == []
    assert source.picture() is source.picture()
    assert encoded == [1], "one picture is encoded once, however many look"


def test_without_cameras_no_model_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(Detector, "load", lambda *_, **__: pytest.fail("loaded"))
    sources = live.Live(ServiceSettings(data=tmp_path), Hub())
    asyncio.run(sources.start())
    assert list(sources) == []
