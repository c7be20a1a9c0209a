"""What several runs see in the same images: maps, the numbers beside them, and where a map lies on its radiograph."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.config import TrainConfig
from boneage.data.cache import Cache
from boneage.errors import BoneageError
from boneage.explain.maps import to_original
from boneage.explain.methods import METHODS
from boneage.labels import GROUP_COLUMNS
from boneage.models.predict import inputs_of
from boneage.models.weights import load_model


def maps_of_runs(
    runs: list[Path], configs: list[TrainConfig], cache: Cache, rows: pd.DataFrame, target: str, method: str
) -> tuple[list[np.ndarray], pd.DataFrame]:
    """The same images through several runs.

    Parameters
    ----------
    rows
        Of the cache's index: the images.
    target, method
        As of `boneage.explain.explain.explain`.

    Returns
    -------
    maps, table
        For each run the maps, (images, size, size) float32; and the table of `explain`, whose rows are sorted by run.

    Raises
    ------
    BoneageError
        An unknown method, a target that one of the models has not.
    """
    if method not in METHODS:
        raise BoneageError(f"a method is one of {', '.join(METHODS)}. Received: {method!r}")
    all_maps, tables = [], []
    for run, config in zip(tqdm(runs, desc="explaining", unit="run"), configs, strict=True):
        inputs = inputs_of(cache, rows, config.size)
        explainer = METHODS[method](load_model(Path(run) / "model.keras"))
        maps, outputs = explainer(inputs["image"], inputs["sex"], target)
        table = rows[["id"]].assign(run=f"{config.backbone}/{config.run_name}", male=rows["male"])
        table["reference_months"] = rows["months"]
        if "months" in outputs:
            table["predicted_months"] = outputs["months"][:, 0]
            table["sex_effect_months"] = explainer.sex_effect(inputs["image"], inputs["sex"])
        if "groups" in outputs:
            table[list(GROUP_COLUMNS)] = outputs["groups"]
        table["method"], table["target"] = method, target
        table["energy_inside"] = [
            energy_inside(cam, row, cache.size) for cam, row in zip(maps, rows.itertuples(), strict=True)
        ]
        all_maps.append(maps)
        tables.append(table)
    return all_maps, pd.concat(tables, ignore_index=True)


def energy_inside(cam: np.ndarray, row, square: int) -> float:
    """Share of a map (S, S) that lies on the radiograph, not on its padding; NaN for a map that is zero everywhere.

    `row` has the columns of a cache's index, whose geometry leads to a square of `square` px.
    """
    film = np.ones((int(row.height), int(row.width)), "float32")
    inside = cv2.warpAffine(film, _matrix(row), (square, square), flags=cv2.INTER_NEAREST)
    inside = cv2.resize(inside, cam.shape, interpolation=cv2.INTER_AREA)
    return float((cam * inside).sum() / cam.sum()) if cam.any() else np.nan


def in_radiographs(maps: np.ndarray, rows: pd.DataFrame, square: int) -> list[np.ndarray]:
    """Maps (B, S, S) of squares in the frames of their radiographs: crop, rotation and letterbox undone.

    Parameters
    ----------
    rows
        Of a cache's index, whose geometry leads to squares of `square` px.

    Returns
    -------
    list of array, shape (height, width) of each radiograph, float32
    """
    return [
        to_original(cam, _matrix(row), int(row.height), int(row.width), square)
        for cam, row in zip(maps, rows.itertuples(), strict=True)
    ]


def _matrix(row) -> np.ndarray:
    return np.array([[row.m00, row.m01, row.m02], [row.m10, row.m11, row.m12]])
