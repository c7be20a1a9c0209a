"""From an audit's measurements to evidence with intervals, verdicts against stated goals, and a recommendation."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from boneage.explain.audit_metrics import CONTROLS, DEPTHS, DISTURBANCES, HEAD, HEADLINE, RANDOM, TOP, area, interval
from boneage.labels import GROUPS, age_group

PASS, FAIL, OPEN = "pass", "FAIL", ""
RULE = (
    "Recommended is the method that meets the most goals; among equals, the one whose order of pixels gains most over "
    "a random map in deletion and insertion together, in months: what the network does counts for more than what a "
    "reader expects to see."
)
GOAL_RULE = "A goal is met when the whole 95 % interval (bootstrap over images) lies on its good side."


class Metric(NamedTuple):
    """How a metric reads: its label, which way is better, decimals, its chance level in words, and its goal, if any.

    A goal is a number, or the name of the control whose interval the method's must lie clear of.
    """

    label: str
    better: str
    digits: int
    chance: str
    goal: float | str | None = None


AREA = "1: a map spread evenly over the radiograph"
ANOTHER = "the map of another hand"
METRICS = {
    "ossification_energy": Metric("Energy in ossification regions, x chance", "higher", 2, AREA, 2.0),
    "outside_energy": Metric("Energy outside the hand, x chance", "lower", 2, AREA, 0.5),
    "top_randomised": Metric("Rank correlation with shuffled top layers", "lower", 2, "0", 0.3),
    "deletion": Metric("Deletion: change of the answer, months", "higher", 1, RANDOM, RANDOM),
    "insertion": Metric("Insertion: distance left, months", "lower", 1, RANDOM, RANDOM),
    "road": Metric("ROAD: change of the answer, months", "higher", 1, RANDOM),
    **{
        f"{curve}_less_{control.split()[0]}": Metric(
            f"{curve.capitalize()} less that of the {control}, months", better, 1, "0"
        )
        for curve, better in (("deletion", "higher"), ("insertion", "lower"), ("road", "higher"))
        for control in CONTROLS
    },
    "ossification_peak": Metric("Peak in ossification regions, %", "higher", 0, "their share of the radiograph"),
    "hand_energy": Metric("Energy inside the hand, x chance", "higher", 2, AREA),
    "hand_peak": Metric("Peak inside the hand, %", "higher", 0, "its share of the radiograph"),
    "heatless": Metric("Maps without any heat, %", "lower", 0, "0"),
    "head_randomised": Metric("Rank correlation with shuffled head", "lower", 2, "0"),
    "all_randomised": Metric("Rank correlation with everything shuffled", "lower", 2, "0"),
    "top_randomised_ssim": Metric("SSIM with shuffled top layers", "lower", 2, "0"),
    "top_heatless": Metric("Maps without any heat with shuffled top layers, %", "lower", 0, "0"),
    **{f"stable_{d}": Metric(f"Rank correlation under {d}", "higher", 2, ANOTHER) for d in DISTURBANCES},
    "agreement": Metric("Rank correlation with other models", "higher", 2, ANOTHER),
    "moved_map": Metric("Map's change in the one region that matured, x chance", "higher", 2, AREA),
}
GOALS = tuple(name for name, metric in METRICS.items() if metric.goal is not None)


def evidence(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """All metrics of all methods.

    Parameters
    ----------
    tables
        From `boneage.explain.audit_checks`: `localisation`, `randomisation`, `curves`, `stability`, and where they were
        made `agreement` and `moved`.

    Returns
    -------
    DataFrame
        `method`, `metric` (of `METRICS`), `set` ("headline" or "all"), `value`, `low`, `high`, `chance`, `chance_low`,
        `chance_high`, `better`, `goal`, `verdict` ("pass", "FAIL", or empty where no goal is set), `n` images. Controls
        have rows too.
    """
    rows: list[dict] = []

    def add(method: str, metric: str, of_set: str, found, chance=(np.nan,) * 3) -> None:
        value, low, high, n = found
        row = {"method": method, "metric": metric, "set": of_set, "value": value, "low": low, "high": high}
        row |= dict(zip(("chance", "chance_low", "chance_high"), chance, strict=True))
        rows.append(row | {"better": METRICS[metric].better, "goal": METRICS[metric].goal, "n": n})

    for (method, of_set), part in _sets(tables["localisation"]):
        cold = part.groupby("id")["energy"].apply(lambda energy: energy.isna().any())
        add(method, "heatless", of_set, interval(100.0 * cold.to_numpy()), (0.0, 0.0, 0.0))
        for region in ("ossification", "outside", "hand"):
            found = part[part["region"] == region]
            if found.empty:
                continue
            ratio = interval(found["energy"].to_numpy(), found["area"].to_numpy())
            add(method, f"{region}_energy", of_set, ratio, (1.0, 1.0, 1.0))
            if region != "outside":
                peak = interval(100 * found["peak"].to_numpy())
                add(method, f"{region}_peak", of_set, peak, interval(100 * found["area"].to_numpy())[:3])
    for method, part in tables["randomisation"].groupby("method", sort=False):
        by_image = part.groupby(["depth", "id"], sort=False)[["rank_correlation", "ssim", "zero"]].mean()
        by_image["zero"] *= 100
        for metric, depth, column in (
            ("head_randomised", HEAD, "rank_correlation"),
            ("top_randomised", TOP, "rank_correlation"),
            ("all_randomised", DEPTHS[-1], "rank_correlation"),
            ("top_randomised_ssim", TOP, "ssim"),
            ("top_heatless", TOP, "zero"),
        ):
            if depth not in by_image.index:  # a slow method does not go down so far
                continue
            add(method, metric, HEADLINE, interval(by_image.loc[depth, column].to_numpy()), (0.0, 0.0, 0.0))
    areas = curve_areas(tables["curves"])
    for (curve, method), of_method in areas.groupby(["curve", "method"], sort=False)["area"]:
        ours = areas.loc[of_method.index].set_index("id")["area"]
        control = {  # on the same images: a slow method has had fewer of them
            name: areas[(areas["curve"] == curve) & (areas["method"] == name)]
            .set_index("id")["area"]
            .reindex(ours.index)
            for name in CONTROLS
        }
        add(method, curve, HEADLINE, interval(ours.to_numpy()), interval(control[RANDOM].to_numpy())[:3])
        for name in CONTROLS if method not in CONTROLS else ():
            paired = interval((ours - control[name]).to_numpy())
            add(method, f"{curve}_less_{name.split()[0]}", HEADLINE, paired, (0.0, 0.0, 0.0))
    for (method, name), part in tables["stability"].groupby(["method", "disturbance"], sort=False):
        found = interval(part["rank_correlation"].to_numpy())
        add(method, f"stable_{name}", HEADLINE, found, interval(part["another"].to_numpy())[:3])
    for method, part in tables["agreement"].groupby("method", sort=False) if "agreement" in tables else ():
        by_image = part.groupby("id", sort=False)[["rank_correlation", "another"]].mean()
        found = interval(by_image["rank_correlation"].to_numpy())
        add(method, "agreement", HEADLINE, found, interval(by_image["another"].to_numpy())[:3])
    if "moved" in tables:
        moved = tables["moved"]
        for method, part in moved[moved["region"] != "all regions"].groupby("method", sort=False):
            by_image = part.groupby("id", sort=False)[["map_energy", "area"]].mean()
            ratio = interval(by_image["map_energy"].to_numpy(), by_image["area"].to_numpy())
            add(method, "moved_map", HEADLINE, ratio, (1.0, 1.0, 1.0))
    table = pd.DataFrame(rows)
    table["verdict"] = [verdict(row) for row in table.itertuples()]
    return table[
        ["method", "metric", "set", "value", "low", "high", "chance", "chance_low", "chance_high", "better", "goal",
         "verdict", "n"]
    ]  # fmt: skip


def _sets(located: pd.DataFrame):
    """Method and set -> rows: the headline's, and where there are others too, "all" of them."""
    for method, part in located.groupby("method", sort=False):
        yield (method, HEADLINE), part[part["set"] == HEADLINE]
        if (part["set"] != HEADLINE).any():
            yield (method, "all"), part


