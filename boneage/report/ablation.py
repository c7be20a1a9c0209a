"""What each ingredient of the recipe is worth: `boneage campaign ablation`, as a table.

A row is a variant of the recipe, all else the same. Runs that differ in nothing but the seed (`ours`, `ours-seed1`, ..)
are one variant: an image's error is then the mean of its absolute errors under each seed.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from boneage.config import TrainConfig
from boneage.evaluation import metrics
from boneage.evaluation.run_files import read_predictions
from boneage.report.runs import REPORTED_ON, SELECTED_ON
from boneage.report.tables import NOTHING, interval, to_markdown

FOLDER, BASE = "ablation", "ours"  # below the outputs; the variant that all others are compared with
NOTE = (
    f"MAE of the variant less that of `{BASE}`, in months, above zero is worse: on {SELECTED_ON}, where choices are "
    f"made, and on the {REPORTED_ON} with the paired-bootstrap 95 % interval over images."
)
UNNAMED = ("name", "seed")  # settings that make no variant


def variants(outputs: Path) -> dict[str, list[Path]]:
    """The evaluated runs of the ablation below `outputs` by variant, the compared one first; {} without that one.

    What counts is that there are predictions: the models of an ablation are not kept.
    """
    found = defaultdict(list)
    for path in sorted((Path(outputs) / FOLDER).glob(f"*/*/predictions_{REPORTED_ON}.csv")):
        found[re.sub(r"-seed\d+$", "", path.parent.name)].append(path.parent)
    if BASE not in found:
        return {}
    return {BASE: found.pop(BASE)} | found


def differences(outputs: Path) -> pd.DataFrame:
    """One row a variant.

    Returns
    -------
    DataFrame
        `variant`, `settings` that differ, as text, `seeds`; `on_validation`, and of the holdout `value`, `low`, `high`:
        MAE less that of the compared variant, in months; NaN without months, and for the compared variant itself.
    """
    runs, rows = variants(outputs), []
    for name, folders in runs.items():
        row = {"variant": name, "settings": _differing(folders[0], runs[BASE][0]), "seeds": len(folders)}
        if name != BASE and "predicted_months" in read_predictions(folders[0], REPORTED_ON):
            validation, holdout = (
                metrics.paired_difference(_over_seeds(folders, s), _over_seeds(runs[BASE], s))["mae"]
                for s in (SELECTED_ON, REPORTED_ON)
            )
            row |= {"on_validation": validation["value"], **holdout}
        rows.append(row)
    columns = ["variant", "settings", "seeds", "on_validation", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))


def text(outputs: Path) -> str:
    """The table as Markdown, with how to read it and how far the compared variant's own seeds lie apart."""
    table = differences(outputs)
    if table.empty:
        return "The ablation has not been run; `boneage campaign ablation` does it."
    shown = pd.DataFrame(
        {
            "Variant": row.variant,
            "Settings": row.settings or NOTHING,
            "Seeds": row.seeds,
            f"On {SELECTED_ON}": interval(row.on_validation, np.nan, np.nan, 2, "+"),
            f"On the {REPORTED_ON}": interval(row.value, row.low, row.high, 2, "+"),
        }
        for row in table.itertuples()
    )
    alone = [float(_absolute(folder, REPORTED_ON).mean()) for folder in variants(outputs)[BASE]]
    spread = f" Its seeds alone: {', '.join(f'{mae:.2f}' for mae in alone)} months on the {REPORTED_ON}."
    return f"{to_markdown(shown)}\n\n{NOTE}{spread}"


def _absolute(run: Path, name: str) -> pd.Series:
    """Absolute error in months by id."""
    table = read_predictions(run, name).set_index("id")
    return (table["predicted_months"] - table["reference_months"]).abs()


def _over_seeds(runs: list[Path], name: str) -> pd.DataFrame:
    """A predictions table whose absolute error is, image by image, the mean of those of the runs."""
    table = read_predictions(runs[0], name)[["id", "male", "reference_months"]]
    mean = pd.concat([_absolute(run, name) for run in runs], axis=1).mean(axis=1)
    return table.assign(predicted_months=table["reference_months"] + mean.loc[table["id"]].to_numpy())


def _differing(run: Path, base: Path) -> str:
    """`"frame=whole, augmentation.flip=0"`: what a run's settings have other than the compared one's."""

    def flat(config: TrainConfig) -> dict:
        values = config.to_dict()
        inner = {f"augmentation.{k}": v for k, v in values.pop("augmentation").items()}
        return {k: v for k, v in (values | inner).items() if k not in UNNAMED}

    theirs, ours = (flat(TrainConfig.load(folder / "config.json")) for folder in (run, base))
    return ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in theirs.items() if v != ours[k])
