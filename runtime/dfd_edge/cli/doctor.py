"""`dfd-edge --doctor`: what is installed, what works, and how to fix the rest."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.errors import BundleError, DfdError, ProviderError, SourceError
from dfd_edge.libraries import libraries, reinstall_advice, wrong_version
from dfd_edge.version import requirement_of, version_of

if TYPE_CHECKING:
    from dfd_edge.inference.provider_options import ProviderOptions
    from dfd_edge.judging.results import FrameResult
    from dfd_edge.sources.frames import Frame

#: Test clip for judging: a swapped face, eight frames in a second and a half.
CLIP = Path(__file__).with_name("doctor.mp4")
_CLIP_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: What was checked.
        value: The result.
        fault: What is wrong and how to fix it, or None.
        exit_code: Exit code of the command where this fault prevents judging; else 0.
    """

    subject: str
    value: str
    fault: str | None = None
    exit_code: int = 0


def examine(
    model: Path | None = None,
    *,
    provider: str = "auto",
    options: ProviderOptions | None = None,
) -> int:
    """Checks the installation and prints the findings.

    Args:
        model: Bundle to check; the shipped one by default.
        provider: Provider that has to run.
        options: Options of the provider.

    Returns:
        0 when videos can be judged, else the exit code of the first fault.
    """
    code = 0
    reported: set[str] = set()
    for finding in findings(model, provider=provider, options=options):
        mark = click.style("FAULT", fg="red") if finding.exit_code else "     "
        if finding.fault and not finding.exit_code:
            mark = click.style("note ", fg="yellow")
        click.echo(f"{mark} {finding.subject:14} {finding.value}")
        if finding.fault:
            click.echo(f"{'':20} {'as above' if finding.fault in reported else finding.fault}")
            reported.add(finding.fault)
        code = code or finding.exit_code
    click.echo("Ready: videos can be judged." if code == 0 else "Not ready: see FAULT above.")
    return code


def findings(
    model: Path | None = None,
    *,
    provider: str = "auto",
    options: ProviderOptions | None = None,
) -> Iterator[Finding]:
    """Yields all findings, from the system to the display."""
    yield from _system()
    sound = True
    for finding in _libraries():
        sound = sound and not finding.exit_code
        yield finding
    if not sound:
        return  # the other checks need all libraries
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "onnxruntime": lambda: _providers(provider),
        "telemetry": _telemetry,
        "bundle": lambda: _bundle(model, provider, options),
        "decoding": _decoding,
        "detection": _detection,
        "judging": lambda: _judging(model, provider, options),
        "cameras": _cameras,
        "display": _display,
    }
    for subject, check in checks.items():
        try:
            yield from check()
        except DfdError as error:
            yield Finding(subject, "fails", str(error), error.exit_code)
        except Exception as error:  # a broken installation may raise anything
            mend = wrong_version() or (
                f"a damaged library, or one that dfd-edge was not tried with: {reinstall_advice()}"
            )
            fault = f"{type(error).__name__}: {error}: {mend}"
            yield Finding(subject, "fails", fault, DfdError.exit_code)


def _system() -> Iterator[Finding]:
    yield Finding("dfd-edge", version_of("dfd-edge") or "not installed (run from its sources)")
    cores = os.cpu_count() or 1
    yield Finding("python", f"{platform.python_version()}  {sys.executable}")
    yield Finding("machine", f"{platform.platform()}  {platform.machine()}  {cores} cores")


def _telemetry() -> Iterator[Finding]:
    wish = os.environ.get("ORT_DISABLE_TELEMETRY", "")
    off = wish.lower() in ("1", "true")
    fault = None if off else "onnxruntime reports to its maker: set ORT_DISABLE_TELEMETRY=1"
    yield Finding("telemetry", "off" if off else f"ORT_DISABLE_TELEMETRY is {wish!r}", fault)


def _libraries() -> Iterator[Finding]:
    for library in libraries():
        code = DfdError.exit_code if library.fault else 0
        yield Finding(library.name, library.value, library.fault or library.note, code)


def _providers(wanted: str) -> Iterator[Finding]:
    from dfd_edge.inference.installation import (
        installed_wheels,
        not_built_in,
        quiet_onnxruntime,
    )
    from dfd_edge.inference.names import parse_provider
    from dfd_edge.inference.providers import probe_providers

    wheels = installed_wheels()
    found = ", ".join(f"{name} {version}" for name, version in wheels.items()) or "none"
    try:
        from dfd_edge.faces.onnx_model import FACE_MODELS_DIR

        quiet_onnxruntime()
        probes = probe_providers(FACE_MODELS_DIR / "blazeface_full_range.onnx")
    except (ProviderError, ImportError) as error:
        yield Finding("onnxruntime", found, str(error), ProviderError.exit_code)
        return
    yield Finding("onnxruntime", found)
    for probe in probes:
        broken = None if probe.works else probe.detail
        asked = not probe.works and probe.provider in (wanted, "cpu")
        code = ProviderError.exit_code if asked else 0
        text = probe.detail if probe.works else "does not run"
        yield Finding(f"  {probe.provider}", text, broken, code)
    if wanted not in ("auto", *(probe.provider for probe in probes)):
        yield Finding(
            f"  {wanted}",
            "not in the installed onnxruntime",
            not_built_in(parse_provider(wanted)),
            ProviderError.exit_code,
        )


