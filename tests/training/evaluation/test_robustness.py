"""The robustness ladder goes through the runtime and goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from dfd_edge import Detector, Verdict
from dfd_edge.errors import UsageError
from dfd_edge.faces import DetectorOptions, FaceDetector
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import AllFrames
from dfd_training.cli import main
from dfd_training.data.table import read_table
from dfd_training.evaluation.degradations import (
    CLEAN,
    CORRUPTIONS,
    Corruption,
    H264Writer,
    Kind,
    corrupt,
)
from dfd_training.evaluation.robustness import (
    CorruptionResult,
    RobustnessJudge,
    ShiftedFaces,
    clips_of,
    judge_clips,
    summarise_robustness,
)

SECONDS = 1.0


@pytest.fixture(scope="module")
def judge(tiny_bundle: Path) -> RobustnessJudge:
    return RobustnessJudge(tiny_bundle, provider="cpu", precision="fp32", max_seconds=SECONDS)


@pytest.fixture(scope="module")
def judged(judge: RobustnessJudge, small_data: Path) -> dict[str, CorruptionResult]:
    """One clip on every rung."""
    return {result.rung: result for result in judge.judge_clip(small_data / "clip0_real.mp4")}


def test_the_clean_rung_is_what_the_runtime_says(
    judged: dict[str, CorruptionResult], tiny_bundle: Path, small_data: Path
) -> None:
    detector = Detector.load(tiny_bundle, provider="cpu", precision="fp32")
    verdict = detector.analyze(small_data / "clip0_real.mp4", duration_s=SECONDS)
    clean = judged[CLEAN.name]
    assert clean.p_fake == pytest.approx(verdict.p_fake, abs=1e-5)
    assert clean.verdict == verdict.label.value
    assert clean.frames == verdict.frames == 5
    assert clean.logit == pytest.approx(np.log(clean.p_fake / (1 - clean.p_fake)))


def test_every_rung_changes_the_score(judged: dict[str, CorruptionResult]) -> None:
    assert list(judged) == [rung.name for rung in CORRUPTIONS]
    clean = judged[CLEAN.name].logit
    for name, result in judged.items():
        assert result.frames == 5, name
        assert (result.logit == clean) == (name == CLEAN.name), name


def test_a_lower_rate_costs_more(judged: dict[str, CorruptionResult]) -> None:
    whole = [rung for rung in CORRUPTIONS if rung.kind is Kind.H264][:4]
    assert [rung.strength for rung in whole] == [23, 28, 33, 42]
    rates = [judged[rung.name].kbps for rung in whole]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 2 * rates[-1]
    assert np.isnan(judged[CLEAN.name].kbps)


def test_clips_are_encoded_anew_smaller_and_with_fewer_frames(
    astronaut: NDArray[np.uint8], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime reads them as files, whose consecutive frames are those that it measures."""
    with H264Writer(tmp_path / "phone.mp4", 18, rate=60.0) as file:
        for number in range(72):
            file.write(np.ascontiguousarray(astronaut[:, :298]), number / 60)
    judge = RobustnessJudge(tiny_bundle, provider="cpu", precision="fp32", max_seconds=SECONDS)
    seen: list[tuple[tuple[int, ...], int, float]] = []
    analyze = judge.detector.analyze

    def noting(path: Path, **options: Any) -> Verdict:
        with VideoFile(path) as video:
            frames = [f for f in video.frames(AllFrames()) if f.time_s < SECONDS]
        seen.append((frames[0].image.shape[:2], len(frames), frames[1].time_s))
        return analyze(path, **options)

    monkeypatch.setattr(judge.detector, "analyze", noting)
    ladder = [rung for rung in CORRUPTIONS if rung.kind in (Kind.CLEAN, Kind.H264)]
    results = judge.judge_clip(tmp_path / "phone.mp4", ladder)
    assert all(result.frames in (5, 6) for result in results), "a due frame may be a little early"
    clean, crf23, _, _, _, half, slow, shared = seen
    assert clean[:2] == crf23[:2] == slow[:1] + (60,) == ((300, 298), 60)
    assert half[:2] == ((150, 150), 60), "sides are made even"
    assert shared[:2] == ((150, 150), 30)
    assert slow[1] == 15
    assert [rung[2] for rung in (clean, slow, shared)] == pytest.approx(
        [1 / 60, 1 / 15, 1 / 30], abs=2e-3
    )


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_shifted_crops_lie_beside_the_face(share: float, astronaut: NDArray[np.uint8]) -> None:
    face = FaceDetector().detect(astronaut)[0]
    shifted = ShiftedFaces(share, np.pi / 2, options=DetectorOptions()).detect(astronaut)[0]
    moved = shifted.box - face.box
    np.testing.assert_allclose(moved, [0, share * face.size] * 2, atol=1e-3)


