"""Metrics of a predictions table, each with a bootstrap interval.

A table has one row an image: `id`, `male`, `reference_months` and, by the model's heads, `predicted_months` and
`p_0_5` .. `p_15_20`. Every metric is written once, as a function of how often each image counts: one count each gives
the plain value, a matrix of resampled counts gives all bootstrap values at once.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from boneage.errors import BoneageError
from boneage.labels import GROUP_COLUMNS, GROUPS, SEX_NAMES, age_group

TOLERANCES = (6, 12, 18, 24)  # months
CALIBRATION_BINS = 10
INTERVAL = (2.5, 97.5)  # percentiles: a 95 % interval
FEWEST = 5  # images below which an interval would say nothing
CHUNK = 250  # resamples at a time: some megabytes, whatever the number of images
EVERYONE = "all"  # in place of a sex or an age group


class Metric(NamedTuple):
    """How a metric is shown: its label with unit, which way is better ("lower", "higher" or "zero"), its decimals."""

    label: str
    better: str
    digits: int


REGRESSION = {
    "mae": Metric("MAE, months", "lower", 2),
    "rmse": Metric("RMSE, months", "lower", 2),
    "median_error": Metric("Median absolute error, months", "lower", 2),
    "bias": Metric("Bias (predicted - reference), months", "zero", 2),
    **{f"within_{m}": Metric(f"Within {m} months, %", "higher", 1) for m in TOLERANCES},
    "r2": Metric("R²", "higher", 3),
    # Not a classifier's accuracy: the months of the regression head, sorted into the age groups.
    "binned_accuracy": Metric("Accuracy of binned months, %", "higher", 1),
}
CLASSIFICATION = {
    "accuracy": Metric("Accuracy of the classification head, %", "higher", 1),
    "balanced_accuracy": Metric("Balanced accuracy, %", "higher", 1),
    "macro_f1": Metric("Macro F1", "higher", 3),
    "kappa": Metric("Quadratic-weighted kappa", "higher", 3),
    "calibration_error": Metric("Expected calibration error, %", "lower", 1),
}
METRICS = REGRESSION | CLASSIFICATION
GROUP_METRICS = ("mae", "bias", "accuracy")  # what `by_group` gives

Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]  # counts (..., images) -> metric -> values (...)


def summarise(table: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """All metrics that the table's heads allow, in the order of `METRICS`.

    Returns
    -------
    DataFrame
        `metric`, `value`, `low`, `high` (95 % interval), `n`; units as in the labels of `METRICS`.

    Raises
    ------
    BoneageError
        No rows, a missing column, a value that is not a number.
    """
    return _with_intervals(_statistics(table), len(table), resamples, seed)


def bootstrap(table: pd.DataFrame, statistic: str, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Estimate, low and high of one metric of `METRICS`: a percentile interval at 95 %, images resampled.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Tables of fewer than 5 images get NaN
    intervals. That of the calibration error lies high, as a mean of absolute gaps grows with resampling noise.
    """
    found = summarise(table, resamples, seed).set_index("metric")
    if statistic not in found.index:
        raise BoneageError(f"this table has no metric {statistic}; it has {', '.join(found.index)}")
    return tuple(found.loc[statistic, ["value", "low", "high"]].astype(float))


