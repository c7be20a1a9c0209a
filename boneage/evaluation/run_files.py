"""Reading what a finished run left in its folder."""

import json
from pathlib import Path

import pandas as pd

from boneage.data import splits
from boneage.errors import BoneageError


def predictions_path(run: Path, name: str) -> Path:
    """Where the predictions of a set lie."""
    return Path(run) / f"predictions_{name}.csv"


def read_predictions(run: Path, name: str) -> pd.DataFrame:
    """The predictions table of a set ("validation", "holdout", "rsna_test") of a run; `id` is text."""
    path = predictions_path(run, name)
    if not path.is_file():
        raise BoneageError(f"no predictions at {path}; make them with `boneage evaluate {run}`")
    return pd.read_csv(path, dtype={"id": str})


def read_split(run: Path) -> pd.DataFrame:
    """The split of a run: `id` (text), `set`."""
    path = Path(run) / "split.csv"
    if not path.is_file():
        raise BoneageError(f"no split.csv in {run}; expected a run folder as `boneage train` makes it")
    return pd.read_csv(path, dtype=str)


def read_json(run: Path, name: str) -> dict:
    """`run.json` (facts of the training) or `metrics.json` of a run."""
    path = Path(run) / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        maker = "evaluate" if name == "metrics.json" else "train"
        raise BoneageError(f"no {name} in {run}; `boneage {maker}` makes it") from error
    except json.JSONDecodeError as error:
        raise BoneageError(f"{path} is not valid JSON: {error}") from error


def is_rsna(run: Path) -> bool:
    """Whether a run's images are those of the RSNA challenge."""
    return not read_json(run, "run.json")["phantom"] and splits.is_rsna(read_split(run))
