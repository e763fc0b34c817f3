"""A report in a real browser: nothing goes wrong, nothing is loaded, and it fits a phone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from clip_maker import portrait

pytest.importorskip("jinja2", reason="the extra `report` is not installed: no jinja2")
pytest.importorskip("plotly", reason="the extra `report` is not installed: no plotly")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, DESKTOP = 390, 1280
ANSWER_S = 60.0


def find_browser() -> str | None:
    """A Chromium: on PATH, or the one that playwright has installed."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache/ms-playwright"))
    found = sorted(cache.glob("chromium*/chrome-*/*headless*shell*")) + sorted(
        cache.glob("chromium*/chrome-*/chrome")
    )
    return str(found[0]) if found else None


class Browser:
    """Headless Chromium, driven by the DevTools protocol over a pipe."""

    def __init__(self, program: str, profile: Path) -> None:
        reads, self._write = (high(end) for end in os.pipe())
        self._read, writes = (high(end) for end in os.pipe())
        flags = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"),
            f"--user-data-dir={profile}",
        ]
        # Chromium reads commands from descriptor 3 and answers on 4.
        actions = [(os.POSIX_SPAWN_DUP2, reads, 3), (os.POSIX_SPAWN_DUP2, writes, 4)]
        nothing = os.open(os.devnull, os.O_WRONLY)
        actions.append((os.POSIX_SPAWN_DUP2, nothing, 2))
        self._pid = os.posix_spawn(program, [program, *flags], os.environ, file_actions=actions)
        for end in (reads, writes, nothing):
            os.close(end)
        self.events: list[dict] = []
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        """Runs a command and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str):
        """Value of a JavaScript expression; a promise is waited for."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, page: Path, *, width: int, dark: bool = False, scripts: bool = True) -> None:
        """Shows a page at a width, and waits until its charts are drawn."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=page.as_uri())
        until = time.monotonic() + ANSWER_S
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < until, "the page was not loaded"
            self.call("Page.getLayoutMetrics")

    def draw_all(self) -> int:
        """Scrolls through the page; returns how many charts were drawn."""
        return self.evaluate(
            """(async () => {
              for (const chart of document.querySelectorAll(".chart")) {
                chart.scrollIntoView();
                for (let i = 0; i < 300 && !chart.querySelector(".main-svg"); i++)
                  await new Promise((done) => setTimeout(done, 50));
              }
              await new Promise((done) => setTimeout(done, 300));
              scrollTo(0, 0);
              return document.querySelectorAll(".chart .main-svg:first-child").length;
            })()"""
        )

    def troubles(self) -> list[str]:
        """Errors and warnings of the console, and addresses that were asked for."""
        found = []
        for event in self.events:
            method, values = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(values["exceptionDetails"])[:400])
            elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning"):
                found.append(json.dumps(values["args"])[:400])
            elif method == "Log.entryAdded":
                found.append(values["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                url = values["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:")):
                    found.append(f"asked for {url}")
        return found

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self._session = None
            self.call("Browser.close")
        os.close(self._write)
        os.close(self._read)
        os.waitpid(self._pid, 0)

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], ANSWER_S)
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed = json.loads(message)
        if "method" in parsed:
            self.events.append(parsed)
        return parsed


def high(descriptor: int) -> int:
    """The same pipe end under a number that the child's 3 and 4 do not overwrite."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(descriptor)
    return moved


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium was found: install `chromium`, or `playwright install chromium`")
    try:
        opened = Browser(program, tmp_path_factory.mktemp("profile"))
    except (AssertionError, OSError) as error:
        pytest.skip(f"{program} does not start ({error})")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tiny_bundle, face_clip, plain_clip, tmp_path_factory):
    """A report on a clip whose name would run a script, a picture, no face, and a broken file."""
    folder = tmp_path_factory.mktemp("sources")
    hostile = folder / "<img src=x onerror=document.title='run'><b>clip.mp4"
    shutil.copy(face_clip, hostile)
    ended = folder / "<" / "script><script>document.title='run'<" / "script>.mp4"
    ended.parent.mkdir(parents=True)
    shutil.copy(face_clip, ended)
    cv2.imwrite(str(folder / "portrait.png"), portrait())
    shutil.copy(plain_clip, folder / ("a name that is very long " * 8 + ".mp4").replace(" ", "_"))
    (folder / "broken.mp4").write_text("no video\n" * 50)
    path = folder / "report.html"
    command = [sys.executable, "-m", "dfd_edge.cli", "--model", str(tiny_bundle)]
    done = subprocess.run(
        [*command, "--report", str(path), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_goes_wrong_and_nothing_is_loaded(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.draw_all() == 2, "one timeline for each clip with a face"
    assert browser.troubles() == []
    assert browser.evaluate("document.title").endswith("deepfake report"), "no script was run"
    assert browser.evaluate("document.querySelectorAll('main img').length") > 4
    broken = "[...document.images].filter((image) => !image.naturalWidth).length"
    assert browser.evaluate(broken) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = f"""[...document.querySelectorAll("main *")].filter((element) =>
      element.getClientRects().length && element.getBoundingClientRect().right > {width}
      && !element.closest(".chart")).map((element) => element.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []


def test_the_records_can_be_read_in_the_page(browser, page):
    browser.open(page, width=DESKTOP)
    kinds = browser.evaluate(
        """JSON.parse(document.getElementById("records").textContent).map((r) => r.record)"""
    )
    assert kinds[0] == "run"
    assert kinds.count("verdict") == 4
    assert kinds.count("event") == 1


def test_without_javascript_all_but_the_charts_is_there(browser, page):
    browser.open(page, width=PHONE, scripts=False)
    tree = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    text = browser.call("DOM.getOuterHTML", nodeId=tree)["outerHTML"]
    assert "The chart needs JavaScript." in text
    shown = browser.call("Accessibility.getFullAXTree")["nodes"]
    texts = " ".join(str(node.get("name", {}).get("value", "")) for node in shown)
    assert "The chart needs JavaScript." in texts
    assert "Save the records" not in texts
    assert "What the model cannot do" in texts
    assert "Most suspicious frames" in texts
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_page_that_runs_other_scripts_would_be_noticed(browser, page, tmp_path):
    """The counter-proof: an inline script that is not the page's own is refused, and reported."""
    altered = tmp_path / "altered.html"
    text = page.read_text("utf-8")
    altered.write_text(text.replace("<main>", "<main><script>document.title='run'</script>", 1))
    browser.open(altered, width=DESKTOP)
    assert any("Content Security Policy" in line for line in browser.troubles())
    assert browser.evaluate("document.title") != "run"
