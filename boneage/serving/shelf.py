"""The models on the shelf: finished runs, which of them are exported, and which is best."""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd

import boneage
from boneage.errors import BoneageError
from boneage.paths import outputs_root

COLUMNS = ["model", "validation_mae", "holdout_mae", "exported", "megabytes", "folder"]


def shelf_root() -> Path:
    """Where shipped models lie: the usual outputs, else those that came with this checkout of the package."""
    usual = outputs_root()
    return usual if usual.is_dir() or "BONEAGE_OUTPUTS" in os.environ else Path(boneage.__file__).parents[1] / "outputs"


def shipped(outputs: Path | None = None) -> pd.DataFrame:
    """The finished runs with a months output below `outputs`, the best first.

    Returns
    -------
    DataFrame
        `model` ("EfficientNetB0/joint"), `validation_mae` and `holdout_mae` (months, NaN where not predicted),
        `exported` (bool), `megabytes` (of the export, NaN without), `folder`.
    """
    rows = []
    for folder in sorted(p.parent for p in Path(outputs or shelf_root()).glob("*/*/run.json")):
        validation = _mae(folder / "predictions_validation.csv")
        if validation is not None:
            export = folder / "model.onnx"
            size = export.stat().st_size / 1e6 if export.is_file() else None
            holdout = _mae(folder / "predictions_holdout.csv")
            rows.append(
                (f"{folder.parent.name}/{folder.name}", validation, holdout, size is not None, size, str(folder))
            )
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"holdout_mae": float, "megabytes": float, "exported": bool})
    return table.sort_values("validation_mae", ignore_index=True)


def describe(outputs: Path | None = None) -> str:
    """`shipped` as a table to read."""
    table = shipped(outputs)
    if table.empty:
        return f"no finished run in {outputs or shelf_root()}; train one with `boneage train`"
    said = [_said(Path(row.folder)) if row.exported else "no" for row in table.itertuples()]
    shown = table.drop(columns="folder").assign(exported=said)
    return shown.to_string(index=False, float_format=lambda value: f"{value:.2f}", na_rep="-")


def digest(run: Path) -> str:
    """SHA-256 of a run's Keras model; an export notes that of the one it was made from."""
    return hashlib.sha256((Path(run) / "model.keras").read_bytes()).hexdigest()


def _said(run: Path) -> str:
    """Whether an export is that of the model beside it."""
    settings = run / "serving.json"
    if not settings.is_file():
        return "unfinished"
    there = (run / "model.keras").is_file()
    return "yes" if not there or json.loads(settings.read_text()).get("source") == digest(run) else "stale"


def _mae(path: Path) -> float | None:
    if not path.is_file():
        return None
    table = pd.read_csv(path, usecols=lambda name: name in ("reference_months", "predicted_months"))
    if not {"reference_months", "predicted_months"} <= set(table):
        return None
    return float((table["reference_months"] - table["predicted_months"]).abs().mean())


def locate_run(run: str | Path | None) -> Path:
    """The folder of a run that is named as `boneage.serving.Predictor` allows.

    Raises
    ------
    BoneageError
        Nothing of that name, or nothing exported to choose from.
    """
    if run is not None and (Path(run) / "run.json").is_file():
        return Path(run).resolve()
    outputs = shelf_root()
    table = shipped(outputs)
    wanted = "" if run is None else str(run).strip("/")
    found = table[[wanted in ("", name, name.split("/")[0]) for name in table["model"]]]
    if found.empty:
        known = ", ".join(table["model"]) or f"none in {outputs}"
        raise BoneageError(f"no model {wanted!r}; known: {known}" if wanted else f"no finished run in {outputs}")
    ready = found[found["exported"]]
    if ready.empty:
        first = found["folder"].iloc[0]
        raise BoneageError(
            f"no exported model among {', '.join(found['model'])}; run `boneage export {first} --data DIR`"
        )
    return Path(ready["folder"].iloc[0]).resolve()
