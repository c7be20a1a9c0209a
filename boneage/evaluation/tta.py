"""Test-time augmentation: the mean answer over mirrored, turned and scaled views of one radiograph."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.labels import GROUP_COLUMNS

FOLDER = "tta"  # inside the run's; its predictions files are named as the run's own
TURNS = ((0.0, 1.0), (-8.0, 0.95), (8.0, 1.05))  # degrees, scale; each as it is and mirrored


def views() -> list[np.ndarray]:
    """Maps (3, 3) of the unit square, about its middle; the first one changes nothing."""
    made = []
    for degrees, scale in TURNS:
        cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
        for flip in (1.0, -1.0):
            linear = np.array([[flip * cos, -sin], [flip * sin, cos]])
            offset = 0.5 - linear @ (0.5, 0.5)
            made.append(np.array([[*linear[0], offset[0]], [*linear[1], offset[1]], [0, 0, 1]]))
    return made


def predict(predict_view: Callable[[np.ndarray], pd.DataFrame]) -> pd.DataFrame:
    """The mean over all `views` of months and of age-group probabilities; the other columns as they are.

    Parameters
    ----------
    predict_view
        From a view to a predictions table, its rows always in the same order.
    """
    tables = [predict_view(view) for view in tqdm(views(), desc="views", unit="view")]
    answers = [c for c in ("predicted_months", *GROUP_COLUMNS) if c in tables[0]]
    mean = reduce(lambda total, t: total + t[answers], tables[1:], tables[0][answers]) / len(tables)
    return tables[0].assign(**mean)
