"""Tables over all runs. Numbers come from the runs' prediction files, by `boneage.evaluation.metrics`."""

from functools import lru_cache
from importlib.resources import files

import numpy as np
import pandas as pd

from boneage.config import format_stages
from boneage.data import splits
from boneage.evaluation import metrics
from boneage.labels import GROUPS, SEX_NAMES
from boneage.models import backbones
from boneage.report.runs import REPORTED_ON, SELECTED_ON, Run, Runs, best

COMPARED = ("mae", "accuracy", "binned_accuracy")
NOTHING = "–"
RESULTS_NOTE = (
    f"Bold: selected on {SELECTED_ON}; all numbers are of the {REPORTED_ON}, which had no say in that. In brackets: "
    "95 % bootstrap intervals. Accuracy is the classification head's; of a run without one, that of its months sorted "
    "into the age groups (binned)."
)
PAIRED_NOTE = (
    f"The best run on {SELECTED_ON} is the yardstick; differences are of the same {REPORTED_ON} images, with "
    "paired-bootstrap 95 % intervals. Below zero in MAE is better than the yardstick, above zero in accuracy."
)


@lru_cache
def comparison(runs: Runs) -> pd.DataFrame:
    """One row a run, all of it numbers or names.

    Returns
    -------
    DataFrame
        `run`, `backbone`, `head`, `size` (px), `data`, `phantom`, `images` (of the holdout), for each of `COMPARED` the
        value and its 95 % interval `_low`, `_high` (NaN where the head is missing), `validation_mae`, `selected`
        (the best by validation), `parameters`, `epochs`, `best_epoch`, `seconds_per_epoch` (median at the last image
        size), `milliseconds` (of one answer, where it was timed), `initial_weights`. An ensemble was not trained and
        has no epochs.
    """
    chosen, rows = best(runs), []
    for run in runs:
        found = run.summary.reindex(COMPARED)
        scores = {}
        for name in COMPARED:
            scores |= {name: found.value[name], f"{name}_low": found.low[name], f"{name}_high": found.high[name]}
        rows.append(
            {
                "run": run.label,
                "backbone": run.backbone,
                "head": run.head,
                "size": run.config.size if run.config else np.nan,
                "data": run.facts["data"],
                "phantom": run.phantom,
                "images": len(run.holdout),
                **scores,
                "validation_mae": metrics.summarise(run.validation, resamples=0)
                .set_index("metric")
                .value.get("mae", np.nan),
                "selected": run is chosen,
                "parameters": run.facts["parameters"],
                "epochs": run.facts.get("epochs", np.nan),
                "best_epoch": run.facts.get("best_epoch", np.nan),
                "seconds_per_epoch": run.seconds_per_epoch,
                "milliseconds": run.milliseconds,
                "initial_weights": run.facts.get("initial_weights", {}).get("name", ""),
            }
        )
    return pd.DataFrame(rows)


@lru_cache
def differences(runs: Runs) -> pd.DataFrame:
    """Each run less the one selected on validation, on the same holdout images, with paired-bootstrap intervals.

    Returns
    -------
    DataFrame
        `run`, `less` (the selected run), `metric`, `value`, `low`, `high`, `n`; runs without the same images
        or a head in common are left out.
    """
    chosen, rows = best(runs), []
    for run in runs:
        heads = (run.has_months and chosen.has_months) or (run.has_groups and chosen.has_groups)
        if run is chosen or not heads or not run.same_images(chosen):
            continue
        found = metrics.paired_difference(run.holdout, chosen.holdout)
        n = found.pop("n")
        rows += [{"run": run.label, "less": chosen.label, "metric": m, **v, "n": n} for m, v in found.items()]
    return pd.DataFrame(rows, columns=["run", "less", "metric", "value", "low", "high", "n"])


