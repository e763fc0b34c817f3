"""`--webhook`: what a receiver gets, and that a bad receiver holds up nothing."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import jsonschema
import pytest
from clip_maker import face_frames, plain_frames, write_clip

import dfd_edge
from dfd_edge.errors import UsageError
from dfd_edge.judging.decision import HeldLabel
from dfd_edge.judging.results import FrameResult, Label, Verdict
from dfd_edge.sinks.webhook import Endpoint, Refused, Unreachable, Webhook

COMMAND = [sys.executable, "-m", "dfd_edge"]
VALIDATOR = jsonschema.Draft202012Validator(
    dfd_edge.records_schema(),
    format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
)


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what is posted; answers with `answers` in turn, then with 200."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.times_s: list[float] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.clip = b""  # what a GET gives
        self.hold = threading.Event()  # while it is not set, nothing is answered
        self.hold.set()
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook"

    def received(self):
        """The posted objects, each valid by the schema."""
        rows = [json.loads(body) for body in self.bodies]
        for row in rows:
            VALIDATOR.validate(row)
            assert row["record"] == "notification"
        return rows


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(body)
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.times_s.append(time.monotonic())
        self.server.hold.wait(30.0)
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        """A live source: a clip, sent in as many seconds as it lasts."""
        self.server.requests.append((self.path, {"method": "GET"}))
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        step = 188 * max(1, len(self.server.clip) // 188 // 30)
        with contextlib.suppress(OSError):
            for start in range(0, len(self.server.clip), step):
                self.wfile.write(self.server.clip[start : start + step])
                self.wfile.flush()
                time.sleep(0.1)

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.hold.set()
    receiver.shutdown()
    receiver.server_close()


@pytest.fixture
def closed_port():
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def frame(time_s, label, source="camera 0"):
    return FrameResult(source, time_s, (), label, 20.0)


def verdict(source="clip.mp4", label=Label.UNSURE):
    return Verdict(source, label, None, 0.0, 20, 4.0, (), "cpu")


def opened(url, **options):
    said = []
    return Webhook(Endpoint.parse(url), note=said.append, **options), said


def until(condition, timeout_s=10.0):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.01)


class TestEndpoint:
    @pytest.mark.parametrize(
        ("address", "url", "shown"),
        [
            ("http://a.example", "http://a.example/", "http://a.example"),
            ("https://a.example:8443/x?k=v#f", "https://a.example:8443/x?k=v", None),
            ("HTTP://[::1]:80/x y".replace(" ", "%20"), "http://[::1]:80/x%20y", None),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC", None),
        ],
    )
    def test_addresses(self, address, url, shown):
        endpoint = Endpoint.parse(address)
        assert endpoint.url == url
        assert endpoint.authorization is None
        assert endpoint.shown == shown or endpoint.shown.endswith("/...")

    def test_user_and_password_become_a_header(self):
        endpoint = Endpoint.parse("https://us%40er:pa%3Ass%FF@a.example/secret-token?key=hidden")
        assert endpoint.url == "https://a.example/secret-token?key=hidden"
        scheme, _, coded = endpoint.authorization.partition(" ")
        assert scheme == "Basic"
        assert base64.b64decode(coded) == b"us@er:pa:ss\xff"
        for text in (repr(endpoint), str(endpoint), endpoint.shown):
            for secret in ("us%40er", "pa%3A", "secret", "hidden", coded):
                assert secret not in text

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "clip.mp4",
            "secret",
            "ftp://user:secret@a.example/x",
            "file:///etc/secret",
            "http:///secret",
            "http://user:secret@a.example:port/",
            "http://user:secret@a.example:99999/",
            "http://user:secret@[::1/",
            "http://a.example/secret path",
            "http://a.example/secret\r\nHost: b",
            "http://" + "secret" * 20 + ".example/",
        ],
    )
    def test_what_is_no_address_is_refused_without_being_repeated(self, address):
        with pytest.raises(UsageError, match="--webhook: ") as refusal:
            Endpoint.parse(address)
        assert "secret" not in str(refusal.value)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(self, receiver, status):
        other = Receiver()
        receiver.answers, receiver.headers = [status], {"Location": other.url}
        with pytest.raises(Refused, match=f"{status}, a redirect"):
            Endpoint.parse(receiver.url).post(b"{}", timeout_s=5.0)
        other.shutdown()
        other.server_close()
        assert other.requests == []
        assert len(receiver.requests) == 1

    @pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
    def test_what_is_refused(self, receiver, status):
        receiver.answers = [status]
        with pytest.raises(Refused, match=str(status)):
            Endpoint.parse(receiver.url).post(b"{}", timeout_s=5.0)

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_what_may_be_tried_again(self, receiver, status):
        receiver.answers, receiver.headers = [status], {"Retry-After": "3"}
        with pytest.raises(Unreachable, match=str(status)) as trouble:
            Endpoint.parse(receiver.url).post(b"{}", timeout_s=5.0)
        assert trouble.value.wait_s == 3.0

    def test_a_server_that_speaks_something_else(self):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer():
                connection, _ = server.accept()
                with connection:
                    connection.recv(10_000)
                    connection.sendall(b"SSH-2.0-Secret\r\n\r\n")

            threading.Thread(target=answer, daemon=True).start()
            endpoint = Endpoint.parse(f"http://127.0.0.1:{server.getsockname()[1]}/")
            with pytest.raises(Unreachable, match="not HTTP"):
                endpoint.post(b"{}", timeout_s=5.0)

    def test_a_server_that_never_answers(self, receiver):
        receiver.hold.clear()
        started_s = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
            Endpoint.parse(receiver.url).post(b"{}", timeout_s=0.3)
        assert time.monotonic() - started_s < 4.0


def test_a_label_is_told_when_it_has_lasted_and_fake_at_once():
    held = HeldLabel(at_once=Label.FAKE)
    told = []
    labels = ["no_face"] * 10 + ["real"] * 3 + ["no_face"] * 2 + ["real"] * 10
    labels += ["fake"] * 6 + ["no_face"] * 3 + ["fake"] * 3 + ["no_face"] * 6
    for number, label in enumerate(labels):
        if held.update(Label(label), number / 5):
            told.append((number / 5, held.label.value))
    assert told == [(1.0, "no_face"), (4.0, "real"), (5.0, "fake"), (8.4, "no_face")]


class TestDelivery:
    def test_a_live_source(self, receiver):
        webhook, said = opened(receiver.url)
        for source in ("camera 0", "camera 1"):
            webhook.begin(source, live=True)
        for number in range(20):
            webhook.frame(frame(number / 5, Label.REAL if number < 10 else Label.FAKE))
        webhook.frame(frame(0.0, Label.NO_FACE, "camera 1"))
        webhook.verdict(verdict("camera 0", Label.FAKE))
        webhook.close()
        rows = receiver.received()
        assert [(row["cause"], row["previous_label"], row["label"]) for row in rows] == [
            ("label", None, "real"),
            ("label", "real", "fake"),
            ("verdict", "fake", "fake"),
        ]
        assert [row["time_s"] for row in rows] == [1.0, 2.0, 4.0]
        assert [row["sequence"] for row in rows] == [1, 2, 3]
        assert [row["id"] for row in rows] == [f"{rows[0]['run']}-{n}" for n in (1, 2, 3)]
        assert rows[2]["verdict"]["record"] == "verdict"
        assert said == []

    def test_headers(self, receiver):
        webhook, _ = opened(receiver.url.replace("http://", "http://me:secret@") + "?token=t")
        webhook.verdict(verdict())
        webhook.close()
        ((path, headers),) = receiver.requests
        assert path == "/hook?token=t"
        assert headers["User-Agent"].startswith("dfd-edge/")
        assert headers["Content-Type"] == "application/json"
        assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()
        assert headers["Host"] == f"127.0.0.1:{receiver.server_port}"

    def test_500_twice_then_200_is_delivered_once(self, receiver):
        receiver.answers = [500, 500]
        webhook, said = opened(receiver.url)
        webhook.verdict(verdict())
        until(lambda: len(receiver.bodies) == 3)
        webhook.close()
        assert len(set(receiver.bodies)) == 1, "repeats are the same, id and all"
        assert len(receiver.received()) == 3
        first, second, third = receiver.times_s
        assert second - first >= 0.12
        assert third - second >= 0.25
        assert said == [
            f"webhook {Endpoint.parse(receiver.url).shown}: it answered 500; trying again"
        ]

    def test_4xx_is_not_tried_again_and_told_once(self, receiver):
        receiver.answers = [404, 404]
        webhook, said = opened(receiver.url)
        for number in range(3):
            webhook.verdict(verdict(f"{number}.mp4"))
        webhook.close()
        assert [row["source"] for row in receiver.received()] == ["0.mp4", "1.mp4", "2.mp4"]
        assert len(said) == 2
        assert "404" in said[0]
        assert "2 of 3 notifications were not delivered" in said[1]

    def test_the_oldest_are_dropped_counted_and_told(self, receiver):
        receiver.hold.clear()
        webhook, said = opened(receiver.url, capacity=5)
        webhook.verdict(verdict("first.mp4"))
        until(lambda: receiver.bodies)
        for number in range(12):
            webhook.verdict(verdict(f"{number}.mp4"))
        receiver.hold.set()
        webhook.close()
        rows = receiver.received()
        assert [row["sequence"] for row in rows] == [1, 9, 10, 11, 12, 13]
        assert "the oldest are lost" in said[0]
        assert said[1].endswith(
            "7 of 13 notifications were not delivered, 7 of them dropped from a full queue"
        )
        assert len(said) == 2

    def test_a_server_that_hangs_holds_up_neither_calls_nor_the_end(self, receiver):
        receiver.hold.clear()
        webhook, said = opened(receiver.url)
        started_s = time.monotonic()
        webhook.begin("camera 0", live=True)
        for number in range(500):
            webhook.frame(frame(number / 5, Label.REAL))
            webhook.verdict(verdict(f"{number}.mp4"))
        assert time.monotonic() - started_s < 2.0
        started_s = time.monotonic()
        webhook.close()
        assert time.monotonic() - started_s < 4.5
        assert "501 of 501 notifications were not delivered" in said[-1]
        before = list(said)
        webhook.close()
        webhook.verdict(verdict())
        receiver.hold.set()
        time.sleep(0.3)
        assert said == before, "nothing is told after the end"

    def test_a_long_wait_is_cut_short_at_the_end(self, receiver):
        receiver.answers, receiver.headers = [503], {"Retry-After": "60"}
        webhook, said = opened(receiver.url)
        webhook.verdict(verdict())
        until(lambda: said)
        started_s = time.monotonic()
        webhook.close()
        assert time.monotonic() - started_s < 10.0
        assert "1 of 1 notifications were not delivered" in said[-1]

    def test_what_could_not_be_delivered_is_delivered_when_the_server_is_back(self, closed_port):
        webhook, said = opened(f"http://127.0.0.1:{closed_port}/")
        webhook.verdict(verdict())
        until(lambda: said)
        done = threading.Event()

        class Late(http.server.HTTPServer):
            allow_reuse_address = True

        class Answer(Handler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                done.set()

        with Late(("127.0.0.1", closed_port), Answer) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            assert done.wait(10.0)
            webhook.close()
            server.shutdown()
        assert said == [f"webhook http://127.0.0.1:{closed_port}: connection refused; trying again"]


def run(*arguments, code=0):
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def long_clip(clips):
    """A clip that takes a while at 25 frames a second."""
    return write_clip(clips / "long.mp4", face_frames(600))


class TestCommand:
    def test_files_give_their_verdicts(self, receiver, face_clip, plain_clip, tmp_path):
        done = run("--webhook", receiver.url, face_clip, plain_clip, tmp_path / "gone.mp4", code=1)
        rows = receiver.received()
        assert [row["source"] for row in rows] == [str(face_clip), str(plain_clip)]
        assert [row["cause"] for row in rows] == ["verdict", "verdict"]
        assert rows[1]["label"] == rows[1]["verdict"]["label"] == "no_face"
        assert len(done.stdout.splitlines()) == 2
        assert len(done.stderr.splitlines()) == 1, "the missing file"

    def test_a_live_source_gives_its_labels_and_its_verdict(self, receiver, tmp_path):
        clip = tmp_path / "live.ts"
        options = {"g": "5", "tune": "zerolatency", "preset": "ultrafast"}
        write_clip(clip, plain_frames(75), options=options)
        receiver.clip = clip.read_bytes()
        source = f"http://127.0.0.1:{receiver.server_port}/live.ts"
        run("--no-window", "--duration", "2.5", "--webhook", receiver.url, source)
        rows = receiver.received()
        told = [(row["cause"], row["previous_label"], row["label"]) for row in rows]
        assert told == [("label", None, "no_face"), ("verdict", "no_face", "no_face")]
        assert {row["source"] for row in rows} == {source}
        assert rows[0]["time_s"] >= 1.0

    def test_a_refused_connection_is_told_once(self, closed_port, face_clip, plain_clip):
        url = f"http://me:secret@127.0.0.1:{closed_port}/token?key=hidden"
        done = run("-v", "--json", "--webhook", url, face_clip, plain_clip)
        lines = [line for line in done.stderr.splitlines() if "webhook" in line]
        shown = f"dfd-edge: webhook http://127.0.0.1:{closed_port}/...:"
        assert lines == [
            f"{shown} connection refused; trying again",
            f"{shown} 2 of 2 notifications were not delivered",
        ]
        for secret in ("me:", "secret", "token", "hidden"):
            assert secret not in "\n".join(lines) + done.stdout
        assert '"verdict"' in done.stdout

    def test_a_server_that_hangs_does_not_slow_the_run(self, receiver, plain_clip):
        receiver.hold.clear()
        process = subprocess.Popen(
            [*COMMAND, "--webhook", receiver.url, str(plain_clip)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline().startswith("NO_FACE")
        printed_s = time.monotonic()
        said = process.communicate(timeout=30)[1]
        assert time.monotonic() - printed_s < 15.0, "two seconds; the attempts alone would take 45"
        assert process.returncode == 0
        assert "1 of 1 notifications were not delivered" in said

    @pytest.mark.slow
    @pytest.mark.parametrize("hangs", [False, True])
    def test_ctrl_c(self, receiver, long_clip, hangs):
        if hangs:
            receiver.hold.clear()
        process = subprocess.Popen(
            [*COMMAND, "--json", "--rate", "25", "--webhook", receiver.url, str(long_clip)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while '"frame"' not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        while '"verdict"' not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        printed_s = time.monotonic()
        said = process.communicate(timeout=30)[1]
        assert process.returncode == 0
        assert time.monotonic() - printed_s < 15.0
        (row,) = receiver.received()
        assert row["verdict"]["complete"] is False
        assert "Traceback" not in said
        assert ("not delivered" in said) is hangs

    def test_what_is_no_address(self, face_clip):
        done = run("--webhook", "secret", face_clip, code=2)
        assert done.stderr == (
            "dfd-edge: error: --webhook: give an http or https address, such as https://HOST/PATH\n"
        )