@pytest.mark.parametrize("rung", CORRUPTIONS, ids=lambda rung: rung.name)
def test_what_rungs_do_to_a_frame(rung: Corruption, astronaut: NDArray[np.uint8]) -> None:
    changed = corrupt(rung, astronaut, np.random.default_rng(0))
    height, width = astronaut.shape[:2]
    match rung.kind:
        case Kind.CLEAN | Kind.H264 | Kind.SHIFT:
            assert changed is astronaut, "not a matter of single frames"
        case Kind.RESIZE:
            assert changed.shape == (height * rung.strength, width * rung.strength, 3)
        case Kind.GAMMA:
            brighter = changed.mean() > astronaut.mean()
            assert brighter == (rung.strength < 1)
        case Kind.BLUR:
            assert cv2.Laplacian(changed, cv2.CV_64F).var() < 0.2 * (
                cv2.Laplacian(astronaut, cv2.CV_64F).var()
            )
        case Kind.NOISE | Kind.JPEG:
            assert changed.shape == astronaut.shape
            assert 0.5 < np.abs(changed.astype(float) - astronaut).mean() < 15


def test_recoded_clips_keep_their_times(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    """Odd sides are padded; frames come at uneven times, as from a phone."""
    times = [0.0, 0.033, 0.1, 0.2, 0.5]
    with H264Writer(tmp_path / "clip.mp4", 30, rate=30.0) as file:
        for number, time_s in enumerate(times):
            file.write(np.ascontiguousarray(astronaut[number : number + 201, :255]), time_s)

    with VideoFile(tmp_path / "clip.mp4") as video:
        frames = [(frame.time_s, frame.image.shape) for frame in video.frames(AllFrames())]
    assert [time_s for time_s, _ in frames] == pytest.approx(times, abs=1e-3)
    assert {shape for _, shape in frames} == {(202, 256, 3)}


def table_of(small_data: Path, names: list[str]) -> pd.DataFrame:
    table = read_table(small_data / "labels.csv")
    return table[table["path"].isin(names)]


PAIR = ["clip0_real.mp4", "clip0_fake.mp4"]


class Broken:
    """A climber that must not be asked."""

    def judge_clip(self, path: Path, _: Sequence[Corruption]) -> list[CorruptionResult]:
        raise AssertionError(f"{path} was judged already")


def test_a_run_goes_on_where_it_stopped(
    judge: RobustnessJudge, small_data: Path, tmp_path: Path
) -> None:
    settings: dict[str, object] = {"bundle_hash": "a", "split": "train"}
    first = judge_clips(
        judge, table_of(small_data, PAIR[:1]), small_data, tmp_path, settings=settings
    )
    assert set(first["path"]) == {PAIR[0]}
    both = judge_clips(judge, table_of(small_data, PAIR), small_data, tmp_path, settings=settings)
    assert set(both["path"]) == set(PAIR)
    assert len(both) == 2 * len(CORRUPTIONS)
    again = judge_clips(
        Broken(), table_of(small_data, PAIR), small_data, tmp_path, settings=settings
    )
    pd.testing.assert_frame_equal(both, again)
    with pytest.raises(UsageError, match="holds results with bundle_hash a, not b"):
        judge_clips(
            judge,
            table_of(small_data, PAIR),
            small_data,
            tmp_path,
            settings={**settings, "bundle_hash": "b"},
        )
    other = judge_clips(
        judge,
        table_of(small_data, PAIR[:1]),
        small_data,
        tmp_path,
        settings={**settings, "bundle_hash": "b"},
        replace=True,
    )
    assert set(other["path"]) == {PAIR[0]}
    assert len(pd.read_csv(tmp_path / "clips.csv")) == len(CORRUPTIONS)


def test_the_figures_of_a_rung() -> None:
    """Two pairs and a real clip; on the second rung a real clip is called fake, one is lost."""

    def row(path: str, rung: str, logit: float, verdict: str) -> dict[str, object]:
        fake = path.endswith("2")
        return {
            "path": path,
            "label": "FAKE" if fake else "REAL",
            "original": path[0] if fake else "",
            "group": path[0],
            "rung": rung,
            "verdict": verdict,
            "logit": logit,
            "kbps": np.nan,
            "error": "",
        }

    rows = [row("a", "clean", -1, "real"), row("a2", "clean", 1, "fake")]
    rows += [row("b", "clean", -2, "real"), row("b2", "clean", 2, "fake")]
    rows += [row("c", "clean", 0, "unsure")]
    rows += [row("a", "JPEG 30", 3, "fake"), row("a2", "JPEG 30", 2, "fake")]
    rows += [row("b", "JPEG 30", -2, "real"), row("b2", "JPEG 30", 1, "unsure")]
    rows += [row("c", "JPEG 30", np.nan, "no_face")]
    rows += [{**row("d", "", np.nan, ""), "error": "not a video"}]
    clean, jpeg = summarise_robustness(pd.DataFrame(rows), draws=50)
    assert (clean.auc.value, clean.pairs_won, clean.pairs) == (1.0, 2, 2)
    assert (jpeg.fakes, jpeg.reals, jpeg.real_clips) == (2, 2, 3)
    assert jpeg.auc.value == 0.5
    assert jpeg.auc_change.value == -0.5
    assert (jpeg.pairs_won, jpeg.reals_called_fake, jpeg.reals_unsure) == (1, 1, 1)
    assert jpeg.fakes_called_fake == 1
    assert jpeg.real_shift.value == pytest.approx((4 + 0) / 2)
    assert jpeg.fake_shift.value == pytest.approx((1 - 1) / 2)


@pytest.mark.slow
def test_the_ladder_command(small_data: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A clip that cannot be read is named, and the others are judged."""
    table = tmp_path / "labels.csv"
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00" * 100)
    rows = table_of(small_data, PAIR).assign(split="val")
    rows["path"] = [str(small_data / path) for path in rows["path"]]
    rows["original"] = [str(small_data / path) if path else "" for path in rows["original"]]
    extra = rows.iloc[:1].assign(path=str(broken), label="REAL", group="x", original="")
    pd.concat([rows, extra]).to_csv(table, index=False)
    out = tmp_path / "ladder"
    arguments = ["ladder", str(table), "--bundle", str(tiny_bundle), "--out", str(out)]
    result = CliRunner().invoke(
        main, [*arguments, "--max-seconds", "1", "--draws", "20", "--precision", "fp32"]
    )
    assert result.exit_code == 0, result.output
    assert f"Not judged: {broken}" in result.stdout
    assert "| crop shift 10 % | 1, 1 |" in result.stdout
    stored = json.loads((out / "ladder.json").read_text())
    assert stored["precision"] == "fp32"
    assert [rung["rung"] for rung in stored["rungs"]] == [rung.name for rung in CORRUPTIONS]
    assert len(pd.read_csv(out / "ladder.csv")) == len(CORRUPTIONS)
    assert cv2.imread(str(out / "ladder.png")) is not None
    assert (out / "ladder.md").read_text() in result.stdout


def test_some_kinds_of_corruption_alone(
    small_data: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    table_of(small_data, PAIR).to_csv(tmp_path / "labels.csv", index=False)
    out = tmp_path / "ladder"
    arguments = [
        "ladder", str(tmp_path / "labels.csv"), "--root", str(small_data), "--split", "train",
        "--bundle", str(tiny_bundle), "--out", str(out), "--max-seconds", "1", "--draws", "20",
    ]  # fmt: skip
    result = CliRunner().invoke(main, [*arguments, "--only", "H.264"])
    assert result.exit_code == 0, result.output
    rungs = [rung["rung"] for rung in json.loads((out / "ladder.json").read_text())["rungs"]]
    assert rungs == [r.name for r in CORRUPTIONS if r.kind in (Kind.CLEAN, Kind.H264)]
    assert "| H.264 CRF 30, size 1/2, 30 fps (re-share) (" in result.stdout
    other = CliRunner().invoke(main, [*arguments, "--only", "blur"])
    assert "holds results with corruptions H.264, not blur: give another --out" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-seconds", "0"], "--max-seconds 0: give a number above 0"),
        (["--split", "val"], "no clip among the 0 rows of split val"),
        (["--precision", "int8"], "int8"),
    ],
)
def test_requests_that_cannot_be_met(
    options: list[str], message: str, small_data: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    table = str(small_data / "labels.csv")
    split = [] if "--split" in options else ["--split", "train"]
    arguments = ["ladder", table, "--bundle", str(tiny_bundle), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, *split, *options])
    assert result.exit_code in (2, 4, 5)
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out" / "clips.csv").exists()


def test_photographs_are_not_taken_up_the_ladder(small_data: Path) -> None:
    clips = clips_of(read_table(small_data / "labels.csv"), small_data, "train")
    assert set(clips["path"]) == {
        f"clip{n}_{kind}.mp4" for n in range(6) for kind in ("real", "fake")
    } | {"broken.mp4"}
