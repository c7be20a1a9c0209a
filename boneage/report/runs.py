"""The runs that a report is about, read from their folders."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pandas as pd

from boneage.config import TrainConfig
from boneage.data import splits
from boneage.errors import BoneageError
from boneage.evaluation import ensemble, metrics, speed
from boneage.evaluation.run_files import read_json, read_predictions
from boneage.labels import GROUP_COLUMNS
from boneage.models import backbones

Runs = tuple["Run", ...]
SELECTED_ON, REPORTED_ON = "validation", "holdout"
LOOKALIKE = "lookalike"  # name of the runs with the earlier work's recipe, see boneage/campaigns/lookalike.toml


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run, `outputs/<Backbone>/<name>`, or an ensemble of runs. Two are equal when their files are.

    Attributes
    ----------
    folder
        Where it lies.
    config
        What was asked for; None for an ensemble, which was not trained.
    facts
        What came of it (`run.json`).
    """

    folder: Path
    config: TrainConfig | None
    facts: dict

    @cached_property
    def _mark(self) -> tuple:
        shown = ("history.csv", speed.FILE, *(f"predictions_{s}.csv" for s in (SELECTED_ON, REPORTED_ON)))
        there = [self.folder / name for name in shown if (self.folder / name).exists()]
        return self.folder, self.config, str(self.facts), tuple(map(digest, there))

    def __eq__(self, other) -> bool:
        return isinstance(other, Run) and self._mark == other._mark

    def __hash__(self) -> int:
        return hash(self._mark)

    @property
    def label(self) -> str:
        """`Backbone/name`, as in tables."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def backbone(self) -> str:
        return self.config.backbone if self.config else ensemble.BACKBONE

    @property
    def trained(self) -> bool:
        """Whether it is a model of its own, with a history and a `model.keras`."""
        return self.config is not None

    @property
    def phantom(self) -> bool:
        return self.facts["phantom"]

    @property
    def evaluated(self) -> bool:
        """Whether `boneage evaluate` has been here."""
        return (self.folder / "metrics.json").exists()

    @property
    def has_months(self) -> bool:
        return self.config.head != "classification" if self.config else "predicted_months" in self.validation

    @property
    def has_groups(self) -> bool:
        return self.config.head != "regression" if self.config else GROUP_COLUMNS[0] in self.validation

    @property
    def head(self) -> str:
        """joint, regression or classification: what it answers."""
        return "joint" if self.has_months and self.has_groups else "regression" if self.has_months else "classification"

    @cached_property
    def milliseconds(self) -> float:
        """Of one answer; NaN where it was not timed."""
        return speed.milliseconds(self.folder)

    @cached_property
    def seconds_per_epoch(self) -> float:
        """Median over the epochs of the last image size; NaN for an ensemble."""
        if not self.trained:
            return float("nan")
        return float(self.history["seconds"][self.history["size"] == self.config.size].median())

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

    @property
    def summary(self) -> pd.DataFrame:
        """Holdout metrics with their 95 % intervals: `value`, `low`, `high`, `n`, indexed by metric."""
        return _summary(self)

    @property
    def groups(self) -> pd.DataFrame:
        """Holdout metrics by sex and age group, as `boneage.evaluation.metrics.by_group` gives them."""
        return _groups(self)

    def same_images(self, other: "Run") -> bool:
        """Whether both were reported on the same images, so that they may be compared image by image."""
        return self.facts["data"] == other.facts["data"] and set(self.holdout["id"]) == set(other.holdout["id"])

    @cached_property
    def on_rsna_holdout(self) -> bool:
        """Whether the holdout is, image for image, the part of RSNA's training set on which earlier work reports."""
        split = splits.committed_rsna()
        return set(self.holdout["id"]) == set(split["id"][split["set"] == "holdout"])


# Bootstraps take seconds, and table, page and README show the same ones.
@lru_cache
def _summary(run: Run) -> pd.DataFrame:
    return metrics.summarise(run.holdout).set_index("metric")


@lru_cache
def _groups(run: Run) -> pd.DataFrame:
    return metrics.by_group(run.holdout)


def find_runs(outputs: Path) -> Runs:
    """The finished runs below `outputs`, in the order of the backbone registry, then by name, and last the ensembles.

    Raises
    ------
    BoneageError
        There is none, or a folder's record cannot be read.
    """
    found = []
    for model in Path(outputs).glob("*/*/model.keras"):
        folder = model.parent
        found.append(Run(folder, TrainConfig.load(folder / "config.json"), read_json(folder, "run.json")))
    for facts in Path(outputs).glob(f"{ensemble.BACKBONE}/*/run.json"):
        found.append(Run(facts.parent, None, read_json(facts.parent, facts.name)))
    if not found:
        raise BoneageError(
            f"no finished run in {outputs}; expected {outputs}/<Backbone>/<name>/model.keras; "
            "make one with `boneage train`"
        )
    known = {name: i for i, name in enumerate(backbones.names())}
    return tuple(sorted(found, key=lambda r: (not r.trained, known.get(r.backbone, len(known)), r.label)))


def evaluated(runs: Runs) -> Runs:
    """Those that have been evaluated; raises BoneageError when none has."""
    ready = tuple(r for r in runs if r.evaluated)
    if not ready:
        raise BoneageError(
            f"none of the {len(runs)} finished runs is evaluated; run `boneage evaluate {runs[0].folder}` first"
        )
    return ready


def best(runs: Runs) -> Run:
    """The run with the lowest validation MAE (of classifiers only: the highest validation accuracy).

    Selected on validation, so that the holdout, on which it is reported, has no say in the choice.
    """

    def score(run: Run) -> tuple[bool, float]:
        table = metrics.summarise(run.validation, resamples=0).set_index("metric")["value"]
        return (False, table["mae"]) if run.has_months else (True, -table["accuracy"])

    return min(runs, key=score)


def headline(runs: Runs) -> Runs:
    """What a reader asks for first: of each backbone, and of the ensembles, the best on validation; and the look-alike.

    Variants that were run to learn from (ablations, further seeds) stand in `comparison.md`.
    """
    by_backbone: dict[str, list[Run]] = {}
    for run in runs:
        if run.folder.name != LOOKALIKE:
            by_backbone.setdefault(run.backbone, []).append(run)
    chosen = {best(tuple(of_one)) for of_one in by_backbone.values()}
    return tuple(r for r in runs if r in chosen or r.folder.name == LOOKALIKE)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
