"""`dfd-edge`: judges videos, images and cameras from the command line."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dfd_edge.cli.options import (
    provenance_flags,
    provider_flags,
    source_flags,
    take_provider_flags,
    take_source_flags,
)
from dfd_edge.errors import BrokenOutput, DfdError, is_out_of_memory
from dfd_edge.inference.machine_settings import settings_flag
from dfd_edge.inference.threads import MAX_THREADS
from dfd_edge.judging.results import Label
from dfd_edge.libraries import check_opencv, import_advice
from dfd_edge.version import own_version

_FIRST_CAMERA = "0"
_EPILOG = (
    "Exit codes: 0 done; 1 a source failed (the others were still done); 2 usage; 3 --fail-on "
    "matched; 4 the provider asked for cannot run; 5 the bundle was refused."
)


class _Positive(click.FloatRange):
    """A number above 0 that is neither infinite nor "not a number"."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        try:
            number = float(super().convert(float(value), param, ctx))
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


_POSITIVE = _Positive()


def _labels(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> frozenset[Label]:
    labels = set() if text is None else {label.strip() for label in text.split(",")}
    if unknown := sorted(labels - set(Label)):
        raise click.BadParameter(f"{unknown[0]!r} is no label; labels are {', '.join(Label)}")
    return frozenset(Label(label) for label in labels)


def _cameras(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[int | str, ...]:
    return tuple(_camera(value) for value in values)


def _camera(value: str) -> int | str:
    if value.isdigit():
        return int(value)
    if value.startswith("/dev/"):
        return value
    from dfd_edge.sources.address import redact

    if redact(value) != value or "://" in value:
        raise click.BadParameter(
            f"{redact(value)} is an address, not a camera number: leave --webcam out and give the "
            "address alone"
        )
    if Path(value).exists() or Path(value).suffix:
        raise click.BadParameter(
            f"{value!r} is a file, not a camera number: to judge the file, run `dfd-edge {value}`; "
            f"to judge it beside the first camera, `dfd-edge {value} --webcam`"
        )
    raise click.BadParameter(f"{value!r} is no camera: give a number such as 0, or /dev/video0")


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"dfd-edge {own_version()}")
        context.exit()


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", nargs=-1)
@click.option(
    "--webcam",
    "cameras",
    is_flag=False,
    flag_value=_FIRST_CAMERA,
    multiple=True,
    metavar="[INDEX]",
    callback=_cameras,
    help="Watch a camera, the first one by default. Repeatable.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Folder of the bundle; the shipped one by default.",
)
@settings_flag
@provider_flags
@click.option(
    "--rate",
    "rate_hz",
    type=_POSITIVE,
    metavar="HZ",
    help="Frames judged per second; the bundle's own rate by default.",
)
@click.option(
    "--policy",
    type=click.Choice(["every", "latest"]),
    help="Live sources: judge every due frame, or only the newest.",
)
@click.option(
    "--max-staleness",
    "max_staleness_ms",
    type=_POSITIVE,
    metavar="MS",
    help="Live sources: drop frames that waited longer.",
)
@click.option(
    "--duration",
    "duration_s",
    type=_POSITIVE,
    metavar="S",
    help="Judge only the first S seconds of each source.",
)
@click.option(
    "--frames",
    "max_frames",
    type=int,
    metavar="N",
    help="Judge files at N moments spread over each, reached by seeking, instead of throughout.",
)
@click.option(
    "--scan",
    is_flag=True,
    help="Search files for passages that look fake: a moment every 2 s, then all round what looked "
    "fake or unsure.",
)
@click.option(
    "--faces",
    default="all",
    show_default=True,
    metavar="all|largest|N",
    help="Judge all faces, the largest, or those of N pixels and more; others are only drawn.",
)
@click.option(
    "--cropped",
    is_flag=True,
    help="Images are face crops already: one in which no face is found is judged as it is.",
)
@source_flags
@provenance_flags
@click.option(
    "--jobs",
    type=click.IntRange(min=1, max=MAX_THREADS),
    metavar="N",
    help="Files judged at once, in the order given; by default one for each core.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines on standard output.")
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a row for each person in each judged frame.",
)
@click.option(
    "--save-video",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write an annotated video of the one source.",
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write a page that shows and explains the verdicts.",
)
@click.option(
    "--sign",
    type=(click.Path(path_type=Path), click.Path(path_type=Path)),
    metavar="CERT KEY",
    help="Sign the annotated video, and the report in a .c2pa file beside it, as C2PA manifests "
    "that name their origin; PEM files, the key without a passphrase.",
)
@click.option(
    "--webhook",
    metavar="URL",
    help="Post a JSON object to URL when a live label changes, and for each verdict.",
)
@click.option(
    "--window/--no-window",
    default=None,
    help="Show annotated frames; by default for live sources where there is a display. Keys: q or "
    "Esc quits, space or p pauses, e switches the evidence map, s saves a still, h or ? lists "
    "them.",
)
@click.option(
    "--fail-on",
    callback=_labels,
    metavar="LABEL[,LABEL]",
    help="Exit with 3 when a verdict is one of these labels.",
)
@click.option("--doctor", is_flag=True, help="Check this installation and machine.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print more on standard error.")
def command(doctor: bool, **options: Any) -> None:  # noqa: ANN401 - each is typed in RunRequest
    """Judges whether the faces in videos, images and live streams are real or deepfaked.

    SOURCES are files, images, folders, http/rtsp/udp addresses, or - for a video (or, with
    --raw, frames) on standard input.
    """
    level = logging.INFO if options["verbose"] else logging.WARNING
    logging.basicConfig(level=level, format="dfd-edge: %(message)s")
    try:
        provider_options = take_provider_flags(options)
        if doctor:
            from dfd_edge.cli.doctor import examine

            provider, model = options["provider"], options["model"]
            sys.exit(examine(model, provider=provider, options=provider_options))
        check_opencv()
        from dfd_edge.faces.selection import parse_faces

        on_nvidia = options["provider"] in {"cuda", "tensorrt"}
        source_options = take_source_flags(
            options, device=provider_options.device_number if on_nvidia else 0
        )
        options["faces"] = parse_faces(options["faces"])
        from dfd_edge.cli.judge import judge
        from dfd_edge.cli.run import RunRequest

        request = RunRequest(
            provider_options=provider_options, source_options=source_options, **options
        )
        sys.exit(judge(request))
    except BrokenPipeError:
        _leave_output()
        sys.exit(BrokenOutput.exit_code)
    except BrokenOutput as error:
        _leave_output()
        sys.exit(error.exit_code)
    except DfdError as error:
        _complain(str(error))
        sys.exit(error.exit_code)


