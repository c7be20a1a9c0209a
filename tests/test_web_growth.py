"""Bone age against chronological age: the published standard deviations, and what is made of them."""

from datetime import date

import pytest

from boneage.errors import BoneageError
from boneage.web.growth import age_between, checked_age, growth, sd_at
from boneage.web.tags import Tags


@pytest.mark.parametrize(
    ("months", "male", "sd"),
    [(96, True, 9.10), (120, False, 11.73), (3, True, 0.69), (192, False, 7.31), (204, True, 13.05)],
)
def test_standard_deviations_are_those_of_the_table(months, male, sd):
    assert sd_at(months, male) == sd


def test_between_two_ages_of_the_table_the_standard_deviation_is_linear():
    assert sd_at(102, True) == pytest.approx((9.10 + 9.00) / 2)


@pytest.mark.parametrize(("months", "male"), [(2.9, True), (204.1, True), (192.1, False), (0, False)])
def test_outside_the_table_there_is_none(months, male):
    assert sd_at(months, male) is None


def test_score_is_the_difference_over_the_standard_deviation_at_chronological_age():
    found = growth(bone_months=114.2, chronological_months=96, male=True)
    assert found.difference_months == pytest.approx(18.2)
    assert found.sd_score == pytest.approx(2.0)


def test_outside_the_table_the_difference_is_still_told():
    found = growth(bone_months=220, chronological_months=210, male=True).to_dict()
    assert (found["difference_months"], found["sd_months"], found["sd_score"]) == (10, None, None)


def test_age_between_two_days_is_in_calendar_months_on_average():
    assert age_between(date(2016, 3, 1), date(2024, 3, 1)) == pytest.approx(96, abs=0.05)


@pytest.mark.parametrize("months", [-1, 240.5, 540, float("nan"), float("inf")])
def test_an_age_that_bone_age_cannot_be_compared_with_is_refused(months):
    with pytest.raises(BoneageError, match=r"between 0 and 240 months.*Received"):
        checked_age(months)


def test_birth_after_the_radiograph_is_refused():
    with pytest.raises(BoneageError, match=r"Received: -1\.0185 months"):
        age_between(date(2024, 4, 1), date(2024, 3, 1))


def test_an_age_that_the_file_states_is_kept_where_its_dates_do_not_tell_one():
    told = {"sex": "F", "birth_date": "20120301", "study_date": None, "age_months": 97.0}
    assert Tags.of(told) == Tags(False, years=8, months=1)
    assert Tags.of(told | {"study_date": "20200401"}) == Tags(False, born=date(2012, 3, 1), taken=date(2020, 4, 1))
