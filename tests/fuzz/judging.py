"""Judges one hostile case after another, in a process of its own that is bounded.

Reads lines of JSON from standard input, `{"kind": ..., "path": ..., "case": ...}`, and answers each
with a line of JSON, an `Answer`. What cannot be answered (a crash, a hang) the parent sees.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Memory that one case may take before it counts as too much.
MAX_MB = 512
#: Memory that the process may allocate in all: what is refused beyond it is seen as well.
_LIMIT_MB = 2048
#: FFmpeg's "cannot allocate memory" is not among them: it refuses lengths above 2 GB unasked.
_NO_MEMORY = re.compile(r"(out of|insufficient) memory|failed to alloc|bad_?alloc", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a case.

    Attributes:
        outcome: "verdict", "error" (one of the program's own), "traceback" or "memory"; the parent
            adds "crash" and "hang".
        detail: The label, the message, or the exception and where it was raised.
        seconds: Processor time that it took: of this process and of those that it started and
            that have ended, whatever else the machine does.
        peak_mb: Memory that it took at most beyond what was taken before; of this process.
    """

    outcome: str
    detail: str
    seconds: float = 0.0
    peak_mb: float = 0.0


def main(bundle: str) -> None:
    """Answers until standard input ends."""
    questions, answers = _keep_to_itself()
    limit = _LIMIT_MB << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    import cv2

    from dfd_edge import Detector

    cv2.setNumThreads(1)
    cases = Cases(Detector.load(bundle))
    for line in questions:
        question = json.loads(line)
        before_mb = _reset_peak_mb()
        start_s = _processor_s()
        answer = answer_of(lambda: cases.judge(**question))  # noqa: B023 - called at once
        seconds = _processor_s() - start_s
        peak_mb = max(0.0, _peak_mb() - before_mb)
        if answer.outcome == "error" and _NO_MEMORY.search(answer.detail):
            answer = Answer("memory", answer.detail)
        if peak_mb > MAX_MB:
            answer = Answer("memory", f"{peak_mb:.0f} MB: {answer.outcome}")
        answers.write(json.dumps({**asdict(answer), "seconds": seconds, "peak_mb": peak_mb}) + "\n")
        answers.flush()


def answer_of(judge: Callable[[], str]) -> Answer:
    """Calls and tells a result from a clear error from anything else."""
    from dfd_edge import DfdError

    try:
        return Answer("verdict", judge())
    except DfdError as error:
        text = str(error)
        if not text or "\n" in text:
            return Answer("traceback", f"message of {type(error).__name__} is no line: {text!r}")
        return Answer("error", text)
    except MemoryError as error:
        return Answer("memory", f"MemoryError at {_place(error)}")
    except Exception as error:
        return Answer("traceback", f"{type(error).__name__} at {_place(error)}: {error!s:.200}")


