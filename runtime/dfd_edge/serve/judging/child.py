"""The process that judges: it loads a detector once and judges one file after the other.

python -m dfd_edge.serve.judging.child LIFELINE

Lines of JSON come on standard input: the settings, then `{"number", "path", "name"}` for a file
and `{"stop": number}`. Lines of JSON go to standard output: `ready` or `refused`, then for each
file `record`, `progress`, `evidence` and `crop`, and at its end `done` or `failed`. The first
`crop` says whether the file is a still.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_edge.errors import DfdError, SourceError, source_error
from dfd_edge.judging.results import Event, FrameResult, Record, Verdict
from dfd_edge.sandbox import confining
from dfd_edge.sinks.sink import Images, Sink
from dfd_edge.sources.expand import SourceItem, SourceKind
from dfd_edge.sources.options import SourceOptions

if TYPE_CHECKING:
    from dfd_edge.detector import Detector
    from dfd_edge.provenance.beside import Reading
    from dfd_edge.provenance.trust import TrustList
    from dfd_edge.report.collector import Collector
    from dfd_edge.sources.frames import Frame
    from dfd_edge.view.overlay import Scene

_PROGRESS_S = 0.25
_JUDGING_MB = 2048
"""Memory that a process which judges may allocate beside that of decoding."""
_MAX_ROWS = 1_000_000
"""Rows of one judgement, one for each person in each frame: two hours of 25 people."""
_MAX_EVIDENCE = 20_000
"""Evidence maps of one judgement that are kept: more than an hour of one face at 5 Hz."""

Send = Callable[[dict[str, Any]], None]


class Outbox(Sink):
    """Sends the results of one file as messages.

    Args:
        send: Takes a message.
        item: The file.
        run: The record that describes the run, sent first.
    """

    images = Images.JUDGED

    def __init__(self, send: Send, item: SourceItem, run: Record) -> None:
        from dfd_edge.report.collector import Collector  # noqa: PLC0415 - loads OpenCV

        self._send = send
        self._collector: Collector = Collector([item], run)
        self._name = item.name
        self._told_s = 0.0
        self._maps = 0
        self._rows = 0
        send({"record": run})
        send({"crop": {"still": item.kind is SourceKind.IMAGE}})

    def frame(self, result: FrameResult) -> None:
        """Sends the record of a frame, and the evidence of its faces.

        Raises:
            TooManyRowsError: There are more people and moments than a judgement keeps.
        """
        self._rows += 1 + len(result.people)
        if self._rows > _MAX_ROWS:
            raise TooManyRowsError(
                self._name, f"more than {_MAX_ROWS} faces in all", "cut out the part in question"
            )
        self._send({"record": result.to_record()})
        for person in result.people:
            if person.evidence is None or self._maps >= _MAX_EVIDENCE:
                continue
            self._maps += 1
            values = [[round(float(value), 2) for value in row] for row in person.evidence]
            self._send(
                {
                    "evidence": {
                        "time_s": round(result.time_s, 3),
                        "track": person.track,
                        "crop": list(person.crop),
                        "values": values,
                    }
                }
            )

    def image(self, scene: Scene) -> None:
        """Keeps the most extreme crops of a frame for the report."""
        self._collector.image(scene)

    def wants_image(self, time_s: float, result: FrameResult | None) -> bool:
        """Whether a crop of this frame would be kept: others need not be converted to BGR."""
        if result is None or result.time_s != time_s:
            return False
        people = self._collector.sources[self._name].people
        return any(
            person.p_frame is not None
            and (
                person.track not in people
                or people[person.track].crops.wants(time_s, person.p_frame)
            )
            for person in result.people
        )

    def progress(self, done_s: float, whole_s: float | None) -> None:
        """Sends how far the file is, a few times a second."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _PROGRESS_S:
            self._told_s = now_s
            self._send({"progress": {"done_s": round(done_s, 3), "total_s": whole_s}})

    def event(self, event: Event) -> None:
        """Sends the record of an event."""
        self._send({"record": event.to_record()})

    def verdict(self, verdict: Verdict) -> None:
        """Sends the crops for the report, and the verdict."""
        for track, person in self._collector.sources[self._name].people.items():
            for crop in (*person.crops.suspicious, *person.crops.ordinary):
                evidence = None if crop.evidence is None else _text(crop.evidence)
                self._send(
                    {
                        "crop": {
                            "track": track,
                            "time_s": crop.time_s,
                            "p_frame": crop.p_frame,
                            "side": crop.side,
                            "plain": _text(crop.plain),
                            "evidence": evidence,
                        }
                    }
                )
        self._send({"record": verdict.to_record()})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class TooManyRowsError(SourceError):
    """The film has more faces and moments than the service keeps."""


class TooLongError(SourceError):
    """The film is longer than the service allows."""


#: Problems of films that are refused while they are judged.
_KINDS: dict[type[Exception], str] = {
    TooLongError: "too-long",
    TooManyRowsError: "too-many-faces",
}


