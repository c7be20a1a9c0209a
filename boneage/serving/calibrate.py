"""What an exported model needs besides its weights to be honest: intervals, a gate, and both measured.

Written into the run folder: `serving.json` (what the predictor reads), `interval_coverage.csv` and `door_rates.csv`.
Nothing here imports Keras.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.config import Augmentation, TrainConfig
from boneage.data.augment import random_tone
from boneage.data.cache import Cache
from boneage.evaluation.evaluate import cache_of
from boneage.evaluation.run_files import read_predictions, read_split
from boneage.paths import write_csv, write_text
from boneage.serving import door, foreign, gate
from boneage.serving.answer import Refused
from boneage.serving.interval import LEVEL, coverage, half_widths
from boneage.serving.predictor import SETTINGS, Predictor
from boneage.serving.runtime import Runtime
from boneage.serving.shelf import digest

FITTED_ON, MEASURED_ON = 1000, 150  # images of a set, at most
AGES = (0.01, 0.99)  # quantiles of the validation references beyond which an answer is marked
TONES = Augmentation(gamma=2.0, contrast=0.3, brightness=0.1, equalise=0.2)  # any vendor's taste


def calibrate(run: Path, data: str | Path) -> pd.DataFrame:
    """Fit intervals and gate of an exported run on its validation images, and measure both.

    Parameters
    ----------
    data
        The images that the run was trained on: their folder or a cache of it. The cache's size is kept: a prediction
        passes through a square of the same size, or it would see differently resampled pixels.

    Returns
    -------
    DataFrame
        As in `door_rates.csv`, by kind of `pictures`: `n`, and the shares that were `refused`, `inverted` (grey levels
        turned about) and `turned` (by quarters) before they were read or refused.

    Raises
    ------
    BoneageError
        No export, no predictions, other data than the run's.
    """
    run = Path(run)
    config, split = TrainConfig.load(run / "config.json"), read_split(run)
    cache, runtime = cache_of(run, data, config.size, config.frame, split), Runtime(run)
    training, of_validation = (_features(runtime, cache, split, name) for name in ("train", "validation"))
    validation = read_predictions(run, "validation")
    widths = half_widths(validation)
    settings = {
        "source": digest(run), "square": cache.size, "level": LEVEL, "half_widths": widths,
        "ages": [float(q) for q in validation["reference_months"].quantile(AGES)],
        "gate": gate.fit(training, of_validation).to_dict(),
    }  # fmt: skip
    write_text(run / SETTINGS, json.dumps(settings, indent=1) + "\n")
    write_csv(run / "interval_coverage.csv", coverage(read_predictions(run, "holdout"), widths))
    rates = door_rates(Predictor(run), cache, split)
    write_csv(run / "door_rates.csv", rates)
    return rates


def door_rates(predictor: Predictor, cache: Cache, split: pd.DataFrame) -> pd.DataFrame:
    """How the door treats hands that set no threshold, the same turned, inverted and in other tones, other pictures.

    The hands are those of the cache, without their padding. See `calibrate` for the columns.
    """
    rng = np.random.default_rng(0)
    hands = [_unpadded(cache, row) for row in _spread(cache, split, "holdout", MEASURED_ON)]
    pictures = [("hands", grey) for grey in hands]
    pictures += [("hands, inverted", 255 - grey) for grey in hands]
    pictures += [("hands, sideways", door.turned(grey, 1 + 2 * (i % 2))[0]) for i, grey in enumerate(hands)]
    pictures += [("hands, other tones", random_tone(rng, TONES, grey)[grey]) for grey in hands]
    official = _spread(cache, split, "rsna_test", MEASURED_ON)
    pictures += [("hands, official test", _unpadded(cache, row)) for row in official]
    seen: dict[str, list] = {}
    for kind, grey in tqdm([*pictures, *foreign.pictures()], desc="door", unit="img"):
        try:
            look = predictor.look(grey, male=True)
            seen.setdefault(kind, []).append((look.strangeness > 1, look.inverted, look.turns > 0))
        except Refused:  # one grey level
            seen.setdefault(kind, []).append((True, False, False))
    rows = [(kind, len(of), *np.mean(of, axis=0)) for kind, of in seen.items()]
    return pd.DataFrame(rows, columns=["pictures", "n", "refused", "inverted", "turned"])


def _features(runtime: Runtime, cache: Cache, split: pd.DataFrame, name: str) -> np.ndarray:
    """Pooled features (n, C), which do not know of sex."""
    rows = tqdm(list(_spread(cache, split, name, FITTED_ON)), desc=f"features, {name}", unit="img")
    return np.stack([runtime(np.asarray(cache.images[row.row]), male=True)["pooled"] for row in rows])


def _spread(cache: Cache, split: pd.DataFrame, name: str, limit: int) -> Iterator:
    """Rows of the cache's index, at most `limit`, spread evenly over a set of the split."""
    rows = cache.rows(split["id"][split["set"] == name])
    return rows.iloc[:: max(1, -(-len(rows) // limit))].itertuples()


def _unpadded(cache: Cache, row) -> np.ndarray:
    """What a square shows of the radiograph, (h, w) uint8; all of it where the hand was turned upright."""
    square = np.asarray(cache.images[row.row])
    if row.m01 or row.m10:
        return square
    left, top = row.m02 + 0.5 - row.m00 / 2, row.m12 + 0.5 - row.m11 / 2
    right, bottom = left + row.width * row.m00, top + row.height * row.m11
    top, left = (max(0, round(edge)) for edge in (top, left))
    return np.ascontiguousarray(square[top : round(bottom), left : round(right)])
