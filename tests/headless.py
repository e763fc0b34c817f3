"""Headless Chromium for tests of pages, driven by the DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
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


def without_real_time() -> list[str]:
    """Command that keeps a program from real-time scheduling, where root would be allowed it.

    Chromium's renderers take it, and a page that computes then holds all processors of a small
    machine, this process's among them.
    """
    program = shutil.which("setpriv")
    if program is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    return [program, "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]


class Browser:
    """Headless Chromium, driven by the DevTools protocol over a pipe."""

    def __init__(self, program: str, profile: Path, *others: str) -> None:
        reads, self._write = (high(end) for end in os.pipe())
        self._read, writes = (high(end) for end in os.pipe())
        flags = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"),
            f"--user-data-dir={profile}",
            *others,
        ]
        # Chromium reads commands from descriptor 3 and answers on 4.
        actions = [(os.POSIX_SPAWN_DUP2, reads, 3), (os.POSIX_SPAWN_DUP2, writes, 4)]
        nothing = high(os.open(os.devnull, os.O_WRONLY))
        actions.append((os.POSIX_SPAWN_DUP2, nothing, 2))
        command = [*without_real_time(), program, *flags]
        usual = {}
        if hasattr(os, "sched_param"):  # whatever an encoder has done to this thread
            usual["scheduler"] = (os.SCHED_OTHER, os.sched_param(0))
        self._pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, **usual)
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

    def open(
        self, page: Path | str, *, width: int, dark: bool = False, scripts: bool = True
    ) -> None:
        """Shows a page, a file or an address, at a width, and waits until it is loaded."""
        # Requests of the previous page must not count among this one's.
        self._go_to("about:blank")
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
        self._go_to(page if isinstance(page, str) else page.as_uri())

    def _go_to(self, address: str) -> None:
        self.events[:] = [e for e in self.events if e["method"] != "Page.loadEventFired"]
        self.call("Page.navigate", url=address)
        until = time.monotonic() + ANSWER_S
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < until, "the page was not loaded"
            self.call("Page.getLayoutMetrics")

    def wait_for(self, expression: str, within_s: float = 20.0):
        """Waits until an expression holds, across pages too; returns its value, True for a node."""
        wanted = f"((value) => (value instanceof Node ? true : value))({expression})"
        until = time.monotonic() + within_s
        while True:
            with contextlib.suppress(AssertionError):  # the page is being replaced
                if value := self.evaluate(wanted):
                    return value
            assert time.monotonic() < until, f"never came true: {expression}"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Presses keys one after the other, by their names: "Tab", "Enter", "ArrowRight", "a"."""
        for key in keys:
            text = {"Enter": "\r", "Space": " "}.get(key, key if len(key) == 1 else "")
            name = " " if key == "Space" else key
            codes = {"Tab": 9, "Enter": 13, "Space": 32, "End": 35, "Home": 36}
            codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
            code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
            values = {"key": name, "code": key, "windowsVirtualKeyCode": code}
            kind = "keyDown" if text else "rawKeyDown"
            self.call("Input.dispatchKeyEvent", type=kind, text=text, **values)
            self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Chooses files in a file input, as its dialogue would."""
        root = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def picture(self, *, whole: bool = False) -> bytes:
        """A screenshot as PNG: of what is seen, or of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

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

    def troubles(self, own: str = "file:") -> list[str]:
        """Errors and warnings of the console, and addresses that were asked for.

        Args:
            own: What the addresses that the page may ask for begin with.
        """
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
                if not url.startswith((own, "data:", "blob:")):
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


def serious_faults(browser: Browser) -> list[dict]:
    """The serious and critical faults of accessibility that axe finds in the page."""
    found = find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core-python is not installed")
    axe = Path(found.origin).with_name("axe.min.js").read_text("utf-8")
    browser.evaluate(f"{axe}; 0")
    faults = browser.evaluate(
        """axe.run().then((found) => JSON.stringify(found.violations.map((fault) => ({
          id: fault.id, impact: fault.impact, where: fault.nodes[0].html.slice(0, 120) }))))"""
    )
    return [fault for fault in json.loads(faults) if fault["impact"] in ("serious", "critical")]
