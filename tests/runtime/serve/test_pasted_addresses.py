"""Addresses that people paste: refused unless allowed, and never fetched from inside a network."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from dfd_edge.errors import UnreachableError, UnsupportedError, UsageError
from dfd_edge.serve.routes.problems import Problem
from dfd_edge.serve.safety.addresses import (
    AddressPolicy,
    AddressRefusedError,
    FileTooLargeError,
    is_public,
    resolve,
)
from dfd_edge.serve.safety.fetching import MAX_FETCHES, Fetcher, fetch
from dfd_edge.serve.settings import ServiceSettings
from serving import ScriptedWorker, serving

CLIP = bytes(range(256)) * 1000
PUBLIC = ipaddress.ip_address("93.184.216.34")


class Sender(BaseHTTPRequestHandler):
    """A host of clips; what it answers is chosen by the path."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        if self.path.startswith("/to/"):
            self.answer(302, b"", Location=self.path.removeprefix("/to/"))
        elif self.path == "/page":
            self.answer(200, b"<html>", **{"Content-Type": "text/html; charset=utf-8"})
        elif self.path == "/packed":
            self.answer(200, CLIP, **{"Content-Encoding": "gzip"})
        elif self.path == "/short":
            self.answer(200, CLIP[:1000], **{"Content-Length": str(len(CLIP))})
            self.close_connection = True
        elif self.path in ("/endless", "/slow"):
            self.pour(*((CLIP, 0.005) if self.path == "/endless" else (b"x", 0.05)))
        elif self.path == "/empty":
            self.answer(200, b"")
        elif self.path == "/missing":
            self.answer(404, b"")
        else:
            self.answer(200, CLIP, **{"Content-Type": "video/mp4"})

    def pour(self, data: bytes, every_s: float) -> None:
        """Sends without end."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while not self.server.over.wait(every_s):  # type: ignore[attr-defined]
                self.wfile.write(data)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sender)
    server.seen, server.over = [], threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()


@pytest.fixture
def internet(host: ThreadingHTTPServer):
    """A policy for which `clips.example` is a public host, whose connections end at `host`."""
    reached = []

    def connect(address, port, timeout_s):
        reached.append((str(address), port))
        return socket.create_connection(host.server_address, timeout_s)

    def policy(allowed=("*",), names=None, **limits):
        names = {"clips.example": [PUBLIC], **(names or {})}

        def look_up(name, port):
            if name not in names:
                raise OSError("no such host")
            return names[name]

        return AddressPolicy(tuple(allowed), resolve=look_up, connect=connect, **limits)

    policy.reached = reached  # type: ignore[attr-defined]
    return policy


def test_a_file_is_fetched_whole_and_hashed(internet, host, tmp_path):
    fetched = fetch("http://clips.example/a%20clip.mp4?x=1", tmp_path / "file", internet())
    assert (tmp_path / "file").read_bytes() == CLIP
    assert fetched.sha256 == hashlib.sha256(CLIP).hexdigest()
    assert (fetched.name, fetched.size) == ("a clip.mp4", len(CLIP))
    assert host.seen == [("/a%20clip.mp4?x=1", "clips.example")]


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255"),
        *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16"),
        *("192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "239.255.255.250"),
        *("240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::", "::1", "::7f00:1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:169.254.169.254"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::"),
        *("2001::1", "2001:db8::1", "100::1", "3fff::1", "5f00::1"),
    ],
)
def test_no_inside_address_counts_as_public(text):
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        *("93.184.216.34", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"),
        "::ffff:8.8.8.8",
    ],
)
def test_outside_addresses_count_as_public(text):
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "host_name",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "0"],
)
def test_no_spelling_of_this_machine_is_reached(host, tmp_path, host_name):
    """The system's own name resolution reads all of these as this machine."""
    port = host.server_address[1]
    policy = AddressPolicy((f"*:{port}",))
    with pytest.raises((AddressRefusedError, UnreachableError)) as raised:
        fetch(f"http://{host_name}:{port}/clip.mp4", tmp_path / "file", policy)
    if host_name in ("127.0.0.1", "localhost", "127.1", "2130706433"):
        assert isinstance(raised.value, AddressRefusedError)
        assert "private, local or reserved" in str(raised.value)
        assert "127.0.0.1:" not in str(raised.value).replace(f"{host_name}:{port}", "")
    assert host.seen == []
    assert not (tmp_path / "file").exists()


def test_this_machine_would_have_been_reached_without_the_check(host, tmp_path, monkeypatch):
    monkeypatch.setattr("dfd_edge.serve.safety.addresses.is_public", lambda address: True)
    port = host.server_address[1]
    fetch(f"http://127.0.0.1:{port}/clip.mp4", tmp_path / "file", AddressPolicy((f"*:{port}",)))
    assert len(host.seen) == 1


def test_one_inside_address_among_public_ones_refuses_the_host(internet, tmp_path):
    names = {"mixed.example": [PUBLIC, ipaddress.ip_address("10.0.0.7")]}
    with pytest.raises(AddressRefusedError):
        fetch("http://mixed.example/a.mp4", tmp_path / "file", internet(names=names))
    assert internet.reached == []


