"""What is done to predictions after training, and what it gains: views, ensembles, corrections."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from boneage.evaluation import ensemble, metrics, tta
from boneage.evaluation.run_files import predictions_path
from boneage.report.runs import REPORTED_ON, SELECTED_ON, Run, Runs
from boneage.report.tables import NOTHING, interval

COLUMNS = ("run", "step", "on_validation", "value", "low", "high", "n")
NOTE = (
    f"MAE with the step less MAE without, months, below zero is better: on {SELECTED_ON}, where the choice is made, "
    f"and on the {REPORTED_ON} with the paired-bootstrap 95 % interval. Weights and corrections are fitted on "
    f"{SELECTED_ON} only, their value there is cross-fitted."
)


@lru_cache
def gains(runs: Runs) -> pd.DataFrame:
    """One row a run and step: MAE with it less MAE without it, on the same images.

    Returns
    -------
    DataFrame
        `run`, `step`, `on_validation` (months), `value`, `low`, `high` (months on the holdout, paired bootstrap), `n`.
    """
    rows = []

    def add(run: Run, step: str, after: dict[str, pd.DataFrame], before: dict[str, pd.DataFrame]) -> None:
        found = metrics.paired_difference(after[REPORTED_ON], before[REPORTED_ON])
        chosen = _mae(after[SELECTED_ON]) - _mae(before[SELECTED_ON])
        rows.append({"run": run.label, "step": step, "on_validation": chosen, **found["mae"], "n": found["n"]})

    for run in (r for r in runs if r.has_months):
        if run.trained:
            plain = _tables(run.folder)
            if viewed := _tables(run.folder / tta.FOLDER):
                add(run, f"{len(tta.views())} views", viewed, plain)
            for kind in ensemble.CURVES:
                add(run, f"{kind} correction", _refitted([plain], False, kind), plain)
            continue
        members = [_tables(folder) for folder in _members(run)]
        if len(members) < 2 or not all(m and "predicted_months" in m[SELECTED_ON] for m in members):
            continue
        single = min(members, key=lambda m: _mae(m[SELECTED_ON]))
        mean = _refitted(members, False, "none")
        add(run, "mean of the members, less the best of them", mean, single)
        add(run, "fitted weights, less the mean", _refitted(members, True, "none"), mean)
        for kind in ensemble.CURVES:
            add(run, f"{kind} correction of the mean", _refitted(members, False, kind), mean)
    return pd.DataFrame(rows, columns=COLUMNS)


def shown_gains(runs: Runs) -> pd.DataFrame:
    """`gains` as text."""
    return pd.DataFrame(
        [
            {
                "Run": r.run,
                "Step": r.step,
                f"On {SELECTED_ON}": interval(r.on_validation, np.nan, np.nan, 2, "+"),
                f"On the {REPORTED_ON}": interval(r.value, r.low, r.high, 2, "+"),
            }
            for r in gains(runs).itertuples()
        ]
    )


def ensembles(runs: Runs) -> pd.DataFrame:
    """What the ensembles consist of, as text."""
    rows = []
    for run in (r for r in runs if not r.trained):
        members = [
            f"{m['weight']:.2f} {m['run']}" + (f" ({m['views']} views)" if m["views"] > 1 else "")
            for m in run.facts["members"]
        ]
        kind = run.facts["correction"]["kind"]
        rows.append(
            {
                "Ensemble": run.label,
                "Members": ", ".join(members),
                "Weights": run.facts["weights"],
                "Correction": NOTHING if kind == "none" else kind,
            }
        )
    return pd.DataFrame(rows)


def _mae(table: pd.DataFrame) -> float:
    return float((table["predicted_months"] - table["reference_months"]).abs().mean())


def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Predictions of validation and holdout; {} where one is missing."""
    paths = {s: predictions_path(folder, s) for s in (SELECTED_ON, REPORTED_ON)}
    if not all(p.exists() for p in paths.values()):
        return {}
    return {s: pd.read_csv(p, dtype={"id": str}) for s, p in paths.items()}


def _members(run: Run) -> list[Path]:
    """Their folders, beside the ensemble's own."""
    root = run.folder.parent.parent
    return [root / m["run"] / (tta.FOLDER if m["views"] > 1 else "") for m in run.facts["members"]]


def _refitted(members: list[dict], fitted_weights: bool, correction: str) -> dict[str, pd.DataFrame]:
    """The members as one, with what is fitted on validation; on validation itself cross-fitted."""
    by_set = {
        s: [t.set_index("id").loc[members[0][s]["id"]] for t in (m[s] for m in members)]
        for s in (SELECTED_ON, REPORTED_ON)
    }

    def fit(rows):
        return ensemble.fit_on([t.iloc[rows] for t in by_set[SELECTED_ON]], fitted_weights, correction)

    rows = np.arange(len(by_set[SELECTED_ON][0]))
    made = {REPORTED_ON: ensemble.average(by_set[REPORTED_ON], *fit(rows))}
    made[SELECTED_ON] = ensemble.cross_fitted(by_set[SELECTED_ON], fit)
    return {s: t.reset_index() for s, t in made.items()}
