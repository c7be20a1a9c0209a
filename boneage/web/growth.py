"""How bone age sits against chronological age: months ahead or behind, and that in standard deviations.

The standard deviations are those of skeletal age at a given chronological age that Greulich and Pyle print beside their
atlas for the children of the Brush Foundation study (Greulich WW, Pyle SI. Radiographic atlas of skeletal development
of the hand and wrist. 2nd ed. Stanford University Press, 1959). The children were White, well-to-do and from Cleveland,
Ohio, in the 1930s: the same difference may be common elsewhere and today.
"""

import csv
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files

import numpy as np

from boneage.errors import BoneageError
from boneage.labels import MAX_MONTHS, MONTHS_PER_YEAR, SEX_NAMES
from boneage.texts import say

SOURCE = say("result.sd_source")
DAYS_PER_MONTH = 365.2425 / MONTHS_PER_YEAR


@dataclass(frozen=True)
class Growth:
    """Bone age against chronological age.

    Attributes
    ----------
    chronological_months
        Chronological age, months.
    difference_months
        Bone age minus chronological age, months; positive: bone age is ahead.
    sd_months
        Standard deviation of skeletal age at that chronological age and sex, months; None outside the table.
    sd_score
        `difference_months / sd_months`; None outside the table.
    """

    chronological_months: float
    difference_months: float
    sd_months: float | None
    sd_score: float | None

    def to_dict(self) -> dict:
        """Plain JSON, rounded to what the numbers can bear."""
        return {
            "chronological_age_months": round(self.chronological_months, 1),
            "difference_months": round(self.difference_months, 1),
            "sd_months": None if self.sd_months is None else round(self.sd_months, 2),
            "sd_score": None if self.sd_score is None else round(self.sd_score, 2),
            "sd_source": SOURCE,
        }


def growth(bone_months: float, chronological_months: float, male: bool) -> Growth:
    """Compare a bone age with a chronological age, both in months."""
    difference, sd = bone_months - chronological_months, sd_at(chronological_months, male)
    return Growth(chronological_months, difference, sd, None if sd is None else difference / sd)


def sd_at(chronological_months: float, male: bool) -> float | None:
    """Standard deviation of skeletal age in months, linear between the ages of the table; None outside of them."""
    ages, sds = _table()[bool(male)]
    if not ages[0] <= chronological_months <= ages[-1]:
        return None
    return float(np.interp(chronological_months, ages, sds))


def age_between(born: date, day: date) -> float:
    """Chronological age in months on `day`.

    Raises
    ------
    BoneageError
        Born after that day, or 20 years or more before.
    """
    return checked_age((day - born).days / DAYS_PER_MONTH)


def checked_age(months: float) -> float:
    """A chronological age in months that bone age can be compared with.

    Raises
    ------
    BoneageError
        Outside 0..240 months.
    """
    if not 0 <= months <= MAX_MONTHS:  # false for NaN too
        years = MAX_MONTHS // MONTHS_PER_YEAR
        raise BoneageError(say("errors.age", most=MAX_MONTHS, years=years, months=f"{months:.6g}"))
    return months


@cache
def _table() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """(ages, standard deviations) in months, indexed by sex code."""
    with files("boneage.web").joinpath("skeletal_age_sd.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = ("chronological_months", "sd_months")
    return tuple(tuple(np.array([float(r[c]) for r in rows if r["sex"] == sex]) for c in columns) for sex in SEX_NAMES)
