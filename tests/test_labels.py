"""Months, age groups and the coding of sex, at their edges."""

import numpy as np
import pytest

from boneage import labels
from boneage.errors import BoneageError


@pytest.mark.parametrize(
    ("months", "group"),
    [(0.5, 0), (59, 0), (59.99, 0), (60, 1), (119.9, 1), (120, 2), (179, 2), (180, 3), (228, 3), (240, 3)],
)
def test_age_groups_are_closed_on_the_left(months, group):
    assert labels.age_group(months) == group


def test_age_group_takes_arrays_and_series():
    assert labels.age_group([1, 60, 120, 180]).tolist() == [0, 1, 2, 3]
    assert labels.age_group(np.array([[59.0], [60.0]])).shape == (2, 1)
    assert np.issubdtype(labels.age_group([1]).dtype, np.integer)


def test_names_edges_and_columns_agree():
    assert len(labels.GROUPS) == len(labels.GROUP_COLUMNS) == len(labels.GROUP_EDGES) - 1
    for name, column, low, high in zip(
        labels.GROUPS, labels.GROUP_COLUMNS, labels.GROUP_EDGES[:-1], labels.GROUP_EDGES[1:], strict=True
    ):
        assert name == f"{low // 12}-{high // 12}"
        assert column == f"p_{low // 12}_{high // 12}"


@pytest.mark.parametrize(
    ("months", "text"),
    [(99.6, "8 y 4 mo"), (0.4, "0 y 0 mo"), (11.6, "1 y 0 mo"), (12, "1 y 0 mo"), (60, "5 y 0 mo"), (228, "19 y 0 mo")],
)
def test_years_and_months_rounds_to_the_month(months, text):
    assert labels.years_and_months(months) == text


@pytest.mark.parametrize(
    "value", ["True", "true", " TRUE ", True, 1, "1", 1.0, "1.0", "M", "m", "male", "Male", np.int64(1)]
)
def test_spellings_of_male(value):
    assert labels.parse_sex(value) == 1


@pytest.mark.parametrize(
    "value", ["False", "false", False, 0, "0", 0.0, "0.0", "F", "f", "female", "FEMALE", np.bool_(False)]
)
def test_spellings_of_female(value):
    assert labels.parse_sex(value) == 0


@pytest.mark.parametrize("value", ["", "x", None, np.nan, "2", "unknown", -1])
def test_any_other_sex_is_refused_and_shown(value):
    with pytest.raises(BoneageError, match=r"unknown sex.*Received"):
        labels.parse_sex(value)


@pytest.mark.parametrize(("value", "months"), [("132", 132.0), (1, 1.0), ("0.5", 0.5), (240, 240.0), (" 94 ", 94.0)])
def test_months_are_read(value, months):
    assert labels.parse_months(value) == months


@pytest.mark.parametrize("value", ["", "ten", None, np.nan, "nan", "inf", 0, -1, "-1", 240.01, 400])
def test_impossible_months_are_refused_and_shown(value):
    with pytest.raises(BoneageError, match=r"months above 0 and at most 240\. Received"):
        labels.parse_months(value)
