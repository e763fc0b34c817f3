"""MLPerf's load generator in a process of its own: its scenarios over any work, its logs read.

LoadGen calls back from threads of its own and cannot be stopped: an exception that leaves a
callback ends the process or hangs it, and Ctrl-C is not heard until the test is over. So the work
and LoadGen run in a child process. An error in a callback goes to the parent at once, which ends
the child; so does Ctrl-C.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import queue
import signal
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dfd_benchmarks.results.schema import RunInfo
from dfd_edge.errors import DfdError, UsageError

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]

PERCENTILES = ("50.00", "90.00", "95.00", "99.00", "99.90")
#: The shortest run by MLPerf's rules, in seconds.
RULES_DURATION_S = 600.0
SERVER_LATENCY_MS = 100.0
_NAMES = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
_WARM_UP = 5
_POLL_S = 0.2
#: LoadGen makes its queries beforehand, twice as many as the expected latency asks for, and stops
#: early where they do not last; so many times more make up for a slow warm-up.
_MARGIN = 1.5
#: What LoadGen 6 was seen to take of memory for a query and for each of its samples, in bytes.
_QUERY_BYTES, _SAMPLE_BYTES = 250, 50
_MAX_QUERIES_MB = 4000.0


@dataclass(frozen=True, slots=True)
class LoadgenResult:
    """LoadGen's result of one test.

    Attributes:
        valid: Its own VALID, and no error in its log.
        reasons: Reasons against its validity, in LoadGen's words.
        latency_ms: Milliseconds by percentile, of a query.
        rate_hz: Queries a second; of offline, samples a second.
        queries: Queries (samples, offline) that were answered.
        version: LoadGen's.
    """

    valid: bool
    reasons: tuple[str, ...]
    latency_ms: Mapping[str, float]
    rate_hz: float
    queries: int
    version: str


def read_log(path: Path, scenario: Scenario) -> LoadgenResult:
    """Reads LoadGen's detailed log.

    Raises:
        DfdError: It is not as LoadGen writes it.
    """
    values: dict[str, Any] = {}
    errors = []
    for line in path.read_text(errors="replace").splitlines():
        _, mark, text = line.partition(":::MLLOG ")
        if not mark:
            continue
        entry = json.loads(text)
        values[entry["key"]] = entry["value"]
        if entry["metadata"].get("is_error"):
            errors.append(str(entry["value"]))
    middle = "per_query_latency" if scenario == "multi-stream" else "latency"
    try:
        latency_ms = {p: values[f"result_{p}_percentile_{middle}_ns"] / 1e6 for p in PERCENTILES}
        queries, said = int(values["result_query_count"]), values["result_validity"]
        if scenario == "offline":
            queries = int(values["effective_samples_per_query"])
        rate_hz = _rate_hz(values, scenario)
    except KeyError as error:
        raise DfdError(f"LoadGen's log lacks {error}: its test did not come to an end") from error
    reasons = [str(values.get("result_invalid_reason", "")).strip(), *errors]
    for key, text in (
        ("result_perf_constraints_met", "the target latency was not kept"),
        ("result_min_duration_met", "shorter than the duration"),
        ("early_stopping_met", f"early stopping: {values.get('early_stopping_result', '')}"),
    ):
        if values.get(key) is False:
            reasons.append(" ".join(text.split()))
    valid = said == "VALID" and not errors
    return LoadgenResult(
        valid=valid,
        reasons=() if valid else tuple(reason for reason in reasons if reason),
        latency_ms=latency_ms,
        rate_hz=rate_hz,
        queries=queries,
        version=str(values.get("loadgen_version", "unknown")),
    )


def _rate_hz(values: Mapping[str, Any], scenario: Scenario) -> float:
    if scenario == "offline":
        return float(values["result_samples_per_second"])
    if scenario == "server":
        return float(values["result_completed_samples_per_sec"])
    if scenario == "single-stream":
        return float(values["result_qps_with_loadgen_overhead"])
    return 1e9 / float(values["result_mean_query_latency_ns"])  # one query after the other


class Work(Protocol):
    """Work under load. Calls for different workers may come from different threads."""

    ran: RunInfo

    def run(self, samples: list[int], worker: int) -> None:
        """Does the work of these samples, numbers in the library."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load that is put on work.

    Attributes:
        scenario: One of MLPerf's.
        duration_s: Seconds that LoadGen keeps it up at least.
        runs: LoadGen's tests, one after the other over the same loaded work.
        samples: Samples in the library.
        batch: Most samples of one call of the work.
        streams: Samples of a query of multi-stream.
        workers: Threads that work; single-stream has one.
        target_qps: Queries a second that server sends; None for half of what one thread did in the
            warm-up.
        target_latency_ms: Bound on the 99th percentile; LoadGen holds server to it, where
            None stands for `SERVER_LATENCY_MS`.

    Raises:
        UsageError: A value out of range.
    """

    scenario: Scenario
    duration_s: float = 10.0
    runs: int = 1
    samples: int = 64
    batch: int = 8
    streams: int = 8
    workers: int = 1
    target_qps: float | None = None
    target_latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("duration_s", "runs", "samples", "batch", "streams", "workers"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; give more than 0")
        if self.target_qps is not None and not self.target_qps > 0:
            raise UsageError(f"target-qps is {self.target_qps:g}; give more than 0")
        if self.target_latency_ms is not None and not self.target_latency_ms > 0:
            raise UsageError(f"target-latency is {self.target_latency_ms:g} ms; give more than 0")

    @property
    def bound_ms(self) -> float | None:
        """The bound on the 99th percentile of latency."""
        if self.scenario == "server":
            return self.target_latency_ms or SERVER_LATENCY_MS
        return self.target_latency_ms if self.scenario == "multi-stream" else None


@dataclass(frozen=True, slots=True)
class Loaded:
    """All tests of one load.

    Attributes:
        ran: The bundle, provider and precision that ran.
        load_s: Seconds that loading took.
        warm_up_s: Seconds of the calls before the first test.
        target_qps: Queries a second that server sent, or offline expected.
        tests: One a run.
    """

    ran: RunInfo
    load_s: float
    warm_up_s: float
    target_qps: float
    tests: tuple[LoadgenResult, ...]


def put_under_load(
    make: Callable[[], Work],
    load: Load,
    logs: Path,
    *,
    on_poll: Callable[[float], object] = lambda elapsed_s: None,
) -> Loaded:
    """Runs LoadGen's tests over work in a child process.

    Args:
        make: Loads the work; is called in the child, so that it has to be picklable.
        load: How it is loaded.
        logs: A folder; LoadGen's own logs of run i go to `run<i>` in it.
        on_poll: Called a few times a second with the seconds of testing so far.

    Raises:
        DfdError: What the work raised, as it was raised; or the child died.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, make, load, logs), daemon=True)
    child.start()
    theirs.close()
    try:
        return _follow(ours, child, on_poll)
    finally:
        child.kill()
        child.join()
        ours.close()


