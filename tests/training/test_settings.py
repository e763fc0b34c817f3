"""Settings given as text, `name=value`."""

from __future__ import annotations

import pytest

from dfd_edge.errors import UsageError
from dfd_training.fit_frame import FitFrameOptions
from dfd_training.pairs import PairOptions
from dfd_training.settings import with_settings


def test_values_take_the_kind_of_the_field() -> None:
    options = with_settings(PairOptions(), ["true_share=0.5", "donor_candidates=3"])
    assert (options.true_share, options.donor_candidates) == (0.5, 3)
    assert with_settings(FitFrameOptions(), ["freeze_batch_norm=no"]).freeze_batch_norm is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("true_shares=0.5", "known, with their values: input_size=160"),
        ("true_share", "is unknown"),
        ("true_share=half", "not a value of the kind float"),
        ("donor_candidates=1.5", "not a value of the kind int"),
    ],
)
def test_what_does_not_fit_is_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_settings(PairOptions(), [setting])


def test_the_checks_of_the_options_still_hold() -> None:
    with pytest.raises(UsageError, match="epochs is 0"):
        with_settings(FitFrameOptions(), ["epochs=0"])
