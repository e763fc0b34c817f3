"""The page's modules say what the runtime says of the same frames."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfd_edge import Detector
from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.bundle.manifest import PersonScore
from dfd_edge.faces.tracker import assign
from dfd_edge.judging.decision import Decision, PersonHistory, judge_still
from dfd_edge.report.words import verdict_words
from dfd_edge.sources.bursts import ForeseenBursts
from dfd_edge.sources.frames import Sampler, resized
from headless import Browser
from web_served import judged_in_browser, sample, served, written

#: By precision, how far probabilities may lie apart.
TOLERANCES = {"fp32": 1e-3, "int8": 1e-2}


@pytest.fixture(scope="module", params=["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def page(
    request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, Detector]]:
    """A page of one precision, shown; its precision, what is served, and the runtime's detector."""
    root = tmp_path_factory.mktemp("served")
    written(root, request.param)
    with served(root) as address:
        show(browser, address)
        yield request.param, root, Detector.load(precision=request.param)


@pytest.fixture(scope="module")
def modules(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A page whose modules can be imported and asked."""
    root = tmp_path_factory.mktemp("modules")
    written(root)
    with served(root) as address:
        show(browser, address)
        yield browser


def show(browser: Browser, address: str) -> None:
    """Shows the page's folder without starting the page itself."""
    browser.open(f"{address}/site/judge/pixels.js", width=1280)
    browser.evaluate(f"history.replaceState(null, '', '{address}/site/index.html')")


def scenes() -> dict[str, list[np.ndarray]]:
    """Frames at 25 a second: one person, two who come near, a small face, a large frame."""
    one = sample("swapped_astronaut", 16)
    pairs = zip(sample("real_astronaut", 11), sample("real_hopper", 11), strict=True)
    two = [np.hstack([left[:, 120:420], right]) for left, right in pairs]
    small = []
    for number, frame in enumerate(sample("real_hopper", 6)):
        wide = np.full((720, 1280, 3), 90, np.uint8)
        wide[300:480, 700 + 4 * number : 940 + 4 * number] = cv2.resize(frame, (240, 180))
        small.append(wide)
    upright = [cv2.resize(frame, (810, 1080)) for frame in sample("real_astronaut", 6)]
    return {"one person": one, "two people": two, "small face": small, "810 x 1080": upright}


def test_frames_give_the_boxes_and_scores_of_the_runtime(page, browser):
    """Prints the table of docs/web.md: largest differences of boxes (px) and probabilities."""
    precision, root, detector = page
    for name, images in scenes().items():
        times = [number / 25 for number in range(len(images))]
        with detector.stream() as stream:
            pushed = (stream.push(image, t) for image, t in zip(images, times, strict=True))
            expected = [result for result in pushed if result is not None]
            verdict = stream.verdict()
        found = judged_in_browser(browser, root, images, times)
        assert [r.time_s for r in expected] == [r["time_s"] for r in found["results"]]
        apart = dict.fromkeys(("box", "p_frame", "p_step", "p_fake", "signals"), 0.0)
        steps = 0
        for ours, theirs in zip(expected, found["results"], strict=True):
            assert ours.people
            same = ("track", "judged", "reason")
            assert [[getattr(p, key) for key in same] for p in ours.people] == [
                [p[key] for key in same] for p in theirs["people"]
            ]
            for person, other in zip(ours.people, theirs["people"], strict=True):
                steps += person.judged
                assert list(person.crop) == list(other["crop"].values())
                pairs = [("box", person.box, other["box"])]
                pairs += [
                    (key, [getattr(person, key)], [other[key]])
                    for key in ("p_frame", "p_step", "p_fake")
                ]
                signals = None if person.signals is None else list(person.signals.values())
                assert (signals is None) == (other["signals"] is None)
                pairs.append(("signals", signals or [], other["signals"] or []))
                for key, first, second in pairs:
                    for a, b in zip(first, second, strict=True):
                        assert (a is None) == (b is None)
                        apart[key] = max(apart[key], abs(a - b) if a is not None else 0.0)
        print(f"{precision} {name}: {steps} faces judged, " + json.dumps(apart))
        assert steps
        assert apart["box"] <= 1.0
        assert apart["signals"] <= 1e-2
        tolerance = TOLERANCES[precision]
        assert max(apart[key] for key in ("p_frame", "p_step", "p_fake")) <= tolerance
        assert verdict.label == found["verdict"]["label"]
        assert verdict.coverage == pytest.approx(found["verdict"]["coverage"])
        if verdict.p_fake is not None:
            assert verdict.p_fake == pytest.approx(found["verdict"]["p_fake"], abs=tolerance)


def test_a_still_is_decided_as_the_runtime_does(page, browser):
    """A picture with a small face, which is searched for in tiles, by the decision on stills."""
    precision, root, detector = page
    image = np.full((900, 1200, 3), 120, np.uint8)
    image[640:805, 60:280] = cv2.resize(sample("real_hopper", 1)[0], (220, 165))
    stream = detector.stream()
    (scored,) = stream.score([stream.observe(image, 0.0, thorough=True)])
    result, _, decisive = judge_still(scored, detector.decision.for_stills())
    found = judged_in_browser(browser, root, [image], [0.0], still=True)
    (theirs,) = found["results"]
    assert decisive is not None
    assert [p.box for p in result.people] == [
        pytest.approx(p["box"], abs=1.0) for p in theirs["people"]
    ]
    assert found["verdict"]["label"] == result.label
    assert found["verdict"]["p_fake"] == pytest.approx(decisive.p_fake, abs=TOLERANCES[precision])


def test_pictures_are_resized_to_the_same_bytes(modules):
    rng = np.random.default_rng(5)
    cases = []
    for height, width, size in ((97, 131, (60, 44)), (120, 160, (40, 30)), (33, 41, (90, 72))):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        cases.append((image, size, resized(image, size)))
    for image, (width, height), expected in cases:
        asked = json.dumps(
            {
                "data": image.ravel().tolist(),
                "width": image.shape[1],
                "height": image.shape[0],
                "channels": 3,
            }
        )
        found = modules.evaluate(
            f"""import("./judge/pixels.js").then(({{ resized, grey, lab, boxSums }}) => {{
              const image = {asked};
              const plane = grey(image);
              return [
                [...resized(image, {width}, {height}, 3).data], [...plane.data],
                [...lab(image).data],
                [...boxSums(plane.data, plane.width, plane.height, 7)],
              ];
            }})"""
        )
        small, grey, lab, sums = (np.array(values) for values in found)
        assert np.abs(small - expected.ravel()).max() <= 1  # a sum of floats may lie at a half
        assert np.mean(small != expected.ravel()) < 5e-3
        ours = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        assert (grey == ours.ravel()).all()
        colours = cv2.cvtColor(image, cv2.COLOR_RGB2Lab).ravel().astype(int)
        assert np.abs(lab - colours).max() <= 1  # so is a table's cube root, rarely
        assert np.mean(lab != colours) < 1e-3
        boxes = cv2.boxFilter(ours, cv2.CV_32S, (7, 7), normalize=False)
        assert (sums == boxes.ravel()).all()


def test_the_same_moments_are_due_and_compared(modules):
    """Steps of many lengths, jitter, gaps and steps back."""
    rng = np.random.default_rng(3)
    steps = np.concatenate(
        [np.full(60, 1 / 25), rng.uniform(0.01, 0.09, 80), [3.0, -2.0], np.full(40, 1 / 60)]
    )
    times = np.cumsum(steps).tolist()
    sampler = Sampler(5.0)
    bursts = ForeseenBursts(sampler)
    expected = []
    plane = np.zeros((16, 16, 3), np.uint8)
    for t in times:
        due = sampler.is_due(t)
        wanted = bursts.wants(t, due=due)
        burst = bursts.keep(plane, t) if wanted else None
        expected.append([due, wanted, burst is not None])
    found = modules.evaluate(
        f"""(async () => {{
          const {{ Gate }} = await import("./judge/stream.js");
          const {{ RecentPlanes }} = await import("./judge/sampling.js");
          const config = await (await fetch("config.json")).json();
          const [gate, recent] = [new Gate(config), new RecentPlanes(config.rules.sampling)];
          const plane = {{ width: 16, height: 16 }};
          return {json.dumps(times)}.map((time) => {{
            const {{ due, wanted }} = gate.ask(time);
            if (!wanted) recent.interrupt();
            const burst = wanted ? recent.keep(plane, time) : null;
            return [due, wanted, burst !== null];
          }});
        }})()"""
    )
    assert found == expected
    assert sum(due for due, _, _ in expected) > 10
    assert sum(burst for _, _, burst in expected) > 5


def test_people_are_decided_by_the_same_rules(modules):
    """Random scores of two people, with each kind of score, few steps, and blurred ones."""
    decision = Bundle.load(DEFAULT_BUNDLE).manifest.decision
    rng = np.random.default_rng(8)
    for kind, settle in itertools.product((PersonScore.SEQUENCE, PersonScore.FRAME), (0.0, 3.0)):
        spec = dataclasses.replace(
            decision, person_score=kind, settle_steps=settle, settle_detail=settle
        )
        scores = [
            [0.2 * i, *rng.normal(1.0 if i < 40 else -2.0, 2.0, 2).tolist(), 5.0 + i]
            for i in range(90)
        ]
        history = PersonHistory(1, Decision(spec), 0.2)
        expected = []
        for entry in scores:
            history.add(*entry)
            expected.append([history.live_p_fake, str(history.live_label)])
        verdict = history.verdict(end_s=17.5)
        plain = json.loads(spec.to_json())
        found = modules.evaluate(
            f"""(async () => {{
              const {{ Decision, PersonHistory }} = await import("./judge/decision.js");
              const {{ rules }} = await (await fetch("config.json")).json();
              const decision = new Decision({json.dumps(plain)});
              const history = new PersonHistory(1, decision, 0.2, rules.decision);
              const live = {json.dumps(scores)}.map((entry) => {{
                history.add(...entry);
                return [history.liveP, history.liveLabel];
              }});
              return {{ live, verdict: history.verdict(17.5) }};
            }})()"""
        )
        assert [label for _, label in found["live"]] == [label for _, label in expected]
        assert [p for p, _ in found["live"]] == pytest.approx([p for p, _ in expected])
        assert found["verdict"]["p_fake"] == pytest.approx(verdict.p_fake)
        assert found["verdict"]["intervals"] == [
            pytest.approx([i.start_s, i.end_s]) for i in verdict.intervals
        ]


def test_faces_are_assigned_alike(modules):
    rng = np.random.default_rng(2)
    cases = []
    for rows, columns in itertools.product(range(1, 5), repeat=2):
        costs = rng.uniform(0, 4, (rows, columns))
        costs[rng.random((rows, columns)) < 0.2] = math.inf
        cases.append(costs)
    plain = [[[None if math.isinf(c) else c for c in row] for row in costs] for costs in cases]
    found = modules.evaluate(
        f"""import("./judge/tracker.js").then(({{ assign }}) =>
          {json.dumps(plain)}.map((costs) => [...assign(
            costs.map((row) => row.map((cost) => cost ?? Infinity)), costs[0].length, 2.5)]
            .sort((a, b) => a[0] - b[0])))"""
    )
    assert found == [[list(pair) for pair in assign(costs, unpaired=2.5)] for costs in cases]


def test_verdicts_are_put_into_the_words_of_a_report(modules):
    spec = Bundle.load(DEFAULT_BUNDLE).manifest.decision
    people = [{"judged_steps": 2}, {"judged_steps": 3}]
    records = [
        {"label": label, "p_fake": p, "people": people[:n], "complete": True, "reason": None}
        for label, p in (
            *(("fake", p) for p in (0.86, 0.999, 0.9)),
            *(("real", p) for p in (0.004, 0.2, 0.4987)),
            *(("unsure", p) for p in (None, 0.5, 0.85, 0.853)),
            ("no_face", None),
        )
        for n in (1, 2)
    ]
    cases = [(record, still) for record in records for still in (False, True)]
    found = modules.evaluate(
        f"""import("./words.js").then(({{ verdictWords }}) =>
          {json.dumps(cases)}.map(([verdict, still]) =>
            verdictWords(verdict, {spec.to_json()}, still)))"""
    )
    assert found == [verdict_words(record, spec, still=still) for record, still in cases]
