"""From a request on the command line to a run and its exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import SequenceSpec
from dfd_edge.cli.options import check_provenance_flags, check_source_flags
from dfd_edge.cli.run import LIVE_KINDS, Run, RunRequest, failure_event
from dfd_edge.detector import Detector
from dfd_edge.errors import SourceError, UsageError
from dfd_edge.inference.installation import quiet_onnxruntime
from dfd_edge.inference.threads import set_opencv_threads
from dfd_edge.judging.results import Event, EventKind
from dfd_edge.sinks.console import Console, Printer
from dfd_edge.sinks.files import check_outputs
from dfd_edge.sinks.json_lines import JsonLines
from dfd_edge.sinks.sink import Sink, Sinks
from dfd_edge.sources import SourceItem, SourceKind, expand
from dfd_edge.sources.decoder import choose_decoder
from dfd_edge.sources.frames import Sampler
from dfd_edge.sources.opening import ReadAhead

if TYPE_CHECKING:
    from dfd_edge.provenance.signing import Signer
    from dfd_edge.sinks.note import SourceHashes

EXIT_SOURCE_FAILED = 1
EXIT_MATCHED = 3


def judge(request: RunRequest) -> int:
    """Runs `dfd-edge` and returns its exit code.

    Raises:
        DfdError: Nothing can be judged as requested.
    """
    if "" in request.sources:
        raise UsageError("an empty source was given: name a file, a folder or an address")
    if not request.sources and not request.cameras:
        raise UsageError("nothing to judge: give files, folders or addresses, or --webcam")
    events: list[Event] = []
    items, errors = expand([*request.sources, *request.cameras], on_event=events.append)
    items = [dataclasses.replace(item, options=request.source_options) for item in items]
    if request.save_video is not None and len(items) + len(errors) > 1:
        raise UsageError(f"--save-video takes one source, {len(items) + len(errors)} were given")
    printer = Printer()
    files = [item for item in items if item.kind not in LIVE_KINDS]
    live = [item for item in items if item.kind in LIVE_KINDS]
    console = Console(printer, as_json=request.as_json, files=len(files))
    if errors and not items:
        sinks = Sinks(JsonLines(printer), console) if request.as_json else console
        _report_missing(sinks, errors, events)
        return EXIT_SOURCE_FAILED
    trust_list = check_provenance_flags(
        provenance=request.provenance, trust_list=request.trust_list
    )
    signer = _check(request, items)
    if request.provenance:
        events += _unread(items)
    set_opencv_threads(request.threads)
    bundle = Bundle.described(request.model)
    with _begun(request, files, bundle.manifest.sequence) as files:
        if not request.verbose:
            quiet_onnxruntime()
        detector = Detector.load(
            bundle,
            provider=request.provider,
            precision=request.precision,
            threads=request.threads,
            options=request.provider_options,
        )
        stop = threading.Event()
        hashes = _hashes(request)
        # Around the outputs: what was judged until Ctrl-C is still written.
        with stopped_by_signals(stop), contextlib.ExitStack() as opened:
            sinks = Sinks(*_open_sinks(request, detector, items, console, opened, hashes, signer))
            _note_settings(request, detector, printer)
            _report_missing(sinks, errors, events)
            request = dataclasses.replace(request, window=_wants_window(request, live, printer))
            run = Run(
                detector,
                request,
                sinks,
                printer,
                stop=stop,
                hashes=hashes,
                signer=signer,
                trust_list=trust_list,
            )
            run.files(files)
            if live and not stop.is_set():
                run.live(live)
    if any(verdict.label in request.fail_on for verdict in run.verdicts):
        return EXIT_MATCHED
    return EXIT_SOURCE_FAILED if run.failures or errors else 0


def _check(request: RunRequest, items: list[SourceItem]) -> Signer | None:
    """Refuses options that do not go with the sources, and outputs that cannot be written.

    Returns:
        The signer of the outputs, where `--sign` was given.

    Raises:
        ProviderError: The decoder asked for cannot run.
        UsageError: An option does not fit.
    """
    check_source_flags(request.source_options, items)
    # Now, for its exit code: later it would be the fault of each source.
    choose_decoder(request.source_options.decoder, request.source_options.decoder_device)
    if request.cropped and all(item.kind is not SourceKind.IMAGE for item in items):
        raise UsageError("--cropped is for images that are face crops: give one")
    if request.max_frames is not None or request.scan:
        _check_moments(request, items)
    on_disk = (SourceKind.VIDEO, SourceKind.IMAGE)
    read = [Path(str(item.location)) for item in items if item.kind in on_disk]
    if request.provenance and not read:
        raise UsageError("--provenance is for files on this machine: give one, or leave it out")
    outputs = {
        "--csv": request.csv_path,
        "--save-video": request.save_video,
        "--report": request.report_path,
    }
    if request.sign is not None and request.report_path is not None:
        from dfd_edge.provenance.signing import sidecar_for

        outputs["--sign"] = sidecar_for(request.report_path)
    own = [path for path in (*(request.sign or ()), request.trust_list) if path is not None]
    check_outputs(outputs, [*read, *own])
    if request.save_video is not None:
        from dfd_edge.sinks.video_file import check_suffix

        check_suffix(request.save_video)
    if request.report_path is not None:
        from dfd_edge.report.page import check_report

        check_report(request.report_path)
    return None if request.sign is None else _signer(request, items, *request.sign)


def _signer(request: RunRequest, items: list[SourceItem], certificate: Path, key: Path) -> Signer:
    """Opens the certificate and the key, after a check that there is an output to sign.

    Raises:
        UsageError: `--sign` does not go with the outputs or the sources, or cannot sign.
    """
    from dfd_edge.provenance.signing import SIGNED_VIDEO, Signer
    from dfd_edge.sinks.note import file_of

    video, report = request.save_video, request.report_path
    if video is None and report is None:
        raise UsageError("--sign signs the outputs of --save-video and --report: give one of them")
    if video is not None and video.suffix.lower() not in SIGNED_VIDEO:
        raise UsageError(f"--sign: {video}: a signed video is written as {', '.join(SIGNED_VIDEO)}")
    if video is not None and any(file_of(item) is None for item in items):
        raise UsageError(
            "--sign names the judged file as the origin of the annotated video, and a live source "
            "or standard input is no file: leave --sign or --save-video out"
        )
    return Signer.load(certificate, key, carries=not request.source_options.sandbox)


@contextlib.contextmanager
def _begun(
    request: RunRequest, files: list[SourceItem], sequence: SequenceSpec
) -> Iterator[list[SourceItem]]:
    """Opens the first file and decodes its beginning in a thread, while the models are loaded.

    Not for models that judge the first frames alone: each stream has to count them itself.
    """
    if sequence.first_frames is not None or not _is_begun(request, files):
        yield files
        return
    first, *others = files
    sampler = Sampler(sequence.rate_hz if request.rate_hz is None else request.rate_hz)
    bursts = sequence.signals is not None
    with ReadAhead(first, sampler, bursts=bursts, threads=request.threads) as ahead:
        yield [dataclasses.replace(first, ahead=ahead), *others]


def _is_begun(request: RunRequest, files: list[SourceItem]) -> bool:
    """Returns whether the first file is read from its start, in this process, due frames alone."""
    sought = request.max_frames is not None or request.scan
    every = request.save_video is not None or bool(request.window)
    if sought or every or request.source_options.sandbox:
        return False
    return bool(files) and files[0].kind is SourceKind.VIDEO


def _unread(items: list[SourceItem]) -> list[Event]:
    """Returns notes on the sources that are no files; a camera is known to be none."""
    kinds = (SourceKind.ADDRESS, SourceKind.STANDARD_INPUT)
    text = "its provenance is not read: only that of files on this machine is"
    return [Event(item.name, 0.0, EventKind.NOTE, text) for item in items if item.kind in kinds]


def _check_moments(request: RunRequest, items: list[SourceItem]) -> None:
    """Refuses `--frames` and `--scan` where no film is given, or where every frame is wanted."""
    asked = "--scan" if request.scan else f"--frames {request.max_frames}"
    if request.scan and request.max_frames is not None:
        raise UsageError(
            f"--scan chooses its frames itself: leave --frames {request.max_frames} out"
        )
    if all(item.kind in (*LIVE_KINDS, SourceKind.IMAGE) for item in items):
        raise UsageError(f"{asked} is for films in files: give one, or leave it out")
    if request.save_video is not None:
        raise UsageError(
            f"--save-video shows every frame, and {asked} leaves most out: give one of them"
        )


def _open_sinks(
    request: RunRequest,
    detector: Detector,
    items: list[SourceItem],
    console: Console,
    opened: contextlib.ExitStack,
    hashes: SourceHashes | None,
    signer: Signer | None,
) -> list[Sink]:
    """Opens what receives the results of all sources.

    The files are finished when `opened` is left, or removed after an error; then the webhook gets
    the time it needs, within bounds.

    Raises:
        UsageError: A file cannot be written, or the webhook is no http or https address.
    """
    webhook: Sink | None = None
    table: Sink | None = None
    report: Sink | None = None
    if request.webhook is not None:
        from dfd_edge.sinks.webhook import Endpoint, Webhook  # few runs need it

        endpoint = Endpoint.parse(request.webhook)
        webhook = opened.enter_context(Webhook(endpoint, note=console.printer.note))
    if request.csv_path is not None:
        from dfd_edge.sinks.csv_file import CsvFile

        table = opened.enter_context(CsvFile(request.csv_path, provenance=request.provenance))
    lines: Sink | None = None
    if request.as_json or request.report_path is not None:
        run = detector.run_record(
            rate_hz=request.rate_hz, max_frames=request.max_frames, scan=request.scan
        )
        if request.report_path is not None:
            from dfd_edge.report.page import Report  # its libraries take a while to load

            report = opened.enter_context(
                Report(request.report_path, detector, items, run, hashes=hashes, signer=signer)
            )
        if request.as_json:
            lines = JsonLines(console.printer, run)
    sinks = (report, lines, table, webhook, console)
    return [sink for sink in sinks if sink is not None]


def _hashes(request: RunRequest) -> SourceHashes | None:
    """Returns what the hashes of the judged files go to, where a report is to show them."""
    if request.report_path is None:
        return None
    from dfd_edge.sinks.note import SourceHashes

    return SourceHashes()


def _note_settings(request: RunRequest, detector: Detector, printer: Printer) -> None:
    """Prints what runs, where that was asked for or is not what was asked for."""
    report = detector.provider
    if request.verbose or not report:
        printer.note(f"provider {report}")
    if request.verbose:
        printer.note(f"precision {report.precision}: {report.precision_reason}")
    trained_hz = detector.bundle.manifest.sequence.rate_hz
    if request.rate_hz not in (None, trained_hz):
        printer.note(
            f"judging at {request.rate_hz:g} Hz; the model was trained at {trained_hz:g} Hz"
        )


def _wants_window(request: RunRequest, live: list[SourceItem], printer: Printer) -> bool:
    """Returns whether to open windows: as asked, else for live sources where a display works."""
    wanted = request.window
    if wanted is False or (wanted is None and (not live or request.as_json)):
        return False
    from dfd_edge.view.window import display_fault

    fault = display_fault()
    if fault is not None and wanted:
        raise UsageError(f"--window: {fault}; leave it out, or use --save-video")
    if fault is not None:
        printer.note(f"no window: {fault}")
    return fault is None


def _report_missing(sinks: Sink, errors: list[SourceError], events: list[Event]) -> None:
    """Reports sources that were not found, and what is to be known of those that were."""
    for event in events:
        sinks.event(event)
    for error in errors:
        sinks.event(failure_event(error.source, error))


@contextlib.contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Lets the first Ctrl-C, SIGTERM or SIGHUP set `stop`; the second one acts as usual."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signals.append(signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
