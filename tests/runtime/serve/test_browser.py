"""The pages in a real browser: from handing in to the verdict, the video in step, keys, phones."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import pytest
from clip_maker import face_frames, portrait, write_clip

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from dfd_edge.serve.settings import CameraSource
from headless import serious_faults
from serving import ScriptedWorker, serving

PHONE, DESKTOP = 390, 1280
#: In the page of a judgement: share of the overlay's pixels that are drawn.
DRAWN = """(() => {
  const canvas = document.querySelector(".player canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  let drawn = 0;
  for (let n = 3; n < data.length; n += 4) drawn += data[n] > 0;
  return (4 * drawn) / data.length;
})()"""
VIDEO = "document.querySelector('video')"


def film(path: Path, seconds: float, *, mirrored: bool = False) -> Path:
    """A clip in VP8, which every Chromium plays."""
    frames = face_frames(round(25 * seconds), mirrored=mirrored)
    return write_clip(path, frames, codec="libvpx", options={"deadline": "realtime", "g": "10"})


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Clips by name, of 4 s and 3 s, and a picture."""
    folder = tmp_path_factory.mktemp("films")
    cv2.imwrite(str(folder / "portrait.png"), portrait())
    film(folder / "first.webm", 4)
    film(folder / "second.webm", 3, mirrored=True)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_bundle, films):
    cameras = (
        CameraSource("hall", str(films / "first.webm")),
        CameraSource("door", "http://127.0.0.1:9/none"),
    )
    data = tmp_path_factory.mktemp("browser")
    with serving(data, model=tiny_bundle, cameras=cameras) as served:
        yield served


@pytest.fixture(scope="module")
def judged(served, films):
    """Judgements of the service, by name."""
    done = {}
    with served.client() as client:
        for name in ("first.webm", "second.webm", "portrait.png"):
            with (films / name).open("rb") as file:
                answer = client.post(
                    "/v1/judgements",
                    files={"file": (name, file)},
                    headers={"Prefer": "wait=60"},
                )
            done[name] = answer.json()
            assert done[name]["state"] == "done"
    return done


@pytest.fixture
def shown(browser, served):
    """Opens an address of the service; afterwards nothing must have gone wrong."""

    def show(path: str, *, width: int = DESKTOP, dark: bool = False) -> None:
        browser.open(served.address + path, width=width, dark=dark)

    yield show
    assert browser.troubles(served.address) == []


def judgement_shown(browser, shown, judgement, **how):
    """Shows a judgement until its video and its timeline are there."""
    shown(judgement["links"]["page"], **how)
    browser.wait_for("document.querySelector('.timeline .score')")
    browser.wait_for(f"{VIDEO}.readyState >= 2")


def test_from_the_file_to_the_report(browser, shown, served, tmp_path):
    shown("/")
    browser.evaluate(
        """window.seen = [];
        new MutationObserver(() => window.seen.push(document.querySelector("#queue").innerText))
          .observe(document.querySelector("#queue"), { subtree: true, childList: true,
            characterData: true });"""
    )
    handed = film(tmp_path / "an upload.webm", 2)
    browser.choose_files("#files", handed)
    row = "[...document.querySelectorAll('#history tr')].find((r) => /an upload/.test(r.innerText))"
    browser.wait_for(row)
    seen = browser.evaluate("window.seen.join('|')")
    assert "an upload.webm" in seen
    assert "Being judged" in seen
    assert browser.evaluate("document.querySelector('#said').textContent").startswith("an upload")
    browser.evaluate(f"{row}.querySelector('a').click()")

    browser.wait_for("document.querySelector('.timeline .score')")
    assert browser.evaluate("document.querySelector('#verdict .badge').innerText").strip()
    browser.wait_for(f"{VIDEO}.readyState >= 2")
    browser.evaluate(
        """(() => { const box = document.querySelector(".timeline").getBoundingClientRect();
        scrollTo(0, box.top + scrollY - 400); })()"""
    )
    left, top, width = browser.evaluate(
        """(() => { const lane = document.querySelector(".timeline .lane").getBoundingClientRect();
        return [lane.left, lane.top + 10, lane.width]; })()"""
    )
    at = {"x": left + 0.75 * width, "y": top, "button": "left", "clickCount": 1}
    browser.call("Input.dispatchMouseEvent", type="mousePressed", **at)
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", **at)
    assert browser.evaluate(f"{VIDEO}.currentTime") == pytest.approx(1.5, abs=0.05)

    downloads = tmp_path / "downloads"
    downloads.mkdir()
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    browser.evaluate("document.querySelector('#report').click()")
    until = time.monotonic() + 20
    while not (found := list(downloads.glob("*.html"))):
        assert time.monotonic() < until, list(downloads.iterdir())
        time.sleep(0.05)
    assert "Deepfake report: an upload.webm" in found[0].read_text("utf-8")


