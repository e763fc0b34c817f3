"""The command line `dfd-edge`."""

import sys
from importlib import import_module

#: Commands beside judging, by the first argument: the modules whose `main` runs them.
COMMANDS = {"archive": "dfd_edge.archive.cli", "serve": "dfd_edge.serve.command"}


def main() -> None:
    """Runs `dfd-edge`: entry point of the console script.

    A file that is named like a command is judged as `./serve`.
    """
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    import_module(COMMANDS.get(first, "dfd_edge.cli.command")).main()