def _follow(
    messages: multiprocessing.connection.Connection,
    child: multiprocessing.process.BaseProcess,
    on_poll: Callable[[float], object],
) -> Loaded:
    started_s: float | None = None
    while True:
        try:
            message = messages.recv() if messages.poll(_POLL_S) else None
        except EOFError as error:
            child.join()
            raise DfdError(
                f"the process under load died (exit status {child.exitcode}): run less at once, "
                "or look for a lack of memory"
            ) from error
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, Loaded):
            return message
        if message == "testing":
            started_s = time.monotonic()
        if started_s is not None:
            on_poll(time.monotonic() - started_s)


def _child(
    messages: multiprocessing.connection.Connection,
    make: Callable[[], Work],
    load: Load,
    logs: Path,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends this process
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock:
            messages.send(message)

    try:
        send(_test_all(make, load, logs, send))
    except BaseException as error:
        _send_error(send, error)


def _send_error(send: Callable[[object], None], error: BaseException) -> None:
    known = isinstance(error, DfdError | ModuleNotFoundError)
    send(error if known else DfdError(f"under load: {type(error).__name__}: {error}"))


def _test_all(
    make: Callable[[], Work], load: Load, logs: Path, send: Callable[[object], None]
) -> Loaded:
    import mlperf_loadgen as loadgen  # noqa: PLC0415 - of the extra `bench`

    started_s = time.perf_counter()
    work = make()
    load_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    call_s = _warm_up(work, load)
    warm_up_s = time.perf_counter() - started_s
    size = _warm_up_size(load)
    if load.scenario == "server":
        target_qps = load.target_qps or size / call_s / 2
    else:
        target_qps = load.workers * size / call_s
    _check_memory(load, call_s, target_qps)
    settings = _settings(loadgen, load, call_s, target_qps)
    send("testing")
    tests = []
    for number in range(1, load.runs + 1):
        folder = logs / f"run{number}"
        folder.mkdir(parents=True)
        _test(loadgen, settings, _Dispatcher(loadgen, work, load, send), load, folder)
        tests.append(read_log(folder / "mlperf_log_detail.txt", load.scenario))
    return Loaded(work.ran, load_s, warm_up_s, target_qps, tuple(tests))


def _warm_up_size(load: Load) -> int:
    """Samples of one call of the work in a scenario."""
    if load.scenario in {"single-stream", "server"}:
        return 1
    return load.batch if load.scenario == "offline" else min(load.streams, load.batch)


def _warm_up(work: Work, load: Load) -> float:
    """Median seconds of a call."""
    size = _warm_up_size(load)
    seconds = []
    for turn in range(_WARM_UP):
        samples = [(turn * size + i) % load.samples for i in range(size)]
        for worker in range(load.workers):
            started_s = time.perf_counter()
            work.run(samples, worker)
            seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds[load.workers :])