class Judging:
    """Judges files with one detector and sends what comes of it.

    Args:
        detector: Judges.
        options: How files are opened.
        max_duration_s: Longer films are refused.
        trust_list: Certificates that are trusted where files say where they come from; None reads
            nothing of that.
    """

    def __init__(
        self,
        detector: Detector,
        options: SourceOptions,
        *,
        max_duration_s: float,
        trust_list: TrustList | None = None,
    ) -> None:
        self._detector = detector
        self._options = options
        self._max_duration_s = max_duration_s
        self._trust_list = trust_list

    def judge(self, path: str, name: str, send: Send, stop: threading.Event) -> None:
        """Judges a file; the last message is `done`, or `failed` with the cause.

        Args:
            path: The file.
            name: What its records call it.
            send: Takes the messages.
            stop: Ends it early.
        """
        reading = None
        if self._trust_list is not None:
            from dfd_edge.provenance.beside import Reading  # noqa: PLC0415 - where asked for

            reading = Reading(Path(path), name, self._trust_list)
        try:
            self._judge(path, name, send, stop, reading)
        except Exception as error:
            kind = _KINDS.get(type(error), "not-judged")
            provenance = None if reading is None else reading.result(stop)
            record = None if provenance is None else provenance.to_record()
            detail = str(source_error(name, error))
            send({"failed": {"name": kind, "detail": detail, "provenance": record}})
        else:
            send({"done": True})

    def _judge(
        self, path: str, name: str, send: Send, stop: threading.Event, reading: Reading | None
    ) -> None:
        from dfd_edge.view.overlay import Overlay  # noqa: PLC0415 - loads OpenCV

        item = dataclasses.replace(SourceItem.of(Path(path)), name=name, options=self._options)
        decision, limit_s = self._detector.decision, self._max_duration_s
        outbox = Outbox(send, item, self._detector.run_record())
        overlay = Overlay(decision.fake_threshold, decision.real_threshold, source=name)

        def progress(done_s: float, whole_s: float | None) -> None:
            if whole_s is not None and whole_s > limit_s:
                raise TooLongError(
                    name,
                    f"{whole_s:.0f} s long, and at most {limit_s:g} s are judged",
                    "cut out the part in question",
                )
            outbox.progress(done_s, whole_s)

        def show(frame: Frame, result: FrameResult | None) -> None:
            if outbox.wants_image(frame.time_s, result):
                outbox.image(overlay.scene(frame.image, frame.time_s, result))

        verdict = self._detector.analyze(
            item,
            on_frame=outbox.frame,
            on_image=show,
            every_image=False,
            on_progress=progress,
            on_event=outbox.event,
            duration_s=None if item.kind is SourceKind.IMAGE else limit_s,
            stop=stop,
        )
        if reading is not None:
            verdict = dataclasses.replace(verdict, provenance=reading.result(stop))
        outbox.verdict(verdict)


def load(settings: dict[str, Any]) -> tuple[Judging, dict[str, Any]]:
    """Loads the detector that judges.

    Args:
        settings: `model`, `provider`, `precision`, `threads`, `provider_options`, `sandbox`,
            `memory_mb`, `max_duration_s`, `provenance` and `trust_list` of the service.

    Returns:
        The detector, and facts of it that the service needs: the manifest and the decision, by
        which reports are written, and the record of the run.

    Raises:
        DfdError: It cannot be loaded.
    """
    from dfd_edge.detector import Detector  # noqa: PLC0415 - after the process is set up
    from dfd_edge.inference.provider_options import ProviderOptions  # noqa: PLC0415
    from dfd_edge.inference.threads import set_up_libraries  # noqa: PLC0415

    set_up_libraries(settings["threads"])
    detector = Detector.load(
        settings["model"],
        provider=settings["provider"],
        precision=settings["precision"],
        threads=settings["threads"],
        options=ProviderOptions(**settings["provider_options"]),
    )
    options = SourceOptions(sandbox=settings["sandbox"], sandbox_memory_mb=settings["memory_mb"])
    about = {
        "bundle": detector.bundle.hash,
        "manifest": detector.bundle.manifest.to_json(),
        "decision": detector.decision.spec.to_json(),
        "run": detector.run_record(),
        "provider": str(detector.provider),
    }
    trust_list = None
    if settings["provenance"]:
        from dfd_edge.provenance.beside import open_trust_list  # noqa: PLC0415 - where asked for

        given = settings["trust_list"]
        trust_list = open_trust_list(None if given is None else Path(given))
    judging = Judging(
        detector, options, max_duration_s=settings["max_duration_s"], trust_list=trust_list
    )
    return judging, about


def main(lifeline: int) -> None:
    """Judges what is asked for until standard input ends."""
    confining.end_with_parent(lifeline)
    confining.die_first()
    # Prints of libraries must not get between the messages.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(message, allow_nan=False) + "\n")

    settings = json.loads(sys.stdin.readline())
    try:
        judging, about = load(settings)
    except DfdError as error:
        send({"refused": {"detail": str(error), "exit_code": error.exit_code}})
        return
    if about["run"]["provider"]["actual"] == "cpu":
        # Providers of graphics cards reserve far more than they use.
        confining.limit_data(settings["memory_mb"] + _JUDGING_MB)
    send({"ready": about})
    tasks: queue.SimpleQueue[tuple[dict[str, Any], threading.Event] | None] = queue.SimpleQueue()

    def listen() -> None:
        # A stop may come when its task has ended: it must not end the next one.
        number, stop = -1, threading.Event()
        for line in sys.stdin:
            message = json.loads(line)
            if "stop" not in message:
                number, stop = message["number"], threading.Event()
                tasks.put((message, stop))
            elif message["stop"] == number:
                stop.set()
        stop.set()
        tasks.put(None)

    threading.Thread(target=listen, name="dfd-edge orders", daemon=True).start()
    while (task := tasks.get()) is not None:
        order, stop = task
        judging.judge(order["path"], order["name"], send, stop)


if __name__ == "__main__":
    main(int(sys.argv[1]))
