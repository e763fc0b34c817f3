"""`dfd-edge --doctor`: what is installed, what really works here, and how to mend the rest."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_edge.errors import BundleError, DfdError, ProviderError, SourceError
from dfd_edge.version import version_of

if TYPE_CHECKING:
    from dfd_edge.providers import ProviderOptions

_LIBRARIES = ("numpy", "opencv-python", "av", "click")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes:
        subject: What was looked at.
        value: What was found.
        fault: What is wrong and how to mend it, or None.
        exit_code: The command's exit code when this fault keeps it from judging; 0 otherwise.
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
    """Examines the installation and prints what it finds.

    Args:
        model: Bundle to check; the shipped one by default.
        provider: Provider that has to run.
        options: What is asked of it.

    Returns:
        0 when videos can be judged, else the exit code of the first fault.
    """
    code = 0
    told: set[str] = set()
    for finding in findings(model, provider=provider, options=options):
        mark = click.style("FAULT", fg="red") if finding.exit_code else "     "
        if finding.fault and not finding.exit_code:
            mark = click.style("note ", fg="yellow")
        click.echo(f"{mark} {finding.subject:14} {finding.value}")
        if finding.fault:
            click.echo(f"{'':20} {'the same' if finding.fault in told else finding.fault}")
            told.add(finding.fault)
        code = code or finding.exit_code
    click.echo("Ready: videos can be judged." if code == 0 else "Not ready: see FAULT above.")
    return code


def findings(
    model: Path | None = None,
    *,
    provider: str = "auto",
    options: ProviderOptions | None = None,
) -> Iterator[Finding]:
    """All findings, in the order in which a person would look."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _system,
        _libraries,
        lambda: _providers(provider),
        lambda: _bundle(model, provider, options),
        _cameras,
        _display,
    )
    for check in checks:
        yield from check()


def _system() -> Iterator[Finding]:
    yield Finding("dfd-edge", version_of("dfd-edge") or "not installed (run from its sources)")
    cores = os.cpu_count() or 1
    yield Finding("python", f"{platform.python_version()}  {sys.executable}")
    yield Finding("machine", f"{platform.platform()}  {platform.machine()}  {cores} cores")


def _libraries() -> Iterator[Finding]:
    for name in _LIBRARIES:
        version = version_of(name)
        fault = None if version else f"run `pip install {name}`"
        yield Finding(name, version or "not installed", fault, 0 if version else 1)
    headless = version_of("opencv-python-headless")
    if headless:
        yield Finding(
            "opencv",
            f"opencv-python-headless {headless} is installed too",
            "the two overwrite each other: run `pip uninstall -y opencv-python-headless "
            "opencv-python`, then `pip install opencv-python`",
        )


def _providers(wanted: str) -> Iterator[Finding]:
    from dfd_edge.providers import (  # noqa: PLC0415
        installed_wheels,
        not_built_in,
        parse_provider,
        probe_providers,
        quiet_onnxruntime,
    )

    wheels = installed_wheels()
    found = ", ".join(f"{name} {version}" for name, version in wheels.items()) or "none"
    try:
        from dfd_edge.faces.onnx_model import FACE_MODELS_DIR  # noqa: PLC0415

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
    from dfd_edge.bundle import Bundle  # noqa: PLC0415

    try:
        bundle = Bundle.load(model)
    except BundleError as error:
        yield Finding("bundle", "refused", str(error), BundleError.exit_code)
        return
    where = f"{bundle.manifest.name}  {bundle.hash}  {bundle.path}"
    try:
        from dfd_edge.detector import Detector  # noqa: PLC0415

        detector = Detector.load(model, provider=provider, options=options)
    except DfdError as error:
        yield Finding("bundle", where, str(error), error.exit_code)
        return
    yield Finding("bundle", where)
    report = detector.provider
    yield Finding("runs on", str(report), None if report else report.reason)
    yield Finding("precision", f"{report.precision}: {report.precision_reason}")


def _cameras() -> Iterator[Finding]:
    from dfd_edge.sources.camera import Camera, list_cameras  # noqa: PLC0415

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
    from dfd_edge.display import display_fault  # noqa: PLC0415

    fault = display_fault()
    if fault is None:
        yield Finding("display", "windows can be opened")
    else:
        mend = "--webcam then prints to the terminal; --save-video works without a display"
        yield Finding("display", fault, mend)
