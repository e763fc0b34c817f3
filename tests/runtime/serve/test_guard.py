"""Requests that are refused before the application sees them, and what browsers are told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import httpx
import pytest
from click.testing import CliRunner

fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed: the extra `serve`")

from dfd_edge.errors import UsageError  # noqa: E402
from dfd_edge.serve.command import command  # noqa: E402
from dfd_edge.serve.routes.problems import install_problems  # noqa: E402
from dfd_edge.serve.safety import guard as guarding  # noqa: E402
from dfd_edge.serve.safety.guard import (  # noqa: E402
    COOKIE,
    Session,
    check_exposure,
    install_guard,
    is_loopback,
)
from dfd_edge.serve.safety.login import login_routes, next_of  # noqa: E402
from dfd_edge.serve.safety.uploads import media_type, plain_name  # noqa: E402
from dfd_edge.serve.settings import ServiceSettings  # noqa: E402
from serving import ScriptedWorker, serving  # noqa: E402

TOKEN = "correct-horse-battery-staple"
HERE = "http://127.0.0.1:8333"


class Service:
    """The guard before a small application, which notes what reached it."""

    def __init__(self, **settings) -> None:
        self.settings = ServiceSettings(**settings)
        self.reached: list[str] = []
        app = fastapi.FastAPI()
        app.state.service = SimpleNamespace(settings=self.settings)
        app.router.routes.extend(login_routes(self.settings))
        install_guard(app, self.settings)
        install_problems(app)

        @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH", "DELETE", "OPTIONS"])
        async def anything(request: fastapi.Request, path: str):
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
            self.reached.append(f"{request.method} /{path}")
            if path == "breaks":
                raise RuntimeError("secret detail")
            return {"bytes": size}

        self.app = app

    def ask(
        self,
        method: str = "GET",
        path: str = "/",
        base: str = HERE,
        client: str = "127.0.0.1",
        **request,
    ):
        async def send():
            transport = httpx.ASGITransport(
                self.app, raise_app_exceptions=False, client=(client, 40000)
            )
            async with httpx.AsyncClient(transport=transport, base_url=base) as sender:
                return await sender.request(method, path, **request)

        return asyncio.run(send())


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def locked() -> Service:
    return Service(token=TOKEN, host="0.0.0.0", hosts=("judge.example",))


def refused(service: Service, answer, status: int, name: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{name}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert service.reached == []


# Access.


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "judge.example", "[::]"])
def test_other_machines_are_let_in_with_a_token_only(host):
    with pytest.raises(UsageError, match="TLS") as raised:
        check_exposure(ServiceSettings(host=host))
    assert host in str(raised.value)
    assert "DFD_TOKEN" in str(raised.value)
    check_exposure(ServiceSettings(host=host, token=TOKEN))


@pytest.mark.parametrize("client", ["192.168.0.7", "93.184.216.34", "fe80::1", "::ffff:10.0.0.1"])
def test_without_a_token_other_machines_get_nothing_however_they_come(service, client):
    """As behind a server that listens to all, with a `Host` that says it is this machine."""
    refused(service, service.ask(client=client), 403, "refused")


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_s_own_programs_need_none(service, client):
    assert service.ask(client=client).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_token(host):
    assert is_loopback(host)
    check_exposure(ServiceSettings(host=host))


def test_a_token_that_can_be_guessed_is_refused():
    with pytest.raises(UsageError, match="15 characters can be guessed"):
        check_exposure(ServiceSettings(token="a" * 15))


def test_a_token_is_in_no_text_of_the_settings():
    assert TOKEN not in repr(ServiceSettings(token=TOKEN))


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8333", "localhost", "LOCALHOST:8333", "[::1]:8333", "127.0.0.1.:8333"]
)
def test_the_service_answers_to_its_own_names(service, host):
    assert service.ask(headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8333", "127.0.0.1.evil.example", "127.0.0.1@evil.example"),
        *("", "[::1", "127.0.0.1:port", "127.0.0.1/evil", "192.168.0.7:8333", "localhost.evil"),
        "127.0.0.1,evil.example",
    ],
)
def test_a_rebound_name_is_refused(service, host):
    """A page of evil.example, whose name now points at this machine, is of that name's origin."""
    refused(service, service.ask(headers={"Host": host}), 421, "bad-host")


