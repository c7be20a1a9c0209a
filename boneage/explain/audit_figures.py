"""What an audit found, drawn: verdicts of all methods, and the measurements they rest on."""

import numpy as np
import pandas as pd

from boneage import style
from boneage.explain import audit_tables
from boneage.explain.audit_evidence import FAIL, GOALS, METRICS, PASS
from boneage.explain.audit_metrics import CENTRE, CONTROLS, DEPTHS, DISTURBANCES, HEADLINE, RANDOM, TOP, interval

RED, GOOD = "#B00020", "#1B6E53"  # told apart by their words too
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D31", "#6A51A3", "#444444")
MARKERS = "osD^vPX*"
CONTROL_STYLES = {RANDOM: {"color": "#666666", "ls": "--"}, CENTRE: {"color": "#666666", "ls": ":"}}
SHOWN_GOALS = {  # two lines each, for the heads of columns
    "ossification_energy": "energy in ossification\nregions, × chance",
    "outside_energy": "energy outside the\nhand, × chance",
    "top_randomised": "rank correlation, top\nlayers shuffled",
    "deletion": "deletion: change of\nthe answer, months",
    "insertion": "insertion: distance\nleft, months",
}


def audit_figure(evidence: pd.DataFrame, tables: dict[str, pd.DataFrame], chosen: str, label: str, phantom: bool):
    """Verdicts of all methods above, and below the measurements they rest on."""
    from matplotlib import rc_context

    methods = [m for m in dict.fromkeys(evidence["method"]) if m not in CONTROLS]
    looks = {
        m: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]} for i, m in enumerate(methods)
    }
    headline = evidence[evidence["set"] == HEADLINE]
    head = 1.0 + 0.42 * (len(methods) + len(CONTROLS))
    figure, _ = style.new_figure(9, head + 6.4)
    with rc_context(style.RC):
        figure.clear()
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=[head, 3.1, 3.3])
        _verdicts(top.subplots(), headline, methods, chosen, looks)
        energies, shuffled = middle.subplots(1, 2, width_ratios=[1.15, 1])
        _energies(energies, headline, methods, looks)
        _shuffled(shuffled, tables["randomisation"], methods, looks, chosen)
        deletion, insertion, stable = bottom.subplots(1, 3)
        _curve(deletion, tables["curves"], "deletion", looks, chosen)
        _curve(insertion, tables["curves"], "insertion", looks, chosen)
        _stable(stable, headline, methods, looks)
    figure.suptitle(f"Do the heat maps of {label} mean anything?", fontsize=13, x=0.01, ha="left")
    foot(figure, phantom)
    return figure


def foot(figure, phantom: bool) -> None:
    """The note that this is the phantom, with room of its own."""
    if phantom:
        room = 0.25 / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, room, 1, 1 - room))
        style.mark_phantom(figure)


