"""What a report shows of a file's own origin: beside the verdict, in plain words, and as text."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("jinja2", reason="the extra `report` is not installed: no jinja2")
pytest.importorskip("plotly", reason="the extra `report` is not installed: no plotly")

from dfd_edge.bundle import Bundle
from dfd_edge.judging.results import Event, EventKind, Label, Verdict
from dfd_edge.provenance.record import Action, Outcome, Provenance
from dfd_edge.report.collector import Collector
from dfd_edge.report.page import render
from dfd_edge.report.provenance import ALWAYS, BADGES, ProvenanceView
from headless import serious_faults
from html_page import HOSTILE, Page
from stated_origins import CAPTURED, EDITED, GENERATOR_MARK, STATED, everywhere, tree

PHONE, DESKTOP = 390, 1280
HEADING = "Where the file says it comes from"
RUN = {
    "record": "run",
    "bundle": {"name": "test", "hash": "0123"},
    "provider": {"requested": "cpu", "actual": "cpu", "reason": None, "sequence": "cpu"},
    "precision": "fp32",
    "rate_hz": 5.0,
    "versions": {"dfd-edge": "0.1.0"},
}


def page_of(*stated: Provenance | None) -> str:
    """A report on as many sources, with what each says of its origin."""
    bundle = Bundle.load()
    collector = Collector([], RUN)
    for number, provenance in enumerate(stated):
        name = f"clip {number}.mp4"
        collector.verdict(
            Verdict(name, Label.UNSURE, None, 0.0, 3, 1.0, (), "cpu", provenance=provenance)
        )
    return render(collector, bundle.manifest, bundle.manifest.decision_of("fp32"))


def shown(provenance: Provenance) -> str:
    """Text of the section on a file's origin."""
    text = Page(page_of(provenance)).text
    return text[text.index(HEADING) : text.index("How to read this")]


WORDS = {
    Outcome.CAPTURE: (
        *("Signed by Example Cameras Inc.", "Certificate issued by Example Root CA"),
        "Signed at 2026-10-02 08:15:30 UTC, confirmed by a time stamp authority",
        *("Signature fits the signed record", "Bytes of the file those that were signed"),
        "Certificate on the trust list (C2PA trust list of 2026-09-24)",
        "Kinds of origin captured by a camera (digitalCapture)",
        *(
            "Written with ExampleCam 2.1",
            "Title DSC_0042.MP4",
            "Signed record (C2PA) in the file itself",
        ),
        "created c2pa.created 2026-10-02 08:15:29 UTC with ExampleCam captured by a camera",
        "Example Cameras Inc. signed these bytes. Signed does not mean true",
        "A camera signs a picture of a screen",
    ),
    Outcome.AI: (
        "not on the trust list (C2PA trust list of 2026-09-24): the name of the signer is only",
        *("it does not show who that was", "Signed record (C2PA) in a file beside it"),
        "Signed in the name of Somebody",
        "Limits of the signature The signer is not on the trust list.",
        "no time stamp authority confirms it",
        "a composite with parts that AI generated (compositeWithTrainedAlgorithmicMedia)",
        "opened a file c2pa.opened 2026-10-02 08:00:00 UTC",
        "converted to another format c2pa.transcoded no time at all",
        "Files that went into it, and theirs: 3",
        "street.jpg signed (signer: Example Cameras Inc.) the file that became this one",
        "face.png signed, but that signature does not hold (in the name of Example Generator Ltd.)",
        "without a title not signed input of what generated or changed this one",
    ),
    Outcome.OTHER: (
        "was not fetched: https://manifests.example/42.c2pa",
        "names more than is shown here",
    ),
    Outcome.BROKEN: (
        "Does not hold The bytes of the video are not those that were signed.",
        "Bytes of the file not those that were signed",
        "Codes of C2PA assertion.bmffHash.mismatch",
        "does not make the file a forgery",
    ),
    Outcome.MARKS: (
        "Unsigned: anyone can have written this",
        "png.parameters a face, Steps: 20 known mark of Stable Diffusion web UI; settings of a",
        *("exif.Make Example Cameras", "hint to follow up, not proof"),
    ),
    Outcome.NOTHING: ("Few cameras and programs write such statements",),
    Outcome.ERROR: ("neither for nor against the file",),
}


@pytest.mark.parametrize("outcome", Outcome, ids=lambda outcome: outcome.value)
def test_each_outcome_is_explained_in_plain_words(outcome):
    said = shown(STATED[outcome])
    for words in (STATED[outcome].summary, BADGES[outcome.value].name, ALWAYS, *WORDS[outcome]):
        assert words in said
    assert "docs/provenance.md" in said


def test_no_badge_looks_like_a_verdict():
    assert set(BADGES) == {outcome.value for outcome in Outcome}
    for badge in BADGES.values():
        assert badge.style.split()[0] == "origin"
        assert not {label.value for label in Label} & set(badge.style.split())
        assert not {"real", "fake", "authentic", "genuine"} & set(badge.name.lower().split())


