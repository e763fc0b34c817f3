"""Writing of the tables of `dfd-train data`: last checks, the file, its counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd

from dfd_edge.errors import UsageError
from dfd_training.data.splitting import tally
from dfd_training.data.table import check_classes, check_sides, with_defaults, write_table


def finish(table: pd.DataFrame, out: Path, *, sources: Sequence[Path], one_class: bool) -> None:
    """Writes a table and prints its counts.

    Args:
        table: The rows, from `check_rows`.
        out: The new table.
        sources: Files that were read, none of which is replaced.
        one_class: Accept a table without reals or without fakes.

    Raises:
        UsageError: A class is missing, something stands on both sides of a split, or `out` cannot
            be written or was read.
    """
    refuse_own(out, sources)
    if not one_class:
        try:
            check_classes(str(out), table)
        except UsageError as error:
            raise UsageError(f"{error}; --one-class accepts that") from error
    check_sides(str(out), with_defaults(table))
    write_table(table, out)
    click.echo(f"{len(table)} rows in {out}")
    for line in (*tally(table), *_absent_originals(table)):
        click.echo(f"  {line}")


def _absent_originals(table: pd.DataFrame) -> list[str]:
    """Returns a line about originals without a row, if there are any."""
    names = table["original"][table["original_here"] == "no"]
    if names.empty:
        return []
    return [
        f"{len(names)} fakes name originals that are not in the table ({names.nunique()} in all): "
        "no pairs"
    ]


def refuse_own(out: Path, sources: Sequence[Path]) -> None:
    """Refuses an output that is a folder, or one of the files that are read.

    Raises:
        UsageError: It is.
    """
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name a file")
    if out.resolve() in {source.resolve() for source in sources if source.name == out.name}:
        raise UsageError(f"--out {out}: would replace a file that is read; give another name")


def report_notes(notes: Sequence[str]) -> None:
    """Prints notes on standard error, a line each."""
    for note in notes:
        click.echo(note, err=True)
