"""What the service's pages show of a file's own origin: verdict, failure, history, comparison."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from dfd_edge.judging.results import Label, Verdict
from dfd_edge.provenance.record import Outcome
from dfd_edge.report.provenance import ALWAYS, BADGES
from headless import serious_faults
from serving import RUN, ScriptedWorker, serving
from stated_origins import STATED, everywhere

PHONE, DESKTOP = 390, 1280
HEADING = "Where the file says it comes from"
HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m"


class StatingWorker(ScriptedWorker):
    """Judges files that name an outcome, `unread`, `hostile` or `failed`; each states that."""

    async def judge(self, path, name, report):
        word = Path(path).read_text("utf-8")
        provenance = everywhere(HOSTILE) if word == "hostile" else None
        if word in BADGES:
            provenance = STATED[Outcome(word)]
        if word == "failed":
            record = STATED[Outcome.MARKS].to_record()
            detail = f"{name}: not a film; send one"
            return {"failed": {"name": "not-judged", "detail": detail, "provenance": record}}
        run = RUN | {
            "bundle": {"name": "test", "hash": "0123"},
            "provider": {"requested": "cpu", "actual": "cpu", "reason": None, "sequence": "cpu"},
            "versions": {"dfd-edge": "0.1.0"},
        }
        verdict = Verdict(name, Label.UNSURE, None, 0.0, 3, 1.0, (), "cpu", provenance=provenance)
        report({"record": run})
        report({"crop": {"still": False}})
        report({"record": verdict.to_record()})
        return {"done": True}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("data"), [StatingWorker()]) as served:
        yield served


@pytest.fixture(scope="module")
def judged(served):
    """Judgements by what the file holds."""
    done = {}
    with served.client() as client:
        for word in (*BADGES, "unread", "hostile", "failed"):
            answer = client.post(
                f"/v1/judgements?name={word}.mp4", content=word, headers={"Prefer": "wait=60"}
            )
            done[word] = answer.json()
            assert done[word]["state"] == ("failed" if word == "failed" else "done")
    return done


@pytest.fixture(scope="module")
def page(served, judged):
    """Source of the page of a judgement, or at an address."""

    def get(which: str) -> str:
        path = judged[which]["links"]["page"] if which in judged else which
        with served.client(headers={"Accept": "text/html"}) as client:
            answer = client.get(path)
        answer.raise_for_status()
        return answer.text

    return get


def text_of(page: str) -> str:
    """The text of a page without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.mark.parametrize("outcome", Outcome, ids=lambda outcome: outcome.value)
def test_the_page_has_the_file_s_own_words_apart_from_the_verdict(page, outcome):
    source = page(outcome.value)
    verdict, origin = source.index('class="verdict-card"'), source.index('class="origin-card"')
    assert "</section>" in source[verdict:origin], "a card of its own"
    said = text_of(source[origin:])
    for words in (HEADING, BADGES[outcome.value].name, STATED[outcome].summary, ALWAYS):
        assert words in said
    assert not re.search(r"<style|\sstyle=|<a [^>]*href=\"http", source)


def test_where_it_was_not_read_there_is_no_such_card(page):
    assert HEADING not in page("unread")


def test_a_file_that_could_not_be_judged_has_one_too(page):
    said = text_of(page("failed"))
    assert said.index("not a film; send one") < said.index(HEADING)
    assert "known mark of Stable Diffusion web UI" in said


def test_what_a_file_says_stays_text(page):
    source = page("hostile")
    assert "<img src=x" not in source
    assert html.escape("<img src=x onerror=alert(1)>") in source
    assert "\u202e" not in source
    assert "\x1b" not in source


def test_a_comparison_shows_both_folded(page, judged):
    ids = {which: judged[which]["id"] for which in ("signed_ai", "unread")}
    source = page(f"/compare?a={ids['signed_ai']}&b={ids['signed_ai']}")
    assert source.count("<details><summary>What it says</summary>") == 2
    assert source.count('id="origin-') == len(set(re.findall(r'id="(origin-\d)"', source))) == 2
    assert page(f"/compare?a={ids['signed_ai']}&b={ids['unread']}").count(HEADING) == 1


def test_the_report_and_the_records_carry_it(served, judged):
    links = judged["signed_broken"]["links"]
    with served.client() as client:
        report = text_of(client.get(links["report"]).text)
        records = client.get(links["records"]).text
    assert STATED[Outcome.BROKEN].summary in report
    assert "assertion.bmffHash.mismatch" in records


def test_the_history_has_a_small_badge(browser, served, judged):
    browser.open(f"{served.address}/", width=DESKTOP)
    count = len(judged)
    browser.wait_for(f"document.querySelectorAll('#history tr').length === {count}")
    rows = browser.evaluate(
        """[...document.querySelectorAll("#history tr")].map((row) => [
          row.querySelector("a").textContent.replace(".mp4", ""),
          row.querySelector(".badge.origin")?.innerText.replace(/^\\S\\s+/, "") ?? null ])"""
    )
    expected = {outcome: badge.name for outcome, badge in BADGES.items()}
    expected |= {"nothing": None, "unread": None, "failed": "Unsigned marks", "hostile": "Signed"}
    assert dict(rows) == expected
    assert browser.troubles(served.address) == []


@pytest.mark.parametrize("which", ["signed_ai", "signed_broken", "failed", "hostile"])
def test_the_pages_are_accessible_and_fit_a_phone(browser, served, judged, which):
    for width, dark in ((PHONE, True), (DESKTOP, False)):
        browser.open(served.address + judged[which]["links"]["page"], width=width, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert serious_faults(browser) == []
