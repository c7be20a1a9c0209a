"""An audit in plain words and tables, read from what `boneage explain-audit` left in a run's folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from PIL import Image

from boneage.explain import audit_tables
from boneage.explain.audit_evidence import FAIL, GOALS, METRICS, PASS
from boneage.explain.audit_metrics import CENTRE, DISTURBANCES, HEADLINE

SHOWN = (*GOALS, "road", "hand_energy", "ossification_peak", "heatless", "head_randomised", "all_randomised",
         *(f"stable_{d}" for d in DISTURBANCES), "agreement", "moved_map")  # fmt: skip
PAGE_WIDTH = 720  # px of a figure on a page: three of them must not fill a notebook
MOVED = (
    "One region alone was drawn two years more mature, all else as it was. The answer says on which region the network "
    "relies; the map should change there. Chance is a change spread evenly over the radiograph."
)
FIGURES = {  # beside what a reader should see in them
    "audit": "Each panel has its control: where a method does not part from the grey marks or the dashed line, it "
    "shows nothing that a map without knowledge would not show.",
    "audit_by_age": "Hands of an age group laid upon each other by the joints that radiologists boxed. One sees the "
    "habit of the network, not the reasons of a single answer.",
    "audit_failures": "Above, the hands with most heat outside the hand; below, those with least in the ossification "
    "regions: the worst of all boxed hands of the reported set, whatever the answer.",
}


def read(run: Path) -> tuple[pd.DataFrame, dict] | None:
    """The headline's evidence and the summary of a run's audit; None where it has not been audited."""
    evidence = audit_tables.read_evidence(run)
    if evidence is None:
        return None
    summary = json.loads((Path(run) / audit_tables.FOLDER / audit_tables.SUMMARY).read_text(encoding="utf-8"))
    return evidence[evidence["set"] == HEADLINE], summary


def how_to(run: Path, phantom: bool) -> str:
    """What to type where a run has not been audited, in Markdown."""
    boxes = "" if phantom else " --boxes BOXES"
    return (
        f"The heat maps of {Path(run).parent.name}/{Path(run).name} have not been audited yet, so nothing is known of "
        f"what they are worth. `boneage explain-audit {Path(run).parent.name}/{Path(run).name} --data DATA{boxes}` "
        "with the folders written out does it, in minutes; run this notebook again afterwards."
    )


def evidence_table(run: Path) -> pd.DataFrame:
    """All evidence on an audited run as text: one row a metric, one column a method or control.

    Returns
    -------
    DataFrame
        `Evidence`, `Better`, `Goal`, `Chance`, then the methods. Where chance is another for each method (the map of
        another hand), it stands behind the value.
    """
    evidence, _ = read(run)
    rows = []
    for name in [m for m in SHOWN if (evidence["metric"] == m).any()]:
        metric, found = METRICS[name], evidence[evidence["metric"] == name].set_index("method")
        own = found["chance"].nunique() > 1
        row = {"Evidence": metric.label, "Better": metric.better, "Chance": metric.chance}
        row["Goal"] = audit_tables.wanted(name) if metric.goal is not None else "–"
        for method in dict.fromkeys(evidence["method"]):
            row[method] = "–"
            if method in found.index:
                cell = found.loc[method].rename(name)
                row[method] = audit_tables.cell(cell) + (
                    f"; chance {cell['chance']:.{metric.digits}f}".replace("-", "−") if own else ""
                )
        rows.append(row)
    return pd.DataFrame(rows)


def verdicts(run: Path) -> list[str]:
    """What follows for each method, and what the best of them still cannot do, in sentences of Markdown."""
    evidence, summary = read(run)
    said = []
    for method, of_goals in summary["verdicts"].items():
        rows = evidence[evidence["method"] == method].set_index("metric")
        missed = [f"{_short(g)} ({audit_tables.numbers(rows.loc[g])}; wanted {audit_tables.wanted(g)})"
                  for g, verdict in of_goals.items() if verdict == FAIL]  # fmt: skip
        met = sum(verdict == PASS for verdict in of_goals.values())
        words = f"; {audit_tables.FAILED}: {', '.join(missed)}" if missed else ""
        said.append(f"**{method}** meets {met} of {len(of_goals)} goals{words}.")
    best = evidence[evidence["method"] == summary["recommended"]].set_index("metric")
    said.append(_against_the_middle(summary["recommended"], best))
    said += list(_likeness(best))
    if "moved_map" in best.index:
        said.append(
            "Where one region alone matured, the map changes by "
            f"{audit_tables.numbers(best.loc['moved_map'])} times what a change spread evenly would put there."
        )
    return said


def _short(goal: str) -> str:
    label = METRICS[goal].label.partition(",")[0]
    return label[0].lower() + label[1:]


def _against_the_middle(method: str, best: pd.DataFrame) -> str:
    """The control that any map of hands has to beat: hands lie in the middle."""
    words = []
    for curve in ("deletion", "insertion", "road"):
        name = f"{curve}_less_{CENTRE.split()[0]}"
        if name in best.index:
            row = best.loc[name]
            good, bad = (row["low"] > 0, row["high"] < 0) if row["better"] == "higher" else (
                row["high"] < 0, row["low"] > 0)  # fmt: skip
            curve = curve.upper() if curve == "road" else curve  # an acronym
            words.append(f"{'better' if good else 'worse' if bad else 'no different'} in {curve}")
    return f"Against a blob in the middle of the picture, which knows of no hand, {method} is {', '.join(words)}."


def _likeness(best: pd.DataFrame) -> Iterator[str]:
    """How much of a map belongs to its hand, and how often there is none."""
    flip = best.loc["stable_flip"] if "stable_flip" in best.index else None
    if flip is not None:
        yield (
            f"Mirrored, a hand's map keeps a rank correlation of {flip['value']:.2f} with itself; maps of two "
            f"different hands have {flip['chance']:.2f}. Only the difference belongs to the one hand."
        ).replace("-0", "−0")
    if best.loc["heatless", "value"] > 0:
        yield f"{best.loc['heatless', 'value']:.0f} % of its maps have no heat at all."


def before_and_after(run: Path, before: str, after: str) -> pd.DataFrame:
    """Two methods by goals: what was drawn by default before and what is drawn now; by their titles."""
    evidence, _ = read(run)
    rows = [{"Goal": METRICS[g].label, "Wanted": audit_tables.wanted(g)} for g in GOALS]
    for when, title in (("before", before), ("now", after)):
        part = evidence[[title in name.split(" = ") for name in evidence["method"]]].set_index("metric")
        for row, goal in zip(rows, GOALS, strict=True):
            row[f"{title} ({when})"] = audit_tables.cell(part.loc[goal]) if goal in part.index else "–"
    return pd.DataFrame(rows)


def figures(run: Path, *kinds: str) -> Iterator[tuple[Image.Image, str]]:
    """The figures that an audit drew of a run, at page width, each with how to read it; those that are there.

    They lie in `images` inside the folder of runs, or beside it.
    """
    run = Path(run)
    outputs = run.parents[1]
    for kind in kinds:
        name = f"{kind}_{run.parent.name}_{run.name}.png"
        found = [p for p in (outputs / "images" / name, outputs.parent / "images" / name) if p.is_file()]
        if found:
            image = Image.open(found[0]).convert("RGB")
            height = round(image.height * PAGE_WIDTH / image.width)
            yield image.resize((PAGE_WIDTH, height), Image.Resampling.LANCZOS), FIGURES[kind]


def moved(run: Path) -> list[pd.DataFrame]:
    """The phantom's experiment as text: one region matures by two years; what do answer and map do? [] for others."""
    path = Path(run) / audit_tables.FOLDER / "moved.csv"
    if not path.is_file():
        return []
    rows = []
    for region, part in pd.read_csv(path).groupby("region", sort=False):
        row = {
            "What matured": region.replace("_", " "),
            "Answer moves by, months": f"{part['months_change'].mean():+.1f}",
        }
        for method, of_one in part.groupby("method", sort=False):
            heated = of_one[of_one["map_energy"].notna()]
            ratio = heated["map_energy"].mean() / heated["area"].mean()
            row[f"{method}: its change there, x chance"] = "–" if heated.empty else f"{ratio:.2f}"
        rows.append({column: text.replace("-", "−") if text[:1] == "-" else text for column, text in row.items()})
    return [pd.DataFrame(rows)]
