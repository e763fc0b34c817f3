"""Evaluations as Markdown, JSON and CSV files: writing them and reading them back."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd

from dfd_edge.bundle.manifest import CardInfo, Metric
from dfd_edge.errors import UsageError
from dfd_edge.judging.results import Label
from dfd_edge.schema import SchemaError
from dfd_edge.sinks.files import written_whole
from dfd_training.data.table import COLUMNS
from dfd_training.evaluation.evaluate import Evaluation, Report
from dfd_training.evaluation.statistics import METRICS

T = TypeVar("T")

VERDICTS = (Label.REAL.value, Label.UNSURE.value, Label.FAKE.value, Label.NO_FACE.value, "error")
_TEXT = (*COLUMNS, "error")
_FILE_COLUMNS = ("path", "label", "group", "source", "kind", "verdict", "p_fake", "cnn", "gru")
_FRAME_COLUMNS = ("path", "time_s", "track", "p_frame", "p_step")


def to_text(report: Report) -> str:
    """Returns the report as Markdown tables; intervals are 95 %, over groups."""
    lines: list[str] = []
    for section in report.sections:
        lines += [f"### {section.title}", ""]
        names = list(next(iter(section.rows.values())))
        lines.append("| score | n | groups | " + " | ".join(METRICS[n].name for n in names) + " |")
        lines.append("|---|---:|---:|" + "---|" * len(names))
        for score, figures in section.rows.items():
            first = figures[names[0]]
            values = " | ".join(str(figures[name]) for name in names)
            lines.append(f"| {score} | {first.n} | {first.groups} | {values} |")
        lines.append("")
    lines += ["### Verdicts", ""]
    lines.append("| files | n | " + " | ".join(VERDICTS) + " | called fake, upper bound |")
    lines.append("|---|---:|" + "---:|" * (len(VERDICTS) + 1))
    for row in report.verdicts:
        counts = " | ".join(str(row.counts.get(label, 0)) for label in VERDICTS)
        lines.append(f"| {row.name} | {row.n} | {counts} | {row.called_fake_upper:.3f} |")
    lines.append("")
    lines += [
        f"Pairs of {pairs.kind}s won (a fake above its own original): {pairs.won} of {pairs.n}"
        for pairs in report.pairs
    ]
    lines += [f"Left out: {reason}" for reason in report.left_out]
    lines += [f"Not judged: {path}: {error}" for path, error in report.errors.items()]
    return "\n".join(lines) + "\n"


def to_json(report: Report, facts: dict[str, Any]) -> str:
    """Returns the report as JSON; figures that could not be computed are null."""
    return json.dumps(plain({**facts, **plain(report)}), indent=2) + "\n"


def write_report(evaluation: Evaluation, report: Report, out: Path, facts: dict[str, Any]) -> None:
    """Writes `evaluation.json`, `evaluation.md`, `files.csv` and `frames.csv` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "evaluation.json": to_json(report, facts),
        "evaluation.md": to_text(report),
        "files.csv": evaluation.files.to_csv(index=False),
        "frames.csv": evaluation.frames.to_csv(index=False),
    }
    for name, text in texts.items():
        with written_whole(out / name) as partial:
            partial.write_text(text, "utf-8", newline="\n")


def read_evaluation(folder: Path) -> Evaluation:
    """Reads the files and frames that `write_report` wrote.

    Raises:
        UsageError: a table is missing, or lacks columns.
    """
    tables: list[pd.DataFrame] = []
    for name, columns in (("files.csv", _FILE_COLUMNS), ("frames.csv", _FRAME_COLUMNS)):
        path = folder / name
        try:
            table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: not a table of dfd-train evaluate ({error})") from error
        if missing := [column for column in columns if column not in table]:
            raise UsageError(f"{path}: columns {missing} are missing: run dfd-train evaluate again")
        texts = [column for column in _TEXT if column in table]
        table[texts] = table[texts].fillna("")
        tables.append(table)
    return Evaluation(*tables)


def read_card(path: Path) -> CardInfo:
    """Reads the card.json that `dfd-train calibrate` wrote.

    Raises:
        UsageError: The file is missing or holds no card.
    """
    try:
        return CardInfo.from_json(path.read_text("utf-8"))
    except (OSError, SchemaError) as error:
        raise UsageError(f"{path}: not a card.json of dfd-train calibrate: {error}") from error


def card_metrics(report: Report, rows: str) -> dict[str, Metric]:
    """Returns the figures that belong on the model's card, by name.

    Those of single generators, of a few clips each, stay in the evaluation.

    Args:
        report: Report of the evaluation.
        rows: Name of the evaluated rows, such as "validation rows".
    """
    metrics: dict[str, Metric] = {}
    for section in report.sections:
        if section.title.startswith("clips: ") and not section.title.startswith("clips: fakes"):
            continue
        for score, figures in section.rows.items():
            for name, figure in figures.items():
                if not math.isnan(figure.value):
                    title = f"{rows}, {section.title}, {METRICS[name].name} ({score})"
                    metrics[title] = figure.to_metric()
    for pairs in report.pairs:
        # Cards have called those of clips so since before photographs had pairs.
        of = "" if pairs.kind == "clip" else f"{pairs.kind}s, "
        metrics[f"{rows}, {of}pairs won (share of fakes above their own original)"] = Metric(
            value=round(pairs.won / pairs.n, 4), n=pairs.n
        )
    for row in report.verdicts:
        if row.name.startswith("all "):
            for label in (Label.FAKE.value, Label.UNSURE.value):
                upper = round(row.called_fake_upper, 4) if label == Label.FAKE.value else None
                metrics[f"{rows}, {row.name}: share called {label}"] = Metric(
                    value=round(row.counts.get(label, 0) / row.n, 4), high=upper, n=row.n
                )
    return metrics


def plain(value: Any) -> Any:  # noqa: ANN401 - plain JSON values
    """Converts dataclasses to dicts and NaN to None, as JSON needs it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes figures as JSON, whole or not at all; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        partial.write_text(json.dumps(plain(content), indent=1) + "\n", "utf-8")


def read_figures(path: Path, key: str, kind: type[T]) -> T:
    """Reads an object that `write_json` wrote, as dataclasses.

    Args:
        path: The JSON file.
        key: Key of the object in it.
        kind: A dataclass, or a list of one.

    Raises:
        UsageError: The file is not from these commands, or from another version.
    """
    try:
        return cast(T, _revived(kind, json.loads(path.read_text("utf-8"))[key]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: no {key} of this version in it ({error!r:.80}): run the command that writes "
            "it again"
        ) from error


def _revived(kind: Any, value: Any) -> Any:  # noqa: ANN401 - types and JSON values
    """Converts JSON to a dataclass; null becomes NaN where a float belongs."""
    if typing.get_origin(kind) is list:
        return [_revived(typing.get_args(kind)[0], item) for item in value]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {name: _revived(hints[name], item) for name, item in value.items()}
        return cast(type[Any], kind)(**fields)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    return math.nan if kind is float and value is None else value


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
