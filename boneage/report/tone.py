"""How every model stands other grey-level curves: a table and a figure from the runs' `predictions_tone.csv`."""

from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from boneage import style
from boneage.evaluation import tone
from boneage.evaluation.run_files import predictions_path
from boneage.report.figures import colour_of, mark
from boneage.report.runs import LOOKALIKE, Run, Runs, digest

NOTE = (
    f"At most {tone.IMAGES} validation images, drawn once for all models, under changed grey levels: MAE in months, in "
    "brackets the bias. Bold: more than "
    f"{tone.MAX_WORSE:g} months worse than the images as they are, or a bias beyond {tone.MAX_BIAS:g} month."
)


def measured(runs: Runs) -> Runs:
    """Those whose robustness to tone was measured."""
    return tuple(r for r in runs if predictions_path(r.folder, tone.NAME).exists())


@lru_cache
def _table(run: Run, _mark: str) -> pd.DataFrame:
    return tone.table(run.folder).set_index("mapping")


def table_of(run: Run) -> pd.DataFrame:
    """`boneage.evaluation.tone.table` by mapping."""
    return _table(run, digest(predictions_path(run.folder, tone.NAME)))


def shown(runs: Runs) -> pd.DataFrame:
    """One row a run, one column a mapping, as text."""
    rows = []
    for run in measured(runs):
        row = {"Run": run.label}
        for mapping, r in table_of(run).iterrows():
            text = f"{r['mae']:.2f} ({r['bias']:+.1f})".replace("-", "−")
            row[mapping] = text if r["passes"] else f"**{text}**"
        rows.append(row)
    return pd.DataFrame(rows)


@rc_context(style.RC)
def tone_robustness(runs: Runs) -> Figure:
    """What each mapping costs in MAE, with its interval, and the bias that it leaves; grey: what passes."""
    mappings = [m for m in tone.MAPPINGS if m != tone.PLAIN]
    figure, (cost, bias) = style.new_figure(9, 1.4 + len(mappings) * (0.3 + 0.12 * len(runs)), ncols=2, sharey=True)
    where = np.arange(len(mappings))[::-1]
    for ax, limits in ((cost, (None, tone.MAX_WORSE)), (bias, (-tone.MAX_BIAS, tone.MAX_BIAS))):
        ax.axvline(0, color="black", linewidth=1, zorder=0)
        ax.axvspan(limits[0] if limits[0] is not None else -99, limits[1], color="#000000", alpha=0.08, linewidth=0)
    for i, run in enumerate(runs):
        rows = table_of(run).loc[mappings]
        y = where + 0.5 * (0.5 - (i + 0.5) / len(runs)) * min(1, len(runs) - 1)
        margins = np.clip([rows["worse"] - rows["low"], rows["high"] - rows["worse"]], 0, None)
        marker = "X" if run.folder.name == LOOKALIKE else "o"  # it has its backbone's colour
        cost.errorbar(rows["worse"], y, xerr=margins, fmt=marker, color=colour_of(run), capsize=3, linewidth=2)
        bias.plot(rows["bias"], y, marker, color=colour_of(run), label=run.label)
    tables = [table_of(r).loc[mappings] for r in runs]
    low, high = min(t["low"].min() for t in tables), max(t["high"].max() for t in tables)
    cost.set_xlim(min(low, 0) - 0.3, max(high, tone.MAX_WORSE) + 0.3)
    widest = max(t["bias"].abs().max() for t in tables)
    bias.set_xlim(-1.15 * max(widest, 1.5 * tone.MAX_BIAS), 1.15 * max(widest, 1.5 * tone.MAX_BIAS))
    cost.set_yticks(where, mappings)
    cost.set_xlabel("MAE less that as it is, months")
    bias.set_xlabel("bias (predicted − reference), months")
    figure.legend(loc="outside upper center", ncols=3, fontsize=10)
    mark(figure, runs)
    return figure