def test_a_name_server_that_changes_its_answer_changes_nothing(host, tmp_path):
    """DNS rebinding: public when checked, this machine when connected to."""
    answers = [[PUBLIC], [ipaddress.ip_address("127.0.0.1")]]
    reached = []

    def connect(address, port, timeout_s):
        reached.append(address)
        return socket.create_connection(host.server_address, timeout_s)

    policy = AddressPolicy(("*",), resolve=lambda name, port: answers.pop(0), connect=connect)
    fetch("http://rebinds.example/a.mp4", tmp_path / "file", policy)
    assert reached == [PUBLIC]
    assert len(answers) == 1, "the name was looked up once"


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("http://169.254.169.254/latest/meta-data/", "private, local or reserved"),
        ("http://inside.example/a.mp4", "private, local or reserved"),
        ("http://[::ffff:127.0.0.1]/a.mp4", "private, local or reserved"),
        ("file:///etc/passwd", "file is not fetched"),
        ("gopher://clips.example/", "gopher is not fetched"),
        ("http://clips.example:22/", "does not fetch from there"),
        ("http://user:secret@clips.example/", "a user"),
    ],
)
def test_redirects_are_checked_like_the_address(internet, tmp_path, target, cause):
    names = {
        "inside.example": [ipaddress.ip_address("192.168.0.1")],
        "169.254.169.254": [ipaddress.ip_address("169.254.169.254")],
        "::ffff:127.0.0.1": [ipaddress.ip_address("::ffff:127.0.0.1")],
    }
    with pytest.raises(AddressRefusedError, match=cause) as raised:
        fetch(f"http://clips.example/to/{target}", tmp_path / "file", internet(names=names))
    assert "secret" not in str(raised.value)
    assert internet.reached == [(str(PUBLIC), 80)], "only the first host was reached"


def test_a_redirect_to_a_host_that_is_not_allowed_is_refused(internet, tmp_path):
    names = {"other.example": [PUBLIC]}
    policy = internet(["clips.example"], names=names)
    with pytest.raises(AddressRefusedError, match=r"other\.example"):
        fetch("http://clips.example/to/http://other.example/", tmp_path / "file", policy)


def test_a_redirect_to_an_allowed_place_is_followed(internet, host, tmp_path):
    fetch("http://clips.example/to//moved/b.mp4", tmp_path / "file", internet())
    # `//moved/b.mp4` would be another host; urljoin reads it so.
    assert host.seen[0][0] == "/to//moved/b.mp4"


def test_redirects_come_to_an_end(internet, tmp_path):
    loop = "http://clips.example/to/" * 8 + "http://clips.example/a.mp4"
    with pytest.raises(UnreachableError, match="more than 4 times"):
        fetch(loop, tmp_path / "file", internet())
    assert len(internet.reached) == 5


@pytest.mark.parametrize(
    "address",
    [
        *("file:///etc/passwd", "ftp://clips.example/a.mp4", "rtsp://clips.example/a"),
        *("/etc/passwd", "clips.example/a.mp4", "http:///a.mp4", "http://"),
        *("http://clips.example\\@10.0.0.1/", "http://clips.example/a b", "http://[::1/"),
        *("http://clips.example/\r\nHost: x", "http://clips.example:99999/", "javascript:alert(1)"),
        *("http://me@clips.example/a.mp4", "http://clips.example/" + "a" * 3000, ""),
        "http://clips。example/a.mp4",
    ],
)
def test_what_is_no_plain_web_address_is_refused(internet, tmp_path, address):
    with pytest.raises(AddressRefusedError) as raised:
        fetch(address, tmp_path / "file", internet())
    assert internet.reached == []
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("allowed", "address", "fetched"),
    [
        ((), "http://clips.example/a", False),
        (("clips.example",), "http://clips.example/a", True),
        (("CLIPS.example",), "http://Clips.Example/a", True),
        (("clips.example",), "http://clips.example./a", True),
        (("clips.example",), "http://clips.example:80/a", True),
        (("clips.example",), "http://clips.example:8080/a", False),
        (("clips.example:8080",), "http://clips.example:8080/a", True),
        (("clips.example:8080",), "http://clips.example/a", False),
        (("clips.example",), "http://evil-clips.example/a", False),
        (("clips.example",), "http://clips.example.evil.example/a", False),
        (("*.example",), "http://clips.example/a", True),
        (("*.clips.example",), "http://clips.example/a", False),
        (("*",), "http://clips.example/a", True),
        (("[2606:4700::1111]",), "http://[2606:4700::1111]/a", True),
    ],
)
def test_only_allowed_hosts_and_ports_pass(internet, allowed, address, fetched):
    policy = internet(allowed)
    if fetched:
        assert policy.check(address).scheme == "http"
    else:
        with pytest.raises(AddressRefusedError, match="--allow-addresses"):
            policy.check(address)


