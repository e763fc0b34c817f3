"""Files from addresses that users paste."""

from __future__ import annotations

from dfd_edge.serve.problems import Problem
from dfd_edge.serve.settings import ServiceSettings
from dfd_edge.serve.store import Upload


def fetch(address: str, settings: ServiceSettings) -> Upload:
    """Fetches a file into the folder of originals. Blocks.

    Raises:
        Problem: The address is refused, or cannot be fetched.
    """
    raise Problem("address-refused", f"{address}: no address is allowed: see --allow-addresses")
