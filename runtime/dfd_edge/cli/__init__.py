"""The command line `dfd-edge`."""


def main() -> None:
    """Runs `dfd-edge`: entry point of the console script."""
    from dfd_edge.cli.command import main as run

    run()
