"""Calibration: what logits become, and where the thresholds lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dfd_edge.bundle.manifest import DecisionSpec, PersonScore
from dfd_edge.errors import UsageError
from dfd_edge.judging.decision import Decision, StepSums, calibrated
from dfd_training.calibration.calibrate import calibrate
from dfd_training.calibration.decision_file import decisions_from_json, decisions_to_json
from dfd_training.cli import main
from dfd_training.sequence.sequences import ClipSequence, Treatment, load_sequences, save_sequences


def clip(rng: np.random.Generator, number: int, *, fake: bool, strength: float) -> ClipSequence:
    """A clip of ten steps whose frame logits say `strength` times the truth, plus noise."""
    truth = strength if fake else -strength
    return ClipSequence(
        path=f"{number}_{fake}",
        group=f"g{number}",
        source="s",
        fold=number % 3,
        variant=Treatment.PLAIN,
        fake=fake,
        true_fake=fake,
        features=rng.normal(size=(10, 3)).astype(np.float32),
        frame_logit=(truth + rng.normal(0, 2.0) + rng.normal(0, 1, 10)).astype(np.float32),
        detail=np.full(10, 100.0, np.float32),
        face_px=np.full(10, 90.0, np.float32),
    )


@pytest.fixture
def sequences() -> list[ClipSequence]:
    rng = np.random.default_rng(0)
    return [clip(rng, n, fake=fake, strength=1.5) for n in range(150) for fake in (False, True)]


def shifted(sequences: list[ClipSequence], gain: float) -> list[np.ndarray]:
    """Sequence logits that know more (gain above 0) or less than the frames' own."""
    return [s.frame_logit + gain * (1.0 if s.fake else -1.0) for s in sequences]


@pytest.mark.parametrize(
    ("gain", "chosen"), [(1.0, PersonScore.SEQUENCE), (-1.0, PersonScore.FRAME)]
)
def test_the_better_score_on_the_folds_is_chosen(
    sequences: list[ClipSequence], gain: float, chosen: PersonScore
) -> None:
    assert calibrate(sequences, shifted(sequences, gain), draws=20).decision.person_score is chosen


def test_probabilities_mean_what_they_say(sequences: list[ClipSequence]) -> None:
    decision = calibrate(sequences, shifted(sequences, -1.0), draws=20).decision
    means = np.array([s.frame_logit.mean() for s in sequences])
    p = np.array([calibrated(float(mean), decision.calibrators["person"]) for mean in means])
    fake = np.array([s.fake for s in sequences])
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        inside = (p >= low) & (p < high)
        assert fake[inside].mean() == pytest.approx(p[inside].mean(), abs=0.12)


def test_thresholds_keep_their_rates(sequences: list[ClipSequence]) -> None:
    decision = calibrate(sequences, shifted(sequences, -1.0), draws=20).decision
    means = np.array([s.frame_logit.mean() for s in sequences])
    p = np.array([calibrated(float(mean), decision.calibrators["person"]) for mean in means])
    fake = np.array([s.fake for s in sequences])
    real_at, fake_at = decision.thresholds["real"], decision.thresholds["fake"]
    assert real_at.probability <= 0.5 <= fake_at.probability
    assert (p[~fake] >= fake_at.probability).sum() == 3, "2 % of 150 real clips"
    assert (p[fake] <= real_at.probability).mean() == pytest.approx(real_at.rate)
    assert real_at.rate <= real_at.target_rate
    unsure = (p[~fake] > real_at.probability) & (p[~fake] < fake_at.probability)
    assert unsure.mean() <= 0.25
    assert fake_at.n == 150
    assert fake_at.rate == pytest.approx(3 / 150)
    assert fake_at.rate < fake_at.upper_bound < 0.06


def p_of(sequence: ClipSequence, decision: DecisionSpec) -> float:
    """P(fake) of a clip with one person, as the runtime gives it."""
    rules, sums = Decision(decision), StepSums()
    for logit, detail in zip(sequence.frame_logit, sequence.detail, strict=True):
        sums = sums.and_one(float(logit), rules.share(float(detail)))
    return rules.p_person(sums)


def test_n_is_the_number_of_groups_however_many_clips_each_gives(
    sequences: list[ClipSequence],
) -> None:
    """Degraded copies and a second person of a clip add nothing to n."""
    degraded = [dataclasses.replace(s, variant=Treatment.DEGRADED) for s in sequences]
    second = [dataclasses.replace(s, frame_logit=s.frame_logit - 1.0) for s in sequences]
    more = [*sequences, *degraded, *second]
    decision = calibrate(more, shifted(more, -1.0), draws=20).decision
    assert decision.thresholds["fake"].n == 150
    assert decision.thresholds["real"].n == 150
    p = [p_of(s, decision) for s in sequences if not s.fake]
    assert sum(value >= decision.thresholds["fake"].probability for value in p) == 3


