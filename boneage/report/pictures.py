"""Figures that show radiographs: the same few images under every model, and the largest errors of one."""

import math
from itertools import pairwise
from textwrap import wrap

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from boneage import style
from boneage.data.augment import sample
from boneage.data.cache import Cache
from boneage.errors import BoneageError
from boneage.labels import GROUP_EDGES, SEX_NAMES, years_and_months
from boneage.report import worst
from boneage.report.figures import colour_of, mark
from boneage.report.runs import Runs

SIDE = 224  # px a picture is shown at
SAMPLE_AGES = tuple((a + b) // 2 for a, b in pairwise(GROUP_EDGES))  # months: the middle of each age group
WORST_COLUMNS = 5
LINE = 27  # characters of 8 points below a picture that is a fifth of a page wide


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
        raise BoneageError(
            f"{cache.folder} knows image {row['id']} by another age or sex; "
            "give the data that the runs were evaluated on"
        )
    ax.imshow(sample(cache.images[known["row"]], SIDE), cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    ax.set_title(f"{SEX_NAMES[row['male']]}, {years_and_months(row['reference_months'])}", fontsize=11)


def _say(ax: Axes, line: int, text: str, colour: str | None = None) -> None:
    """A line below a picture; black, behind a coloured square, since not every colour reads well as text."""
    place = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "top",
        "fontsize": 10,
        "annotation_clip": False,
    }
    if colour:
        ax.annotate("■", (0.06, 0), (0, -5 - 14 * line), color=colour, **place)
    ax.annotate(text, (0.15, 0), (0, -5 - 14 * line), **place)


def _error(row: pd.Series) -> str:
    error = f"{row['predicted_months'] - row['reference_months']:+.0f}".replace("-", "−")
    return f"{years_and_months(row['predicted_months'])} ({error} mo)"


@rc_context(style.RC)
def sample_grid(runs: Runs, cache: Cache) -> Figure:
    """Reference over predicted bone age of the same holdout images, chosen by `fixed_samples`, for every model."""
    chosen = fixed_samples(runs[0].holdout)
    columns = len(SAMPLE_AGES)
    rows = math.ceil(len(chosen) / columns)
    figure, axes = style.new_figure(9, rows * (2.55 + 0.22 * len(runs)) + 0.5, nrows=rows, ncols=columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (_, row) in zip(axes.flat, chosen.iterrows(), strict=False):
        _show(ax, cache, row)
        for i, run in enumerate(runs):
            _say(ax, i, _error(run.holdout.set_index("id").loc[row["id"]]), colour_of(run))
    squares = [Line2D([], [], linestyle="", marker="s", color=colour_of(r), label=r.label) for r in runs]
    figure.legend(handles=squares, loc="outside upper left", ncols=4, fontsize=10)
    mark(figure, runs)
    return figure


@rc_context(style.RC)
def worst_cases(runs: Runs, cache: Cache) -> Figure:
    """The holdout images that `runs[0]` is furthest off on, the worst first, each with a line on why."""
    run = runs[0]
    why = worst.reasons(runs, cache)
    below = [[f"image {name}", *wrap(text, LINE)] for name, text in why.items()]  # in the order of the pictures
    longest = [max(map(len, below[i : i + WORST_COLUMNS])) for i in range(0, len(below), WORST_COLUMNS)]
    rows, height = len(longest), sum(2.25 + 0.14 * lines for lines in longest)
    figure, axes = style.new_figure(8.6, height, nrows=rows, ncols=WORST_COLUMNS, squeeze=False)
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.03, hspace=0, wspace=0)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, lines, (_, row) in zip(axes.flat, below, worst.worst(run).iterrows(), strict=False):
        _show(ax, cache, row)
        ax.set_title(ax.get_title(), fontsize=10, loc="left")
        ax.set_title("")
        for text, size, down in ((_error(row), 10, -4), ("\n".join(lines), 8, -18)):
            ax.annotate(
                text, (0, 0), (0, down), xycoords="axes fraction", textcoords="offset points", va="top", fontsize=size,
                annotation_clip=False,
            )  # fmt: skip
    mark(figure, (run,))
    return figure