@pytest.mark.parametrize("entry", ["http://clips.example", "a b", "*x", "host:port", "a/b", "**"])
def test_an_entry_that_means_nothing_is_refused_at_the_start(entry):
    with pytest.raises(UsageError, match="--allow-addresses"):
        AddressPolicy((entry,))


@pytest.mark.parametrize(
    ("path", "error", "cause"),
    [
        ("/page", UnsupportedError, "is a page"),
        ("/packed", UnsupportedError, "compressed"),
        ("/short", UnreachableError, "broke off"),
        ("/missing", UnreachableError, "answered 404"),
        ("/endless", FileTooLargeError, "larger than 1 MB"),
    ],
)
def test_what_cannot_be_taken_leaves_nothing_behind(internet, tmp_path, path, error, cause):
    with pytest.raises(error, match=cause):
        fetch(f"http://clips.example{path}", tmp_path / "file", internet(max_bytes=1 << 20))
    assert list(tmp_path.iterdir()) == []


def test_a_stated_size_is_refused_before_a_byte_is_written(internet, tmp_path):
    missing = tmp_path / "no folder" / "file"
    with pytest.raises(FileTooLargeError):
        fetch("http://clips.example/a.mp4", missing, internet(max_bytes=len(CLIP) - 1))


def test_dripping_bytes_do_not_outlast_the_time(internet, tmp_path):
    start_s = time.monotonic()
    with pytest.raises(UnreachableError, match="in time"):
        fetch("http://clips.example/slow", tmp_path / "file", internet(timeout_s=0.4))
    assert time.monotonic() - start_s < 5
    assert list(tmp_path.iterdir()) == []


def test_a_fetch_can_be_cancelled(internet, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(UnreachableError, match="cancelled"):
        fetch("http://clips.example/endless", tmp_path / "file", internet(), stop=stop)


def test_an_existing_file_is_never_overwritten(internet, tmp_path):
    taken = tmp_path / "file"
    taken.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        fetch("http://clips.example/a.mp4", taken, internet())
    assert taken.read_bytes() == b"mine"


def test_a_host_without_the_right_certificate_is_not_read(internet, host, tmp_path):
    """A server that speaks no TLS stands for one with a wrong certificate."""
    with pytest.raises(UnreachableError):
        fetch("https://clips.example/a.mp4", tmp_path / "file", internet())
    assert host.seen == []


def test_names_are_looked_up_by_the_system():
    assert ipaddress.ip_address("127.0.0.1") in resolve("localhost", 80)


def test_a_fetched_file_lies_where_the_caller_says(internet, tmp_path):
    fetched = fetch("http://clips.example/..%2f..%2fpasswd", tmp_path / "file", internet())
    assert fetched.name == "../../passwd"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Through the service.


def fetched_by(policy, folder, address, running=0):
    fetcher = Fetcher(ServiceSettings(data=folder), policy)
    fetcher._running = running
    return asyncio.run(fetcher.fetch(address))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "media").mkdir()
    return tmp_path


def test_a_fetched_file_is_an_upload_under_a_random_name(internet, folder):
    upload = fetched_by(internet(), folder, "http://clips.example/..%2f..%2fa.mp4")
    assert (upload.name, upload.bytes) == ("a.mp4", len(CLIP))
    assert upload.sha256 == hashlib.sha256(CLIP).hexdigest()
    assert [path.name for path in (folder / "media").iterdir()] == [upload.media]
    assert len(upload.media) == 32


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://10.0.0.1/a.mp4", "address-refused"),
        ("file:///etc/passwd", "address-refused"),
        ("http://clips.example/endless", "too-large"),
        ("http://clips.example/missing", "address-failed"),
        ("http://clips.example/empty", "address-failed"),
        ("http://unknown.example/a.mp4", "address-failed"),
    ],
)
def test_what_is_not_fetched_is_a_problem_and_leaves_nothing(internet, folder, address, problem):
    names = {"10.0.0.1": [ipaddress.ip_address("10.0.0.1")]}
    policy = internet(names=names, max_bytes=1 << 20)
    with pytest.raises(Problem) as raised:
        fetched_by(policy, folder, address)
    assert raised.value.name == problem
    assert list((folder / "media").iterdir()) == []


def test_only_a_few_fetches_run_at_once(internet, folder):
    with pytest.raises(Problem) as raised:
        fetched_by(internet(), folder, "http://clips.example/a.mp4", running=MAX_FETCHES)
    assert raised.value.name == "busy"
    assert internet.reached == []


def test_the_service_fetches_nothing_unless_it_is_allowed(host, tmp_path):
    port = host.server_address[1]
    own = {"address": f"http://127.0.0.1:{port}/a.mp4"}
    with serving(tmp_path / "none", [ScriptedWorker()]) as served, served.client() as client:
        refused = client.post("/v1/judgements", json=own)
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/address-refused")
    every = {"allowed_addresses": (f"*:{port}",)}
    with (
        serving(tmp_path / "all", [ScriptedWorker()], **every) as served,
        served.client() as client,
    ):
        refused = client.post("/v1/judgements", json=own)
        assert "private, local or reserved" in refused.json()["detail"]
    assert host.seen == []