def curve_areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Area below each image's curve in months (its mean height): `curve`, `method`, `id`, `area`."""
    ordered = curves.sort_values("fraction", kind="stable")
    rows = [
        (curve, method, name, float(area(part["change"].to_numpy(), part["fraction"].to_numpy())))
        for (curve, method, name), part in ordered.groupby(["curve", "method", "id"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["curve", "method", "id", "area"])


def verdict(row) -> str:
    """Whether a row of evidence meets its metric's goal; a control has none to meet."""
    goal = METRICS[row.metric].goal
    if goal is None or row.method in CONTROLS or row.set != HEADLINE or not np.isfinite(row.low):  # no interval of few
        return OPEN
    higher = row.better == "higher"
    worst = row.low if higher else row.high
    bar = (row.chance_high if higher else row.chance_low) if goal == RANDOM else goal
    met = (worst > bar if higher else worst < bar) if goal == RANDOM else (worst >= bar if higher else worst <= bar)
    return PASS if met else FAIL


def by_age(located: pd.DataFrame) -> pd.DataFrame:
    """Energy and peak in each region by age group: `method`, `set`, `region`, `age_group`, `ratio` of energy to area
    with `low` and `high`, `energy`, `area`, `peak` (shares), `n`."""
    rows = []
    for (method, of_set), part in _sets(located):
        groups = np.array(GROUPS)[age_group(part["months"])]
        for (region, group), cell in part.groupby(["region", groups], sort=False):
            ratio, low, high, n = interval(cell["energy"].to_numpy(), cell["area"].to_numpy())
            means = cell[["energy", "area", "peak"]].mean().to_dict()
            row = {"method": method, "set": of_set, "region": region, "age_group": group}
            rows.append(row | {"ratio": ratio, "low": low, "high": high, **means, "n": n})
    table = pd.DataFrame(rows)
    return table.sort_values(["method", "set", "region", "age_group"], key=_order, kind="stable", ignore_index=True)


def _order(column: pd.Series) -> pd.Series:
    return column.map(GROUPS.index) if column.name == "age_group" else column


def recommended(table: pd.DataFrame) -> str:
    """The default by `RULE`, from a table of evidence."""
    headline = table[(table["set"] == HEADLINE) & ~table["method"].isin(CONTROLS)]
    met = headline[headline["verdict"] == PASS].groupby("method").size()

    def standing(method: str) -> tuple[int, float]:
        of_method = headline[headline["method"] == method].set_index("metric")["value"]
        gain = of_method.get("deletion_less_random", 0.0) - of_method.get("insertion_less_random", 0.0)
        return int(met.get(method, 0)), float(gain)

    return max(dict.fromkeys(headline["method"]), key=standing)


def summary(table: pd.DataFrame) -> dict:
    """What `audit.json` says: the recommended method, the rules, and each method's verdicts by goal."""
    headline = table[(table["set"] == HEADLINE) & (table["verdict"] != OPEN)]
    return {
        "recommended": recommended(table),
        "rule": RULE,
        "goal_rule": GOAL_RULE,
        "goals": {m: {"label": METRICS[m].label, "better": METRICS[m].better, "goal": METRICS[m].goal} for m in GOALS},
        "verdicts": {
            method: dict(zip(part["metric"], part["verdict"], strict=True))
            for method, part in headline.groupby("method", sort=False)
        },
    }