def _verdicts(ax, headline: pd.DataFrame, methods: list[str], chosen: str, looks: dict) -> None:
    """A table: methods by goals, value and verdict above, interval below."""
    everyone = (*methods, *CONTROLS)
    ax.set(xlim=(0, 1), ylim=(len(everyone) - 0.4, -1.75))
    ax.set_axis_off()
    left, step = 0.21, 0.79 / len(GOALS)
    for g, goal in enumerate(GOALS):
        x = left + (g + 0.5) * step
        ax.text(x, -1.3, SHOWN_GOALS[goal], ha="center", va="center", fontsize=8.5)
        ax.text(x, -0.72, f"goal: {audit_tables.wanted(goal)}", ha="center", va="center", fontsize=8.5, color="#555555")
    ax.axhline(-0.5, color="#999999", lw=0.8)
    for y, method in enumerate(everyone):
        rows = headline[headline["method"] == method].set_index("metric")
        ink = "black" if method in looks else "#666666"
        if method in looks:
            ax.plot(0.01, y, ms=6, ls="", clip_on=False, **looks[method])
        name = method.replace(" = ", "\n= ")  # twins share a row
        weight = "bold" if method == chosen else "normal"
        ax.text(0.03, y, name, va="center", fontsize=9, color=ink, weight=weight, linespacing=1.05)
        cold = rows.loc["heatless", "value"]
        notes = {"recommended": method == chosen, f"{cold:.0f} % without heat": cold > 0}
        note = ", ".join(words for words, true in notes.items() if true)
        ax.text(0.03, y + 0.46, note, va="center", fontsize=7.5, color="#555555")
        for g, goal in enumerate(GOALS):
            x = left + (g + 0.5) * step
            if goal not in rows.index:
                ax.text(x, y, "–", ha="center", va="center", fontsize=9, color=ink)
                continue
            row = rows.loc[goal]
            value, _, between = audit_tables.numbers(row).partition(" ")
            colour = {FAIL: RED, PASS: GOOD}.get(row["verdict"], ink)
            words = f"{row['verdict']}  {value}" if row["verdict"] else value
            weight = "bold" if row["verdict"] == FAIL else "normal"
            ax.text(x, y - 0.13, words, ha="center", va="center", fontsize=9.5, color=colour, weight=weight)
            ax.text(x, y + 0.26, between, ha="center", va="center", fontsize=7.5, color=colour)