@pytest.mark.slow
def test_of_a_folder_that_is_dropped_the_media_are_taken(browser, shown, served, tmp_path):
    folder = tmp_path / "dropped"
    (folder / "inner").mkdir(parents=True)
    film(folder / "inner" / "from a folder.webm", 1)
    (folder / "notes.txt").write_text("no film")
    shown("/")
    x, y = browser.evaluate(
        """(() => { const box = document.querySelector("#drop").getBoundingClientRect();
        return [box.left + 30, box.top + 30]; })()"""
    )
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)
    browser.wait_for("/from a folder/.test(document.querySelector('#history').innerText)")
    with served.client() as client:
        assert client.get("/v1/judgements?q=notes.txt").json()["judgements"] == []


def test_a_judgement_that_runs_can_be_cancelled_on_its_page(browser, tmp_path):
    with serving(tmp_path, [ScriptedWorker()]) as served, served.client() as client:
        judgement = client.post("/v1/judgements?name=a.mp4", content=b"wait").json()
        browser.open(served.address + judgement["links"]["page"], width=PHONE)
        browser.wait_for("document.querySelector('#state-name').textContent === 'Being judged'")
        browser.wait_for("document.querySelector('#progress').value === 0.5")
        browser.evaluate("document.querySelector('#cancel').click()")
        browser.wait_for("document.querySelector('#state-name')?.textContent === 'Cancelled'")
        browser.wait_for("!document.querySelector('#cancel')")
        assert browser.troubles(served.address) == []
        browser.open("about:blank", width=DESKTOP)


@pytest.mark.slow
def test_a_film_that_no_browser_plays_keeps_its_timeline(browser, shown, served, tmp_path):
    path = write_clip(tmp_path / "old.avi", face_frames(25), codec="mpeg4")
    with served.client() as client, path.open("rb") as file:
        judgement = client.post(
            "/v1/judgements", files={"file": ("old.avi", file)}, headers={"Prefer": "wait=60"}
        ).json()
    shown(judgement["links"]["page"])
    browser.wait_for("document.querySelector('.stage').hidden")
    assert not browser.evaluate("document.querySelector('.unplayable').hidden")
    browser.wait_for("document.querySelector('.timeline .score')")


@pytest.mark.slow
def test_a_file_is_judged_anew(browser, shown, judged, served):
    judgement_shown(browser, shown, judged["second.webm"])
    browser.evaluate("document.querySelector('#again').click()")
    own = judged["second.webm"]["id"]
    browser.wait_for(f"!location.pathname.includes('{own}') && document.querySelector('#verdict')")
    with served.client() as client:
        found = client.get("/v1/judgements?q=second.webm").json()["judgements"]
    assert len({one["sha256"] for one in found}) == 1 < len(found)


def test_the_overlay_goes_with_the_video(browser, shown, judged):
    judgement_shown(browser, shown, judged["first.webm"])
    browser.wait_for(f"{DRAWN} > 0.002")
    browser.evaluate("document.querySelector('[data-draw=evidence]').click()")
    boxes = browser.wait_for(DRAWN)
    places = []
    for seconds in (0.4, 2.0):
        browser.evaluate(f"{VIDEO}.currentTime = {seconds}")
        browser.wait_for(f"!{VIDEO}.seeking")
        cursor = "Number(document.querySelector('.timeline').getAttribute('aria-valuenow'))"
        browser.wait_for(f"Math.abs({cursor} - {seconds}) < 0.06")
        places.append(browser.evaluate("document.querySelector('.player canvas').toDataURL()"))
    assert places[0] != places[1], "the face moves, and its box with it"
    browser.evaluate("document.querySelector('[data-draw=boxes]').click()")
    assert browser.evaluate(DRAWN) == 0.0 < boxes


def test_a_picture_has_its_boxes(browser, shown, judged):
    shown(judged["portrait.png"]["links"]["page"])
    browser.wait_for(f"{DRAWN} > 0.001")


def test_the_keyboard_is_enough(browser, shown, judged):
    judgement_shown(browser, shown, judged["first.webm"])
    focused = "document.activeElement"
    browser.press("Tab")
    assert browser.evaluate(f"{focused}.textContent") == "Skip to the content"
    browser.press("Enter")
    assert browser.evaluate(f"{focused}.id") == "main"
    for _ in range(25):
        browser.press("Tab")
        outline = browser.evaluate(f"getComputedStyle({focused}).outlineStyle")
        inside = browser.evaluate(f"{focused}.tagName") == "VIDEO"  # the browser's own controls
        assert inside or outline != "none", browser.evaluate(f"{focused}.outerHTML.slice(0, 80)")
        if browser.evaluate(f"{focused}.getAttribute('role')") == "slider":
            break
    else:
        pytest.fail("the timeline cannot be reached by Tab")
    browser.press("ArrowRight", "ArrowRight")
    assert browser.wait_for(f"{VIDEO}.currentTime") == pytest.approx(2.0, abs=0.05)
    said = f"{focused}.getAttribute('aria-valuetext')"  # follows the video, which seeks first
    browser.wait_for(f"{said}.startsWith('2.0 s, person 1 score 0.')")
    browser.press("Home")
    browser.wait_for(f"{VIDEO}.currentTime === 0")
    browser.press("End")
    assert browser.wait_for(f"{VIDEO}.currentTime") == pytest.approx(4.0, abs=0.05)


