"""One split for every head and backbone, made before any statistic is computed."""

from importlib.resources import files

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from boneage.errors import BoneageError
from boneage.labels import age_group

SETS = ("train", "validation", "holdout", "rsna_test")
RSNA_ROWS = 12_611
RSNA_FIRST_IDS = ("1377", "1378", "1379")  # how the RSNA training table begins, in file order
HOLDOUT_SEED = 42
VALIDATION_IMAGES = 1_000  # of RSNA's 10,088 that are not holdout


def _strata(table: pd.DataFrame) -> np.ndarray:
    return table["male"].to_numpy() * 10 + age_group(table["months"])


def make_rsna(table: pd.DataFrame) -> pd.DataFrame:
    """The split of the 12,611 RSNA training rows in file order: columns `id`, `set`.

    The holdout is `train_test_split(table, test_size=0.2, random_state=42)`, on which earlier work reports; 1,000 of
    the rest, stratified by sex and age group, are validation.
    """
    rest, holdout = train_test_split(np.arange(len(table)), test_size=0.2, random_state=HOLDOUT_SEED)
    _, validation = train_test_split(
        rest, test_size=VALIDATION_IMAGES, random_state=HOLDOUT_SEED, stratify=_strata(table)[rest]
    )
    return _labelled(table, validation, holdout)


def make_stratified(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """70 / 10 / 20 % train / validation / holdout, stratified by sex and age group where each holds at least ten."""
    rows = np.arange(len(table))
    if len(rows) < 10:
        raise BoneageError(f"a split needs at least 10 labelled images. Received: {len(rows)}")
    strata = _strata(table)
    strata = strata if np.unique(strata, return_counts=True)[1].min() >= 10 else None
    rest, holdout = train_test_split(rows, test_size=0.2, random_state=seed, stratify=strata)
    _, validation = train_test_split(
        rest, test_size=0.125, random_state=seed, stratify=None if strata is None else strata[rest]
    )
    return _labelled(table, validation, holdout)


def _labelled(table: pd.DataFrame, validation, holdout) -> pd.DataFrame:
    sets = np.full(len(table), "train", object)
    sets[validation], sets[holdout] = "validation", "holdout"
    return pd.DataFrame({"id": table["id"].to_numpy(), "set": sets})


def committed_rsna() -> pd.DataFrame:
    """The RSNA split as committed in the package: `id`, `set`, in file order."""
    with files("boneage.data").joinpath("rsna_split.csv").open() as file:
        return pd.read_csv(file, dtype=str)


def earlier_accuracy_ids() -> pd.Series:
    """The 1,892 ids on which earlier work reports accuracy: `test_size=0.15`, the same seed, a part of the holdout."""
    ids = committed_rsna()["id"]
    return ids.iloc[train_test_split(np.arange(len(ids)), test_size=0.15, random_state=HOLDOUT_SEED)[1]]


def is_rsna(table: pd.DataFrame) -> bool:
    """Whether a labelled table begins as RSNA's training table does; one with images missing counts too."""
    return (
        tuple(table["id"][:3]) == RSNA_FIRST_IDS
        or len(set(table["id"]) & set(committed_rsna()["id"])) > 0.9 * len(table) > 900
    )


def split(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """`id`, `set` for every row of a source's or cache's table with columns `id`, `months`, `male`, `subset`.

    RSNA images follow the committed split (images added to them train), any other data set a seeded stratified one.
    Images of a test table are `rsna_test`, with ages or without, those of a validation table are validation.

    Raises
    ------
    BoneageError
        Nothing to train on, as in a data set of test images only, or too few to split.
    """
    labelled = table[(table["subset"] == "train") & table["months"].notna()]
    if len(labelled) == 0:
        found = ", ".join(f"{n} {subset}" for subset, n in table["subset"].value_counts().items())
        raise BoneageError(
            f"no image with an age to train on; found {found or 0} images. Add a training table with ages, or rename a "
            "table or folder whose name says test or valid by mistake (see docs/data.md)"
        )
    if is_rsna(labelled):
        made = committed_rsna()
        added = labelled.loc[~labelled["id"].isin(made["id"]), ["id"]].assign(set="train")
        made = pd.concat([made[made["id"].isin(labelled["id"])], added], ignore_index=True)
    else:
        made = make_stratified(labelled, seed)
    rest = table[~table["id"].isin(labelled["id"])]
    extra = pd.DataFrame({"id": rest["id"], "set": np.where(rest["subset"] == "validation", "validation", "rsna_test")})
    made = pd.concat([made, extra], ignore_index=True)
    check_disjoint(made)
    return made


def check_disjoint(made: pd.DataFrame) -> None:
    """Raises BoneageError when an id stands in a split twice or a set has an unknown name."""
    twice = made["id"][made["id"].duplicated()]
    if len(twice):
        raise BoneageError(f"{len(twice)} ids stand in the split twice, such as {twice.iloc[0]}")
    unknown = set(made["set"]) - set(SETS)
    if unknown:
        raise BoneageError(f"unknown set {sorted(unknown)}; known: {', '.join(SETS)}")