def _energies(ax, headline: pd.DataFrame, methods: list[str], looks: dict) -> None:
    """Energy over chance in three regions, each with its goal."""
    regions = ("ossification", "hand", "outside")
    everyone = [*methods, *CONTROLS]
    metrics = [f"{region}_energy" for region in regions]
    names = ["ossification\nregions", "inside\nthe hand", "outside\nthe hand"]
    if (headline["metric"] == "moved_map").any():
        metrics.append("moved_map")
        names.append("its change, where\none region matured")
    for r, metric in enumerate(metrics):
        found = headline[headline["metric"] == metric].set_index("method")
        for k, method in enumerate(m for m in everyone if m in found.index):
            row, y = found.loc[method], r + 0.36 * (2 * (k + 0.5) / len(everyone) - 1)
            look = looks.get(method) or {"color": "#666666", "marker": "|" if method == RANDOM else "+"}
            ax.plot([row["low"], row["high"]], [y, y], color=look["color"], lw=1.5)
            ax.plot(row["value"], y, ms=6, ls="", **look)
    ax.axvline(1, color="black", lw=1)
    for r, goal in ((0, METRICS["ossification_energy"].goal), (2, METRICS["outside_energy"].goal)):
        ax.plot([goal, goal], [r - 0.45, r + 0.45], color=GOOD, lw=1.4, ls=(0, (4, 2)))
        ax.annotate("goal", (goal, r - 0.45), (0, 1), textcoords="offset points", ha="center", fontsize=8, color=GOOD)
    ax.set_xscale("log", base=2)
    low, high = ax.get_xlim()
    ax.set(xlim=(min(low, 0.4), max(high, 2.4)), ylim=(len(names) - 0.4, -0.75))
    ticks = [t for t in (0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8) if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set_xlabel("map energy over area (1 = chance)", fontsize=9)
    ax.set_title("Where the energy lies", fontsize=11, loc="left")
    ax.tick_params(axis="x", labelsize=9)


def _shuffled(ax, table: pd.DataFrame, methods: list[str], looks: dict, chosen: str) -> None:
    for method in methods:
        part = table[table["method"] == method].groupby(["depth", "id"])["rank_correlation"].mean()
        found = np.array([interval(part.loc[d].to_numpy()) for d in DEPTHS if d in part.index])
        strong = method == chosen
        ax.plot(found[:, 0], ms=5, lw=2.2 if strong else 1.1, zorder=3 if strong else 2, **looks[method])
        if strong:
            ax.fill_between(range(len(found)), found[:, 1], found[:, 2], color=looks[method]["color"], alpha=0.2, lw=0)
    goal = METRICS["top_randomised"].goal
    ax.axhline(goal, color=GOOD, lw=1.4, ls=(0, (4, 2)))
    ax.annotate("goal", (-0.3, goal), (0, 2), textcoords="offset points", fontsize=8, color=GOOD)
    ax.axvspan(DEPTHS.index(TOP) - 0.5, DEPTHS.index(TOP) + 0.5, color="#999999", alpha=0.15, lw=0)
    ax.axhline(0, color="black", lw=1)
    ax.set_xticks(
        range(len(DEPTHS)), [d.replace("convolution", "conv.").replace(" ", "\n", 1) for d in DEPTHS], fontsize=7.5
    )
    ax.set_ylim(min(-0.25, ax.get_ylim()[0]), 1.05)
    ax.set_ylabel("rank correlation\nwith the trained map", fontsize=9)
    ax.set_xlabel("layers shuffled, from the head down", fontsize=9)
    ax.set_title("A network that forgets", fontsize=11, loc="left")
    ax.tick_params(axis="y", labelsize=9)


def _curve(ax, table: pd.DataFrame, curve: str, looks: dict, chosen: str) -> None:
    part = table[table["curve"] == curve]
    for method in dict.fromkeys(part["method"]):
        of_method = part[part["method"] == method]
        found = np.array([interval(x["change"].to_numpy()) for _, x in of_method.groupby("fraction")])
        fractions = 100 * np.sort(of_method["fraction"].unique())
        strong = method == chosen
        look = CONTROL_STYLES.get(method) or {"color": looks[method]["color"]}
        lw = 2.2 if strong else 1.6 if method in CONTROLS else 1.0
        ax.plot(
            fractions,
            found[:, 0],
            lw=lw,
            zorder=3 if strong else 2,
            label=method if method in CONTROLS else None,
            **look,
        )
        if strong or method == RANDOM:
            ax.fill_between(fractions, found[:, 1], found[:, 2], color=look["color"], alpha=0.18, lw=0)
    verb = {"deletion": "blurred", "insertion": "restored"}[curve]
    ax.set(xlim=(0, 100), ylim=(0, None))
    ax.set_xlabel(f"pixels {verb}, highest first, %", fontsize=9)
    ax.set_ylabel("months from the\nwhole image's answer", fontsize=9)
    better = "steeper is better" if curve == "deletion" else "lower is better"
    ax.set_title(f"{curve.capitalize()}: {better}", fontsize=11, loc="left")
    ax.tick_params(labelsize=9)
    if curve == "deletion":
        ax.legend(fontsize=8, loc="lower right")


def _stable(ax, headline: pd.DataFrame, methods: list[str], looks: dict) -> None:
    names = [f"stable_{d}" for d in DISTURBANCES] + ["agreement"]
    names = [n for n in names if (headline["metric"] == n).any()]
    for x, name in enumerate(names):
        found = headline[headline["metric"] == name].set_index("method")
        for k, method in enumerate(m for m in methods if m in found.index):
            at, row = x + 0.3 * (2 * (k + 0.5) / len(methods) - 1), found.loc[method]
            ax.plot([at, at], [row["low"], row["high"]], color=looks[method]["color"], lw=1.5)
            ax.plot(at, row["value"], ms=5, ls="", **looks[method])
            ax.plot([at - 0.06, at + 0.06], [row["chance"]] * 2, color="black", lw=1.6, label="map of another hand")
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles[:1], labels[:1], fontsize=8, loc="lower left")
    low = ax.get_ylim()[0]
    ax.set(ylim=(low - 0.25 if low < 0 else 0, 1.02), xlim=(-0.5, len(names) - 0.5))
    ax.set_xticks(
        range(len(names)), [n.removeprefix("stable_").replace("agreement", "other\nmodels") for n in names], fontsize=9
    )
    ax.set_ylabel("rank correlation", fontsize=9)
    ax.set_title("Stability: higher is better", fontsize=11, loc="left")
    ax.tick_params(axis="y", labelsize=9)
