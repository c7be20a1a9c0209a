"""Several runs as one: the mean of their predictions, or weights and a correction fitted on validation alone.

outputs/Ensemble/<name>/
    run.json  split.csv  predictions_<set>.csv  metrics.json  MODEL_CARD.md
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linprog
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import KFold

from boneage import __version__
from boneage.errors import BoneageError
from boneage.evaluation import tta
from boneage.evaluation.evaluate import EVALUATED, score
from boneage.evaluation.run_files import predictions_path, read_json, read_predictions
from boneage.labels import GROUP_COLUMNS, MAX_MONTHS
from boneage.paths import write_csv, write_text

BACKBONE = "Ensemble"  # in place of a backbone's name, in folders and tables
CORRECTIONS = ("none", "linear", "isotonic")
FOLDS = 5  # of validation, where something is fitted on it


@dataclass(frozen=True)
class Member:
    """One run's predictions, plain or with test-time augmentation (its folder `tta`)."""

    folder: Path

    @property
    def run(self) -> Path:
        """The folder of the run itself."""
        return self.folder.parent if self.folder.name == tta.FOLDER else self.folder

    @cached_property
    def facts(self) -> dict:
        return read_json(self.run, "run.json")

    def predictions(self, name: str) -> pd.DataFrame:
        """By id."""
        return read_predictions(self.folder, name).set_index("id")

    def described(self, weight: float, sets: tuple[str, ...]) -> dict:
        """What `run.json` says of it."""
        return {
            "run": f"{self.run.parent.name}/{self.run.name}",
            "views": len(tta.views()) if self.folder != self.run else 1,
            "weight": round(weight, 6),
            "parameters": self.facts["parameters"],
            "sha256": {f.name: _sha256(f) for f in (self.run / "model.keras", *self._files(sets)) if f.exists()},
        }

    def _files(self, sets: tuple[str, ...]) -> list[Path]:
        return [predictions_path(self.folder, s) for s in sets]


def combine(
    name: str, members: list[Path], outputs: Path, fitted_weights: bool = False, correction: str = "none"
) -> Path:
    """Write the folder of an ensemble, scored.

    What is fitted is fitted on validation; the validation predictions of such an ensemble are then cross-fitted in
    five folds, so that they may be compared with those of a run.

    Parameters
    ----------
    members
        Folders of evaluated runs, or their `tta` folders; one alone will do, to correct it.
    fitted_weights
        Weights of least absolute error on validation, none negative, in place of the plain mean.
    correction
        One of `CORRECTIONS`: a function of the months that takes away bias and shrinkage.

    Returns
    -------
    Path
        `outputs/Ensemble/<name>`.

    Raises
    ------
    BoneageError
        Members of other images or other data, or without predictions, or without months where these are to be fitted.
    """
    parts = [Member(Path(m)) for m in members]
    folder = outputs / BACKBONE / name
    sets = tuple(s for s in EVALUATED if all(predictions_path(m.folder, s).exists() for m in parts))
    if "validation" not in sets:
        raise BoneageError("every member of an ensemble needs predictions of validation; run `boneage evaluate` first")
    if len({(m.facts["data"], m.facts["phantom"]) for m in parts}) > 1:
        raise BoneageError("the members of an ensemble must be runs on the same data")
    tables = {s: _aligned([m.predictions(s) for m in parts], s) for s in sets}

    def fit(rows) -> tuple[np.ndarray, Callable]:
        return fit_on([t.iloc[rows] for t in tables["validation"]], fitted_weights, correction)

    everything = np.arange(len(tables["validation"][0]))
    weights, curve = fit(everything)
    combined = {s: average(t, weights, curve) for s, t in tables.items()}
    if fitted_weights or correction != "none":
        combined["validation"] = cross_fitted(tables["validation"], fit)
    for s in EVALUATED:  # those of an earlier ensemble of this name go
        predictions_path(folder, s).unlink(missing_ok=True)
    for s, table in combined.items():
        write_csv(predictions_path(folder, s), table.reset_index())
    shutil.copyfile(parts[0].run / "split.csv", folder / "split.csv")
    facts = {
        "members": [m.described(float(w), sets) for m, w in zip(parts, weights, strict=True)],
        "weights": "fitted on validation" if fitted_weights else "mean",
        "correction": {"kind": correction, "from_months": CURVE_AT.tolist(), "to_months": curve(CURVE_AT).tolist()},
        "phantom": parts[0].facts["phantom"], "data": parts[0].facts["data"], "images": parts[0].facts["images"],
        "parameters": sum({m.run: m.facts["parameters"] for m in parts}.values()), "boneage": __version__,
    }  # fmt: skip
    write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")
    score(folder)
    return folder


