"""What an audit left in a run's folder, as text: whoever shows audits takes their table from here."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from boneage.explain.audit_evidence import FAIL, GOAL_RULE, GOALS, METRICS, PASS, RULE
from boneage.explain.audit_metrics import HEADLINE, RANDOM

FOLDER, EVIDENCE, SUMMARY = "audit", "evidence.csv", "audit.json"  # below a run's folder
FAILED = f"🟥 {FAIL}"  # Markdown knows no red letters
NOTE = (
    f"{GOAL_RULE} Chance is a map spread evenly over the radiograph. Deletion and insertion: how far the answer moves, "
    "either way, while pixels are blurred or restored in the order of the map, averaged over the way; to be compared "
    f"with the random map on the same images. Bold: recommended. {RULE}"
)


def read_evidence(run: Path) -> pd.DataFrame | None:
    """The evidence of a run's audit; None where it has not been audited."""
    path = Path(run) / FOLDER / EVIDENCE
    return pd.read_csv(path, keep_default_na=False, na_values=["nan", ""]) if path.is_file() else None


def audit_table(outputs: Path) -> pd.DataFrame:
    """Methods by goals for every audited run below `outputs`, as text.

    Returns
    -------
    DataFrame
        `Model`, `Method` (the recommended one in bold), one column a goal with value, interval and verdict, the
        share of maps without heat, and `Goals met`; empty where no run has been audited.
    """
    rows = []
    for path in sorted(Path(outputs).glob(f"*/*/{FOLDER}/{EVIDENCE}")):
        run = path.parents[1]
        table = read_evidence(run)
        chosen = json.loads((path.parent / SUMMARY).read_text(encoding="utf-8"))["recommended"]
        headline = table[table["set"] == HEADLINE]
        for method, part in headline.groupby("method", sort=False):
            of_metric = part.set_index("metric")
            row = {"Model": f"{run.parent.name}/{run.name}", "Method": f"**{method}**" if method == chosen else method}
            for goal in GOALS:
                row[heading(goal)] = cell(of_metric.loc[goal]) if goal in of_metric.index else "–"
            row[METRICS["heatless"].label] = f"{of_metric.loc['heatless', 'value']:.0f}"
            judged = part["verdict"].isin([PASS, FAIL])
            row["Goals met"] = f"{(part['verdict'] == PASS).sum()} of {judged.sum()}" if judged.any() else "(control)"
            rows.append(row)
    return pd.DataFrame(rows)


def heading(goal: str) -> str:
    """A goal as the head of a column: label and what is wanted."""
    return f"{METRICS[goal].label} ({wanted(goal)})"


def wanted(goal: str) -> str:
    """What a goal asks for, such as `≥ 2`; of one against the random map: to lie clear of that map's interval."""
    metric = METRICS[goal]
    if metric.goal == RANDOM:
        return "above random" if metric.better == "higher" else "below random"
    return f"{'≥' if metric.better == 'higher' else '≤'} {metric.goal:g}"


def numbers(row: pd.Series) -> str:
    """Value and interval of a row of evidence, indexed by its metric, as text."""
    digits = METRICS[row.name].digits
    text = f"{row['value']:.{digits}f}"
    if np.isfinite(row["low"]):
        text += f" [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    return text.replace("-", "−")


def cell(row: pd.Series) -> str:
    """Value, interval and verdict; a missed goal reads FAIL behind a red square."""
    words = {PASS: f"{PASS} ", FAIL: f"{FAILED} "}
    return words.get(row["verdict"], "") + numbers(row)