def test_two_hosts_are_refused(service):
    both = [("Host", "127.0.0.1"), ("Host", "evil.example")]
    refused(service, service.ask(headers=both), 421, "bad-host")


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        *(("192.168.0.7:8333", True), ("judge.example", True), ("JUDGE.example.:443", True)),
        *(("evil.example", False), ("judge.example.evil.example", False)),
    ],
)
def test_a_service_for_others_answers_to_addresses_and_named_hosts(locked, host, answered):
    answer = locked.ask(headers={"Host": host, "Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == (200 if answered else 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://[::1"},
        {"Origin": ""},
        {"Origin": "http://localhost:8333"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": HERE},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "nonsense"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_pages_of_other_sites_change_nothing(service, method, headers):
    answer = service.ask(method, "/v1/judgements/1", headers=headers)
    refused(service, answer, 403, "refused")


@pytest.mark.parametrize(
    "headers",
    [
        {},  # a program
        {"Origin": HERE},
        {"Origin": HERE, "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_own_pages_and_programs_may_change_things(service, headers):
    assert service.ask("DELETE", "/v1/judgements/1", headers=headers).status_code == 200


def test_other_sites_may_link_here_and_no_more(service):
    foreign = {"Sec-Fetch-Site": "cross-site"}
    visit = foreign | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert service.ask(path="/judgements/1", headers=visit).status_code == 200
    service.reached.clear()
    for mode in ("no-cors", "cors", "websocket", None):
        headers = foreign if mode is None else foreign | {"Sec-Fetch-Mode": mode}
        answer = service.ask(path="/v1/judgements/1/media", headers=headers)
        refused(service, answer, 403, "refused")


def test_no_answer_lets_another_site_read_it(service):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"}
    for method in ("GET", "OPTIONS"):
        answer = service.ask(method, "/v1/judgements", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# The token.


def test_a_token_service_answers_programs_with_the_token(locked):
    answer = locked.ask(path="/v1/judgements", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer ä".encode()},
        {"Cookie": f"{COOKIE}={TOKEN}"},
        {"Cookie": f"{COOKIE}=9999999999."},
        {"Cookie": f"{COOKIE}=9999999999.{'0' * 64}"},
        {"Cookie": "=;;=\x01"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/judgements", "/metrics", "/docs", "/static"])
def test_without_the_token_nothing_is_answered(locked, headers, path, monkeypatch):
    monkeypatch.setattr(guarding, "WRONG_TOKEN_S", 0.0)
    answer = locked.ask(path=path, headers=headers)
    refused(locked, answer, 401, "token-needed")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/static/page.css", "/login"])
def test_probes_and_the_login_page_need_no_token(locked, path):
    assert locked.ask(path=path).status_code == 200


@pytest.mark.parametrize("path", ["/static/../v1/judgements", "/static/%2e%2e/v1/judgements"])
def test_no_spelling_of_an_open_path_opens_others(locked, path):
    answer = locked.ask(path=path)
    assert answer.status_code in (401, 404) or locked.reached == ["GET /static/../v1/judgements"]
    # Routes are matched by the whole path: one that begins with /static/ reaches static files only.


def test_wrong_tokens_cost_time(locked, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(guarding.asyncio, "sleep", sleep)
    locked.ask(headers={"Authorization": "Bearer wrong"})
    assert slept == [guarding.WRONG_TOKEN_S]


def test_people_log_in_with_a_form_and_get_a_cookie(locked):
    page = locked.ask(path="/judgements/7?tab=2", headers={"Accept": "text/html"})
    assert page.status_code == 303
    assert page.headers["location"] == "/login?next=/judgements/7%3Ftab%3D2"
    form = {"token": TOKEN, "next": "/judgements/7?tab=2"}
    done = locked.ask("POST", "/login", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/judgements/7?tab=2")
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert "Secure" not in cookie
    value = cookie.partition(";")[0]
    assert locked.ask(path="/v1/judgements", headers={"Cookie": value}).status_code == 200


def test_over_tls_the_cookie_never_leaves_it(locked):
    done = locked.ask("POST", "/login", base="https://judge.example", data={"token": TOKEN})
    assert "Secure" in done.headers["set-cookie"]


def test_a_wrong_token_gives_no_cookie(locked, monkeypatch):
    monkeypatch.setattr("dfd_edge.serve.safety.login.WRONG_TOKEN_S", 0.0)
    answer = locked.ask("POST", "/login", data={"token": "wrong", "next": '/"><script>'})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "not the token" in answer.text
    assert "<script>" not in answer.text


def test_a_form_of_another_site_does_not_log_in(locked):
    answer = locked.ask("POST", "/login", data={"token": TOKEN}, headers={"Origin": "http://evil"})
    refused(locked, answer, 403, "refused")


def test_logging_out_removes_the_cookie(locked):
    answer = locked.ask("POST", "/logout")
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]
    assert "Max-Age=0" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("target", "taken"),
    [
        *(("/judgements/7?a=b", "/judgements/7?a=b"), (None, "/"), ("", "/")),
        *(("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil.example", "/")),
        *(("javascript:alert(1)", "/"), ("/\r\nSet-Cookie: a=b", "/"), ("/login?next=/", "/")),
    ],
)
def test_the_login_leads_nowhere_else(target, taken):
    assert next_of(target) == taken


def test_a_cookie_ends_by_time_and_with_its_token():
    now = [1_000_000.0]
    session = Session(TOKEN, clock=lambda: now[0])
    value = session.cookie()
    assert session.is_cookie(value)
    assert not Session(TOKEN + "x", clock=lambda: now[0]).is_cookie(value)
    later, _, signature = value.partition(".")
    assert not session.is_cookie(f"{int(later) + 1}.{signature}")
    now[0] += guarding.COOKIE_DAYS * 86_400
    assert not session.is_cookie(value)


def test_tokens_are_compared_in_constant_time(monkeypatch):
    compared = []
    real = guarding.hmac.compare_digest
    monkeypatch.setattr(
        guarding.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b)
    )
    assert not Session(TOKEN).is_token("x")
    ((given, wanted),) = compared
    assert len(given) == len(wanted) == 32, "neither the length nor the start can be timed"


# How much.


def test_a_stated_size_above_the_limit_is_refused_unread():
    service = Service(max_bytes=1_000_000)
    headers = {"Content-Length": "2000000"}
    answer = service.ask("POST", "/v1/judgements", headers=headers, content=b"")
    refused(service, answer, 413, "too-large")
    assert "1 MB" in answer.json()["detail"]


def test_an_unstated_size_is_counted():
    service = Service(max_bytes=1_000_000)
    sent = []

    async def body():
        for _ in range(100):
            sent.append(0)
            yield bytes(100_000)

    answer = service.ask("POST", "/v1/judgements", content=body())
    refused(service, answer, 413, "too-large")
    assert len(sent) < 15, "the rest was not read"


def test_a_file_of_the_largest_size_passes():
    service = Service(max_bytes=1_000_000)
    answer = service.ask("POST", "/v1/judgements", content=bytes(1_000_000))
    assert answer.json() == {"bytes": 1_000_000}


@pytest.mark.parametrize("path", ["/login", "/v1/judgements/1", "/v1/judgements/1/cancel", "/"])
def test_requests_without_a_file_are_small(service, path):
    method = "PATCH" if path.endswith("/1") else "POST"
    answer = service.ask(method, path, content=bytes(70_000))
    refused(service, answer, 413, "too-large")
    assert "64 KB" in answer.json()["detail"]


def test_a_body_that_stands_still_is_given_up(service, monkeypatch):
    monkeypatch.setattr(guarding, "BODY_TIMEOUT_S", 0.05)

    async def body():
        yield b"begin"
        await asyncio.sleep(20)

    answer = service.ask("POST", "/v1/judgements", content=body())
    refused(service, answer, 408, "too-slow-upload")


def test_more_requests_than_can_run_are_told_to_come_back(service, monkeypatch):
    monkeypatch.setattr(guarding, "MAX_REQUESTS", 0)
    answer = service.ask()
    refused(service, answer, 503, "busy")
    assert int(answer.headers["retry-after"]) > 0
    monkeypatch.undo()
    assert service.ask().status_code == 200, "those that were refused count no more"


def spoken(address: tuple[str, int], request: bytes) -> bytes:
    """Sends bytes to a server; returns the first line of its answer."""
    with socket.create_connection(address, 10) as connection:
        connection.sendall(request)
        return connection.makefile("rb").readline()


def test_malformed_requests_reach_nothing_and_end_no_server(tmp_path):
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    post = b"POST /v1/judgements HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(tmp_path, [ScriptedWorker()], max_bytes=100_000) as served:
        here = ("127.0.0.1", served.port)
        for request, status in (
            (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"4"),
            (b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
            (b"GET / HTTP/1.1\r\n\r\n", b"4"),
            (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"4"),
            (b"\x16\x03\x01 no HTTP at all\r\n\r\n", b"400"),
            (post + chunk * 4, b"413"),
            (post.replace(b"chunked", b"chunked\r\nContent-Length: 5") + b"0\r\n\r\n", b"4"),
        ):
            with contextlib.suppress(ConnectionError):  # cut off before it was sent whole
                assert spoken(here, request).split(b" ", 1)[1].startswith(status), request[:80]
        with served.client() as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/v1/judgements").json()["judgements"] == []


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (("--host", "0.0.0.0"), "other machines could read and judge footage"),
        (("--allow-host", "judge.example"), "who knows this name could read and judge footage"),
        (("--token", "short"), "5 characters can be guessed"),
        (("--allow-addresses", "http://a.example"), "give HOST, *.DOMAIN or *"),
    ],
)
def test_what_is_unsafe_does_not_start(tmp_path, options, cause):
    result = CliRunner().invoke(command, ["--port", "0", "--data", str(tmp_path), *options])
    assert result.exit_code == 2
    assert cause in result.stderr
    assert len(result.stderr.splitlines()) == 1


# Headers for browsers.


@pytest.mark.parametrize("path", ["/", "/v1/judgements", "/static/page.css", "/breaks"])
def test_every_answer_says_what_browsers_may_do(service, path):
    headers = service.ask(path=path).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"], "nothing from foreign hosts"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "camera=()" in headers["permissions-policy"]


def test_refusals_say_it_too(service):
    answer = service.ask(headers={"Host": "evil.example"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/v1/judgements/7/media", "/v1/judgements/7/report"])
def test_what_others_wrote_may_run_nothing(service, path):
    policy = service.ask(path=path).headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "default-src 'none'" in policy


def test_a_fault_is_answered_without_its_detail(service, caplog):
    answer = service.ask(path="/breaks")
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/fault")
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


# Files of others.

HTML = b"<!DOCTYPE html><script>alert(document.domain)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        *((b"\xff\xd8\xff\xe0" + HTML, "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png")),
        *((b"GIF89a", "image/gif"), (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp")),
        *((b"\0\0\0\x20ftypisom", "video/mp4"), (b"\0\0\0\x14ftypqt  ", "video/mp4")),
        *((b"\x1aE\xdf\xa3", "video/webm"), (b"OggS", "video/ogg")),
        *((b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"), (b"\0\0\0\x18ftypavif", "image/avif")),
        *((HTML, None), (SVG, None), (b"<?xml version='1.0'?>" + SVG, None), (b"", None)),
        *((b"%PDF-1.7", None), (b"\xef\xbb\xbf" + HTML, None), (b"II*\0", None)),
    ],
)
def test_only_proven_types_are_stated(head, kind):
    assert media_type(head) == (kind or "application/octet-stream")


@pytest.mark.parametrize(
    "given",
    [
        *("../../etc/passwd", "C:\\clips\\a.mov", "a\r\nSet-Cookie: x.mp4", "gpj.\u202e4pm.exe"),
        *("a" * 3000, "\0", "", "/", None),
    ],
)
def test_names_are_for_display_only(given):
    shown = plain_name(given)
    assert shown.isprintable()
    assert "/" not in shown
    assert 0 < len(shown) <= 200
