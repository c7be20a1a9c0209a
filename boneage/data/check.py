"""Look at a folder of radiographs before using it: what is there, how old, and everything that is wrong, by id."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.data.decode import decode_grey, read_bytes
from boneage.data.frame import to_square
from boneage.data.sources import Source, find
from boneage.errors import BoneageError
from boneage.labels import GROUP_EDGES, GROUPS, MAX_MONTHS, MONTHS_PER_YEAR, SEX_NAMES, age_group
from boneage.style import SEX_COLOURS, mark_phantom, new_figure

LOOK_SIZE = 128  # px of the square in which an image is tested for emptiness
NO_AGE = "no age"


@dataclass(frozen=True)
class Report:
    """What a folder holds.

    Attributes
    ----------
    source
        What `boneage.data.sources.find` found in the labels.
    usable
        The rows of `source.table` whose image really decodes.
    counts
        Usable images: one row a subset and sex, one column an age group, then "no age" and "all".
    problems
        One row a problem, columns `id`, `problem`: those of the labels, then those of the images.
    """

    source: Source
    usable: pd.DataFrame
    counts: pd.DataFrame
    problems: pd.DataFrame


def check(root: str | Path) -> Report:
    """Read every label and decode every image below `root`, a thread a core.

    Raises
    ------
    BoneageError
        When the folder as a whole cannot be used; see `boneage.data.sources.find`.
    """
    source = find(root)
    paths = source.table["path"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm(pool.map(_problem, paths), total=len(paths), desc="checking", unit="img"))
    found = pd.Series(found, index=paths.index, dtype=object)
    bad = source.table[["id"]].assign(problem=found)[found.notna()]
    usable = source.table[found.isna()]
    return Report(source, usable, _counts(usable), pd.concat([source.problems, bad], ignore_index=True))


def _problem(path: str) -> str | None:
    try:
        to_square(decode_grey(read_bytes(path)), LOOK_SIZE)
    except BoneageError as error:
        return str(error)
    return None


def _counts(table: pd.DataFrame) -> pd.DataFrame:
    columns = [*GROUPS, NO_AGE]
    group = np.where(table["months"].isna(), len(GROUPS), age_group(table["months"].fillna(0)))
    counts = pd.crosstab(
        [table["subset"].to_numpy(), np.array(SEX_NAMES)[table["male"].to_numpy(int)]],
        np.array(columns)[group],
        rownames=["subset", "sex"],
    )
    counts = counts.reindex(columns=columns, fill_value=0)
    counts.columns.name = None
    return counts.assign(all=counts.sum(axis=1))


def describe(report: Report) -> str:
    """The report for a terminal: counts, age range and every problem."""
    images, problems = len(report.usable), len(report.problems)
    lines = [f"{report.source.root}: {images:,} usable images, {problems:,} problems"]
    if report.source.phantom:
        lines.append("PHANTOM: synthetic drawings, not patients")
    if images:
        lines += ["", "Images by subset, sex and bone age in years (exactly 5 years counts as 5-10):"]
        lines += [report.counts.to_string(formatters=dict.fromkeys(report.counts.columns, "{:,}".format))]
    months = report.usable["months"].dropna()
    if len(months):
        lines.append(
            f"Bone age {months.min():g} to {months.max():g} months, mean {months.mean():.1f}, "
            f"standard deviation {months.std(ddof=0):.1f}"
        )
    if problems:
        lines += ["", "Problems:"]
        lines += [f"  {row.id or '(no id)'}: {row.problem}" for row in report.problems.itertuples()]
    return "\n".join(lines)


def figure(report: Report):
    """Histogram of bone age by sex, all subsets with ages, with the edges of the age groups; a matplotlib figure.

    Raises
    ------
    BoneageError
        When no usable image has an age.
    """
    table = report.usable.dropna(subset="months")
    if len(table) == 0:
        raise BoneageError(
            f"no usable image in {report.source.root} has a bone age, so there is no distribution to draw"
        )
    months = [table["months"][table["male"] == code] for code in range(len(SEX_NAMES))]
    made, axes = new_figure(9, 4.8)
    axes.hist(
        months,
        bins=np.arange(0, MAX_MONTHS + 1, 6),
        stacked=True,
        color=SEX_COLOURS,
        edgecolor="white",
        linewidth=0.5,
        label=[f"{name} ({len(m):,})" for name, m in zip(SEX_NAMES, months, strict=True)],
    )
    axes.set_ylim(top=axes.get_ylim()[1] * 1.14)
    shares = np.bincount(age_group(table["months"]), minlength=len(GROUPS)) / len(table)
    for name, share, low, high in zip(GROUPS, shares, GROUP_EDGES[:-1], GROUP_EDGES[1:], strict=True):
        if low:
            axes.axvline(low, color="0.35", linewidth=1, linestyle="--")
        axes.text((low + high) / 2, 0.985, f"{name} years\n{share:.0%}", transform=axes.get_xaxis_transform(), **_TOP)
    axes.grid(visible=False, axis="x")
    axes.set(
        xlim=(0, MAX_MONTHS),
        xticks=range(0, MAX_MONTHS + 1, 2 * MONTHS_PER_YEAR),
        ylabel="images",
    )
    axes.set_xlabel("bone age (months; a bar covers six)", loc="left")
    years = axes.secondary_xaxis("top", functions=(lambda m: m / MONTHS_PER_YEAR, lambda y: y * MONTHS_PER_YEAR))
    years.set(xticks=range(0, MAX_MONTHS // MONTHS_PER_YEAR + 1, 2))
    years.set_xlabel("bone age (years)", loc="left")
    years.spines["top"].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.86), frameon=False)
    axes.set_axisbelow(True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    if report.source.phantom:
        mark_phantom(made)
    return made


_TOP = {"ha": "center", "va": "top", "fontsize": 10, "color": "0.25"}