class Cases:
    """Judges by the kind of the case."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def judge(self, kind: str, path: str, case: str) -> str:
        if kind == "media":
            return _checked(self._detector.analyze(path))
        if kind == "sandboxed":
            from dfd_edge.sources import SourceOptions

            return _checked(self._detector.analyze(path, options=SourceOptions(sandbox=True)))
        if kind == "bundle":
            from dfd_edge import Detector

            with Detector.load(path) as detector:
                return _checked(detector.analyze(Path(path).parent / "face.jpg"))
        if kind == "provenance":
            return _provenance(path)
        if kind == "arguments":
            return _call(self._detector, random.Random(case))
        return _misbehave(kind)


def _misbehave(how: str) -> str:
    """What must not happen, so that tests see that it would be counted."""
    if how == "abort":
        os.abort()
    if how == "hang":
        time.sleep(3600.0)
    return str(len(b"x" * ((MAX_MB + 64) << 20)))


def _checked(verdict: Any) -> str:
    """The label of a verdict whose figures make sense."""
    json.dumps(verdict.to_record(), allow_nan=False)
    for score in (verdict.p_fake, verdict.coverage, *(p.p_fake for p in verdict.people)):
        if score is not None and not 0.0 <= score <= 1.0:
            raise AssertionError(f"a share of {score}")
    if not (math.isfinite(verdict.duration_s) and verdict.duration_s >= 0.0):
        raise AssertionError(f"a duration of {verdict.duration_s}")
    return str(verdict.label)


def _provenance(path: str) -> str:
    """The outcome of a signed file, whose record is clean."""
    from dfd_edge import SourceError, read_provenance

    provenance = read_provenance(path)
    json.dumps(provenance.to_record(), allow_nan=False)
    for text in (provenance.summary, provenance.error or ""):
        if not text.isprintable() or "fault of ours" in text or "not read within" in text:
            raise AssertionError(text)
    if provenance.error is not None:
        raise SourceError("clip", provenance.error)
    return provenance.outcome.value


def _call(detector: Any, random_: random.Random) -> str:
    """One call of the API with arguments that nobody should give."""
    import numpy as np

    from dfd_edge import Detector
    from dfd_edge.sources import CameraOptions, RawFormat, SourceItem, SourceOptions, expand

    def odd() -> Any:
        return random_.choice(_odd_values())

    def image() -> Any:
        shape = tuple(
            random_.choice((0, 1, 3, 15, 16, 48, 64)) for _ in range(random_.choice((2, 3, 4)))
        )
        shape = shape if random_.random() < 0.5 else (48, 64, 3)
        kind = random_.choice(("uint8", "float32", "int64", "bool", "object", "complex64", "U3"))
        return np.zeros(shape, dtype=kind if random_.random() < 0.5 else "uint8")

    def push() -> Any:
        with detector.stream(**_some(random_, rate_hz=odd(), faces=odd())) as stream:
            for _ in range(4):
                stream.push(image(), random_.choice((odd(), random_.uniform(-1e6, 1e6))))
            return _checked(stream.verdict())

    calls: tuple[Callable[[], Any], ...] = (
        push,
        lambda: detector.analyze(odd()),
        lambda: detector.analyze(image()),
        lambda: detector.analyze(
            __file__, **_some(random_, rate_hz=odd(), duration_s=odd(), faces=odd())
        ),
        lambda: SourceItem.of(odd()),
        lambda: expand([odd(), odd()]),
        lambda: CameraOptions(**_some(random_, width=odd(), height=odd(), fps=odd())),
        lambda: RawFormat(random_.choice((64, odd())), 48, random_.choice(("gray", odd())), odd()),
        lambda: SourceOptions(**_some(random_, rtsp_transport=odd(), reconnect_s=odd())),
        lambda: SourceOptions(**_some(random_, max_pixels=odd(), stream=odd(), sandbox=odd())),
        lambda: SourceOptions(sandbox_memory_mb=odd(), camera=odd(), raw=odd()),
        lambda: detector.analyze(image(), **_some(random_, colour=odd(), name=odd())),
        lambda: detector.analyze(random_.randbytes(random_.choice((1, 40, 3000))), name=odd()),
        lambda: detector.analyze(io.BytesIO(random_.randbytes(99)), options=odd(), stop=odd()),
        lambda: detector.analyze(__file__, **_some(random_, on_frame=odd(), on_event=odd())),
        lambda: detector.watch(odd(), **_some(random_, policy=odd(), rate_hz=odd())).close(),
        lambda: Detector.load(
            **_some(random_, provider=odd(), precision=odd(), threads=odd(), options=odd())
        ),
    )
    random_.choice(calls)()
    return "taken"


def _odd_values() -> tuple[Any, ...]:
    import numpy as np

    return (
        *(None, True, 0, 1, -1, 5, 10**30, -(1 << 63), 0.5, -0.0, 1e308, math.nan, math.inf),
        *("", " ", "all", "largest", "5", "\0", "a\0b", "\ud800", "x" * 5000, "a/" * 3000, "://"),
        *(
            "http://",
            "file:///etc/passwd",
            "http://u:p@h/",
            "\x1b[31m",
            "nan",
            "1e999",
            "*",
            "[",
            "**",
        ),
        *(
            b"",
            b"abc",
            b"\xff\xd8\xff",
            bytearray(3),
            memoryview(b"x"),
            (),
            [],
            [1],
            {},
            {"a": 1},
            set(),
        ),
        *(object(), int, len, Path(), Path("/nowhere"), 3 + 4j, range(3), iter([])),
        *(np.float32(5), np.int64(2), np.float64("nan"), np.array([1, 2]), np.array(5.0)),
        *(np.datetime64("2020-01-01"), np.str_("a"), time.time_ns(), np.float32(time.time())),
    )


def _some(random_: random.Random, **values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if random_.random() < 0.6}


def _place(error: BaseException) -> str:
    """The innermost line of the program's own that the exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}dfd_edge{os.sep}" in frame.filename]
    frame = (own or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"


def _keep_to_itself() -> tuple[Any, Any]:
    """Takes standard input and output for the parent alone, and gives the cases empty ones."""
    questions = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    return questions, answers


def _processor_s() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _reset_peak_mb() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    return _peak_mb()


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text("ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


if __name__ == "__main__":
    main(sys.argv[1])
