"""Timeline of a person as a plotly figure."""

from __future__ import annotations

from dfd_edge.bundle.manifest import DecisionSpec
from dfd_edge.judging.results import Label, Record
from dfd_edge.report.collector import Point, Series
from dfd_edge.report.figures import FAKE_COLOUR, REAL_COLOUR, Figure
from dfd_edge.report.words import threshold

_SCORE_COLOUR = "#9061d6"
_FRAME_COLOUR = "#8a929c"
_STEP_COLOUR = "#2f9e76"
_GAP_S = 1.0
_BELOW_AXIS = -0.06
_ROOM = 0.2


def timeline(
    series: Series, person: Record, spec: DecisionSpec, *, step_s: float, end_s: float
) -> Figure:
    """Returns the figure of a person's scores over time.

    Args:
        series: The scores.
        person: The person's entry in the `verdict` record; its intervals are shaded.
        spec: Thresholds, drawn as lines.
        step_s: Seconds between two sampled frames; the line is interrupted where no frame was
            judged for more than a second.
        end_s: Seconds seen of the source, the end of the axis.

    Returns:
        `data` and `layout` in plotly's schema, ready for `json.dumps`. The page sets the colours of
        text and grid.
    """
    gap_s = max(_GAP_S, 1.5 * step_s * series.every)
    judged = [point for point in series if point.p_frame is not None]
    passed = [point for point in series if point.reason is not None]
    times, scores, steps = _broken(judged, gap_s)
    last_s = _seconds(max(end_s, step_s, *(point.time_s for point in series)))
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "single frames",
            "x": [_seconds(point.time_s) for point in judged],
            "y": [_probability(point.p_frame) for point in judged],
            "marker": {"size": 5, "color": _FRAME_COLOUR, "symbol": "circle-open"},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "sequence model",
            "x": times,
            "y": steps,
            "line": {"width": 1.5, "color": _STEP_COLOUR, "dash": "dot"},
            "visible": "legendonly",
        },
        {
            "type": "scatter",
            "mode": "lines" if len(judged) > 1 else "markers",
            "name": f"last {spec.window_s:g} s together",
            "x": times,
            "y": scores,
            "line": {"width": 3, "color": _SCORE_COLOUR},
        },
    ]
    if passed:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "not judged",
                "x": [_seconds(point.time_s) for point in passed],
                "y": [_BELOW_AXIS] * len(passed),
                "text": [point.reason for point in passed],
                "hovertemplate": "%{text}",
                "marker": {"size": 6, "color": _FRAME_COLOUR, "symbol": "x-thin-open"},
            }
        )
    limits = (("fake from", Label.FAKE, FAKE_COLOUR), ("real up to", Label.REAL, REAL_COLOUR))
    layout: Figure = {
        "height": 320,
        "margin": {"l": 48, "r": 12, "t": 44, "b": 44},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "seconds"}, "zeroline": False, "range": [0.0, last_s]},
        "yaxis": {
            "title": {"text": "P(fake)"},
            "range": [-0.1, 1.08],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "zeroline": False,
        },
        "shapes": [
            *(_shade(start, end) for start, end in person["intervals"]),
            *(_line(spec, label, colour) for _, label, colour in limits),
        ],
        "annotations": [_note(text, spec, label) for text, label, _ in limits],
    }
    return {"data": data, "layout": layout}


def timeline_words(person: Record, series: Series) -> str:
    """Returns a text alternative of the figure."""
    scores = [point.p_fake for point in series if point.p_fake is not None]
    if not scores:
        return "No frame of this person was judged."
    return (
        f"Scores of person {person['track']} over time: from {min(scores):.2f} to "
        f"{max(scores):.2f}, at the end {scores[-1]:.2f}."
    )


def _broken(
    points: list[Point], gap_s: float
) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """Returns times, scores and step scores, with a None at each gap of the line."""
    times: list[float | None] = []
    scores: list[float | None] = []
    steps: list[float | None] = []
    last_s: float | None = None
    for point in points:
        if last_s is not None and point.time_s - last_s > gap_s:
            times.append(None)
            scores.append(None)
            steps.append(None)
        times.append(_seconds(point.time_s))
        scores.append(_probability(point.p_fake))
        steps.append(_probability(point.p_step))
        last_s = point.time_s
    return times, scores, steps


def _shade(start_s: float, end_s: float) -> Figure:
    return {
        "type": "rect",
        "layer": "below",
        "xref": "x",
        "yref": "paper",
        "x0": start_s,
        "x1": end_s,
        "y0": 0,
        "y1": 1,
        "fillcolor": FAKE_COLOUR,
        "opacity": 0.2,
        "line": {"width": 1, "color": FAKE_COLOUR},
    }


def _line(spec: DecisionSpec, label: Label, colour: str) -> Figure:
    at = spec.thresholds[label.value].probability
    dash = "dash" if label is Label.FAKE else "dot"
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": at,
        "y1": at,
        "line": {"width": 2, "color": colour, "dash": dash},
    }


def _note(text: str, spec: DecisionSpec, label: Label) -> Figure:
    """Returns the annotation of a threshold: between the two lines where there is room."""
    fake, real = (spec.thresholds[name].probability for name in ("fake", "real"))
    above = (label is Label.FAKE) is (fake - real < _ROOM)
    return {
        "text": f"{text} {threshold(spec, label)}",
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": spec.thresholds[label.value].probability,
        "yanchor": "bottom" if above else "top",
        "showarrow": False,
    }


def _seconds(value: float) -> float:
    return round(value, 3)


def _probability(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
