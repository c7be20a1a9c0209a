"""Split-conformal intervals: fitted on validation, their coverage measured on the holdout.

Vovk, Gammerman & Shafer 2005; by category ("Mondrian") of the predicted age group, so that each of them is covered.
"""

from typing import TYPE_CHECKING

import numpy as np

from boneage.errors import BoneageError
from boneage.labels import GROUPS, SEX_NAMES, age_group

if TYPE_CHECKING:  # fitting takes pandas' tables; an answer does without
    import pandas as pd

LEVEL = 0.9
MIN_IMAGES = 40  # an age group with fewer takes the half-width of all: the ninth decile of few is a guess


def half_widths(validation: "pd.DataFrame") -> tuple[float, ...]:
    """Half the interval's width in months, for a prediction in each of `boneage.labels.GROUPS`.

    The ceil((n + 1) 0.9)-th smallest absolute residual: a new image of the same kind is covered with a chance of at
    least 90 %.

    Parameters
    ----------
    validation
        A predictions table: `reference_months`, `predicted_months`.
    """
    residual = (validation["reference_months"] - validation["predicted_months"]).abs().to_numpy()
    if not len(residual):
        raise BoneageError("no validation predictions to fit an interval on")
    group = age_group(validation["predicted_months"])
    parts = [residual[group == g] for g in range(len(GROUPS))]
    return tuple(_quantile(part if len(part) >= MIN_IMAGES else residual) for part in parts)


def _quantile(residual: np.ndarray) -> float:
    rank = min(len(residual), int(np.ceil((len(residual) + 1) * LEVEL)))
    return float(np.sort(residual)[rank - 1])


def interval(months: float, widths: tuple[float, ...]) -> tuple[float, float]:
    """Low and high, months, of one prediction."""
    half = widths[int(age_group(months))]
    return max(0.0, months - half), months + half


def coverage(holdout: "pd.DataFrame", widths: tuple[float, ...]) -> "pd.DataFrame":
    """How many references of a predictions table lie in their intervals.

    Returns
    -------
    DataFrame
        `by` ("all", "sex", "age group"), `value`, `n`, `covered` (share), `width` (mean, months).
    """
    import pandas as pd

    half = np.take(widths, age_group(holdout["predicted_months"]))
    inside = (holdout["reference_months"] - holdout["predicted_months"]).abs().to_numpy() <= half
    kinds = {
        "all": (("all",), np.zeros(len(holdout), int)),
        "sex": (SEX_NAMES, holdout["male"].to_numpy()),
        "age group": (GROUPS, age_group(holdout["reference_months"])),
    }
    rows = [
        (by, name, int(part.sum()), float(inside[part].mean()), float(2 * half[part].mean()))
        for by, (names, codes) in kinds.items()
        for code, name in enumerate(names)
        for part in [codes == code]
        if part.any()
    ]
    return pd.DataFrame(rows, columns=["by", "value", "n", "covered", "width"])
