"""Many clients at once, a `kill -9` in the middle, and the cost over the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfd_edge.closing import Closing
from dfd_edge.errors import DfdError

_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/")
_RETRY_S, _POLL_S, _MEMORY_S = 0.2, 0.1, 0.5
_ENDED = ("done", "failed", "cancelled")
_PAGE = 200


class ServiceProcess(Closing):
    """`dfd-edge serve` as a process of its own on a free port of this machine.

    Args:
        data: Its folder.
        options: Further options.

    Raises:
        DfdError: It does not start.
    """

    def __init__(self, data: Path, options: Sequence[str] = ()) -> None:
        command = [sys.executable, "-m", "dfd_edge", "serve", "--port", "0", "--data", str(data)]
        self._process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        found = _ADDRESS.search(self._process.stdout.readline())
        if found is None:
            self.close()
            raise DfdError("dfd-edge serve does not start: run it by hand to see why")
        self.port = int(found[1])

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Sends a request; returns the status and the JSON of the answer.

        Raises:
            OSError: It is not there.
            http.client.HTTPException: It went away.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def judgements(self) -> list[dict[str, Any]]:
        """Returns all judgements, the oldest first."""
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            before = f"&before={page['next']}" if page["next"] else ""
            _, page = self.ask("GET", f"/v1/judgements?limit={_PAGE}{before}")
            found += page["judgements"]
        return found[::-1]

    def kill(self) -> None:
        """Ends it as a power cut would: `kill -9`."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends it. Safe to call twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass(slots=True)
class LoadReport:
    """Outcome of a load.

    Attributes:
        clips: Clips that the service had accepted.
        done, lost: How many were judged, and how many were neither judged nor refused.
        in_order: Whether they were begun in the order of their arrival.
        took_s: From the first clip to the last verdict, the restart included.
        resumed: Judgements that waited or ran when the service was killed.
        memory_mb: Resident memory of the service's own process, by time.
        workers_mb: Of the processes that judge and decode together.
    """

    clips: int = 0
    done: int = 0
    lost: int = 0
    in_order: bool = False
    took_s: float = 0.0
    resumed: int = 0
    memory_mb: list[float] = field(default_factory=list)
    workers_mb: list[float] = field(default_factory=list)


def load_service(
    data: Path, clip: bytes, *, clips: int, clients: int, options: Sequence[str] = ()
) -> LoadReport:
    """Has clients hand in clips as fast as they can, and kills the service when half are judged.

    Args:
        data: An empty folder for the service.
        clip: An MP4 file; each copy gets a box of its own, so that no two have one digest.
        clips: How many are handed in.
        clients: Clients at once.
        options: Options of the service.

    Raises:
        DfdError: The service does not start.
    """
    report, lock = LoadReport(), threading.Lock()
    accepted: set[str] = set()
    numbers = iter(range(clips))
    place = [ServiceProcess(data, options)]
    begun_s = time.monotonic()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            body = clip + struct.pack(">I4sQ", 16, b"free", number)
            while True:
                try:
                    status, answer = place[0].ask("POST", f"/v1/judgements?name={number}.mp4", body)
                except (OSError, http.client.HTTPException, ValueError):
                    time.sleep(_RETRY_S)  # it was killed; the same file is never judged twice
                    continue
                if status in (200, 202):
                    accepted.add(answer["id"])
                    break
                time.sleep(_RETRY_S)  # the queue is full

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    try:
        for thread in threads:
            thread.start()
        with _watched(place, report):
            half = _until(place, clips // 2)
            report.resumed = sum(judgement["state"] not in _ENDED for judgement in half)
            place[0].kill()
            place[0] = ServiceProcess(data, options)
            for thread in threads:
                thread.join()
            ended = _until(place, clips)
    finally:
        place[0].close()
    known = {judgement["id"] for judgement in ended}
    begun = [judgement["started_at"] for judgement in ended]
    report.clips, report.took_s = len(accepted), time.monotonic() - begun_s
    report.done = sum(judgement["state"] == "done" for judgement in ended)
    report.lost = len(accepted - known)
    report.in_order = begun == sorted(begun)
    return report


def _until(place: list[ServiceProcess], ended: int) -> list[dict[str, Any]]:
    """Waits until so many judgements have ended; returns all."""
    while True:
        judgements = place[0].judgements()
        if sum(judgement["state"] in _ENDED for judgement in judgements) >= ended:
            return judgements
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _watched(place: list[ServiceProcess], report: LoadReport) -> Iterator[None]:
    """Notes memory while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_MEMORY_S):
            with contextlib.suppress(OSError):
                report.memory_mb.append(_resident_mb(place[0].pid))
                report.workers_mb.append(sum(map(_resident_mb, _below(place[0].pid))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _below(pid: int) -> list[int]:
    """Returns the processes that a process has started, and those that they have."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text("ascii").split():
            found += [int(child), *_below(int(child))]
    return found


@dataclass(frozen=True, slots=True)
class Overhead:
    """Times of one clip in turn, in seconds.

    Attributes:
        command: `dfd-edge CLIP` as a whole.
        judging: What of it was judging, by its own verdict.
        service: From sending the clip to the verdict, by a process that had judged before.
        command_cpu, service_cpu: Processor time of the command, and of the service with its
            children.
    """

    command: tuple[float, ...]
    judging: tuple[float, ...]
    service: tuple[float, ...]
    command_cpu: tuple[float, ...]
    service_cpu: tuple[float, ...]


def compare(data: Path, clip: Path, *, runs: int, options: Sequence[str] = ()) -> Overhead:
    """Judges one clip by the service and by the command line in turn.

    Args:
        data: An empty folder for the service.
        clip: The file.
        runs: Times of each.
        options: `--model` and the like, which both take.

    Raises:
        DfdError: One does not start or does not judge.
    """
    kinds: tuple[list[float], ...] = ([], [], [], [], [])
    command, judging, service, command_cpu, service_cpu = kinds
    body = clip.read_bytes()
    with ServiceProcess(data, options) as server:
        for number in range(runs + 1):
            begun_s, begun_cpu_s = time.perf_counter(), _processor_s(server.pid)
            _, answer = server.ask(
                "POST", "/v1/judgements?name=a.mp4&again=true", body, Prefer="wait=60"
            )
            service.append(time.perf_counter() - begun_s)
            service_cpu.append(_processor_s(server.pid) - begun_cpu_s)
            if answer.get("state") != "done":
                raise DfdError(f"the service did not judge {clip}: {answer.get('error')}")
            begun_s, begun_cpu_s = time.perf_counter(), _children_s()
            done = subprocess.run(
                [sys.executable, "-m", "dfd_edge", "--json", *options, str(clip)],
                capture_output=True,
                text=True,
                check=False,
            )
            command.append(time.perf_counter() - begun_s)
            command_cpu.append(_children_s() - begun_cpu_s)
            if done.returncode:
                raise DfdError(f"dfd-edge did not judge {clip}: {done.stderr.strip()}")
            verdict = json.loads(done.stdout.splitlines()[-1])
            judging.append(verdict["duration_s"] / verdict["realtime_factor"])
            if not number:  # files are in the cache now
                for values in kinds:
                    values.clear()
    return Overhead(*(tuple(values) for values in kinds))


def _children_s() -> float:
    """Returns the processor time of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processor_s(pid: int) -> float:
    """Returns the processor time of a process and of all below it, those that ended included."""
    ticks = 0
    for one in (pid, *_below(pid)):
        with contextlib.suppress(OSError):  # it has just ended, and counts with its parent
            stat = Path(f"/proc/{one}/stat").read_text("ascii", "replace")
            ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