def by_group(table: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """MAE, bias and accuracy for each sex, each age group of the reference and each pair of them.

    Returns
    -------
    DataFrame
        `sex`, `age_group` ("all" where it is not split by), `metric`, `value`, `low`, `high`, `n`. Values are NaN in an
        empty group, intervals in one of fewer than 5 images.
    """
    wanted = [m for m in GROUP_METRICS if m in _statistics(table)(np.ones(len(table)))]
    sex = np.array(SEX_NAMES)[_column(table, "male").astype(int)]
    group = np.array(GROUPS)[age_group(table["reference_months"])]
    pairs = (
        [(s, EVERYONE) for s in SEX_NAMES]
        + [(EVERYONE, g) for g in GROUPS]
        + [(s, g) for s in SEX_NAMES for g in GROUPS]
    )
    parts = []
    for s, g in pairs:
        part = table[((sex == s) | (s == EVERYONE)) & ((group == g) | (g == EVERYONE))]
        found = summarise(part, resamples, seed).set_index("metric") if len(part) else pd.DataFrame()
        rows = found.reindex(wanted, columns=["value", "low", "high"]).rename_axis("metric").reset_index()
        parts.append(rows.assign(sex=s, age_group=g, n=len(part)))
    return pd.concat(parts, ignore_index=True)[["sex", "age_group", "metric", "value", "low", "high", "n"]]


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """Images by reference group (rows) and the classification head's group (columns), 4 x 4."""
    truth, p = _groups(table)
    counts = confusion_matrix(truth, p.argmax(1), labels=range(len(GROUPS)))
    return pd.DataFrame(counts, pd.Index(GROUPS, name="reference"), pd.Index(GROUPS, name="predicted"))


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> dict:
    """Metrics of `a` less those of `b` on the same images: a resampled image counts for both.

    Returns
    -------
    dict
        `n` and, where both tables have the head, `mae` (months), `binned_accuracy` and `accuracy` (percentage points),
        each a dict of `value`, `low`, `high`.

    Raises
    ------
    BoneageError
        Other images, other references, or no head in common.
    """
    ids = [pd.Index(_column(t, "id").astype(str)) for t in (a, b)]
    if not ids[0].is_unique or set(ids[0]) != set(ids[1]) or len(ids[0]) != len(ids[1]):
        alone = len(ids[0].symmetric_difference(ids[1]))
        raise BoneageError(
            "the two tables must hold the same images, each once. "
            f"Received: {len(ids[0])} and {len(ids[1])} rows, {alone} ids in one of them only"
        )
    b = b.iloc[ids[1].get_indexer(ids[0])]
    if not np.allclose(_column(a, "reference_months"), _column(b, "reference_months")):
        raise BoneageError(
            "the two tables give other reference ages to the same images; were they made from the same data?"
        )
    first, second = _statistics(a), _statistics(b)

    def differences(counts):
        x, y = first(counts), second(counts)
        return {m: x[m] - y[m] for m in ("mae", "binned_accuracy", "accuracy") if m in x and m in y}

    found = _with_intervals(differences, len(a), resamples, seed).set_index("metric")
    if found.empty:
        raise BoneageError("the two tables have no head in common: one gives months only, the other groups only")
    return {"n": len(a)} | found[["value", "low", "high"]].to_dict("index")


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if len(table) == 0:
        raise BoneageError("the predictions table has no rows")
    if name not in table:
        raise BoneageError(f"the predictions table lacks column {name}. Received: {', '.join(map(str, table.columns))}")
    column = table[name]
    bad = column.isna() if name == "id" else ~np.isfinite(pd.to_numeric(column, errors="coerce"))
    if bad.any():
        raise BoneageError(
            f"column {name} of the predictions table has {int(bad.sum())} of {len(table)} values that are not numbers"
        )
    return column


def _groups(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The reference's group (n,) and the classification head's probabilities (n, 4)."""
    p = np.column_stack([_column(table, c) for c in GROUP_COLUMNS]).astype(float)
    return age_group(_column(table, "reference_months")), p


def _statistics(table: pd.DataFrame) -> Statistics:
    _column(table, "reference_months")
    parts = []
    if "predicted_months" in table:
        parts.append(_regression(table))
    if any(c in table for c in GROUP_COLUMNS):
        parts.append(_classification(table))
    if not parts:
        raise BoneageError(
            f"the predictions table lacks predicted_months and {', '.join(GROUP_COLUMNS)}; expected one or both"
        )
    return lambda counts: {name: value for part in parts for name, value in part(counts).items()}


def _regression(table: pd.DataFrame) -> Statistics:
    reference, predicted = (_column(table, c).to_numpy(float) for c in ("reference_months", "predicted_months"))
    error = predicted - reference
    size = np.abs(error)
    order = np.argsort(size)
    centred = reference - reference.mean()  # keeps the digits of the variance
    same_group = age_group(predicted) == age_group(reference)

    def at(counts):
        n = counts.sum(-1)

        def mean(values):
            return counts @ values / n

        squared, variance = mean(error**2), mean(centred**2) - mean(centred) ** 2
        return {
            "mae": mean(size),
            "rmse": np.sqrt(squared),
            "median_error": _median(size[order], counts[..., order]),
            "bias": mean(error),
            **{f"within_{m}": 100 * mean(size <= m) for m in TOLERANCES},
            "r2": 1 - _ratio(squared, np.where(variance > 1e-9, variance, 0)),
            "binned_accuracy": 100 * mean(same_group),
        }

    return at


def _median(ordered: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Median of ascending values (n,), each counted `counts` (..., n) times."""
    below = np.cumsum(counts, -1)
    n = below[..., -1:]
    middle = [(below <= np.floor(k)).sum(-1) for k in ((n - 1) / 2, n / 2)]
    return ordered[middle].mean(0)


def _classification(table: pd.DataFrame) -> Statistics:
    truth, p = _groups(table)
    guess, confidence, rows = p.argmax(1), p.max(1), np.arange(len(p))
    cells = np.zeros((len(p), len(GROUPS) ** 2))
    cells[rows, truth * len(GROUPS) + guess] = 1
    gaps = np.zeros((len(p), CALIBRATION_BINS))  # confidence less correctness, in the bin of the top label's confidence
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1
    gaps[rows, bins.clip(0, CALIBRATION_BINS - 1)] = confidence - (guess == truth)

    def at(counts):
        matrix = (counts @ cells).reshape(*counts.shape[:-1], len(GROUPS), len(GROUPS))
        # Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3
        return _of_confusion(matrix) | {"calibration_error": 100 * np.abs(counts @ gaps).sum(-1) / counts.sum(-1)}

    return at


def _of_confusion(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of confusion matrices (..., 4, 4), as scikit-learn defines them; absent groups do not count."""
    n, hits = matrix.sum((-1, -2)), np.diagonal(matrix, axis1=-2, axis2=-1)
    reference, guessed = matrix.sum(-1), matrix.sum(-2)
    distance = np.subtract.outer(np.arange(len(GROUPS)), np.arange(len(GROUPS))) ** 2
    by_chance = reference[..., :, None] * guessed[..., None, :] / n[..., None, None]
    return {
        "accuracy": 100 * hits.sum(-1) / n,
        "balanced_accuracy": 100 * np.nanmean(_ratio(hits, reference), -1),
        "macro_f1": np.nanmean(_ratio(2 * hits, reference + guessed), -1),
        "kappa": 1 - _ratio((distance * matrix).sum((-1, -2)), (distance * by_chance).sum((-1, -2))),
    }


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """A quotient that is NaN where the divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under == 0, np.nan, over / under)


def _resampled(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `n` images is drawn, in chunks (up to 250, n) of the resamples."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)


def _with_intervals(statistics: Statistics, n: int, resamples: int, seed: int) -> pd.DataFrame:
    chunks = [statistics(counts) for counts in _resampled(n, resamples, seed)] if n >= FEWEST else []
    rows = []
    for name, value in statistics(np.ones(n)).items():
        values = np.concatenate([chunk[name] for chunk in chunks]) if chunks else np.array([])
        values = values[~np.isnan(values)]  # such as R² of a resample of one single age
        low, high = np.percentile(values, INTERVAL) if len(values) else (np.nan, np.nan)
        rows.append((name, float(value), float(low), float(high), n))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n"])
