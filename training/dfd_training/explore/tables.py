"""Charts of a table: its columns, labels, originals, and the files of its folder."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import PurePath

import pandas as pd

from dfd_edge.report.figures import FAKE_COLOUR, GREY, REAL_COLOUR, BarChart, Series
from dfd_training.data.table import FAKE, LABELS, REAL
from dfd_training.explore.charts import percent
from dfd_training.explore.columns import share
from dfd_training.explore.folder import FolderFiles

UNLABELLED = "no label"
"""Stands for the empty label of a file."""
GROUPS = (*LABELS, UNLABELLED)
LABEL_COLOURS = {REAL: REAL_COLOUR, FAKE: FAKE_COLOUR, UNLABELLED: GREY}
PATTERNS = {REAL: "", FAKE: "/", UNLABELLED: "-"}
_COLUMN_COLOUR = "#b58105"
#: Bars of a chart, without the one of all others.
MOST = 20
_MOST_ORIGINALS = 15


def table_charts(
    table: pd.DataFrame, columns: pd.DataFrame, folder: FolderFiles | None = None
) -> dict[str, BarChart]:
    """Returns the charts of a table, by name.

    Args:
        table: Rows with all columns and defaults, and `UNLABELLED` for an empty label.
        columns: Its summary from `summarise_columns`.
        folder: The files of its folder, where any is there.
    """
    charts = [_counts("extensions", "Rows by extension", table, extensions(table["path"]))]
    if folder is not None:
        charts.append(_folder_chart(folder))
    if columns["missing"].any():
        charts.append(_missing_chart(columns))
    charts.append(_unique_chart(columns))
    if (columns["times"] > 1).any():
        charts.append(_frequent_chart(columns))
    charts.append(label_counts("labels", "Labels", table, pd.Series("all files", table.index)))
    for column in ("dataset", "split"):
        if column in table and table[column].ne("").any():
            named = table[column].where(table[column] != "", f"no {column}")
            title = f"Labels by {'data set' if column == 'dataset' else column}"
            charts.append(label_counts(f"labels_by_{column}", title, table, named))
    charts.append(_shares("labels_by_source", "Labels by source", table, table["source"]))
    fakes = most_faked(table)
    if len(fakes):
        left = len(fakes) - _MOST_ORIGINALS
        shown, total = fakes.iloc[:_MOST_ORIGINALS], int(fakes.sum())
        charts.append(
            BarChart(
                name="originals",
                title="Originals with the most fakes",
                note=f"{len(fakes)} originals are named, {left} of them not drawn."
                if left > 0
                else "",
                categories=_names(shown.index),
                series=(
                    Series(
                        "fakes",
                        tuple(float(number) for number in shown),
                        LABEL_COLOURS[FAKE],
                        PATTERNS[FAKE],
                        shares=tuple(share(int(number), total) for number in shown),
                    ),
                ),
                axis="fakes (% of those that name an original)",
            )
        )
    return {chart.name: chart for chart in charts}


def _missing_chart(columns: pd.DataFrame) -> BarChart:
    """Draws the columns that lack values."""
    complete = columns["missing"] == 0
    columns = columns[~complete]
    note = f"{complete.sum()} columns are complete." if complete.any() else ""
    series = [
        Series(
            name,
            tuple(float(value) for value in columns[column]),
            colour,
            pattern,
            shares=tuple(float(value) for value in columns[f"{column}_percent"]),
        )
        for name, column, colour, pattern in (
            ("all rows", "missing", _COLUMN_COLOUR, ""),
            (REAL, "missing_real", LABEL_COLOURS[REAL], PATTERNS[REAL]),
            (FAKE, "missing_fake", LABEL_COLOURS[FAKE], PATTERNS[FAKE]),
        )
        if column in columns
    ]
    return BarChart(
        name="missing",
        title="Rows without a value",
        note=note,
        categories=tuple(columns["column"]),
        series=tuple(series),
        axis="rows (% of all, and of those with the label)",
    )


def _unique_chart(columns: pd.DataFrame) -> BarChart:
    values = columns["rows"] - columns["missing"]
    shares = tuple(share(u, n) for u, n in zip(columns["unique"], values, strict=True))
    return BarChart(
        name="unique",
        title="Different values",
        note="The share is that of the rows with a value.",
        categories=tuple(columns["column"]),
        series=(
            Series(
                "different values",
                tuple(float(number) for number in columns["unique"]),
                _COLUMN_COLOUR,
                shares=shares,
            ),
        ),
        axis="values",
    )


def _frequent_chart(columns: pd.DataFrame) -> BarChart:
    shown = columns[columns["times"] > 1]
    return BarChart(
        name="most_frequent",
        title="The most frequent value of each column",
        note="The share is that of the rows with a value.",
        categories=tuple(
            f"{row['column']}: {row['most_frequent']}" for row in shown.to_dict("records")
        ),
        series=(
            Series(
                "rows",
                tuple(float(number) for number in shown["times"]),
                _COLUMN_COLOUR,
                shares=tuple(float(value) for value in shown["percent"]),
            ),
        ),
        axis="rows",
    )


def _folder_chart(folder: FolderFiles) -> BarChart:
    counts = folder.extensions
    total = int(counts.to_numpy().sum())
    series = tuple(
        Series(
            name,
            tuple(float(number) for number in counts[name]),
            colour,
            pattern,
            shares=tuple(share(int(number), total) for number in counts[name]),
        )
        for name, colour, pattern in (
            ("with a row", _COLUMN_COLOUR, ""),
            ("without a row", GREY, "x"),
        )
    )
    return BarChart(
        name="extensions_of_the_folder",
        title="Files of the folder by extension",
        note=f"{total} files; the share is that of all.",
        categories=tuple(str(value) for value in counts.index),
        series=series,
        axis="files",
    )


def _names(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns file names, or whole paths where two files have one name."""
    paths = list(paths)
    names = [PurePath(path).name for path in paths]
    return tuple(names if len(set(names)) == len(names) else paths)


