"""The pages as they are sent: words, files, errors, and nothing from elsewhere."""

from __future__ import annotations

import html
import re
import shutil
import time

import pytest
from clip_maker import portrait

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import cv2

from dfd_edge.bundle import Bundle
from dfd_edge.bundle.manifest import DecisionSpec
from dfd_edge.serve.pages import explaining, views
from serving import ScriptedWorker, serving

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


def hand_in(client, path, name=None):
    """Hands a file in and waits for the end of its judgement."""
    with path.open("rb") as file:
        answer = client.post(
            "/v1/judgements",
            files={"file": (name or path.name, file)},
            headers={"Prefer": "wait=60"},
        )
    answer.raise_for_status()
    return answer.json()


@pytest.fixture(scope="module")
def judged(tmp_path_factory, tiny_bundle, face_clip, plain_clip):
    """A service, and what it has judged by name."""
    folder = tmp_path_factory.mktemp("pages")
    cv2.imwrite(str(folder / "portrait.png"), portrait())
    (folder / "broken.mp4").write_text("no video\n" * 50)
    with serving(folder / "data", model=tiny_bundle) as served, served.client() as client:
        done = {
            "clip": hand_in(client, face_clip, HOSTILE),
            "faceless": hand_in(client, plain_clip),
            "picture": hand_in(client, folder / "portrait.png"),
            "broken": hand_in(client, folder / "broken.mp4"),
        }
        yield served, done


@pytest.fixture
def page(judged):
    """Text of the page of a judgement, or at an address."""
    served, done = judged

    def get(which: str) -> str:
        path = f"/judgements/{done[which]['id']}" if which in done else which
        with served.client(headers=BROWSER) as client:
            answer = client.get(path)
        assert answer.status_code == 200
        return answer.text

    return get