def _bundle(
    model: Path | None, provider: str, options: ProviderOptions | None
) -> Iterator[Finding]:
    from dfd_edge.bundle import Bundle

    try:
        bundle = Bundle.load(model)
    except BundleError as error:
        yield Finding("bundle", "refused", str(error), BundleError.exit_code)
        return
    where = f"{bundle.manifest.name}  {bundle.hash}  {bundle.path}"
    try:
        from dfd_edge.detector import Detector

        detector = Detector.load(model, provider=provider, options=options)
    except DfdError as error:
        yield Finding("bundle", where, str(error), error.exit_code)
        return
    yield Finding("bundle", where)
    report = detector.provider
    yield Finding("runs on", str(report), None if report else report.reason)
    yield Finding("precision", f"{report.precision}: {report.precision_reason}")


def _decoding() -> Iterator[Finding]:
    frames = _clip_frames()
    mend = f"run `pip install --force-reinstall '{requirement_of('av')}'`"
    if len(frames) != _CLIP_FRAMES:
        fault = f"{len(frames)} of {_CLIP_FRAMES} frames of a sound clip were decoded: {mend}"
        yield Finding("decoding", "fails", fault, DfdError.exit_code)
        return
    height, width = frames[0].image.shape[:2]
    yield Finding("decoding", f"{len(frames)} frames of {width}x{height}")
    from dfd_edge.sources.decoder import choose_decoder

    report = choose_decoder("auto")
    yield Finding("  on cuda", "may run" if report else f"not here: {report.reason}")


def _detection() -> Iterator[Finding]:
    from dfd_edge.faces.detector import FaceDetector

    detector = FaceDetector()
    frames = _clip_frames()
    found = sum(len(detector.detect(frame.image)) == 1 for frame in frames)
    value = f"a face in {found} of {len(frames)} frames"
    if found == len(frames) > 0:
        yield Finding("detection", value)
        return
    mend = f"run `pip install --force-reinstall '{requirement_of('onnxruntime')}'`"
    fault = f"each frame of the clip shows one face; onnxruntime computes wrongly here: {mend}"
    yield Finding("detection", value, fault, DfdError.exit_code)


def _judging(
    model: Path | None, provider: str, options: ProviderOptions | None
) -> Iterator[Finding]:
    from dfd_edge.detector import Detector

    results: list[FrameResult] = []
    with Detector.load(model, provider=provider, options=options) as detector:
        verdict = detector.analyze(CLIP, on_frame=results.append)
    people = [person for result in results for person in result.people if person.judged]
    for graph, scores in (
        ("frame graph", [person.p_frame for person in people]),
        ("sequence graph", [person.p_step for person in people]),
    ):
        if scores and all(score is not None and math.isfinite(score) for score in scores):
            yield Finding(graph, f"{len(scores)} scores")
            continue
        fault = f"gives no score ({detector.provider}): try `--provider cpu`, or another --model"
        yield Finding(graph, "fails", fault, ProviderError.exit_code)
    score = "-" if verdict.p_fake is None else f"{verdict.p_fake:.2f}"
    yield Finding("judging", f"the test clip, a face swap, is {verdict.label}, P(fake) {score}")


def _clip_frames() -> list[Frame]:
    from dfd_edge.sources.frames import FirstFrames
    from dfd_edge.sources.video import VideoFile

    with VideoFile(CLIP) as video:
        return list(video.frames(FirstFrames(2 * _CLIP_FRAMES)))


def _cameras() -> Iterator[Finding]:
    from dfd_edge.sources.camera import Camera, list_cameras

    cameras = list_cameras()
    if not cameras:
        yield Finding("cameras", "none found", None)
    for name in cameras:
        try:
            size = Camera.check(int(name) if name.isdigit() else name)
        except SourceError as error:
            yield Finding("camera", name, str(error))
        else:
            yield Finding("camera", f"{name}  gives {size[0]}x{size[1]}")


def _display() -> Iterator[Finding]:
    from dfd_edge.view.window import display_fault

    fault = display_fault()
    if fault is None:
        yield Finding("display", "windows can be opened")
    else:
        mend = "--webcam then prints to the terminal; --save-video works without a display"
        yield Finding("display", fault, mend)
