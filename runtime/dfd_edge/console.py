"""What the command lines of all packages share."""

from __future__ import annotations

import click

from dfd_edge.errors import DfdError


class CommandGroup(click.Group):
    """A group of commands that turns the program's own errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a traceback is left to faults of the program."""
        try:
            return super().invoke(ctx)
        except DfdError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
