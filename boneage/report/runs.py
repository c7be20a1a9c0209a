"""The runs that a report is about, read from their folders."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from boneage.config import TrainConfig
from boneage.data import splits
from boneage.errors import BoneageError
from boneage.evaluation import metrics
from boneage.evaluation.evaluate import read_predictions
from boneage.models import backbones

SELECTED_ON, REPORTED_ON = "validation", "holdout"


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run: `outputs/<Backbone>/<name>`.

    Attributes
    ----------
    folder
        Where it lies.
    config
        What was asked for.
    facts
        What came of it (`run.json`).
    """

    folder: Path
    config: TrainConfig
    facts: dict

    @property
    def label(self) -> str:
        """`Backbone/name`, as in tables."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def backbone(self) -> str:
        return self.config.backbone

    @property
    def phantom(self) -> bool:
        return self.facts["phantom"]

    @property
    def evaluated(self) -> bool:
        """Whether `boneage evaluate` has been here."""
        return (self.folder / "metrics.json").exists()

    @property
    def has_months(self) -> bool:
        return self.config.head != "classification"

    @property
    def has_groups(self) -> bool:
        return self.config.head != "regression"

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch; see `history.csv`."""
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def holdout(self) -> pd.DataFrame:
        """Predictions of the images that are reported on."""
        return read_predictions(self.folder, REPORTED_ON)

    @cached_property
    def validation(self) -> pd.DataFrame:
        """Predictions of the images that runs are selected on."""
        return read_predictions(self.folder, SELECTED_ON)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Holdout metrics with their 95 % intervals: `value`, `low`, `high`, `n`, indexed by metric."""
        return metrics.summarise(self.holdout).set_index("metric")

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Holdout metrics by sex and age group, as `boneage.evaluation.metrics.by_group` gives them."""
        return metrics.by_group(self.holdout)

    @cached_property
    def on_rsna_holdout(self) -> bool:
        """Whether the holdout is, image for image, the part of RSNA's training set on which earlier work reports."""
        split = splits.committed_rsna()
        return set(self.holdout["id"]) == set(split["id"][split["set"] == "holdout"])


def find_runs(outputs: Path) -> list[Run]:
    """The finished runs below `outputs`, in the order of the backbone registry, then by name; evaluated or not.

    Raises
    ------
    BoneageError
        There is none, or a folder's record cannot be read.
    """
    order = backbones.names()
    found = []
    for model in Path(outputs).glob("*/*/model.keras"):
        folder = model.parent
        try:
            facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise BoneageError(f"{folder / 'run.json'} cannot be read ({error}); train the run again or remove its folder") from error
        found.append(Run(folder, TrainConfig.load(folder / "config.json"), facts))
    if not found:
        raise BoneageError(f"no finished run in {outputs}; expected {outputs}/<Backbone>/<name>/model.keras; make one with `boneage train`")
    return sorted(found, key=lambda r: (order.index(r.backbone) if r.backbone in order else len(order), r.label))


def evaluated(runs: list[Run]) -> list[Run]:
    """Those that have been evaluated; raises BoneageError when none has."""
    ready = [r for r in runs if r.evaluated]
    if not ready:
        raise BoneageError(f"none of the {len(runs)} finished runs is evaluated; run `boneage evaluate {runs[0].folder}` first")
    return ready


def best(runs: list[Run]) -> Run:
    """The run with the lowest validation MAE (of classifiers only: the highest validation accuracy).

    Selected on validation, so that the holdout, on which it is reported, has no say in the choice.
    """

    def score(run: Run) -> tuple[bool, float]:
        table = metrics.summarise(run.validation).set_index("metric")["value"]
        return (False, table["mae"]) if run.has_months else (True, -table["accuracy"])

    return min(runs, key=score)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
