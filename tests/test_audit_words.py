"""An audit in plain words: read from a run's folder, true of its numbers, and honest about what is missed."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from boneage.explain import audit_evidence, audit_words
from boneage.explain.audit_evidence import METRICS
from boneage.explain.audit_metrics import CENTRE, HEADLINE, RANDOM

ONE, TWO = "Grad-CAM = HiResCAM", "Grad-CAM++ = Layer-CAM"


def row(method: str, metric: str, value: float, low: float, high: float, chance: float = 1.0) -> dict:
    made = {"method": method, "metric": metric, "set": HEADLINE, "value": value, "low": low, "high": high}
    made |= {"chance": chance, "chance_low": chance - 1, "chance_high": chance + 1, "n": 48}
    return made | {"better": METRICS[metric].better, "goal": METRICS[metric].goal}


@pytest.fixture
def run(tmp_path):
    """An audited run of two methods: the first misses the two goals of energy, the second none."""
    rows = [
        row(ONE, "ossification_energy", 1.5, 1.4, 1.6), row(TWO, "ossification_energy", 2.4, 2.2, 2.6),
        row(RANDOM, "ossification_energy", 0.8, 0.7, 0.9), row(CENTRE, "ossification_energy", 1.4, 1.3, 1.5),
        row(ONE, "outside_energy", 0.8, 0.7, 0.9), row(TWO, "outside_energy", 0.3, 0.2, 0.4),
        row(ONE, "deletion", 40, 36, 44, chance=20), row(TWO, "deletion", 45, 41, 49, chance=20),
        row(ONE, "heatless", 25, 20, 30, 0), row(TWO, "heatless", 0, 0, 0, 0), row(RANDOM, "heatless", 0, 0, 0, 0),
        row(CENTRE, "heatless", 0, 0, 0, 0),
        row(ONE, "stable_flip", 0.4, 0.3, 0.5, 0.2), row(TWO, "stable_flip", 0.6, 0.5, 0.7, 0.55),
        row(TWO, "deletion_less_centre", 4, 1, 7), row(TWO, "insertion_less_centre", 2, 1, 3),
        row(TWO, "road_less_centre", 1, -1, 3),
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table["verdict"] = [audit_evidence.verdict(r) for r in table.itertuples()]
    folder = tmp_path / "outputs" / "Tiny" / "joint"
    (folder / "audit").mkdir(parents=True)
    table.to_csv(folder / "audit" / "evidence.csv", index=False)
    (folder / "audit" / "audit.json").write_text(json.dumps(audit_evidence.summary(table)))
    return folder


def test_goals_met_and_missed_are_said_of_each_method(run):
    first, second, *_ = audit_words.verdicts(run)
    assert first == (
        f"**{ONE}** meets 1 of 3 goals; 🟥 FAIL: energy in ossification regions (1.50 [1.40, 1.60]; wanted ≥ 2), "
        "energy outside the hand (0.80 [0.70, 0.90]; wanted ≤ 0.5)."
    )
    assert second == f"**{TWO}** meets 3 of 3 goals."


def test_what_the_best_cannot_do_is_said_too(run):
    *_, middle, likeness = audit_words.verdicts(run)
    assert middle.endswith(f"{TWO} is better in deletion, worse in insertion, no different in ROAD.")
    assert "0.60 with itself" in likeness
    assert "0.55" in likeness


def test_evidence_states_direction_goal_and_chance(run):
    table = audit_words.evidence_table(run).set_index("Evidence")
    energy = table.loc["Energy in ossification regions, x chance"]
    assert list(energy) == [
        "higher", "1: a map spread evenly over the radiograph", "≥ 2", "🟥 FAIL 1.50 [1.40, 1.60]",
        "pass 2.40 [2.20, 2.60]", "0.80 [0.70, 0.90]", "1.40 [1.30, 1.50]",
    ]  # fmt: skip
    assert table.loc["Rank correlation under flip", TWO] == "0.60 [0.50, 0.70]; chance 0.55"  # each has its own
    assert table.loc["Rank correlation under flip", RANDOM] == "–"


def test_before_and_after_find_a_method_among_its_twins(run):
    table = audit_words.before_and_after(run, "Grad-CAM", "Layer-CAM").set_index("Goal")
    energy = table.loc["Energy outside the hand, x chance"]
    assert list(energy) == ["≤ 0.5", "🟥 FAIL 0.80 [0.70, 0.90]", "pass 0.30 [0.20, 0.40]"]


def test_where_nothing_was_audited_it_is_said_how(run, tmp_path):
    assert audit_words.read(tmp_path) is None
    assert "`boneage explain-audit Tiny/joint --data DATA --boxes BOXES`" in audit_words.how_to(run, phantom=False)
    assert "--boxes" not in audit_words.how_to(run, phantom=True)
    assert audit_words.moved(run) == []
    assert list(audit_words.figures(run, "audit")) == []


def test_figures_are_found_inside_the_runs_or_beside_them(run, tmp_path):
    for place in (tmp_path / "images", tmp_path / "outputs" / "images"):
        place.mkdir()
        Image.new("RGB", (1350, 900)).save(place / "audit_Tiny_joint.png")
        [(image, words)] = audit_words.figures(run, "audit", "audit_failures")
        assert image.size == (720, 480)
        assert words.endswith(".")
        (place / "audit_Tiny_joint.png").unlink()


def test_the_experiment_of_the_phantom_says_what_answer_and_map_did(run):
    rows = [("carpals", TWO, 0.4, 0.1, 12.0), ("carpals", TWO, 0.2, 0.1, -3.0), ("carpals", ONE, np.nan, 0.1, 12.0)]
    table = pd.DataFrame(rows, columns=["region", "method", "map_energy", "area", "months_change"])
    table.to_csv(run / "audit" / "moved.csv", index=False)
    [found] = audit_words.moved(run)
    assert found.iloc[0].tolist() == ["carpals", "+7.0", "3.00", "–"]
