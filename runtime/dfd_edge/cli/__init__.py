"""The command line `dfd-edge`."""

import sys


def main() -> None:
    """Runs `dfd-edge`: entry point of the console script.

    A first argument `serve` starts the service; a file of that name is judged as `./serve`.
    """
    if sys.argv[1:2] == ["serve"]:
        from dfd_edge.serve.command import main as serve

        serve()
        return
    from dfd_edge.cli.command import main as run

    run()