def test_degraded_real_clips_must_not_be_called_fake_either(sequences: list[ClipSequence]) -> None:
    """A codec that makes reals look fake raises the threshold until few of them reach it."""
    reals = [s for s in sequences if not s.fake]
    coded = [
        dataclasses.replace(s, variant=Treatment.DEGRADED, frame_logit=s.frame_logit + 1.0)
        for s in reals
    ]
    plain = calibrate(sequences, shifted(sequences, -0.1), draws=20)
    more = [*sequences, *coded]
    decision = calibrate(more, shifted(more, -0.1), draws=20)
    fake_at = decision.decision.thresholds["fake"]
    reached = [np.mean([p_of(s, decision.decision) >= fake_at.probability for s in part])
               for part in (reals, coded)]  # fmt: skip
    assert np.mean(reached) <= 0.02
    assert fake_at.rate == pytest.approx(np.mean(reached))
    figures = decision.metrics
    name = "training folds, fp32, real clips, degraded: share called fake"
    assert figures[name].value == pytest.approx(reached[1], abs=1e-4)
    assert name not in plain.metrics
    found = "training folds, fp32, true fakes: share called fake"
    assert figures[found].value < plain.metrics[found].value, "which costs fakes"


def test_a_group_of_many_clips_weighs_no_more_than_a_group_of_one(
    sequences: list[ClipSequence],
) -> None:
    """Thirty clips of one person that all look fake are one false alarm among groups."""
    crowd = [
        dataclasses.replace(s, path=f"crowd{n}", group="g0", frame_logit=s.frame_logit + 9.0)
        for n, s in enumerate(s for s in sequences if not s.fake)
        if n < 30
    ]
    clips = [*sequences, *crowd]
    decision = calibrate(clips, shifted(clips, -1.0), draws=20).decision
    fake_at = decision.thresholds["fake"]
    assert all(p_of(s, decision) >= fake_at.probability for s in crowd)
    assert fake_at.rate <= 0.02
    assert fake_at.n == 150


def test_figures_at_one_and_five_per_cent_have_their_bounds(sequences: list[ClipSequence]) -> None:
    metrics = calibrate(sequences, shifted(sequences, -1.0), draws=20).metrics
    at = {t: f"training folds, fp32, threshold for {t} % false positives" for t in (1, 5)}
    at = {target: name.replace(" %", "%") for target, name in at.items()}
    assert metrics[at[5]].value < metrics[at[1]].value
    for target, name in at.items():
        called = metrics[f"{name}: real clips called fake"]
        assert called.value <= target / 100 < called.high, "150 groups cannot show a rate exactly"
        assert called.n == 150
    found = {t: metrics[f"{name}: true fakes called fake"] for t, name in at.items()}
    assert found[1].value < found[5].value
    assert found[1].low <= found[1].value <= found[1].high


def test_each_precision_has_thresholds_on_its_own_logits_and_the_same_score(
    sequences: list[ClipSequence],
) -> None:
    """A variant whose logits all lie higher is called fake from a higher logit on."""
    fp32 = calibrate(sequences, shifted(sequences, -1.0), draws=20).decision
    higher = [dataclasses.replace(s, frame_logit=s.frame_logit + 0.7) for s in sequences]
    int8 = calibrate(
        higher,
        shifted(higher, 1.0),
        precision="int8",
        person_score=fp32.person_score,
        draws=20,
    )
    assert int8.decision.person_score is fp32.person_score is PersonScore.FRAME
    assert all(name.startswith("training folds, int8, ") for name in int8.metrics)

    def fake_logit(decision: DecisionSpec) -> float:
        p = decision.thresholds["fake"].probability
        person = decision.calibrators["person"]
        return (np.log(p / (1 - p)) - person.intercept) / person.slope

    assert fake_logit(int8.decision) - fake_logit(fp32) == pytest.approx(0.7, abs=0.02)
    back = decisions_from_json(decisions_to_json({"fp32": fp32, "int8": int8.decision}))
    assert back == {"fp32": fp32, "int8": int8.decision}


def test_photographs_have_figures_of_their_own(sequences: list[ClipSequence]) -> None:
    photographs = [
        dataclasses.replace(
            s,
            path=f"photo{n}",
            group=f"photo{n}",
            frame_logit=np.array([9.0 if n == 0 else -9.0], np.float32),
        )
        for n, s in enumerate(s for s in sequences if not s.fake)
    ]
    scores = shifted(sequences, -1.0)
    without = calibrate(sequences, scores, draws=20)
    result = calibrate(sequences, scores, photographs=photographs, draws=20)
    called = result.metrics["training folds, fp32, real photographs: share called fake"]
    assert called.value == pytest.approx(1 / 150, abs=1e-4)
    assert called.n == 150
    assert result.decision == without.decision, "they set no threshold"