def _check_memory(load: Load, call_s: float, target_qps: float) -> None:
    """Sees that the queries that LoadGen makes beforehand can be held.

    Raises:
        UsageError: They would take too much memory.
    """
    samples = load.streams if load.scenario == "multi-stream" else 1
    if load.scenario in {"server", "offline"}:
        queries = load.duration_s * target_qps
    else:
        queries = load.duration_s / call_s * 2 * _MARGIN
    memory_mb = queries * (_QUERY_BYTES + samples * _SAMPLE_BYTES) / 1e6
    if memory_mb > _MAX_QUERIES_MB:
        longest_s = load.duration_s * _MAX_QUERIES_MB / memory_mb
        raise UsageError(
            f"duration is {load.duration_s:g} s: LoadGen makes all queries beforehand, which would "
            f"take {memory_mb / 1e3:.0f} GB for calls of {call_s * 1e6:.0f} us: give "
            f"{longest_s:.3g} s or less"
        )


def _settings(loadgen: Any, load: Load, call_s: float, target_qps: float) -> Any:  # noqa: ANN401
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, _NAMES[load.scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(load.duration_s * 1e3)
    settings.min_query_count = 1
    settings.single_stream_expected_latency_ns = max(1, round(call_s / _MARGIN * 1e9))
    settings.multi_stream_samples_per_query = load.streams
    settings.multi_stream_expected_latency_ns = max(1, round(call_s / _MARGIN * 1e9))
    settings.server_target_qps = target_qps
    settings.server_target_latency_ns = round((load.bound_ms or SERVER_LATENCY_MS) * 1e6)
    settings.offline_expected_qps = target_qps
    return settings


def _test(loadgen: Any, settings: Any, work: _Dispatcher, load: Load, folder: Path) -> None:  # noqa: ANN401
    log = loadgen.LogSettings()
    log.log_output.outdir = str(folder)
    log.enable_trace = False
    under_test = loadgen.ConstructSUT(work.issue, lambda: None)
    library = loadgen.ConstructQSL(
        load.samples, load.samples, lambda indices: None, lambda indices: None
    )
    try:
        # By itself it reads `audit.config` in the current folder.
        loadgen.StartTestWithLogSettings(under_test, library, settings, log, os.devnull)
    finally:
        work.close()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(under_test)


class _Dispatcher:
    """Takes LoadGen's queries and has them worked off: at once, or by threads from a queue."""

    def __init__(
        self,
        loadgen: Any,  # noqa: ANN401 - LoadGen has no types
        work: Work,
        load: Load,
        send: Callable[[object], None],
    ) -> None:
        self._loadgen = loadgen
        self._work = work
        self._send = send
        self._batch = load.batch
        self._inline = load.scenario == "single-stream"
        self._share = load.workers if load.scenario == "multi-stream" else 1
        self._queue: queue.SimpleQueue[list[tuple[int, int]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), daemon=True)
            for worker in range(0 if self._inline else load.workers)
        ]
        for thread in self._threads:
            thread.start()

    def issue(self, query: list[Any]) -> None:
        """Called by LoadGen, from a thread of its own; nothing may be raised here."""
        samples = [(sample.id, sample.index) for sample in query]
        if self._inline:
            self._answer(samples, 0)
            return
        step = max(1, min(self._batch, -(-len(samples) // self._share)))
        for start in range(0, len(samples), step):
            self._queue.put(samples[start : start + step])

    def close(self) -> None:
        """Ends the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: int) -> None:
        while (samples := self._queue.get()) is not None:
            self._answer(samples, worker)

    def _answer(self, samples: list[tuple[int, int]], worker: int) -> None:
        try:
            self._work.run([index for _, index in samples], worker)
        except BaseException as error:
            _send_error(self._send, error)
        response = self._loadgen.QuerySampleResponse
        self._loadgen.QuerySamplesComplete([response(number, 0, 0) for number, _ in samples])
