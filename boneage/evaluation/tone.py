"""Does a model stand other grey-level curves? Films come with any: other vendors, other windows, 8-bit copies.

A mapping is applied to what the cache holds of a radiograph, its padding left out, and the intensity window is then
taken anew as for any radiograph: what a window undoes does a model no harm.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.data.cache import Cache
from boneage.data.frame import intensity_window
from boneage.evaluation import metrics
from boneage.evaluation.run_files import read_predictions

NAME = "tone"  # of the predictions file: one column a mapping
TABLE = "tone.csv"
IMAGES = 500  # of validation, the same for every model of a split
MAX_WORSE = 0.5  # months of MAE that a mapping may cost
MAX_BIAS = 1.0  # months, either way
PLAIN = "as it is"


def _curve(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    table = (255 * function(np.linspace(0, 1, 256))).round().astype(np.uint8)
    return lambda grey: cv2.LUT(grey, table)


# Each takes and gives (H, W) uint8.
MAPPINGS = {
    PLAIN: None,
    "gamma 0.5": _curve(lambda x: x**0.5),
    "gamma 2": _curve(lambda x: x**2),
    "histogram equalisation": cv2.equalizeHist,
    "32 grey levels": _curve(lambda x: np.minimum(np.floor(32 * x), 31) / 31),
    "local contrast": lambda grey: cv2.createCLAHE(2.0, (8, 8)).apply(grey),
    "black raised by a quarter": _curve(lambda x: 0.25 + 0.75 * x),
}


def mapped(square: np.ndarray, inside: np.ndarray, mapping: str, windowed: bool = True) -> np.ndarray:
    """What the cache would hold of this radiograph, had it come with another tone.

    Parameters
    ----------
    square
        (N, N) uint8 from the cache.
    inside
        (N, N) bool, where it shows the radiograph and not its padding.
    mapping
        A key of `MAPPINGS`.
    windowed
        Whether the frame takes an intensity window.

    Returns
    -------
    array, shape (N, N), uint8
    """
    change = MAPPINGS[mapping]
    if change is None:
        return square
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    content = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    result = np.zeros_like(square)
    result[content] = change(np.ascontiguousarray(square[content]))
    if windowed:
        low, high = intensity_window(result, inside)
        result = cv2.LUT(result, (np.clip((np.arange(256) - low) / (high - low), 0, 1) * 255).round().astype(np.uint8))
    result[~inside] = 0
    return result


def predict(predict_one: Callable[[Cache, pd.Series], pd.DataFrame], cache: Cache, ids: pd.Series) -> pd.DataFrame:
    """Months under every mapping for `IMAGES` of `ids`, drawn with a fixed seed.

    Parameters
    ----------
    predict_one
        From a cache and ids to a predictions table with `predicted_months`.

    Returns
    -------
    DataFrame
        `id`, `male`, `reference_months` and, in months, one column a mapping.
    """
    rows = cache.rows(ids.sample(min(IMAGES, len(ids)), random_state=0).sort_index())
    frames = [_inside(row, cache.size) for row in rows.itertuples()]
    table = rows[["id", "male"]].assign(reference_months=rows["months"])
    for mapping in tqdm(MAPPINGS, desc="tone", unit="mapping"):
        images = [
            mapped(cache.images[r], inside, mapping, cache.frame != "squash")
            for r, inside in zip(rows["row"], frames, strict=True)
        ]
        changed = replace(cache, images=np.stack(images), index=rows.assign(row=np.arange(len(rows))))
        table[mapping] = predict_one(changed, rows["id"])["predicted_months"]
    return table


def table(run: Path) -> pd.DataFrame:
    """What each mapping costs, from `predictions_tone.csv`.

    Returns
    -------
    DataFrame
        `mapping`; `mae` and `bias` in months; `worse`, the MAE less that of the images as they are, with its
        paired-bootstrap 95 % interval `low`, `high`; `n`; `passes`: at most half a month worse and a bias within one.
    """
    predictions = read_predictions(run, NAME)
    known = predictions[["id", "male", "reference_months"]]
    plain = known.assign(predicted_months=predictions[PLAIN])
    rows = []
    for mapping in (m for m in MAPPINGS if m in predictions):
        changed = known.assign(predicted_months=predictions[mapping])
        error = changed["predicted_months"] - changed["reference_months"]
        worse = metrics.paired_difference(changed, plain)["mae"]
        rows.append(
            {
                "mapping": mapping, "mae": error.abs().mean(), "bias": error.mean(), "worse": worse["value"],
                "low": worse["low"], "high": worse["high"], "n": len(known),
                "passes": bool(worse["value"] <= MAX_WORSE and abs(error.mean()) <= MAX_BIAS),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _inside(row, size: int) -> np.ndarray:
    """Where a square shows its radiograph, as `boneage.data.frame.to_square` has it."""
    matrix = np.array([[row.m00, row.m01, row.m02], [row.m10, row.m11, row.m12]])
    ones = np.ones((int(row.height), int(row.width)), np.uint8)
    return cv2.warpAffine(ones, matrix, (size, size), flags=cv2.INTER_NEAREST) > 0
