"""Figures of the classification head. Each takes evaluated runs and returns a matplotlib Figure."""

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from boneage import style
from boneage.evaluation.metrics import CALIBRATION_BINS, confusion
from boneage.labels import GROUP_COLUMNS, GROUPS, age_group
from boneage.report.figures import colour_of, note, panels
from boneage.report.runs import Runs


@rc_context(style.RC)
def confusion_matrices(runs: Runs) -> Figure:
    """Reference group against the classification head's: shares of each row in %, and images."""
    figure, axes = panels(runs, 3.9, alone=6)
    for ax, run in zip(axes, runs, strict=True):
        counts = confusion(run.holdout).to_numpy()
        share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for (i, j), n in np.ndenumerate(counts):
            ax.text(
                j,
                i,
                f"{share[i, j]:.0f} %\n{n:,}",
                ha="center",
                va="center",
                fontsize=10,
                color="white" if share[i, j] > 55 else "black",
            )
        ax.set_xticks(range(len(GROUPS)), GROUPS)
        ax.set_yticks(range(len(GROUPS)), GROUPS)
        ax.set(xlabel="predicted age group, years", ylabel="reference age group, years")
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return figure


@rc_context(style.RC)
def reliability(runs: Runs) -> Figure:
    """How often the classification head is right over how sure it is; on the diagonal it is as sure as it should be."""
    figure, axes = panels(runs, 4, alone=6)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    for ax, run in zip(axes, runs, strict=True):
        p = run.holdout[list(GROUP_COLUMNS)].to_numpy()
        right = p.argmax(1) == age_group(run.holdout["reference_months"])
        cell = np.clip(np.ceil(p.max(1) * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
        n = np.bincount(cell, minlength=CALIBRATION_BINS)
        with np.errstate(invalid="ignore"):
            hit, sure = (100 * np.bincount(cell, w, CALIBRATION_BINS) / n for w in (right, p.max(1)))
        ax.bar(
            100 * (edges[:-1] + edges[1:]) / 2,
            100 * n / n.sum(),
            width=9,
            color="#000000",
            alpha=0.12,
            label="share of images",
        )
        ax.plot([0, 100], [0, 100], color="black", linewidth=1, linestyle="--", label="perfectly calibrated")
        ax.plot(sure[n > 0], hit[n > 0], color=colour_of(run), marker="o", linewidth=2, label="measured")
        note(ax, f"calibration error {run.summary.value['calibration_error']:.1f} %", 0.73)
        ax.set(xlabel="probability of the likeliest group, %", ylabel="right answers, %", xlim=(20, 101), ylim=(0, 104))
        ax.xaxis.set_major_locator(MultipleLocator(20))
        ax.legend(loc="upper left", fontsize=9)
    return figure