def noisy_clips(noise: float) -> list[ClipSequence]:
    """Long clips whose truth shows in the mean; `noise` is that of single steps."""
    clips = []
    for number in range(150):
        rng = np.random.default_rng(number)
        truth = rng.normal(1.5 if number % 2 else -1.5, 1.0)
        clips.append(
            dataclasses.replace(
                clip(rng, number, fake=bool(number % 2), strength=0.0),
                frame_logit=(truth + rng.normal(0, noise, 60)).astype(np.float32),
                detail=np.full(60, 100.0, np.float32),
            )
        )
    return clips


@pytest.mark.parametrize(("noise", "kept"), [(6.0, True), (0.0, False)])
def test_short_looks_count_less_only_if_the_folds_show_that_it_helps(
    noise: float, kept: bool
) -> None:
    clips = noisy_clips(noise)
    logits = [s.frame_logit for s in clips]
    result = calibrate(clips, logits, person_score=PersonScore.FRAME, draws=200)
    assert (result.decision.settle_steps > 0) is kept
    state = "kept" if kept else "left out"
    gain = result.metrics[
        f"training folds, fp32, log loss saved by shrinkage for few steps ({state})"
    ]
    assert (gain.low > 0) is kept


@pytest.mark.parametrize("lost", [True, False])
def test_blurred_crops_count_less_only_if_the_folds_show_that_it_helps(
    sequences: list[ClipSequence], lost: bool
) -> None:
    """Where blur hides the truth, blurred clips are drawn to one half and sharp ones judge."""
    clips = []
    for number, s in enumerate(sequences):
        blurred = number // 2 % 2 == 0
        logits = np.random.default_rng(number).normal(0.5, 1.5) + np.zeros(10)
        clips.append(
            dataclasses.replace(
                s,
                frame_logit=logits.astype(np.float32) if lost and blurred else s.frame_logit,
                detail=np.full(10, 8.0 if blurred else 300.0, np.float32),
            )
        )
    scores = [s.frame_logit for s in clips]
    decision = calibrate(clips, scores, person_score=PersonScore.FRAME, draws=200).decision
    assert (decision.settle_detail > 0) is lost
    if lost:
        p = np.array([p_of(s, decision) for s in clips])
        soft = np.array([s.detail[0] < 100 for s in clips])
        assert np.abs(p[soft] - 0.5).mean() < 0.5 * np.abs(p[~soft] - 0.5).mean()
        assert decision.thresholds["fake"].rate <= 0.02


def test_a_model_that_learnt_nothing_is_refused(sequences: list[ClipSequence]) -> None:
    backwards = [dataclasses.replace(s, frame_logit=-s.frame_logit) for s in sequences]
    with pytest.raises(UsageError, match="fakes score below reals"):
        calibrate(backwards, [s.frame_logit for s in backwards])


def test_calibration_needs_true_fakes(sequences: list[ClipSequence]) -> None:
    reals = [s for s in sequences if not s.fake]
    with pytest.raises(UsageError, match=r"true fakes among .*, here are 150 and 0"):
        calibrate(reals, [s.frame_logit for s in reals])


@pytest.mark.parametrize("cause", ["true fakes among", "fakes score below reals"])
def test_the_command_that_refuses_says_what_to_do(
    sequences: list[ClipSequence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """Only the features come from elsewhere; the refusal is that of the command itself."""
    given = [dataclasses.replace(s, frame_logit=-s.frame_logit) for s in sequences]
    if cause == "true fakes among":
        given = [s for s in given if not s.fake]

    def scored(*_: object, photographs: bool = False, **__: object) -> dict[str, object]:
        return {"fp32": [] if photographs else given}

    monkeypatch.setattr("dfd_training.calibration.cli.out_of_fold_sequences", scored)
    logits = [s.frame_logit for s in given]
    monkeypatch.setattr(
        "dfd_training.sequence.out_of_fold.read_out_of_fold", lambda *_: list(logits)
    )
    models = ("--frame", "f.keras", "--sequence", "s", "--precision", "fp32")
    result = CliRunner().invoke(main, ["calibrate", "store", *models, "--out", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert cause in result.output
    assert "add clips of both kinds and of more people to the table" in result.output
    assert "`dfd-export bundle` without --decision exports the models as they are" in result.output
    assert not (tmp_path / "o").exists()


def test_sequences_survive_the_disk(sequences: list[ClipSequence], tmp_path: object) -> None:
    path = tmp_path / "sequences.npz"  # type: ignore[operator]
    save_sequences(sequences[:5], path)
    for before, after in zip(sequences[:5], load_sequences(path), strict=True):
        assert (before.features == after.features).all()
        assert (before.frame_logit == after.frame_logit).all()
        assert (before.path, before.fold, before.fake) == (after.path, after.fold, after.fake)
        assert (before.detail == after.detail).all()
        assert (after.variant, after.copy, after.generator) == (Treatment.PLAIN, 0, "")
