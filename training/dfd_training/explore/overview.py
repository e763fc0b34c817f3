"""What can be said of a table without opening a file."""

from __future__ import annotations

from pathlib import PurePath

import pandas as pd

from dfd_training.data.table import LABELS

_LONGEST_VALUE = 60


def summarise_columns(raw: pd.DataFrame) -> pd.DataFrame:
    """How complete and how varied each column is.

    Args:
        raw: the table as it was written, as `read_csv_text` gives it: `read_table` fills in what
            can be told from other columns.

    Returns:
        Columns `column`, `rows`, `missing`, `missing_percent`, `unique` (different values),
        `most_frequent`, `times`, `percent` (of the rows that have a value).
    """
    rows = []
    for name in raw:
        values = raw[name][raw[name] != ""]
        counts = values.value_counts()
        most, times = (str(counts.index[0]), int(counts.iloc[0])) if len(counts) else ("", 0)
        rows.append(
            {
                "column": name,
                "rows": len(raw),
                "missing": len(raw) - len(values),
                "missing_percent": round(100 * (1 - len(values) / len(raw)), 2),
                "unique": len(counts),
                "most_frequent": most,
                "times": times,
                "percent": round(100 * times / len(values), 2) if len(values) else 0.0,
            }
        )
    return pd.DataFrame(rows)


def count_labels(table: pd.DataFrame, by: pd.Series) -> pd.DataFrame:
    """Files of each label by some value of theirs.

    Args:
        table: as `read_table` gives it.
        by: a value for each row.

    Returns:
        One row a value, that with the most files first; the columns `REAL` and `FAKE`.
    """
    counts = pd.crosstab(by.rename("value"), table["label"]).reindex(
        columns=list(LABELS), fill_value=0
    )
    order = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return counts.loc[order]


def extensions(table: pd.DataFrame) -> pd.Series:
    """The suffix of each file's name in small letters, or "none"."""
    return table["path"].map(lambda path: PurePath(path).suffix.lower() or "none")


def most_faked(table: pd.DataFrame) -> pd.Series:
    """How many fakes were made of each original, the most first; originals without any left out."""
    fakes = table["original"][(table["label"] == "FAKE") & (table["original"] != "")]
    return fakes.value_counts(sort=True)


def shortened(text: str, length: int = _LONGEST_VALUE) -> str:
    """A text that is at most so long; the middle of a longer one is left out."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def percent(share: float) -> str:
    """A share in percent, with a digit after the point where it is not whole."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
