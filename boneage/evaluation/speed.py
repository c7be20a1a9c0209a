"""How long one answer takes: one prepared image after another, as a person at a screen would ask."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from boneage.evaluation.run_files import read_json

FILE = "speed.json"
WARM, TIMED = 3, 25  # calls


def measure(answer: Callable[[dict], dict], size: int) -> dict:
    """Median time of `answer` on batches of one image.

    Parameters
    ----------
    answer
        A model's `predictor`.
    size
        Image side in pixels.

    Returns
    -------
    dict
        `milliseconds`; `cpu_milliseconds`, summed over the cores, which holds where other programs share them; and what
        was measured: `size`, `cores`, `backend`.
    """
    from keras import backend  # seconds to import: only where a model is run

    inputs = {"image": np.zeros((1, size, size, 1), "float32"), "sex": np.ones((1, 1), "float32")}
    for _ in range(WARM):
        answer(inputs)
    taken = []
    for _ in range(TIMED):
        wall, cpu = time.perf_counter(), time.process_time()
        answer(inputs)
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = 1000 * np.median(taken, axis=0)
    return {
        "milliseconds": round(float(wall), 2), "cpu_milliseconds": round(float(cpu), 2), "size": size,
        "cores": os.cpu_count(), "backend": backend.backend(),
    }  # fmt: skip


def milliseconds(run: Path) -> float:
    """What was measured for a run; NaN where nothing was."""
    return read_json(run, FILE)["milliseconds"] if (Path(run) / FILE).exists() else float("nan")