def test_a_note_is_found_again(browser, shown, judged):
    judgement_shown(browser, shown, judged["second.webm"])
    browser.evaluate("document.querySelector('#note').focus()")
    browser.press(*"mirror")
    browser.evaluate("document.querySelector('#note-form button').click()")
    browser.wait_for("document.querySelector('#said').textContent === 'The note is saved.'")
    shown("/")
    browser.wait_for("document.querySelectorAll('#history tr').length >= 3")
    browser.evaluate("document.querySelector('#q').focus()")
    browser.press(*"mirror", "Enter")
    browser.wait_for("document.querySelectorAll('#history tr').length === 1")
    assert "second.webm" in browser.evaluate("document.querySelector('#history').innerText")


@pytest.mark.slow
def test_two_videos_go_in_step(browser, shown, judged):
    shown(f"/compare?a={judged['first.webm']['id']}&b={judged['second.webm']['id']}")
    browser.wait_for("document.querySelectorAll('.timeline .score').length === 2")
    times = "[...document.querySelectorAll('video')].map((video) => video.currentTime)"
    browser.wait_for("[...document.querySelectorAll('video')].every((v) => v.readyState >= 2)")
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("ArrowRight")
    assert browser.wait_for(times) == pytest.approx([1.0, 1.0], abs=0.05)
    browser.evaluate("document.querySelector('#play').click()")
    browser.wait_for(f"{times}[0] > 1.5")
    first, second = browser.evaluate(times)
    assert first == pytest.approx(second, abs=0.3)
    browser.evaluate("document.querySelector('#play').click()")
    browser.wait_for("[...document.querySelectorAll('video')].every((video) => video.paused)")


def test_live_sources_are_shown(browser, shown):
    shown("/live")
    hall, door = "document.querySelector('[data-live=hall]')", "[data-live=door]"
    browser.wait_for(f"{hall}.querySelector('.picture').naturalWidth === 320")
    browser.wait_for(f"{hall}.querySelector('.timeline .score')")
    browser.wait_for(f"/over all/.test({hall}.querySelector('.figures').textContent)")
    detail = f"document.querySelector('{door} .detail').textContent"
    browser.wait_for(f"/refused/.test({detail})")


def test_an_address_that_is_refused_says_why(browser, shown, served):
    shown("/")
    browser.evaluate("document.querySelector('#address').value = 'http://127.0.0.1/secret.mp4'")
    browser.evaluate("document.querySelector('#address-form button').click()")
    browser.wait_for("document.querySelector('#said.wrong')?.textContent.length > 10")
    browser.events.clear()  # the refused request is in the console, as it should be


def test_an_error_is_a_page_that_leads_back(browser, served):
    browser.open(f"{served.address}/judgements/none", width=PHONE)
    text = browser.evaluate("document.querySelector('main').innerText")
    assert "There is no such thing here" in text
    browser.evaluate("document.querySelector('main a').click()")
    browser.wait_for("location.pathname === '/' && document.querySelector('#drop')")


def test_without_javascript_the_verdict_can_be_read(browser, judged, served):
    path = judged["first.webm"]["links"]["page"]
    browser.open(served.address + path, width=DESKTOP, scripts=False)
    try:
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    texts = " ".join(str(node.get("name", {}).get("value", "")) for node in nodes)
    for wanted in ("What this verdict rests on", "Person 1", "needs JavaScript"):
        assert wanted in texts


SLOW = ("/live", "/docs", "/none", "portrait.png", "compare")
PAGES = ["/", "first.webm", *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW)]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_accessible_and_fits_a_phone(browser, served, judged, page):
    path = page
    if page in judged:
        path = judged[page]["links"]["page"]
    elif page == "compare":
        path = f"/compare?a={judged['first.webm']['id']}&b={judged['second.webm']['id']}"
    for width, dark in ((PHONE, True), (DESKTOP, False)):
        browser.open(served.address + path, width=width, dark=dark)
        time.sleep(0.4)  # what scripts add is checked too
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert serious_faults(browser) == []


def test_a_fault_would_be_found(browser, served):
    """The counter-proof: axe runs under the pages' own policy, and sees what is wrong."""
    browser.open(f"{served.address}/", width=DESKTOP)
    browser.evaluate("document.querySelector('main').append(new Image())")
    assert [fault["id"] for fault in serious_faults(browser)] == ["image-alt"]
