"""The worker process: loads a bundle once and judges one clip after the other.

python -m dfd_edge.archive.child REQUESTS ANSWERS LIFELINE

It reads clips that strangers may have prepared, so it has no network, writes no files, and its
memory is limited (`dfd_edge.sandbox.confining`). Requests and answers are JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_edge.archive.rows import Failure, Judgement
from dfd_edge.archive.settings import JudgeSettings, WorkerSettings
from dfd_edge.errors import DfdError, SourceError, is_out_of_memory, source_error
from dfd_edge.inference.names import Provider, parse_provider
from dfd_edge.sandbox import confining
from dfd_edge.sandbox.messages import read_all, receive_message, send_message
from dfd_edge.schema import from_plain, to_plain

if TYPE_CHECKING:
    from dfd_edge.detector import Detector
    from dfd_edge.judging.results import FrameResult
    from dfd_edge.sources.frames import Frame


#: Exit code of a process that had too little memory to answer.
OUT_OF_MEMORY = 77


def main(requests: int, answers: int, lifeline: int) -> None:
    """Judges what is asked for until the parent ends."""
    confining.end_with_parent(lifeline)
    confining.leave_network()

    def receive() -> dict[str, Any]:
        return receive_message(lambda buffer: read_all(requests, buffer))[0]

    first = receive()
    settings = from_plain(JudgeSettings, first["judge"])
    limits = from_plain(WorkerSettings, first["worker"])
    try:
        detector = _load(settings, limits)
    except DfdError as error:
        refusal = {"refused": str(error), "kind": type(error).__name__}
        send_message(answers, refusal, [])
        return
    if parse_provider(detector.provider.actual) is Provider.CPU:
        # Accelerators reserve more addresses than any limit leaves them.
        confining.limit(limits.memory_mb)
    send_message(answers, {"ready": True}, [])
    try:
        _answer(detector, settings, receive, answers)
    except Exception as error:
        if is_out_of_memory(error):
            os._exit(OUT_OF_MEMORY)  # an orderly exit would need memory
        raise


def _answer(
    detector: Detector,
    settings: JudgeSettings,
    receive: Callable[[], dict[str, Any]],
    answers: int,
) -> None:
    """Judges what is asked for until the parent ends."""
    while True:
        try:
            request = receive()
        except EOFError:
            return
        judgement, frames = judge(detector, settings, request["path"], request["name"])
        thumbnail = judgement.thumbnail or b""
        message = {"judgement": to_plain(replace(judgement, thumbnail=None))}
        message["thumbnail"] = len(thumbnail)
        rows = json.dumps(frames).encode() if frames else b""
        send_message(answers, message, [memoryview(thumbnail), memoryview(rows)])


def _load(settings: JudgeSettings, limits: WorkerSettings) -> Detector:
    from dfd_edge.detector import Detector  # noqa: PLC0415 - after the network is gone
    from dfd_edge.inference.provider_options import ProviderOptions  # noqa: PLC0415
    from dfd_edge.inference.threads import set_up_libraries  # noqa: PLC0415

    set_up_libraries(limits.threads)
    options = ProviderOptions(
        device=limits.device,
        gpu_memory_limit_mb=limits.gpu_memory_limit_mb,
        cuda_graphs=limits.cuda_graphs,
        engine_cache=None if limits.engine_cache is None else Path(limits.engine_cache),
    )
    return Detector.load(
        settings.model,
        provider=limits.provider,
        precision=settings.precision,
        threads=limits.threads,
        options=options,
    )


def judge(
    detector: Detector, settings: JudgeSettings, path: str, name: str
) -> tuple[Judgement, list[dict[str, Any]]]:
    """Judges a file; whatever is raised becomes the error of the judgement.

    Args:
        detector: The loaded bundle.
        settings: How it is judged.
        path: The file.
        name: Name of the clip in messages.

    Returns:
        The judgement, and a row for each person in each judged frame where settings ask for them.
    """
    from dfd_edge.sources import SourceItem, SourceKind, SourceOptions  # noqa: PLC0415

    kind: str | None = None
    frames: list[dict[str, Any]] = []
    picture = _Thumbnail()

    def on_frame(result: FrameResult) -> None:
        record = result.to_record()
        frames.extend({"time_s": result.time_s, **person} for person in record["people"])

    try:
        options = SourceOptions(max_pixels=settings.max_pixels, sandbox=settings.sandbox)
        item = replace(SourceItem.made_of(path, options), name=name)
        kind = item.kind.value
        verdict = detector.analyze(
            item,
            on_frame=on_frame if settings.frame_rows else None,
            on_image=picture.take if settings.thumbnails else None,
            every_image=False,
            rate_hz=settings.rate_hz,
            duration_s=settings.duration_s,
            faces=settings.faces_option(),
            cropped=settings.cropped and item.kind is SourceKind.IMAGE,
            max_frames=settings.max_frames,
            scan=settings.scan,
        )
    except Exception as error:
        if is_out_of_memory(error):
            full = SourceError(name, "there is not enough memory to judge it")
            return Judgement.failed(str(full), Failure.MEMORY, kind=kind), []
        told = source_error(name, error)
        # The file is known to the reader by its address, wherever it was copied to.
        text = str(told).replace(path, name)
        return replace(Judgement.of_error(told), error=text, kind=kind), []
    precision = detector.provider.precision
    judgement = Judgement.of(verdict, kind=kind, precision=precision)
    return replace(judgement, thumbnail=picture.jpeg), frames


class _Thumbnail:
    """The crop with the highest score so far.

    Attributes:
        jpeg: The picture, with its evidence map where the model has one.
    """

    def __init__(self) -> None:
        self.jpeg: bytes | None = None
        self._highest = -1.0

    def take(self, frame: Frame, result: FrameResult | None) -> None:
        """Receives a judged frame."""
        from dfd_edge.report.pictures import CropPicture  # noqa: PLC0415 - loads OpenCV

        for person in result.people if result is not None else ():
            if person.p_frame is None or person.p_frame <= self._highest:
                continue
            self._highest = person.p_frame
            crop = CropPicture.of(frame.image, person, frame.time_s, person.p_frame)
            self.jpeg = crop.evidence or crop.plain


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
