"""A few hundred hostile cases of each kind; `make fuzz` judges many more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from campaign import Campaign, Judge
from judging import Answer, answer_of
from media_seeds import make_seeds

from dfd_edge import SourceError

CASES = {"media": 600, "bundle": 200, "arguments": 400, "provenance": 250}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return Campaign(seed=1, work=folder, keep=folder / "kept")


@pytest.mark.parametrize("kind", CASES)
def test_hostile_input_ends_in_a_verdict_or_a_clear_error(campaign: Campaign, kind: str) -> None:
    if kind == "provenance":
        pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")
    campaign.run(kind, range(CASES[kind]), jobs=1)
    assert not campaign.failed, "\n".join(campaign.table())


def test_a_case_is_the_same_in_each_run(campaign: Campaign, tmp_path: Path) -> None:
    again = Campaign(seed=1, work=tmp_path / "again", keep=tmp_path)
    for kind in ("media", "bundle"):
        made = []
        for maker, name in ((campaign, "one"), (again, "two")):
            folder = tmp_path / f"{kind}-{name}"
            folder.mkdir()
            _, path = maker.make(kind, 5, folder)
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            made.append([file.read_bytes() for file in files])
        assert made[0] == made[1]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies here")
def test_seeds_leave_the_scheduling_of_the_process(tmp_path: Path) -> None:
    # SVT-AV1 gives root's calling thread real-time priority, from the second film on.
    before = os.sched_getscheduler(0)
    for name in ("one", "two"):
        make_seeds(tmp_path / name)
    assert os.sched_getscheduler(0) == before


def test_faults_would_be_seen(campaign: Campaign, tmp_path: Path) -> None:
    def raising(error: BaseException) -> Answer:
        def judge() -> str:
            raise error

        return answer_of(judge)

    assert raising(SourceError("clip", "damaged")) == Answer("error", "clip: damaged")
    assert raising(SourceError("two\nlines", "damaged")).outcome == "traceback"
    assert raising(IndexError("deque")).outcome == "traceback"
    assert raising(MemoryError()).outcome == "memory"


@pytest.mark.parametrize(
    ("kind", "outcome", "detail"),
    [("abort", "crash", "SIGABRT"), ("hang", "hang", "nothing"), ("memory", "memory", "MB")],
)
def test_a_process_that_dies_is_counted_and_started_again(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind, outcome, detail
) -> None:
    import campaign as module

    monkeypatch.setattr(module, "PATIENCE_S", 1.0 if kind == "hang" else 60.0)
    judge = Judge(campaign.bundle)
    try:
        assert judge.ask("arguments", tmp_path).outcome in ("verdict", "error")
        answer = judge.ask(kind, tmp_path)
        assert answer.outcome == outcome
        assert detail in answer.detail
        assert judge.ask("media", campaign.face).outcome == "verdict"
    finally:
        judge.close()
