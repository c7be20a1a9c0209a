"""Age groups, months and years, and how sex is coded: the only place that knows.

Bone age is in **months** everywhere. Age groups are closed on the left: a bone age of exactly 60 months
(5 years) belongs to "5-10". Male is 1, female is 0.
"""

import math

import numpy as np

from boneage.errors import BoneageError
from boneage.texts import say

MONTHS_PER_YEAR = 12
MAX_MONTHS = 240  # 20 years: the upper end of the last group
GROUP_EDGES = (0, 60, 120, 180, MAX_MONTHS)  # months
GROUPS = ("0-5", "5-10", "10-15", "15-20")  # years
GROUP_COLUMNS = tuple("p_" + g.replace("-", "_") for g in GROUPS)  # columns of a predictions table
SEX_NAMES = ("female", "male")  # indexed by the code


def age_group(months) -> np.ndarray:
    """Index of the age group, 0..3, of bone ages in months (array-like); ages from 180 months on are in the last."""
    return np.digitize(np.asarray(months, float), GROUP_EDGES[1:-1]).astype(np.int64)


def years_and_months(months: float) -> str:
    """`99.6` -> `"8 y 4 mo"`, rounded to the nearest month."""
    years, rest = divmod(round(float(months)), MONTHS_PER_YEAR)
    return say("age.short", years=years, months=rest)


def parse_sex(value) -> int:
    """1 for male, 0 for female, from the spellings found in the public tables.

    Raises
    ------
    BoneageError
        For anything else, an empty cell included.
    """
    text = str(value).strip().lower()
    if text in ("true", "1", "1.0", "m", "male"):
        return 1
    if text in ("false", "0", "0.0", "f", "female"):
        return 0
    raise BoneageError(say("refusals.sex_unknown", given=repr(value)))


def parse_months(value) -> float:
    """Bone age in months from a table cell, in (0, 240].

    Raises
    ------
    BoneageError
        When the cell is not a number or out of range.
    """
    try:
        months = float(value)
    except (TypeError, ValueError):
        months = math.nan
    if not 0 < months <= MAX_MONTHS:
        raise BoneageError(f"bone age must be a number of months above 0 and at most {MAX_MONTHS}. Received: {value!r}")
    return months
