"""Conformal intervals against counting by hand, and what they promise against simulation."""

import numpy as np
import pandas as pd
import pytest

from boneage.errors import BoneageError
from boneage.serving.interval import MIN_IMAGES, coverage, half_widths, interval


def predictions(predicted, residual, male=0):
    predicted = np.asarray(predicted, float)
    return pd.DataFrame(
        {"predicted_months": predicted, "reference_months": predicted + np.asarray(residual, float), "male": male}
    )


def test_the_half_width_is_the_rank_that_conformal_prediction_asks_for():
    """Of residuals 1..49 it is the ceil(50 x 0.9) = 45th smallest; their signs do not matter."""
    residual = np.arange(1, 50) * np.where(np.arange(49) % 2, 1, -1)
    assert half_widths(predictions(np.full(49, 100.0), residual))[1] == 45


def test_each_predicted_age_group_has_its_own_width():
    young, old = np.full(60, 30.0), np.full(60, 200.0)
    table = predictions(np.r_[young, old], np.r_[np.full(60, 4.0), np.full(60, 20.0)])
    assert half_widths(table)[0] == pytest.approx(4)
    assert half_widths(table)[3] == pytest.approx(20)


def test_a_group_of_few_images_takes_the_width_of_all():
    few = MIN_IMAGES - 1
    table = predictions(np.r_[np.full(few, 30.0), np.full(200, 100.0)], np.r_[np.full(few, 1.0), np.full(200, 9.0)])
    assert half_widths(table)[0] == 9


def test_no_validation_images_give_no_interval():
    with pytest.raises(BoneageError, match="no validation predictions"):
        half_widths(predictions([], []))


def test_an_interval_lies_about_its_prediction_and_not_below_birth():
    widths = (10.0, 20.0, 30.0, 40.0)
    assert interval(100.0, widths) == (80.0, 120.0)
    assert interval(180.0, widths) == (140.0, 220.0)  # groups are closed on the left
    assert interval(6.0, widths) == (0.0, 16.0)


def test_new_images_of_the_same_kind_are_covered_as_promised():
    rng = np.random.default_rng(0)

    def draw(n):
        predicted = rng.uniform(10, 220, n)
        return predictions(predicted, rng.laplace(0, 2 + predicted / 20))

    table = coverage(draw(20_000), half_widths(draw(2_000)))
    assert table["covered"].iloc[0] == pytest.approx(0.90, abs=0.01)


def test_coverage_counts_by_sex_and_by_reference_age_group():
    table = pd.concat([predictions([30, 30], [5, 15], male=0), predictions([100, 100, 100], [0, 1, 30], male=1)])
    found = coverage(table, (10.0, 10.0, 10.0, 10.0)).set_index("value")
    assert found.loc["all", ["n", "covered"]].tolist() == [5, 0.6]
    assert found.loc["female", "covered"] == 0.5
    assert found.loc["male", "covered"] == pytest.approx(2 / 3)
    assert found.loc["5-10", "n"] == 2  # 100 + 30 months is of the next group
    assert found.loc["10-15", "covered"] == 0
    assert (found["width"] == 20).all()