def _counts(name: str, title: str, rows: pd.DataFrame, by: pd.Series) -> BarChart:
    return stacked_counts(name, title, count_labels(rows, by), "files")


def stacked_counts(
    name: str, title: str, counts: pd.DataFrame, axis: str, *, upright: bool = False
) -> BarChart:
    """Returns a chart of the files of each label by a value, in one bar for each value.

    Args:
        name: Name of its files.
        title: A line above it.
        counts: From `count_labels`.
        axis: What is counted.
        upright: The values have an order, and all are drawn.
    """
    total = int(counts.to_numpy().sum())
    if not upright:
        counts = _without_rest(counts)
    return BarChart(
        name=name,
        title=title,
        note="",
        categories=tuple(str(value) for value in counts.index),
        series=tuple(
            Series(
                label,
                tuple(float(number) for number in counts[label]),
                LABEL_COLOURS[label],
                PATTERNS[label],
            )
            for label in GROUPS
            if label in counts and counts[label].any()
        ),
        axis=axis,
        details=() if upright else _details(counts, total),
        upright=upright,
        stacked=True,
    )


def label_counts(name: str, title: str, table: pd.DataFrame, by: pd.Series) -> BarChart:
    """Returns a chart of the files of each label by a value, side by side, with their shares."""
    counts = _without_rest(count_labels(table, by))
    totals = counts.sum(axis=1)
    series = tuple(
        Series(
            label,
            tuple(float(number) for number in counts[label]),
            LABEL_COLOURS[label],
            PATTERNS[label],
            shares=tuple(share(n, total) for n, total in zip(counts[label], totals, strict=True)),
        )
        for label in GROUPS
        if label in counts
    )
    return BarChart(
        name=name,
        title=title,
        note="",
        categories=tuple(str(value) for value in counts.index),
        series=series,
        axis="files",
        details=tuple(
            f"{total} files" + ("" if len(counts) == 1 else f", {share(total, len(table)):g} %")
            for total in totals
        ),
    )


def _shares(name: str, title: str, table: pd.DataFrame, by: pd.Series) -> BarChart:
    """Returns shares of the labels in percent, with the numbers of files."""
    counts = _without_rest(count_labels(table, by))
    totals = counts.sum(axis=1)
    series = []
    for label in GROUPS:
        if label not in counts:
            continue
        shares = 100 * counts[label] / totals
        pairs = zip(shares, counts[label], strict=True)
        texts = tuple(f"{label} {percent(share / 100)}" if n else "" for share, n in pairs)
        values = tuple(round(float(share), 2) for share in shares)
        series.append(Series(label, values, LABEL_COLOURS[label], PATTERNS[label], texts))
    return BarChart(
        name=name,
        title=title,
        note="",
        categories=tuple(str(value) for value in counts.index),
        series=tuple(series),
        axis="% of the files",
        details=tuple(_numbers(row) for row in counts.to_dict("records")),
        stacked=True,
    )


def _without_rest(counts: pd.DataFrame) -> pd.DataFrame:
    """Returns the largest rows, and one for the sum of all others where there are many."""
    if len(counts) <= MOST + 1:
        return counts
    rest = counts.iloc[MOST:].sum().rename(f"{len(counts) - MOST} others")
    return pd.concat([counts.iloc[:MOST], rest.to_frame().T])


def _details(counts: pd.DataFrame, total: int) -> tuple[str, ...]:
    """Returns each row in words, such as "15 files (60 %): 12 REAL, 3 FAKE"."""
    return tuple(
        f"{sum(row.values())} files ({share(sum(row.values()), total):g} %): {_numbers(row)}"
        for row in counts.to_dict("records")
    )


def _numbers(row: dict[Hashable, int]) -> str:
    """Returns files of each label in words, such as "12 REAL, 3 FAKE"."""
    return ", ".join(f"{number} {label}" for label, number in row.items() if number)


def count_labels(table: pd.DataFrame, by: pd.Series) -> pd.DataFrame:
    """Counts the files of each label by a value.

    Args:
        table: Rows with a `label`, one of `GROUPS`.
        by: A value for each row.

    Returns:
        One row for each value, the most frequent first; the columns `REAL` and `FAKE`, and
        `UNLABELLED` where a file has no label; that alone where none has one.
    """
    given = set(table["label"])
    columns = [UNLABELLED] if given == {UNLABELLED} else list(LABELS)
    columns += [UNLABELLED] if UNLABELLED in given and len(columns) > 1 else []
    counts = pd.crosstab(by.rename("value"), table["label"]).reindex(columns=columns, fill_value=0)
    order = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return counts.loc[order]


def extensions(paths: pd.Series) -> pd.Series:
    """Returns the suffix of each file's name in small letters, or "none"."""
    return paths.map(lambda path: PurePath(path).suffix.lower() or "none")


def most_faked(table: pd.DataFrame) -> pd.Series:
    """Counts the fakes of each original, the most first; originals without fakes are left out."""
    fakes = table["original"][(table["label"] == FAKE) & (table["original"] != "")]
    counts = fakes.value_counts(sort=False)
    return counts.sort_values(ascending=False, kind="stable")
