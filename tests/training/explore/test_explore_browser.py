"""The page of an exploration in a real browser: it loads nothing, plays its clips, fits a phone."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from dfd_training.cli import main
from headless import Browser

pytestmark = pytest.mark.slow  # each needs an exploration

PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def page(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, two photographs, one without a face; a name that would run a script."""
    folder = tmp_path_factory.mktemp("browsed")
    hostile = folder / "<img src=x onerror=document.title='run'>.png"
    hostile.write_bytes((small_data / "hopper_0.png").read_bytes())
    rows = ["path,label,original", f'"{hostile}",REAL,', f"{small_data / 'leaf.png'},REAL,"]
    # A small crop with three fakes, more than any clip has.
    crop = cv2.resize(cv2.imread(str(small_data / "astronaut_0.png")), (48, 48))
    for name in ("crop", *(f"{'a_long_name_of_a_crop_' * 3}{number}" for number in range(3))):
        cv2.imwrite(str(folder / f"{name}.png"), crop)
        rows.append(f"{name}.png,REAL," if name == "crop" else f"{name}.png,FAKE,crop.png")
    for number in range(2):
        real, fake = (small_data / f"clip{number}_{label}.mp4" for label in ("real", "fake"))
        rows += [f"{real},REAL,", f"{fake},FAKE,{real}"]
    table = folder / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    arguments = ["explore", str(table), "--out", str(folder), "--frames", "1", "--workers", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return folder / "index.html"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_goes_wrong_and_nothing_is_loaded(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    charts = browser.evaluate("document.querySelectorAll('.chart').length")
    assert browser.draw_all() == charts >= 10
    assert browser.troubles() == []
    assert browser.evaluate("document.title").endswith("data exploration"), "no script was run"
    load = """(async () => {
      for (const image of document.images) { image.loading = "eager"; await image.decode(); }
      return [...document.images].filter((image) => !image.naturalWidth).length;
    })()"""
    assert browser.evaluate(load) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = f"""[...document.querySelectorAll("main *")].filter((element) =>
      element.getClientRects().length && element.getBoundingClientRect().right > {width}
      && !element.closest(".chart, .scroll")).map((element) => element.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []
    enlarged = """[...document.querySelectorAll(".pictures img")].filter((image) =>
      image.width > 2 * image.naturalWidth + 1).map((image) => image.alt)"""
    assert browser.evaluate(enlarged) == []
    cut = """[...document.querySelectorAll("figcaption, td.text, .pictures span")].filter(
      (element) => element.scrollWidth > element.clientWidth + 1 && !element.closest(".scroll")
      && getComputedStyle(element).display !== "inline").map((element) => element.textContent)"""
    assert browser.evaluate(cut) == []
    assert browser.evaluate("document.body.innerText.includes('a_long_name_of_a_crop_'.repeat(3))")


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_sheets_of_photographs_are_compact(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.evaluate("document.querySelectorAll('.tiles').length") == 3, (
        "the crop and both clips have fakes"
    )
    heights = browser.evaluate(
        "[...document.querySelectorAll('.tiles img')].map((i) => i.getBoundingClientRect().height)"
    )
    assert len(heights) == 4 + 2 * 2
    assert max(heights) < 200


def test_clips_play(browser: Browser, page: Path) -> None:
    browser.open(page, width=DESKTOP)
    if not browser.evaluate(
        "document.createElement('video').canPlayType('video/mp4; codecs=avc1.4d401e')"
    ):
        pytest.skip("this Chromium was built without H.264")
    played = browser.evaluate(
        """Promise.all([...document.querySelectorAll("video")].map(async (video) => {
          await video.play();
          for (let i = 0; i < 100 && video.currentTime < 0.2; i++)
            await new Promise((done) => setTimeout(done, 50));
          video.pause();
          return [video.videoWidth, video.currentTime >= 0.2];
        }))"""
    )
    assert len(played) == 4
    assert all(width > 0 and moved for width, moved in played)


def test_figures_can_be_read_without_the_charts(browser: Browser, page: Path) -> None:
    browser.open(page, width=PHONE)
    records = browser.evaluate("JSON.parse(document.getElementById('records').textContent)")
    assert records["charts"]["extensions"]["category"] == [".png", ".mp4"]
    tables = browser.evaluate("document.querySelectorAll('.drawing details table').length")
    assert tables == browser.evaluate("document.querySelectorAll('.chart').length")
