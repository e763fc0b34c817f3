"""Headless Chromium for tests of pages, driven by the DevTools protocol over a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import time
from pathlib import Path

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
        self._pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
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
        """Shows a page at a width, and waits until it is loaded."""
        self.visit(page.as_uri(), width=width, dark=dark, scripts=scripts)

    def visit(self, url: str, *, width: int, dark: bool = False, scripts: bool = True) -> None:
        """Shows what is at an address, as `open` does."""
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
        self.call("Page.navigate", url=url)
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