CURVE_AT = np.arange(0.0, MAX_MONTHS + 1, 6)  # months at which `run.json` tells the correction


def fit_on(tables: list[pd.DataFrame], fitted_weights: bool, correction: str) -> tuple[np.ndarray, Callable]:
    """Weights (members,) and a function of months, from the members' predictions of validation."""
    weights = np.full(len(tables), 1 / len(tables))
    if fitted_weights:
        weights = least_absolute(_months(tables), tables[0]["reference_months"].to_numpy())
    if correction == "none":
        return weights, lambda months: months
    mean = average(tables, weights, lambda months: months)
    if "predicted_months" not in mean:
        raise BoneageError("a correction is one of months: some member needs a regression head")
    return weights, CURVES[correction](mean["predicted_months"].to_numpy(), mean["reference_months"].to_numpy())


def average(tables: list[pd.DataFrame], weights: np.ndarray, curve: Callable) -> pd.DataFrame:
    """The weighted mean of predictions tables of the same rows; a column that some lack is the mean of the others."""
    made = tables[0][[c for c in ("male", "reference_months") if c in tables[0]]].copy()
    for column in ("predicted_months", *GROUP_COLUMNS):
        there = [(t[column], w) for t, w in zip(tables, weights, strict=True) if column in t]
        if total := sum(w for _, w in there):
            made[column] = sum(v * w for v, w in there) / total
    if "predicted_months" in made:
        made["predicted_months"] = curve(made["predicted_months"].to_numpy())
    return made


def least_absolute(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Weights w >= 0 of sum 1 that minimise the sum of |predicted @ w - reference|, as a linear programme.

    Parameters
    ----------
    predicted, reference
        (images, members) and (images,), months.
    """
    n, members = predicted.shape
    cost = np.r_[np.zeros(members), np.ones(2 * n)]  # what is missing and what is too much
    equal = np.block([[predicted, np.eye(n), -np.eye(n)], [np.ones((1, members)), np.zeros((1, 2 * n))]])
    found = linprog(cost, A_eq=equal, b_eq=np.r_[reference, 1.0], bounds=(0, None), method="highs")
    return found.x[:members] / found.x[:members].sum()


def linear(predicted: np.ndarray, reference: np.ndarray) -> Callable:
    """The straight line of least squares from predicted to reference months."""
    slope, intercept = np.polyfit(predicted, reference, 1)
    return lambda months: intercept + slope * months


def isotonic(predicted: np.ndarray, reference: np.ndarray) -> Callable:
    """The rising step function of least squares; flat beyond the ages that it was fitted on."""
    return IsotonicRegression(out_of_bounds="clip").fit(predicted, reference).predict


CURVES = {"linear": linear, "isotonic": isotonic}


def cross_fitted(tables: list[pd.DataFrame], fit: Callable) -> pd.DataFrame:
    """Each fifth of the rows answered with what `fit` (rows -> weights and curve) found on the other four."""
    folds = KFold(FOLDS, shuffle=True, random_state=0).split(tables[0])
    parts = [average([t.iloc[held] for t in tables], *fit(rest)) for rest, held in folds]
    return pd.concat(parts).loc[tables[0].index]


def _months(tables: list[pd.DataFrame]) -> np.ndarray:
    if not all("predicted_months" in t for t in tables):
        raise BoneageError("weights are fitted on months: every member needs a regression head")
    return np.column_stack([t["predicted_months"] for t in tables])


def _aligned(tables: list[pd.DataFrame], name: str) -> list[pd.DataFrame]:
    """The tables in the order of the first one's ids."""
    first = tables[0]
    for other in tables[1:]:
        if sorted(other.index) != sorted(first.index):
            raise BoneageError(f"the members of an ensemble must have the same {name} images")
    return [t.loc[first.index] for t in tables]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
