"""A report in a real browser: nothing goes wrong, nothing is loaded, and it fits a phone."""

from __future__ import annotations

import shutil
import subprocess
import sys

import cv2
import pytest
from clip_maker import portrait

pytest.importorskip("jinja2", reason="the extra `report` is not installed: no jinja2")
pytest.importorskip("plotly", reason="the extra `report` is not installed: no plotly")

PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def page(tiny_bundle, face_clip, plain_clip, tmp_path_factory):
    """A report on a clip whose name would run a script, a picture, no face, and a broken file."""
    folder = tmp_path_factory.mktemp("sources")
    hostile = folder / "<img src=x onerror=document.title='run'><b>clip.mp4"
    shutil.copy(face_clip, hostile)
    ended = folder / "<" / "script><script>document.title='run'<" / "script>.mp4"
    ended.parent.mkdir(parents=True)
    shutil.copy(face_clip, ended)
    cv2.imwrite(str(folder / "portrait.png"), portrait())
    shutil.copy(plain_clip, folder / ("a name that is very long " * 8 + ".mp4").replace(" ", "_"))
    (folder / "broken.mp4").write_text("no video\n" * 50)
    path = folder / "report.html"
    command = [sys.executable, "-m", "dfd_edge", "--model", str(tiny_bundle)]
    done = subprocess.run(
        [*command, "--report", str(path), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_goes_wrong_and_nothing_is_loaded(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.draw_all() == 2, "one timeline for each clip with a face"
    assert browser.troubles() == []
    assert browser.evaluate("document.title").endswith("deepfake report"), "no script was run"
    assert browser.evaluate("document.querySelectorAll('main img').length") > 4
    broken = "[...document.images].filter((image) => !image.naturalWidth).length"
    assert browser.evaluate(broken) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = f"""[...document.querySelectorAll("main *")].filter((element) =>
      element.getClientRects().length && element.getBoundingClientRect().right > {width}
      && !element.closest(".chart")).map((element) => element.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []


def test_the_records_can_be_read_in_the_page(browser, page):
    browser.open(page, width=DESKTOP)
    kinds = browser.evaluate(
        """JSON.parse(document.getElementById("records").textContent).map((r) => r.record)"""
    )
    assert kinds[0] == "run"
    assert kinds.count("verdict") == 4
    assert kinds.count("event") == 1


def test_without_javascript_all_but_the_charts_is_there(browser, page):
    browser.open(page, width=PHONE, scripts=False)
    tree = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    text = browser.call("DOM.getOuterHTML", nodeId=tree)["outerHTML"]
    assert "The chart needs JavaScript." in text
    shown = browser.call("Accessibility.getFullAXTree")["nodes"]
    texts = " ".join(str(node.get("name", {}).get("value", "")) for node in shown)
    assert "The chart needs JavaScript." in texts
    assert "Save the records" not in texts
    assert "What the model cannot do" in texts
    assert "Most suspicious frames" in texts
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_page_that_runs_other_scripts_would_be_noticed(browser, page, tmp_path):
    """The counter-proof: an inline script that is not the page's own is refused, and reported."""
    altered = tmp_path / "altered.html"
    text = page.read_text("utf-8")
    altered.write_text(text.replace("<main>", "<main><script>document.title='run'</script>", 1))
    browser.open(altered, width=DESKTOP)
    assert any("Content Security Policy" in line for line in browser.troubles())
    assert browser.evaluate("document.title") != "run"
