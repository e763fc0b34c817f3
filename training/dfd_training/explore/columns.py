"""How complete and how varied the columns of a table are."""

from __future__ import annotations

import pandas as pd

from dfd_training.data.table import FAKE, LABELS, REAL

_VALUES_LISTED = 5


def summarise_columns(raw: pd.DataFrame) -> pd.DataFrame:
    """Summarises how complete and how varied each column is.

    Args:
        raw: The table as written, with a column `label` or without one: `with_defaults` fills in
            values that follow from other columns.

    Returns:
        Columns `column`, `type`, `rows`, `missing`, `missing_percent`, the same two for the rows
        of each label (such as `missing_real`), `unique` (different values), `most_frequent`,
        `times`, `percent` (of the rows that have a value).
    """
    labels = _labels_in(raw)
    rows = []
    for name in raw:
        values = raw[name][raw[name] != ""]
        counts = values.value_counts()
        most, times = (str(counts.index[0]), int(counts.iloc[0])) if len(counts) else ("", 0)
        row = {
            "column": name,
            "type": type_of(values),
            "rows": len(raw),
            "missing": len(raw) - len(values),
            "missing_percent": share(len(raw) - len(values), len(raw)),
        }
        for label in labels:
            some = raw[name][raw["label"] == label]
            missing = int((some == "").sum())
            row[f"missing_{label.lower()}"] = missing
            row[f"missing_{label.lower()}_percent"] = share(missing, len(some))
        row |= {
            "unique": len(counts),
            "most_frequent": most,
            "times": times,
            "percent": share(times, len(values)),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def type_of(values: pd.Series) -> str:
    """Returns what the values of a column are: text, number, whole number, yes or no, or nothing.

    Args:
        values: Those that are not empty, as text.
    """
    if values.empty:
        return "nothing"
    if values.isin(["yes", "no"]).all():
        return "yes or no"
    if values.str.fullmatch(r"[+-]?\d+").all():
        return "whole number"
    return "number" if pd.to_numeric(values, errors="coerce").notna().all() else "text"


def share(part: int, whole: int) -> float:
    """Returns a share in percent, to two digits after the point; 0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0


def _labels_in(raw: pd.DataFrame) -> list[str]:
    """Returns the labels that a table as written has; none where it has no column of them."""
    return [label for label in LABELS if "label" in raw and (raw["label"] == label).any()]


def missing_sentences(raw: pd.DataFrame) -> list[str]:
    """Returns how far a missing value stands for a label, a sentence for each such column.

    In DFDC's metadata a clip without an original is real. The hypothesis is checked on every row
    for `original`, and named for other columns where it holds throughout.

    Args:
        raw: The table as written.
    """
    sentences = []
    known = raw[raw["label"].isin(LABELS)] if "label" in raw else raw[:0]
    for name in raw:
        empty = known[name] == ""
        if empty.all() or not empty.any() or known["label"].nunique() < 2:
            continue
        for label, other in ((REAL, FAKE), (FAKE, REAL)):
            own = known["label"] == label
            right = int((empty == own).sum())
            if right < len(known) and (name, label) != ("original", REAL):
                continue
            holds = "holds for every row" if right == len(known) else "does not hold for every row"
            sentences.append(
                f"Missing {name} = {label}: {holds}. {int((empty & own).sum())} of "
                f"{int(own.sum())} {label} rows have none, and {int((empty & ~own).sum())} of "
                f"{int((~own).sum())} {other} rows."
            )
    return sentences


def frequent_values(raw: pd.DataFrame) -> pd.DataFrame:
    """Returns the most frequent values of every column, those that occur more than once.

    Args:
        raw: The table as written.

    Returns:
        Columns `column`, `value`, `times`, `percent` (of the rows that have a value).
    """
    rows = []
    for name in raw:
        values = raw[name][raw[name] != ""]
        counts = values.value_counts()
        for value, times in counts[counts > 1][:_VALUES_LISTED].items():
            cells = {"column": name, "value": value, "times": times}
            rows.append({**cells, "percent": share(int(times), len(values))})
    return pd.DataFrame(rows, columns=["column", "value", "times", "percent"])
