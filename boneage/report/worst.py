"""The largest errors of a model, and what is known of each image that may explain it."""

from pathlib import Path

import numpy as np
import pandas as pd

from boneage.data.cache import Cache
from boneage.data.hand import MIN_CONFIDENCE
from boneage.evaluation.run_files import read_split
from boneage.labels import GROUP_COLUMNS, GROUPS, SEX_NAMES, age_group
from boneage.report.runs import Run, Runs

COUNT = 20
REASONS = 2  # told of an image, the first that hold
SMALL, ASKEW = 0.5, 30  # of a found hand: share of the image's longer side, degrees
FAINT = 0.02  # quantile of the grey window's width over the training images
PALE, PEERS = 0.05, 300  # quantile of the spread of grey in the middle, over so many training images
WHITE = 0.2  # share of the picture
RARE = 30  # training images of this sex within 6 months
ALIKE = 0.5  # share of the error that another model makes too


def worst(run: Run) -> pd.DataFrame:
    """The `COUNT` holdout rows with the largest absolute error, the worst first; `error` in months is added."""
    table = run.holdout.assign(error=run.holdout["predicted_months"] - run.holdout["reference_months"])
    return table.loc[table["error"].abs().sort_values(ascending=False, kind="stable").index[:COUNT]]


def hands_of(run: Run) -> list[Path]:
    """`[outputs/HandFinder/predictions.csv]`, or [] where no hand finder was measured."""
    path = run.folder.parent.parent / "HandFinder" / "predictions.csv"
    return [path] if path.exists() else []


def reasons(runs: Runs, cache: Cache) -> dict[str, str]:
    """For each of the worst cases of `runs[0]`, by id, a line on why; by rules from what is known of the image.

    Parameters
    ----------
    runs
        The run, then others that were reported on the same images.
    cache
        Its radiographs.
    """
    run, *others = runs
    split = read_split(run.folder)
    training = cache.index[cache.index["id"].isin(split["id"][split["set"] == "train"])]
    faint = (training["high"] - training["low"]).quantile(FAINT)
    peers = training.sample(min(PEERS, len(training)), random_state=0)["row"]
    pale = pd.Series([_spread(cache, r) for r in peers], dtype=float).quantile(PALE)
    errors = [t["predicted_months"] - t["reference_months"] for t in (o.holdout.set_index("id") for o in others)]
    hands = pd.concat([pd.DataFrame(), *(pd.read_csv(p, dtype={"id": str}).set_index("id") for p in hands_of(run))])
    found = {}
    for _, row in worst(run).iterrows():
        known = cache.rows([row["id"]]).iloc[0]
        said = _of_hand(hands.loc[row["id"]]) if row["id"] in hands.index else []
        if (width := known["high"] - known["low"]) < faint:
            said.append(f"faint film, {width:.0f} grey levels")
        if (white := (cache.images[known["row"]] == 255).mean()) > WHITE:
            said.append(f"{white:.0%} of it is white".replace("%", " %"))
        if len(peers) and _spread(cache, known["row"]) < pale:
            said.append("pale: hand and ground are alike")
        near = training[training["male"] == row["male"]]["months"].sub(row["reference_months"]).abs().le(6)
        if len(near) and near.sum() < RARE:
            said.append(f"rare: {near.sum()} training images of {SEX_NAMES[row['male']]}s near this age")
        if run.has_groups:
            by_months, by_class = age_group(row["predicted_months"]), int(row[list(GROUP_COLUMNS)].argmax())
            if by_months != by_class:
                said.append(f"its heads disagree: the classifier says {GROUPS[by_class]} years")
        if errors and all(e[row["id"]] / row["error"] > ALIKE for e in errors):
            said.append("every model errs alike: a doubtful reference?")
        found[row["id"]] = "; ".join(said[:REASONS]) or "nothing measured stands out"
    return found


def _spread(cache: Cache, row: int) -> float:
    """Interquartile range of grey over the middle half of a square."""
    quarter = cache.size // 4
    low, high = np.percentile(cache.images[row, quarter:-quarter, quarter:-quarter], (25, 75))
    return float(high - low)


def _of_hand(hand: pd.Series) -> list[str]:
    said = []
    if hand["confidence"] < MIN_CONFIDENCE:
        said.append(f"hand hard to find (confidence {hand['confidence']:.2f})")
    if hand["size"] < SMALL:
        said.append(f"hand fills {hand['size']:.0%} of the frame".replace("%", " %"))
    if abs(hand["angle"]) > ASKEW:
        said.append(f"hand turned by {abs(hand['angle']):.0f}°")
    return said
