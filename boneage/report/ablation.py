"""What each ingredient of the recipe is worth: `boneage campaign ablation`, as a table.

A row is a variant of the recipe, all else the same. Runs that differ in nothing but the seed (`ours`, `ours-seed1`, ..)
are one variant: an image's error is then the mean of its absolute errors under each seed.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from boneage.config import TrainConfig, format_stages
from boneage.evaluation import metrics
from boneage.evaluation.run_files import read_predictions
from boneage.labels import GROUP_COLUMNS, age_group
from boneage.report.runs import REPORTED_ON, SELECTED_ON
from boneage.report.tables import NOTHING, interval, to_markdown

FOLDER, BASE = "ablation", "ours"  # below the outputs; the variant that all others are compared with
NOTE = (
    f"MAE and accuracy are of the {REPORTED_ON}. MAE of the variant less that of `{BASE}`, in months, above zero is "
    f"worse: on {SELECTED_ON}, where choices are made, and on the {REPORTED_ON} with the paired-bootstrap 95 % "
    "interval over images."
)
UNNAMED = ("name", "seed")  # settings that make no variant


def variants(outputs: Path) -> dict[tuple[str, str], list[Path]]:
    """The evaluated runs of the ablation below `outputs` by backbone and variant, the compared one first.

    What counts is that there are predictions: the models of an ablation are not kept. A backbone without the compared
    variant has none.
    """
    found = defaultdict(list)
    for path in sorted((Path(outputs) / FOLDER).glob(f"*/*/predictions_{REPORTED_ON}.csv")):
        run = path.parent
        found[run.parent.name, re.sub(r"-seed\d+$", "", run.name)].append(run)
    order = sorted(found, key=lambda key: (key[0], key[1] != BASE))
    return {(backbone, name): found[backbone, name] for backbone, name in order if (backbone, BASE) in found}


def differences(outputs: Path) -> pd.DataFrame:
    """One row a variant.

    Returns
    -------
    DataFrame
        `backbone`, `variant`, `settings` that differ, as text, `seeds`; on the holdout, over seeds, `mae` in months and
        `accuracy` of the four groups in percent (the head's, or that of its months sorted into them); and
        `on_validation`, and of the holdout `value`, `low`, `high`: MAE less that of the backbone's compared variant, in
        months; NaN without months, and for the compared variant itself.
    """
    runs, rows = variants(outputs), []
    for (backbone, name), folders in runs.items():
        base = runs[backbone, BASE]
        row = {"backbone": backbone, "variant": name, "settings": _differing(folders[0], base[0])}
        row |= {"seeds": len(folders), "accuracy": 100 * np.mean([_right(folder).mean() for folder in folders])}
        if "predicted_months" in read_predictions(folders[0], REPORTED_ON):
            row["mae"] = _mean_absolute(folders, REPORTED_ON).mean()
            if name != BASE:
                validation, holdout = (
                    metrics.paired_difference(_over_seeds(folders, s), _over_seeds(base, s))["mae"]
                    for s in (SELECTED_ON, REPORTED_ON)
                )
                row |= {"on_validation": validation["value"], **holdout}
        rows.append(row)
    numbers = ["mae", "accuracy", "on_validation", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=["backbone", "variant", "settings", "seeds", *numbers])
    return table.astype(dict.fromkeys(numbers, float))


def text(outputs: Path) -> str:
    """The table as Markdown, with how to read it and how far the compared variant's own seeds lie apart."""
    table = differences(outputs)
    if table.empty:
        return "The ablation has not been run; `boneage campaign ablation` does it."
    shown = pd.DataFrame(
        {
            "Backbone": row.backbone,
            "Variant": row.variant,
            "Settings": row.settings or NOTHING,
            "Seeds": row.seeds,
            "MAE, months": interval(row.mae, np.nan, np.nan, 2),
            "Accuracy, 4 age groups, %": interval(row.accuracy, np.nan, np.nan, 1),
            f"MAE less, on {SELECTED_ON}": interval(row.on_validation, np.nan, np.nan, 2, "+"),
            f"MAE less, on the {REPORTED_ON}": interval(row.value, row.low, row.high, 2, "+"),
        }
        for row in table.itertuples()
    )
    alone = [
        f"{backbone} {', '.join(f'{_absolute(folder, REPORTED_ON).mean():.2f}' for folder in folders)}"
        for (backbone, name), folders in variants(outputs).items()
        if name == BASE
    ]
    return f"{to_markdown(shown)}\n\n{_budget(outputs)} {NOTE} Its seeds alone: {'; '.join(alone)} months."


def _budget(outputs: Path) -> str:
    """What all runs had alike, in a sentence."""
    configs = [TrainConfig.load(run / "config.json") for runs in variants(outputs).values() for run in runs]
    stages = sorted({format_stages(config.stages) for config in configs})
    return f"Every run had the same images, split and initial weights, and {' or '.join(stages)} (pixels x epochs)."


def _absolute(run: Path, name: str) -> pd.Series:
    """Absolute error in months by id."""
    table = read_predictions(run, name).set_index("id")
    return (table["predicted_months"] - table["reference_months"]).abs()


def _mean_absolute(runs: list[Path], name: str) -> pd.Series:
    """Absolute error in months by id, the mean over runs."""
    return pd.concat([_absolute(run, name) for run in runs], axis=1).mean(axis=1)


def _over_seeds(runs: list[Path], name: str) -> pd.DataFrame:
    """A predictions table whose absolute error is, image by image, the mean of those of the runs."""
    table = read_predictions(runs[0], name)[["id", "male", "reference_months"]]
    mean = _mean_absolute(runs, name).loc[table["id"]].to_numpy()
    return table.assign(predicted_months=table["reference_months"] + mean)


def _right(run: Path) -> np.ndarray:
    """(n,) bool: whether the age group is the reference's."""
    table = read_predictions(run, REPORTED_ON)
    truth = age_group(table["reference_months"])
    if GROUP_COLUMNS[0] in table:
        return table[list(GROUP_COLUMNS)].to_numpy().argmax(1) == truth
    return age_group(table["predicted_months"]) == truth


def _differing(run: Path, base: Path) -> str:
    """`"frame=whole, augmentation.flip=0"`: what a run's settings have other than the compared one's."""

    def flat(config: TrainConfig) -> dict:
        values = config.to_dict()
        inner = {f"augmentation.{k}": v for k, v in values.pop("augmentation").items()}
        return {k: v for k, v in (values | inner).items() if k not in UNNAMED}

    theirs, ours = (flat(TrainConfig.load(folder / "config.json")) for folder in (run, base))
    return ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in theirs.items() if v != ours[k])
