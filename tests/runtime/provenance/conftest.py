"""Authorities, signers and media that the tests of provenance share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from signing import Credentials

    from dfd_edge.provenance.trust import TrustList


@pytest.fixture(scope="session")
def root() -> Credentials:
    """The authority on the tests' trust list."""
    pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")
    from signing import authority

    return authority()


@pytest.fixture(scope="session")
def camera(root: Credentials) -> Credentials:
    """A signer that it vouches for."""
    return root.issue()


@pytest.fixture(scope="session")
def trust_file(root: Credentials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trust list with that authority alone."""
    path = tmp_path_factory.mktemp("trust") / "list.pem"
    path.write_bytes(root.pem)
    return path


@pytest.fixture(scope="session")
def trust(trust_file: Path) -> TrustList:
    """The same, read."""
    from dfd_edge.provenance.trust import TrustList

    return TrustList.load(trust_file)


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns an unsigned file of a format, such as `mp4`."""
    from signing import write_media

    folder = tmp_path_factory.mktemp("media")
    return lambda suffix: write_media(folder, suffix)
