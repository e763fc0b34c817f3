"""The course of a soak as a picture: what the process held, and how long results took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfd_benchmarks.results.schema import figures_of, read_record
from dfd_edge.errors import UsageError
from dfd_edge.sinks.files import written_whole

_INCHES, _DPI = (8.0, 5.6), 100
_COLOURS = ("#2f6db0", "#d98632")
#: Above each other: the axis' label, the fields of a window and what they are called.
_PANELS = (
    ("memory, MB", {"memory_mb": "resident memory"}),
    ("count", {"threads": "threads", "descriptors": "open descriptors"}),
    ("latency, ms", {"p50_ms": "p50", "p99_ms": "p99"}),
    ("CPU, ms", {"cpu_ms": "CPU time per judged frame"}),
)


def draw_soak(path: Path, out: Path, *, title: str = "") -> None:
    """Draws the windows of a soak over its length.

    Args:
        path: A file that `dfd-bench soak --json` wrote.
        out: A PNG or SVG file.
        title: The title.

    Raises:
        UsageError: The file is no result of a soak, or the picture cannot be written.
    """
    record = read_record(path)
    kind, windows = record["benchmark"], record["details"].get("windows")
    if kind not in {"soak pushed", "soak live"} or not windows:
        some = next(iter(figures_of(record, path)), "NAME")
        raise UsageError(
            f"{path}: a result of {kind}, not of soak: name figures, as in --figure '{some}'"
        )
    if out.suffix.lower() not in {".png", ".svg"}:
        raise UsageError(f"{out}: give a file that ends in .png or .svg")
    import matplotlib as mpl  # noqa: PLC0415 - only drawing needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(
        len(_PANELS), 1, figsize=_INCHES, sharex=True, layout="constrained"
    )
    live = kind == "soak live"
    places = [window["frames"] / (60.0 if live else 1e3) for window in windows]
    for axes, (label, fields) in zip(panels, _PANELS, strict=True):
        _draw_panel(axes, places, windows, label, fields)
    panels[-1].set_xlabel("minutes" if live else "thousand frames pushed")
    panels[0].set_title(title or f"dfd-bench {kind}", loc="left")
    try:
        with written_whole(out) as partial:
            figure.savefig(partial, format=out.suffix[1:].lower(), dpi=_DPI)
    finally:
        plt.close(figure)


def _draw_panel(
    axes: Any,  # noqa: ANN401 - matplotlib's axes
    places: list[float],
    windows: list[dict[str, Any]],
    label: str,
    fields: dict[str, str],
) -> None:
    highest = 0.0
    for colour, (field, name) in zip(_COLOURS, fields.items(), strict=False):
        values = [window[field] for window in windows]
        axes.plot(places, values, color=colour, linewidth=1.1, label=name)
        highest = max(highest, *values)
    # From zero, so that what is flat looks flat.
    axes.set_ylim(0, 1.4 * highest)
    axes.set_ylabel(label)
    axes.legend(frameon=False, loc="upper right", ncols=2, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.3)