def published() -> pd.DataFrame:
    """What earlier work reports on RSNA's holdout.

    Columns `model`, `accuracy_percent`, `accuracy_images`, `mae_months`, `mae_images`, `note`.
    """
    with files("boneage.report").joinpath("published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def interval(value: float, low: float, high: float, digits: int, sign: str = "") -> str:
    """`"8.13 [7.90, 8.36]"`; a dash for what is not there."""
    if np.isnan(value):
        return NOTHING
    text = f"{value:{sign}.{digits}f}"
    return (text if np.isnan(low) else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]").replace("-", "−")


def scored(found: pd.DataFrame, name: str) -> str:
    """A metric of a summary with its interval, as text; a dash for one that is not there."""
    if name not in found.index:
        return NOTHING
    return interval(*found.loc[name, ["value", "low", "high"]].astype(float), metrics.METRICS[name].digits)


def _accuracy(run: Run, found: pd.DataFrame) -> str:
    return scored(found, "accuracy") if run.has_groups else scored(found, "binned_accuracy") + " (binned)"


@lru_cache
def results(runs: Runs) -> pd.DataFrame:
    """The main table, as text: every run on its holdout and, where that is RSNA's, what earlier work reports on it.

    Accuracy is as `RESULTS_NOTE` says.
    """
    rsna = any(r.on_rsna_holdout for r in runs)
    earlier_ids = splits.earlier_accuracy_ids() if rsna else []
    shared = f"Accuracy on {len(earlier_ids):,} of them, %"
    chosen, rows = best(runs), []
    mae, accuracy = metrics.METRICS["mae"].label, "Accuracy, 4 age groups, %"
    for run in runs:
        row = {
            "Model": f"**{run.label}**" if run is chosen else run.label,
            mae: scored(run.summary, "mae"),
            accuracy: _accuracy(run, run.summary),
        }
        if rsna:
            part = run.holdout[run.holdout["id"].isin(earlier_ids)]
            row[shared] = (
                _accuracy(run, metrics.summarise(part).set_index("metric")) if run.on_rsna_holdout else NOTHING
            )
        rows.append((run.backbone, row | {"Images": f"{len(run.holdout):,}"} | _cost(run)))
    for p in published().itertuples() if rsna else ():
        row = {"Model": f"*{p.model}, published*", mae: f"{p.mae_months:.2f}", accuracy: NOTHING}
        row |= {shared: f"{p.accuracy_percent:.2f}", "Images": f"{p.mae_images:,}"}
        rows.append((p.model, row))
    order = {name: i for i, name in enumerate(backbones.names())}
    shown = pd.DataFrame([row for _, row in sorted(rows, key=lambda r: order.get(r[0], len(order)))])
    return shown.dropna(axis="columns", how="all").fillna(NOTHING)


def _cost(run: Run) -> dict:
    """What a model takes: the columns that nothing is known of are left out."""
    known = {
        "Image side, px": f"{run.config.size}" if run.config else np.nan,
        "Parameters, millions": f"{run.facts['parameters'] / 1e6:.1f}",
        "An epoch, s": run.seconds_per_epoch,
        "An answer, ms": run.milliseconds,
    }
    return {k: f"{v:,.0f}" if isinstance(v, float) and not np.isnan(v) else v for k, v in known.items()}


def results_note(runs: Runs) -> str:
    """How to read `results`."""
    text = RESULTS_NOTE
    if any(r.on_rsna_holdout for r in runs):
        earlier = published()
        text += f" Italic: {'; '.join(earlier['note'].unique())}."
    return text


def by_group(run: Run) -> pd.DataFrame:
    """MAE (of a classifier: accuracy) by age group and sex, as text with intervals and numbers of images."""
    metric = "mae" if run.has_months else "accuracy"
    table = run.groups[run.groups["metric"] == metric].set_index(["age_group", "sex"])

    def cell(group: str, sex: str) -> str:
        everyone = group == sex == metrics.EVERYONE
        row = run.summary.loc[metric] if everyone else table.loc[(group, sex)]
        return (
            f"{interval(row['value'], row['low'], row['high'], metrics.METRICS[metric].digits)}, n = {int(row['n']):,}"
        )

    sexes = (*SEX_NAMES, metrics.EVERYONE)
    return pd.DataFrame([{"Age group, years": g} | {s: cell(g, s) for s in sexes} for g in (*GROUPS, metrics.EVERYONE)])


def summary(run: Run) -> pd.DataFrame:
    """Every metric of a run with its interval, as text."""
    return pd.DataFrame(
        [
            {"Metric": metrics.METRICS[m].label, "Value [95 % interval]": scored(run.summary, m)}
            for m in run.summary.index
        ]
    )


def shown_differences(runs: Runs) -> pd.DataFrame:
    """`differences` as text, one row a run."""
    table, rows = differences(runs), []
    for name, part in table.groupby("run", sort=False):
        row = {"Run": name, "Less": part["less"].iloc[0]}
        for r in part.itertuples():
            row[metrics.METRICS[r.metric].label] = interval(
                r.value, r.low, r.high, metrics.METRICS[r.metric].digits, "+"
            )
        rows.append(row)
    return pd.DataFrame(rows).fillna(NOTHING)


def provenance(runs: Runs) -> pd.DataFrame:
    """Which data, which images, from which weights, at what cost, as text."""
    rows = []
    for run in (r for r in runs if r.trained):
        f = run.facts
        weights, images = f["initial_weights"], f["images"] | {REPORTED_ON: len(run.holdout)}
        rows.append(
            {
                "Run": run.label,
                "Data": f["data"] + (" (PHANTOM)" if run.phantom else ""),
                "Images " + " / ".join(("train", SELECTED_ON, REPORTED_ON)): " / ".join(
                    f"{images[s]:,}" for s in ("train", SELECTED_ON, REPORTED_ON)
                ),
                "Initial weights": weights["name"]
                + (f" (sha256 {weights['sha256'][:12]})" if "sha256" in weights else ""),
                "Stages, px x epochs": format_stages(run.config.stages).replace(",", ", "),
                "Best epoch": f"{f['best_epoch']} of {f['epochs']}",
                "Median epoch, s": f"{run.history['seconds'].median():,.0f}",
                "Parameters": f"{f['parameters']:,}",
                "Backend": f"{f['backend']}, {f['precision']}",
            }
        )
    return pd.DataFrame(rows)


def to_markdown(table: pd.DataFrame) -> str:
    """A table of text as GitHub Markdown."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
