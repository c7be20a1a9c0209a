"""Predictions as the table that every number is recomputed from."""

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.data.augment import sample
from boneage.data.cache import Cache
from boneage.labels import GROUP_COLUMNS
from boneage.models.compiled import predictor


def inputs_of(cache: Cache, rows: pd.DataFrame, size: int, view: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Model inputs for rows of a cache's index, float32, not augmented: `image` (B, size, size, 1), `sex` (B, 1)."""
    images = np.stack([sample(cache.images[r], size, view) for r in rows["row"]])
    return {"image": images[..., None].astype("float32"), "sex": rows[["male"]].to_numpy("float32")}


def predict(
    model: keras.Model,
    cache: Cache,
    ids,
    size: int,
    batch_size: int = 64,
    progress: bool = True,
    run: Callable[[dict], dict] | None = None,
    view: np.ndarray | None = None,
) -> pd.DataFrame:
    """Predict the images `ids` of a cache.

    Parameters
    ----------
    size
        Image side in pixels.
    run
        The model's `predictor`, where several calls share one: making it costs a compilation.
    view
        (3, 3) map of the unit square through which the images are looked at; None: as they are.

    Returns
    -------
    DataFrame, one row an id
        `id`, `male`, `reference_months` (absent when no image has one) and, by the model's heads, `predicted_months`
        and `p_0_5` .. `p_15_20`.
    """
    rows = cache.rows(ids)
    run = run or predictor(model)
    months, groups = [], []
    for start in tqdm(range(0, len(rows), batch_size), desc="predicting", unit="batch", disable=not progress):
        part = rows.iloc[start : start + batch_size]
        # A last, smaller batch is filled up and cut again: another shape would be compiled anew.
        inputs = {k: np.resize(v, (batch_size, *v.shape[1:])) for k, v in inputs_of(cache, part, size, view).items()}
        outputs = run(inputs)
        if "months" in outputs:
            months.append(outputs["months"][: len(part), 0])
        if "groups" in outputs:
            groups.append(outputs["groups"][: len(part)])
    table = rows[["id", "male"]].copy()
    if rows["months"].notna().any():
        table["reference_months"] = rows["months"]
    if months:
        table["predicted_months"] = np.concatenate(months).astype(float)
    if groups:
        table[list(GROUP_COLUMNS)] = np.concatenate(groups).astype(float)
    return table
