"""`python -m dfd_edge` is `dfd-edge`."""

from dfd_edge.cli import main

if __name__ == "__main__":
    main()