def main() -> None:
    """Entry point of the console script."""
    _fill_descriptors()
    # NumPy's OpenBLAS starts a thread for each core as it is loaded, which costs a fifth of the
    # processor time of all imports; nothing here multiplies matrices large enough for two.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.stdout is None:
        _complain(
            "standard output is closed, and verdicts go there: redirect it, to /dev/null where "
            "they are not wanted"
        )
        sys.exit(1)
    try:
        command(prog_name="dfd-edge")
    except ImportError as error:
        _complain(import_advice(error))
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):  # which no thread can be started for either
            raise
        _complain("there is not enough memory")
        sys.exit(1)
    except OSError as error:
        # Errors of files are reported where they occur; what is left is standard output.
        _complain(f"standard output cannot be written ({error.strerror})")
        _leave_output()
        sys.exit(1)


def _fill_descriptors() -> None:
    """Opens the null device in place of closed standard streams.

    Otherwise the next opened file takes their number, and messages of libraries on standard error
    end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for good


def _complain(error: str) -> None:
    """Prints an error, if standard error can be written."""
    if not error.isprintable():
        with contextlib.suppress(Exception):  # the error may be about what this imports
            from dfd_edge.text import printable

            error = printable(error)
    with contextlib.suppress(OSError):
        click.echo(f"dfd-edge: error: {error}", err=True)


def _leave_output() -> None:
    """Discards what standard output still buffers, as it cannot be written at the exit either."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())


if __name__ == "__main__":
    main()
