"""What an audit shows on hands: where a network looks as children grow, and where its maps fail."""

import numpy as np
import pandas as pd

from boneage import style
from boneage.explain.audit_average import Average
from boneage.explain.audit_figures import COLOURS, MARKERS, RED, foot
from boneage.explain.audit_metrics import HEADLINE
from boneage.explain.audit_regions import PARTS, Hands
from boneage.explain.figures import overlay
from boneage.labels import GROUPS, SEX_NAMES, years_and_months

FAILURES = 8
NAMES = {
    "radius_ulna_epiphyses": "radius, ulna", "metacarpal_epiphyses": "metacarpals",
    "phalangeal_epiphyses": "phalanges",
}  # fmt: skip


def averages(found: list[Average], ages: pd.DataFrame, method: str, label: str, phantom: bool):
    """The mean map of each age group on the mean hand, and below it how energy moves between the regions."""
    from matplotlib import rc_context

    figure, _ = style.new_figure(9, 6.6)
    with rc_context(style.RC):
        figure.clear()
        top, bottom = figure.subfigures(2, 1, height_ratios=[3.4, 2.7])
        axes = top.subplots(1, len(found), squeeze=False)[0]
        highest = max(average.cam.max() for average in found)
        for ax, average in zip(axes, found, strict=True):
            cam = average.cam / highest
            image = average.image * (235 / max(1, np.percentile(average.image, 99.5)))
            ax.imshow(overlay(np.clip(image, 0, 255).astype(np.uint8), cam))
            if levels := [level for level in (0.25, 0.5, 0.75) if level < cam.max()]:
                ax.contour(cam, levels, colors="white", linewidths=0.6)
            ax.set_axis_off()
            ax.set_title(f"{average.group.replace('-', '–')} years\nn = {average.n}", fontsize=10)
        _by_region(bottom.subplots(), ages, method)
    figure.suptitle(f"Where {label} looks as children grow ({method}, toward older)", fontsize=12, x=0.01, ha="left")
    foot(figure, phantom)
    return figure


def _by_region(ax, ages: pd.DataFrame, method: str) -> None:
    table = ages[(ages["method"] == method) & ages["region"].isin(PARTS)]
    of_set = "all" if (table["set"] == "all").any() else HEADLINE
    regions = [r for r in PARTS if (table["region"] == r).any()]
    for k, region in enumerate(regions):
        for which, filled in ((of_set, True), (HEADLINE, False)) if of_set != HEADLINE else ((HEADLINE, True),):
            part = table[(table["region"] == region) & (table["set"] == which)].set_index("age_group").reindex(GROUPS)
            x = np.arange(len(GROUPS)) + 0.7 * ((k + 0.5) / len(regions) - 0.5)
            colour = COLOURS[k]
            if filled:
                ax.vlines(x, part["low"], part["high"], color=colour, lw=2)
                ax.plot(x, part["ratio"], MARKERS[k], color=colour, ms=7, label=NAMES.get(region, region))
            else:
                ax.plot(x, part["ratio"], MARKERS[k], mfc="white", mec=colour, ms=5, zorder=4)
    ax.axhline(1, color="black", lw=1)
    counts = table[table["set"] == of_set].groupby("age_group")["n"].max()
    ax.set_xticks(range(len(GROUPS)), [f"{g.replace('-', '–')} years\nn = {counts.get(g, 0)}" for g in GROUPS])
    ax.grid(axis="x", visible=False)
    ax.set(ylim=(0, 1.2 * ax.get_ylim()[1]), xlim=(-0.5, len(GROUPS) - 0.5))  # room for the legend
    ax.set_ylabel("energy over area (1 = chance)", fontsize=9)
    note = "; white: those of the reported set alone" if of_set != HEADLINE else ""
    ax.set_title(f"Energy by ossification region, 95 % intervals{note}", fontsize=11, loc="left")
    ax.legend(fontsize=9, ncols=len(regions), loc="upper center", columnspacing=1, handletextpad=0.2)


def worst(located: pd.DataFrame, method: str) -> pd.DataFrame:
    """The maps with most energy outside the hand, and those with least in the ossification regions, over chance.

    Returns
    -------
    DataFrame
        At most eight rows of `located`, `id` and `region` among its columns, with `said`: the failure in words.
    """
    part = located[(located["method"] == method) & (located["set"] == HEADLINE) & located["energy"].notna()]
    part = part.assign(ratio=part["energy"] / part["area"])
    outside = part[part["region"] == "outside"].nlargest(FAILURES // 2, "energy")
    missed = part[part["region"] == "ossification"].nsmallest(FAILURES // 2, "ratio")
    outside = outside.assign(said=[f"{100 * e:.0f} % outside the hand" for e in outside["energy"]])
    missed = missed.assign(said=[f"ossification: {r:.1f} × chance" for r in missed["ratio"]])
    return pd.concat([outside, missed], ignore_index=True)


def failures(
    hands: Hands, maps: np.ndarray, worst: pd.DataFrame, months: np.ndarray, method: str, label: str, phantom: bool
):
    """The hands of `worst`, a row of it each: the map, the region that it should have kept to, and the answer."""
    columns = FAILURES // 2
    rows = -(-len(worst) // columns)
    figure, axes = style.new_figure(9, 2.72 * rows + 0.45, nrows=rows, ncols=columns, squeeze=False)
    figure.get_layout_engine().set(h_pad=0.14)  # inches: room for the words below a picture
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (row, failed) in enumerate(zip(hands.table.itertuples(), worst.itertuples(), strict=True)):
        ax = axes.flat[i]
        ax.imshow(overlay(np.clip(hands.images[i], 0, 255).astype(np.uint8), maps[i]))
        region = hands.regions["hand" if failed.region == "outside" else "ossification"][i]
        ax.contour(region, [0.5], colors="#56B4E9", linewidths=1.1)
        error = f"{months[i] - row.months:+.0f}".replace("-", "−")
        about = f"{SEX_NAMES[int(row.male)]}, {years_and_months(row.months)}\noff by {error} months"
        ax.set_title(about, fontsize=8.5, pad=3)
        words = ax.text(0.5, -0.02, failed.said, transform=ax.transAxes, ha="center", va="top", fontsize=9, color=RED)
        words.set(weight="bold", in_layout=False)  # wide words would make the picture small
    title = f"Where maps of {label} fail ({method}); blue: hand or ossification regions"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    foot(figure, phantom)
    return figure
