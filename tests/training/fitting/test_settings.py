"""Settings given as text, `name=value`, and as TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfd_edge.errors import UsageError
from dfd_training.fitting.options import Balance, FitFrameOptions, LossKind, Media
from dfd_training.fitting.pairs import PairOptions
from dfd_training.fitting.settings import read_settings, to_toml, values_of_texts

KINDS = {"fit": FitFrameOptions, "pairs": PairOptions}


def test_values_take_the_kind_of_the_field() -> None:
    assert values_of_texts(PairOptions, ["true_share=0.5", "donor_candidates=3"]) == {
        "true_share": 0.5,
        "donor_candidates": 3,
    }
    texts = ["freeze_batch_norm=no", "loss=focal", "without_sources=a,b", "backbone=meso4"]
    assert values_of_texts(FitFrameOptions, texts) == {
        "freeze_batch_norm": False,
        "loss": LossKind.FOCAL,
        "without_sources": ("a", "b"),
        "backbone": "meso4",
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("true_shares=0.5", "known, with their values: input_size=160"),
        ("true_share", "is unknown"),
        ("true_share=half", "setting true_share is 'half', not a number"),
        ("true_share=nan", "setting true_share is nan, not a number that is finite"),
        ("donor_candidates=1.5", "donor_candidates is '1.5', not a whole number"),
        ("families=maybe", "setting families is 'maybe', not true or false"),
    ],
)
def test_what_does_not_fit_is_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        values_of_texts(PairOptions, [setting])


def test_an_enum_names_what_it_takes() -> None:
    with pytest.raises(UsageError, match="loss is 'hinge', not one of binary_crossentropy, focal"):
        values_of_texts(FitFrameOptions, ["loss=hinge"])


def test_what_is_written_as_toml_is_read_again(tmp_path: Path) -> None:
    options = FitFrameOptions(
        weights='a "quoted" \\ path\n\x7f ä.keras',
        train_on=Media.CLIPS,
        balance=Balance.CLASS_WEIGHTS,
        without_sources=("one, two", "three"),
        learning_rate=1e-05,
        freeze_batch_norm=True,
    )
    path = tmp_path / "settings.toml"
    path.write_text(to_toml({"fit": options, "pairs": PairOptions(turn=4.0)}), "utf-8")
    read = read_settings(path, KINDS)
    assert FitFrameOptions(**read["fit"]) == options
    assert PairOptions(**read["pairs"]) == PairOptions(turn=4.0)


def test_a_file_may_say_little(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[fit]\nlearning_rate = 1\n")
    assert read_settings(path, KINDS) == {"fit": {"learning_rate": 1.0}, "pairs": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fit]\nepoch = 3", r"run.toml: fit.epoch is unknown; known in \[fit\]: backbone, weig"),
        ("[fit]\nepochs = 3.5", "run.toml: fit.epochs is 3.5, not a whole number"),
        ("[fit]\nepochs = true", "fit.epochs is True, not a whole number"),
        ("[fit]\nfreeze_batch_norm = 1", "fit.freeze_batch_norm is 1, not true or false"),
        ("[fit]\nlearning_rate = 'x'", "fit.learning_rate is 'x', not a number"),
        ("[fit]\nlearning_rate = nan", "fit.learning_rate is nan, not a number that is"),
        ("[fit]\nloss = 'hinge'", "fit.loss is 'hinge', not one of binary_crossentropy, focal"),
        ("[fit]\nwithout_sources = 'a'", "fit.without_sources is 'a', not a list"),
        ("[fits]\nepochs = 3", r"fits is no table of settings; known are \[fit\], \[pairs\]"),
        ("epochs = 3", r"epochs is no table of settings"),
        ("[fit\n", "run.toml: not TOML"),
        (None, "run.toml: cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    text: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_settings(path, KINDS)
    assert "\n" not in str(caught.value)
