"""Commands whose packages are not installed say which extra brings them."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

import dfd_training.cli
from dfd_edge.cli.group import CommandGroup
from dfd_edge.errors import BundleError, DfdError, UsageError


def group_that_raises(error: Exception) -> click.Group:
    @click.group(cls=CommandGroup, extra="train")
    def main() -> None:
        pass

    @main.command()
    def go() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code"), [(DfdError("a"), 1), (UsageError("b"), 2), (BundleError("c"), 5)]
)
def test_own_errors_are_one_line_and_a_code(error: DfdError, code: int) -> None:
    result = CliRunner().invoke(group_that_raises(error), ["go"])
    assert result.exit_code == code
    assert result.stderr == f"error: {error}\n"


def test_a_missing_package_names_its_extra() -> None:
    missing = ModuleNotFoundError("No module named 'pandas'", name="pandas.core")
    result = CliRunner().invoke(group_that_raises(missing), ["go"])
    assert result.exit_code == 2
    assert "needs the package 'pandas'" in result.stderr
    assert "pip install 'dfd-edge[train]'" in result.stderr


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    ours = ModuleNotFoundError("No module named 'dfd_edge.nothing'", name="dfd_edge.nothing")
    assert isinstance(CliRunner().invoke(group_that_raises(ours), ["go"]).exception, type(ours))


def test_a_missing_store_is_one_line(tmp_path: object) -> None:
    result = CliRunner().invoke(
        dfd_training.cli.main, ["fit", "frame", str(tmp_path), "--out", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert "no crop store here: run dfd-train prepare first" in result.stderr