def test_the_verdict_is_the_same_with_and_without_it():
    section = page_of(STATED[Outcome.AI])
    start = section.index('<section class="origin-card"')
    without = section[:start] + section[section.index("</section>", start) + len("</section>") :]
    said, unsaid = (
        text[text.index("<article") : text.index("</article>")].split()
        for text in (without, page_of(None))
    )
    assert said == unsaid


def test_where_it_was_not_read_nothing_is_said_and_its_code_not_loaded():
    assert HEADING not in page_of(None)
    assert ProvenanceView.of(None) is None
    code = (
        "import sys, dfd_edge.report.page\n"
        "print([name for name in sys.modules if name.startswith('dfd_edge.provenance')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_of_several_files_the_table_lists_what_each_says():
    page = Page(page_of(STATED[Outcome.BROKEN], None, STATED[Outcome.MARKS]))
    table = page.text[page.text.index("All sources") : page.text.index(HEADING)]
    assert "The file says" in table
    assert "Signature broken" in table
    assert "Unsigned marks" in table
    assert page.text.count(f"{HEADING} ") == 3, "two sections, and how to read them"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_what_a_file_says_stays_text(text):
    page = Page(page_of(everywhere(text)))
    plain = Page(page_of(everywhere("plain")))
    assert page.tags == plain.tags
    assert page.programs == plain.programs
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert not [a for a in page.all("a") if not (a["href"] or "").startswith("#")], "no link out"


def test_much_that_a_file_says_is_shown_in_bounds():
    actions = tuple(Action("c2pa.edited", f"edited, pass {number}") for number in range(500))
    large = replace(EDITED, actions=actions, ingredients=tree(16, 31, "n" * 200))
    provenance = replace(STATED[Outcome.AI], manifest=large, marks=(GENERATOR_MARK,) * 100)
    text = page_of(provenance)
    page = Page(text)
    assert "Files that went into it, and theirs: 496" in page.text
    assert "edited, pass 499" in page.text
    assert "492 more" in page.text
    assert "92 more, unsigned as well" in page.text
    assert all("open" not in attributes for attributes in page.all("details"))
    assert len(text) < 2_000_000


def test_a_file_that_could_not_be_judged_has_its_origin_too():
    bundle = Bundle.load()
    collector = Collector([], RUN)
    event = Event("a.mp4", 0.0, EventKind.ERROR, "a.mp4: no video", STATED[Outcome.MARKS])
    collector.event(event)
    page = Page(render(collector, bundle.manifest, bundle.manifest.decision_of("fp32")))
    failed = page.text[page.text.index("Sources that could not be judged") :]
    assert failed.index("a.mp4: no video") < failed.index(HEADING)
    assert "known mark of Stable Diffusion web UI" in failed


OPENED = "document.querySelectorAll('details').forEach((one) => (one.open = true))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Reports: on a file of each outcome, and on files with a large tree and hostile names."""
    folder = tmp_path_factory.mktemp("stated")
    deep = replace(STATED[Outcome.AI], manifest=replace(EDITED, ingredients=tree(16, 31)))
    hostile = everywhere("<b>" + "W" * 5000), everywhere(HOSTILE[5])
    (folder / "usual.html").write_text(page_of(*STATED.values()), "utf-8")
    (folder / "hard.html").write_text(page_of(deep, *hostile), "utf-8")
    return folder


@pytest.mark.parametrize(("width", "dark"), [(PHONE, True), (DESKTOP, False)])
@pytest.mark.parametrize("name", ["usual.html", "hard.html"])
def test_it_is_accessible_and_fits_a_phone(browser, folder, name, width, dark):
    browser.open(folder / name, width=width, dark=dark)
    browser.evaluate(OPENED)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = f"""[...document.querySelectorAll("main *")].filter((element) =>
      element.getClientRects().length && element.getBoundingClientRect().right > {width})
      .map((element) => element.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []
    if name == "usual.html":  # axe takes minutes for the large tree
        assert serious_faults(browser) == []
    assert browser.troubles() == []


def test_without_scripts_the_tree_still_unfolds(browser, folder):
    browser.open(folder / "usual.html", width=DESKTOP, scripts=False)
    try:
        summary = "details.files > summary"
        root = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        node = browser.call("DOM.querySelector", nodeId=root, selector=summary)["nodeId"]
        browser.call("DOM.focus", nodeId=node)
        browser.press("Enter")
        box = browser.call("DOM.querySelector", nodeId=root, selector="details.files[open]")
        assert box["nodeId"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_name_on_an_untrusted_ingredient_is_only_claimed():
    parent = replace(EDITED.ingredients[0], trusted=False)
    said = shown(replace(STATED[Outcome.AI], manifest=replace(EDITED, ingredients=(parent,))))
    assert "street.jpg signed (in the name of Example Cameras Inc.)" in said
    assert "the signer is not on the trust list, so anyone can have signed it" in said


def test_a_signature_that_does_not_fit_and_bytes_not_compared_are_named():
    other = replace(CAPTURED, signature=replace(CAPTURED.signature, holds=False, bytes_match=None))
    said = shown(replace(STATED[Outcome.BROKEN], manifest=other))
    assert "Signature does not fit the signed record" in said
    assert "Signed in the name of Example Cameras Inc." in said
    assert "could not be compared with those that were signed" in said
