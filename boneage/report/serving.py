"""What stands behind an answer of an exported run: agreement with Keras, coverage of its interval, what is refused."""

import pandas as pd

from boneage.report.runs import Run, Runs, digest
from boneage.report.tables import to_markdown

EXPORTS, COVERAGE, DOOR = "exports.csv", "interval_coverage.csv", "door_rates.csv"
EXPORTS_NOTE = (
    "An exported graph beside its Keras model on holdout images: the largest difference of an answer, the lowest "
    "correlation of a Grad-CAM++ map. A graph that is more than 0.05 months off, or whose maps correlate less than "
    "0.999, is not kept. The graphs that `boneage models list` shows lie in the repository; `boneage export` makes "
    "the others."
)
COVERAGE_NOTE = (
    "Share of the holdout within the 90 % split-conformal interval, which is fitted on validation; in brackets the "
    "number of images. The promise is for all of them together: groups may lie above or below."
)
DOOR_NOTE = (
    "What is turned away. Hands: holdout images that set no threshold, as they are and in other guises, and images of "
    "the official test; each refused one is a false refusal. The rest are no hand radiographs; each one that is "
    "answered would be a false answer."
)


def exports(runs: Runs) -> pd.DataFrame:
    """One row an export of the runs' present models, as text."""
    rows = []
    for run in (r for r in runs if (r.folder / EXPORTS).is_file() and (r.folder / "model.keras").is_file()):
        source = digest(run.folder / "model.keras")
        for r in pd.read_csv(run.folder / EXPORTS).itertuples():
            if r.source == source:
                rows.append(
                    {
                        "Run": run.label, "Graph": {"onnx": "ONNX", "litert": "LiteRT"}[r.format],
                        "Size, MB": f"{r.megabytes:.1f}", "Images": r.images,
                        "Months apart, at most": f"{r.months_apart:.4f}",
                        "Maps' correlation, at least": f"{r.correlation:.6f}",
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def coverages(runs: Runs) -> pd.DataFrame:
    """One row a calibrated run, one column a part of the holdout, as text."""
    rows = []
    for run in (r for r in runs if (r.folder / COVERAGE).is_file()):
        row = {"Run": run.label}
        for r in pd.read_csv(run.folder / COVERAGE).itertuples():
            row[r.value if r.by != "age group" else f"{r.value} years"] = f"{100 * r.covered:.1f} % ({r.n:,})"
        width = pd.read_csv(run.folder / COVERAGE).set_index("by").width["all"]
        rows.append(row | {"Mean width, months": f"{width:.1f}"})
    return pd.DataFrame(rows)


def door(run: Run) -> pd.DataFrame:
    """One row a kind of pictures, as text."""
    found = pd.read_csv(run.folder / DOOR)
    refused = [f"{100 * share:.1f}" for share in found["refused"]]
    return pd.DataFrame({"Pictures": found["pictures"], "Images": found["n"], "Refused, %": refused})


def text(runs: Runs) -> str:
    """All of it as Markdown, with how to read it; a line where no run has been exported."""
    parts = []
    for table, note in ((exports(runs), EXPORTS_NOTE), (coverages(runs), COVERAGE_NOTE)):
        parts += [to_markdown(table), note] if len(table) else []
    for run in (r for r in runs if (r.folder / DOOR).is_file()):
        parts += [to_markdown(door(run)), f"{run.label}. {DOOR_NOTE}"]
    return "\n\n".join(parts) or "No run has been exported yet."
