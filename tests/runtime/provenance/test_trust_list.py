"""The trust lists that ship: the bytes that C2PA published, with their source, date and licence."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import Path

import pytest

import dfd_edge
from dfd_edge.provenance.trust import TrustList

ROOT = Path(__file__).resolve().parents[3]
LISTS = Path(dfd_edge.__file__).parent / "provenance" / "trust_list"
NAMES = ("C2PA-TRUST-LIST.pem", "C2PA-TSA-TRUST-LIST.pem")


def stated(name: str) -> tuple[int, str]:
    """Number of certificates and SHA-256 of a list as the NOTICE beside it states them."""
    text = (LISTS / "NOTICE").read_text("utf-8")
    found = re.search(
        rf"{re.escape(name)} .*: (\d+) certificates\n +commit +[0-9a-f]{{40}}\n +sha256 +(\w+)$",
        text,
        re.MULTILINE,
    )
    assert found, name
    return int(found[1]), found[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_list_is_the_one_that_its_notice_names(name: str) -> None:
    number, digest = stated(name)
    content = (LISTS / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert content.count(b"-----BEGIN CERTIFICATE-----") == number


@pytest.mark.parametrize("name", NAMES)
def test_every_certificate_of_a_list_parses_and_issues_others(name: str) -> None:
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
    certificates = x509.load_pem_x509_certificates((LISTS / name).read_bytes())
    assert len(certificates) == stated(name)[0]
    for certificate in certificates:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.value.ca, certificate.subject


def test_records_name_the_date_that_the_notice_names() -> None:
    notice = (LISTS / "NOTICE").read_text("utf-8")
    found = re.search(r"as of (\d+ \w+ \d{4})$", notice, re.MULTILINE)
    assert found
    date = datetime.strptime(found[1], "%d %B %Y").date()
    assert TrustList.shipped().name == f"C2PA trust list of {date.isoformat()}"


def test_the_page_and_the_notices_name_commits_hashes_and_licence() -> None:
    page = (ROOT / "docs/provenance.md").read_text("utf-8")
    notice = (LISTS / "NOTICE").read_text("utf-8")
    for digest in re.findall(r"\b[0-9a-f]{40,64}\b", notice):
        assert digest in page
    assert "Open Use of Data Agreement v1.0" in notice
    assert "trust_list/LICENSE" in (ROOT / "NOTICE").read_text("utf-8")
    licence = (LISTS / "LICENSE").read_text("utf-8")
    assert "THE DATA IS PROVIDED ON AN “AS IS” BASIS" in licence
    assert "NOR ANY UPSTREAM DATA PROVIDER SHALL HAVE ANY LIABILITY" in licence
