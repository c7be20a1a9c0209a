"""The models on the shelf: finished runs, which of them are exported, and which is best."""

import csv
import hashlib
import json
import os
from dataclasses import astuple, dataclass
from pathlib import Path

import boneage
from boneage.errors import BoneageError
from boneage.paths import outputs_root


@dataclass(frozen=True)
class Shelved:
    """A finished run with a months output.

    Attributes
    ----------
    model
        "EfficientNetB0/joint".
    validation_mae, holdout_mae
        Months; `holdout_mae` is None where it was not predicted.
    megabytes
        Of the export; None without one.
    folder
        The run's.
    """

    model: str
    validation_mae: float
    holdout_mae: float | None
    megabytes: float | None
    folder: Path

    @property
    def exported(self) -> bool:
        return self.megabytes is not None


def shelf_root() -> Path:
    """Where shipped models lie: the usual outputs, else those that came with this checkout of the package."""
    usual = outputs_root()
    return usual if usual.is_dir() or "BONEAGE_OUTPUTS" in os.environ else Path(boneage.__file__).parents[1] / "outputs"


def shipped(outputs: Path | None = None) -> list[Shelved]:
    """The finished runs with a months output below `outputs`, the best first."""
    found = []
    for folder in sorted(p.parent for p in Path(outputs or shelf_root()).glob("*/*/run.json")):
        validation = _mae(folder / "predictions_validation.csv")
        if validation is not None:
            export = folder / "model.onnx"
            size = export.stat().st_size / 1e6 if export.is_file() else None
            holdout = _mae(folder / "predictions_holdout.csv")
            found.append(Shelved(f"{folder.parent.name}/{folder.name}", validation, holdout, size, folder))
    return sorted(found, key=lambda run: run.validation_mae)


def describe(outputs: Path | None = None) -> str:
    """`shipped` as a table to read."""
    runs = shipped(outputs)
    if not runs:
        return f"no finished run in {outputs or shelf_root()}; train one with `boneage train`"
    rows = [("model", "validation_mae", "holdout_mae", "megabytes", "exported")]
    for run in runs:
        *values, folder = astuple(run)
        shown = ("-" if v is None else v if isinstance(v, str) else f"{v:.2f}" for v in values)
        rows.append((*shown, _said(folder) if run.exported else "no"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


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
    """Mean absolute error in months of a predictions table; None where there is none, or it tells no months."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if not {"reference_months", "predicted_months"} <= set(table.fieldnames or ()):
            return None
        errors = [abs(float(row["reference_months"]) - float(row["predicted_months"])) for row in table]
    return sum(errors) / len(errors) if errors else None


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
    runs = shipped(outputs)
    wanted = "" if run is None else str(run).strip("/")
    found = [r for r in runs if wanted in ("", r.model, r.model.split("/")[0])]
    if not found:
        known = ", ".join(r.model for r in runs) or f"none in {outputs}"
        raise BoneageError(f"no model {wanted!r}; known: {known}" if wanted else f"no finished run in {outputs}")
    ready = [r.folder for r in found if r.exported]
    if not ready:
        names = ", ".join(r.model for r in found)
        raise BoneageError(f"no exported model among {names}; run `boneage export {found[0].folder} --data DIR`")
    return ready[0].resolve()