def words_of(page: str) -> str:
    """The text of a page without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.mark.parametrize(
    "which", ["/", "/compare", "/live", "/docs", "clip", "faceless", "picture", "broken"]
)
def test_a_page_has_no_script_or_style_of_its_own_and_names_no_other_host(page, which):
    text = page(which)
    assert not re.search(r"<style|\sstyle=|\son\w+\s*=\s*[\"']|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    assert loaded
    assert all(address.startswith(("/", "#")) for address in loaded), loaded


def test_every_file_that_a_page_loads_is_there(page, judged):
    served, _ = judged
    named = set()
    for which in ("/", "clip", "/compare", "/live", "/docs"):
        named |= set(re.findall(r"\"(/static/[^\"]+)\"", page(which)))
    with served.client() as client:
        while named:
            answer = client.get(address := named.pop())
            assert answer.status_code == 200, address
            named |= set(re.findall(r"from \"(/static/[^\"]+)\"", answer.text))
            assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", answer.text), address
        assert client.get("/static/..%2Fpages.py").status_code == 404


def test_a_verdict_is_explained_in_words(page, judged, tiny_bundle):
    _, done = judged
    verdict = done["clip"]["verdict"]
    text = words_of(page("clip"))
    assert explaining.headline(verdict) in text
    assert f"Person {verdict['people'][0]['track']}" in text
    assert f"{verdict['frames']} frames over 3.0 s were looked at; 100 % of them had a face" in text
    assert explaining.NOT_A_CHANCE in text
    for limit in Bundle.load(tiny_bundle).manifest.card.limits:
        assert " ".join(limit.split()) in text
    assert done["clip"]["sha256"] in text
    assert "UTC, then deleted" in text


def test_a_hostile_name_stays_text(page):
    text = page("clip")
    assert HOSTILE not in text
    assert html.escape(HOSTILE) in text


def test_a_clip_without_a_face_is_not_called_real(page):
    text = words_of(page("faceless"))
    assert "There was no face to judge." in text
    assert "That does not make the clip real." in text
    assert "In 10 frames no face was found." in text


def test_a_picture_has_no_timeline(page):
    text = page("picture")
    assert '<img class="media"' in text
    assert 'role="slider"' not in text
    assert 'role="slider"' in page("clip")


def test_what_cannot_be_judged_says_why(page, judged):
    _, done = judged
    text = words_of(page("broken"))
    assert "Could not be judged" in text
    assert done["broken"]["error"]["detail"] in text


def test_a_comparison_shows_both(page, judged):
    _, done = judged
    text = page(f"/compare?a={done['clip']['id']}&b={done['picture']['id']}")
    assert text.count('class="player"') == 2
    assert 'id="play"' in text
    assert text.count("selected") == 2
    alone = page(f"/compare?a={done['clip']['id']}")
    assert 'class="player"' not in alone


def test_browsers_get_a_page_of_an_error_and_programs_a_problem(judged):
    served, _ = judged
    with served.client() as client:
        shown = client.get("/judgements/unknown", headers=BROWSER)
        assert shown.status_code == 404
        assert shown.headers["content-type"].startswith("text/html")
        assert "There is no such thing here" in shown.text
        told = client.get("/judgements/unknown", headers={"Accept": "application/json"})
        assert told.headers["content-type"] == "application/problem+json"


@pytest.mark.slow
def test_the_page_says_that_the_file_is_not_kept(tmp_path, tiny_bundle, face_clip):
    short = tmp_path / "short.mp4"
    shutil.copy(face_clip, short)
    with (
        serving(tmp_path / "data", model=tiny_bundle, keep_days=0) as served,
        served.client() as client,
    ):
        home = words_of(client.get("/").text)
        assert "Files are deleted as soon as they are judged" in home
        judgement = hand_in(client, short)
        until = time.monotonic() + 20
        while client.get(judgement["links"]["self"]).json()["media_kept"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        text = client.get(judgement["links"]["page"]).text
        assert "deleted as soon as it was judged; this service keeps none" in words_of(text)
        assert "<video" not in text
        assert 'role="slider"' in text, "the scores stay"


def test_while_it_waits_the_page_offers_to_cancel(tmp_path):
    worker = ScriptedWorker()
    with serving(tmp_path / "data", [worker]) as served, served.client() as client:
        judgement = client.post("/v1/judgements?name=a.mp4", content=b"wait").json()
        text = client.get(judgement["links"]["page"]).text
        assert 'id="cancel"' in text
        assert 'id="progress"' in text
        client.post(f"{judgement['links']['self']}/cancel").raise_for_status()
        text = client.get(judgement["links"]["page"]).text
        assert "Cancelled" in text
        assert 'id="cancel"' not in text


def verdict_of(label, p_fake, people=1, **changed):
    person = {"track": 1, "label": label, "p_fake": p_fake, "judged_steps": 9, "intervals": []}
    return {
        **{"label": label, "p_fake": p_fake, "coverage": 0.5, "frames": 10, "duration_s": 2.0},
        **{"people": [person] * people, "complete": True, "reason": None},
        **changed,
    }


@pytest.fixture(scope="module")
def spec() -> DecisionSpec:
    return Bundle.load().manifest.decision_of("fp32")


@pytest.mark.parametrize(
    ("verdict", "still", "headline", "text"),
    [
        (verdict_of("fake", 0.9), False, "The face looks forged.", "It can be wrong"),
        (verdict_of("fake", 0.9, people=2), False, "At least one face looks forged.", "timeline"),
        (verdict_of("fake", 0.9), True, "The face looks forged.", "marked in the picture"),
        (verdict_of("real", 0.1), False, "No traces", "does not prove the file genuine"),
        (verdict_of("unsure", 0.6), False, "cannot be decided", "Both real and forged"),
        (verdict_of("unsure", None), False, "cannot be decided", "Too little was seen"),
        (verdict_of("no_face", None, people=0), True, "no face", "does not make the picture real"),
    ],
)
def test_verdicts_in_words(spec, verdict, still, headline, text):
    assert headline in explaining.headline(verdict)
    assert text in explaining.text(verdict, spec, still=still)


def test_what_was_not_judged_is_counted_with_its_reason(spec):
    dark = {"reason": "dark"}
    frames = [{"people": []}, {"people": [dark, dark]}, {"people": [{"reason": None}]}]
    said = explaining.rests_on(verdict_of("real", 0.1), frames, spec, still=False)
    assert said[0].startswith("10 frames over 2.0 s were looked at; 50 %")
    assert "In 1 frame no face was found." in said
    assert "2 sightings of faces were not judged: the picture is too dark there." in said


def test_a_person_seen_too_shortly_has_no_verdict(spec):
    person = {"judged_steps": spec.min_steps - 1, "p_fake": 0.9}
    assert f"a verdict needs {spec.min_steps}" in explaining.person_text(person, spec, still=False)


@pytest.mark.parametrize(
    ("days", "words"), [(0, "as soon as they are judged"), (1, "1 day after"), (2.5, "2.5 days")]
)
def test_retention_in_words(days, words):
    assert words in views.retention_words(days)
