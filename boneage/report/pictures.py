"""Figures that show radiographs: the same few images under every model, and the largest errors of one."""

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from boneage import style
from boneage.data.augment import sample
from boneage.data.cache import Cache
from boneage.errors import BoneageError
from boneage.labels import GROUP_EDGES, SEX_NAMES, years_and_months
from boneage.report.figures import colour_of, mark
from boneage.report.runs import Run

SIDE = 224  # px a picture is shown at
SAMPLE_AGES = tuple((a + b) // 2 for a, b in zip(GROUP_EDGES, GROUP_EDGES[1:], strict=False))  # months: the middle of each age group
WORST = 8


def fixed_samples(table: pd.DataFrame) -> pd.DataFrame:
    """For each sex and the middle of each age group, the image whose reference age is nearest; the first id of equals.

    A rule that knows no prediction, so that nobody can be suspected of having picked nice ones.
    """
    chosen = []
    for male in range(len(SEX_NAMES)):
        rest = table[table["male"] == male].sort_values("id", key=lambda ids: ids.str.zfill(12))
        for age in SAMPLE_AGES:
            if len(rest):
                chosen.append((rest["reference_months"] - age).abs().idxmin())
                rest = rest.drop(chosen[-1])
    return table.loc[chosen]


def _show(ax: Axes, cache: Cache, row: pd.Series) -> None:
    known = cache.rows([row["id"]]).iloc[0]
    if known["months"] != row["reference_months"] or known["male"] != row["male"]:
        raise BoneageError(f"{cache.folder} knows image {row['id']} by another age or sex; give the data that the runs were evaluated on")
    ax.imshow(sample(cache.images[known["row"]], SIDE), cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    ax.set_title(f"{SEX_NAMES[row['male']]}, {years_and_months(row['reference_months'])}", fontsize=11)


def _error(run: Run, row: pd.Series) -> str:
    error = f"{row['predicted_months'] - row['reference_months']:+.0f}".replace("-", "−")
    return f"{years_and_months(row['predicted_months'])} ({error} mo)"


@rc_context(style.RC)
def sample_grid(runs: list[Run], cache: Cache) -> Figure:
    """Reference over predicted bone age of the same holdout images, chosen by `fixed_samples`, for every model."""
    chosen = fixed_samples(runs[0].holdout)
    columns = len(SAMPLE_AGES)
    rows = int(np.ceil(len(chosen) / columns))
    below = 0.2 * len(runs)
    figure, axes = style.new_figure(9, rows * (2.55 + below) + 0.35, nrows=rows, ncols=columns, squeeze=False)
    figure.get_layout_engine().set(hspace=0.02 + below / 4, w_pad=0.02)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (_, row) in zip(axes.flat, chosen.iterrows(), strict=False):
        _show(ax, cache, row)
        for i, run in enumerate(runs):
            predicted = run.holdout.set_index("id").loc[row["id"]]
            ax.annotate(
                _error(run, predicted), (0.5, 0), (0, -5 - 14 * i), xycoords="axes fraction", textcoords="offset points", ha="center",
                va="top", fontsize=10, color=colour_of(run), weight="bold", annotation_clip=False,
            )  # fmt: skip
    for i, run in enumerate(runs):
        figure.text(0.01 + 0.25 * i, 0.008, f"■ {run.label}", color=colour_of(run), weight="bold", fontsize=10)
    mark(figure, runs)
    return figure


@rc_context(style.RC)
def worst_cases(run: Run, cache: Cache) -> Figure:
    """The holdout images that a run is furthest off on, the worst first."""
    table = run.holdout
    error = (table["predicted_months"] - table["reference_months"]).abs()
    worst = table.loc[error.sort_values(ascending=False, kind="stable").index[:WORST]]
    figure, axes = style.new_figure(9, 5.7, nrows=2, ncols=WORST // 2)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (_, row) in zip(axes.flat, worst.iterrows(), strict=False):
        _show(ax, cache, row)
        ax.annotate(
            f"{_error(run, row)}\nimage {row['id']}", (0.5, 0), (0, -4), xycoords="axes fraction", textcoords="offset points", ha="center",
            va="top", fontsize=10, color=colour_of(run), weight="bold",
        )  # fmt: skip
    mark(figure, [run])
    return figure
