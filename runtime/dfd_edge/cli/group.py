"""The command group that the command lines of all packages share."""

from __future__ import annotations

from typing import Any

import click

from dfd_edge.errors import DfdError, UsageError


class CommandGroup(click.Group):
    """A group of commands that turns the program's own errors into one line and an exit code.

    Args:
        extra: The extra of the distribution that installs what the commands import.
    """

    def __init__(self, *args: Any, extra: str, **kwargs: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **kwargs)
        self._extra = extra

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command; only faults of the program give a traceback."""
        try:
            return super().invoke(ctx)
        except DfdError as error:
            _fail(ctx, error)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package.startswith("dfd_"):
                raise
            needed = f"{ctx.command_path} needs the package {package!r}, which is not installed"
            _fail(ctx, UsageError(f"{needed}: pip install 'dfd-edge[{self._extra}]'"))
        return None


def _fail(ctx: click.Context, error: DfdError) -> None:
    from dfd_edge.text import printable

    click.echo(f"error: {printable(str(error))}", err=True)
    ctx.exit(error.exit_code)
