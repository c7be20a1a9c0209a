"""An audit judges maps by rules that a reader can check: on toys whose answer is known, and on a run of the phantom."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from boneage.data import boxes as box
from boneage.data.phantom_anatomy import REGIONS
from boneage.errors import BoneageError
from boneage.explain import audit, audit_average, audit_checks, audit_evidence, audit_regions, audit_tables
from boneage.explain.audit_evidence import FAIL, PASS
from boneage.explain.audit_metrics import CENTRE, DEPTHS, HEADLINE, RANDOM
from boneage.explain.audit_regions import Hands
from boneage.models.build import build

SIZE = 16


def hands_of(count: int, regions: dict[str, np.ndarray] | None = None, **table) -> Hands:
    """Toy hands on a film without padding; a region is one mask for all."""
    known = {"id": [f"{i}" for i in range(count)], "months": 100.0, "male": 0, "set": HEADLINE} | table
    masks = {name: np.repeat(mask[None], count, 0) for name, mask in (regions or {}).items()}
    images = np.random.default_rng(0).uniform(0, 255, (count, SIZE, SIZE)).astype("float32")
    film = np.ones((count, SIZE, SIZE), bool)
    return Hands(pd.DataFrame(known), images, film, masks, np.full((count, len(box.LANDMARKS), 2), np.nan))


def quarter() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[: SIZE // 2, : SIZE // 2] = True
    return mask


# --- the checks -----------------------------------------------------------------------------------------------------


def test_localisation_knows_share_chance_and_peak():
    hands = hands_of(2, {"ossification": quarter()})
    maps = np.zeros((2, SIZE, SIZE))
    maps[0, 0, 0], maps[0, -1, -1] = 3, 1
    found = audit_checks.localisation(maps, hands, "toy").set_index("id")
    assert found.loc["0", ["energy", "area", "peak"]].tolist() == [0.75, 0.25, 1]
    assert np.isnan(found.loc["1", "energy"])  # no heat: no share
    assert found.loc["1", "peak"] == 0


def test_chance_counts_the_radiograph_only_so_that_padding_makes_no_goal_easier():
    film = np.zeros((1, SIZE, SIZE), bool)
    film[:, :, : SIZE // 2] = True  # half of the square is padding
    hands = replace(hands_of(1, {"ossification": quarter()}), film=film)
    even = audit_checks.localisation(film.astype(float), hands, "even")
    assert even["energy"].item() == even["area"].item() == 0.5
    spilt = audit_checks.localisation(np.ones((1, SIZE, SIZE)), hands, "spilt")
    assert spilt["energy"].item() < spilt["area"].item()


def test_an_image_without_the_boxes_of_a_region_has_no_row_for_it():
    hands = hands_of(2, {"ossification": quarter()})
    hands.regions["ossification"][1] = False
    assert audit_checks.localisation(np.ones((2, SIZE, SIZE)), hands, "toy")["id"].tolist() == ["0"]


def brightness_of_quarter(images: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """A model that reads nothing but the upper left quarter, in months."""
    return images[:, : SIZE // 2, : SIZE // 2].std((1, 2))


def test_a_true_map_beats_the_random_one_and_an_opposite_one_loses():
    hands = hands_of(6)
    right = np.repeat(quarter()[None].astype(float), 6, 0)
    rng = np.random.default_rng(0)
    maps = {"right": right, "wrong": 1 - right, RANDOM: rng.random(right.shape), CENTRE: rng.random(right.shape)}
    curves = audit_checks.removal(brightness_of_quarter, maps, hands, rng)
    areas = audit_evidence.curve_areas(curves).groupby(["curve", "method"])["area"].mean()
    assert areas["deletion", "right"] > areas["deletion", RANDOM] > areas["deletion", "wrong"]
    assert areas["insertion", "right"] < areas["insertion", RANDOM] < areas["insertion", "wrong"]
    assert areas["road", "right"] > areas["road", "wrong"]


def test_curves_begin_and_end_where_they_must():
    hands = hands_of(3)
    curves = audit_checks.removal(
        brightness_of_quarter, {"toy": np.ones((3, SIZE, SIZE))}, hands, np.random.default_rng(0)
    )
    ends = curves.groupby(["curve", "fraction"])["change"].max()
    assert ends["deletion", 0] == ends["insertion", 1] == ends["road", 0] == 0
    assert ends["deletion", 1] == ends["insertion", 0] > 0


def test_stability_undoes_the_disturbance():
    """A map that is the image itself moves with it: perfectly under a flip, nearly so under rotation and noise."""
    ramp = np.add.outer(np.linspace(0, 120, 56), np.linspace(0, 100, 56)).astype("float32")
    hands = replace(hands_of(2), images=np.stack([ramp, ramp.T[::-1]]), film=np.ones((2, 56, 56), bool))
    found = audit_checks.stability(lambda images, sex: {"toy": images}, hands, np.random.default_rng(0))
    likeness = found.groupby("disturbance")["rank_correlation"].min()
    assert likeness["flip"] == pytest.approx(1)
    assert likeness["rotation"] > 0.98
    assert likeness["noise"] > 0.98
    assert found["another"].max() < 0.5


@pytest.fixture(scope="module")
def model(tiny_backbone) -> keras.Model:
    from conftest import TINY_CONFIG

    keras.utils.set_random_seed(3)
    return build(TINY_CONFIG, 120.0, 40.0, size=32)


def test_the_cascade_takes_every_layer_once_from_the_head_down(model):
    steps = dict(audit_checks.cascade(model))
    assert list(steps) == list(DEPTHS[1:])
    assert {x.name for x in steps["head"]} == {"head_sex", "head_dense", "head_z", "groups"}
    assert [x.name for x in steps["last convolution"]] == ["tiny_out_conv", "tiny_out_bn"]
    taken = [x.name for layers in steps.values() for x in layers]
    assert len(taken) == len(set(taken)) == 10


def test_randomisation_shuffles_and_puts_everything_back(model):
    before = [np.array(w) for w in model.weights]
    hands = replace(hands_of(2), images=np.zeros((2, 32, 32), "float32"))

    def explain(images, sex):  # a map that shows one kernel
        kernel = np.array(model.get_layer("tiny_out_conv").kernel)[0, 0]
        return {"toy": np.repeat(kernel[None, :16, :16], len(images), 0)}

    found = audit_checks.randomisation(model, explain, hands, 1, DEPTHS[-1], np.random.default_rng(0))
    likeness = found.groupby("depth")["rank_correlation"].mean()
    assert likeness["nothing"] == likeness["head"] == pytest.approx(1)
    assert abs(likeness["last convolution"]) < 0.3
    assert likeness["last convolution"] == likeness["all"]  # a kernel is shuffled once, not again at every step
    assert all((b == np.array(w)).all() for b, w in zip(before, model.weights, strict=True))


def test_a_layer_forgets_what_it_knew_but_not_its_range():
    dense, norm = keras.layers.Dense(64), keras.layers.BatchNormalization()
    dense.build((None, 256))
    norm.build((None, 64))
    dense.kernel.assign(-np.random.default_rng(0).random((256, 64)))  # all negative: no unit answers positive features
    norm.set_weights([np.arange(64.0) + k for k in range(4)])  # scale, offset, mean, variance
    before = np.array(dense.kernel)
    for layer in (dense, norm):
        audit_checks.forget(layer, np.random.default_rng(1))
    after = np.array(dense.kernel)
    assert (np.sort(np.abs(after.ravel())) == np.sort(np.abs(before.ravel()))).all()
    assert 0.3 < (np.ones(256) @ after > 0).mean() < 0.7
    gamma, *others = norm.get_weights()
    assert (np.sort(gamma) == np.arange(64)).all()
    assert (gamma != np.arange(64)).any()
    assert all((other == gamma + k + 1).all() for k, other in enumerate(others))  # a channel's four stay together


def test_a_batchnorm_that_forgot_takes_its_statistics_from_the_images_and_others_keep_theirs(model):
    hands = replace(hands_of(4), images=np.random.default_rng(0).uniform(0, 255, (4, 32, 32)).astype("float32"))
    first, last = model.get_layer("tiny_1_bn"), model.get_layer("tiny_out_bn")
    before = [np.array(v) for v in (first.moving_mean, last.moving_mean)]
    seen = []

    def explain(images, sex):
        seen.append([np.array(v) for v in (first.moving_mean, last.moving_mean)])
        return {"toy": np.ones((len(images), 4, 4), "float32")}

    audit_checks.randomisation(model, explain, hands, 1, "last convolution", np.random.default_rng(0))
    trained, head, top = seen
    assert all((a == b).all() for a, b in zip(trained + head, before + before, strict=True))
    assert (top[0] == before[0]).all()
    assert (top[1] != before[1]).all()


def test_maps_without_heat_are_counted_and_not_compared(model):
    hands = replace(hands_of(2), images=np.zeros((2, 32, 32), "float32"))
    warm = np.random.default_rng(0).random((2, 16, 16)).astype("float32")
    answers = iter([warm, np.stack([warm[0], 0 * warm[0]])])
    found = audit_checks.randomisation(
        model, lambda images, sex: {"toy": next(answers)}, hands, 1, "head", np.random.default_rng(0)
    )
    first, second = found[found["depth"] == "head"].itertuples()
    assert (first.zero, first.rank_correlation) == (0, pytest.approx(1))
    assert second.zero == 1
    assert np.isnan(second.rank_correlation)
    assert np.isnan(second.ssim)


def test_methods_with_the_same_maps_become_one():
    maps = {"A": np.ones((2, 3, 3)), "B": np.zeros((2, 3, 3)), "C": np.ones((2, 3, 3)) - 1e-5}
    explain, merged = audit.without_twins(lambda images, sex: maps, maps)
    assert list(merged) == list(explain(None, None)) == ["A = C", "B"]


# --- hands with known regions ---------------------------------------------------------------------------------------


def test_fresh_phantoms_bring_their_true_regions(phantom_cache):
    hands = audit_regions.of_phantom(4, phantom_cache, 32)
    assert hands.images.shape == hands.film.shape == (4, 32, 32)
    assert {"hand", "outside", "ossification", *REGIONS} <= set(hands.regions)
    inside = hands.images[hands.regions["hand"]].mean()
    assert inside > 2 * hands.images[hands.regions["outside"]].mean()  # a hand is brighter than what is around it
    assert not (hands.regions["hand"] & hands.regions["outside"]).any()


def test_moving_one_region_redraws_that_region_only(phantom_cache):
    hands = audit_regions.of_phantom(3, phantom_cache, 64).take(np.array([1]))
    older = audit_regions.moved(hands, "carpals", phantom_cache)
    change, mask = np.abs(older.images - hands.images)[0], older.regions["carpals"][0]
    assert change[mask].mean() > 10 * change[~mask].mean()
    assert change.max() > 20
    assert (change == 0).mean() > 0.8  # the tone of the rest has not moved with it


def test_images_are_spread_over_ages_and_kinds_of_boxes():
    hands = hands_of(40, {"ossification": quarter()}, months=np.linspace(10, 200, 40))
    hands.regions["ossification"][20:] = False
    few = hands.spread(8)
    assert len(few) == 8
    assert few.regions["ossification"].any((1, 2)).sum() == 4
    assert few.table["months"].min() == 10
    assert few.table["months"].max() == 200


def test_averages_bring_joints_together_wherever_hands_lie():
    """Two hands, one mirrored, turned and smaller: a spot at the same joint of both is one spot on the common hand."""
    rng = np.random.default_rng(0)
    base = np.array([[20, 50], [30, 45], [40, 44], [50, 47], [62, 65]])  # MCP, little finger first
    pip = base + np.array([[-3, -15], [-1, -17], [0, -18], [2, -17], [8, -12]])
    dip = pip[:4] + np.array([[-2, -8], [0, -9], [0, -10], [1, -9]])
    joints = np.concatenate([base, pip, dip, [[44, 88], [34, 89]]]).astype(float)
    turn = 0.8 * np.array([[0.9, -0.436], [0.436, 0.9]])
    other = (joints * (-1, 1)) @ turn.T + (95, 5)
    maps = np.zeros((2, 100, 100), "float32")
    for i, points in enumerate((joints, other)):
        y, x = np.mgrid[:100, :100]
        maps[i] = np.exp(-((x - points[7, 0]) ** 2 + (y - points[7, 1]) ** 2) / 8)
    hands = replace(
        hands_of(2), images=rng.uniform(0, 255, (2, 100, 100)).astype("float32"), landmarks=np.stack([joints, other])
    )
    (average,) = audit_average.average_by_age(hands, maps)
    assert (average.group, average.n) == ("5-10", 2)
    assert average.cam.max() > 0.85  # were the spots apart, their mean would be 0.5


# --- verdicts -------------------------------------------------------------------------------------------------------


def row(metric, low, high, chance=(0, 0, 0), method="toy"):
    return SimpleNamespace(
        method=method, metric=metric, set=HEADLINE, value=(low + high) / 2, low=low, high=high,
        better=audit_evidence.METRICS[metric].better, chance_low=chance[1], chance_high=chance[2],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (row("ossification_energy", 2.0, 2.6), PASS),
        (row("ossification_energy", 1.9, 2.6), FAIL),  # the value is above the goal, the interval is not
        (row("outside_energy", 0.3, 0.5), PASS),
        (row("outside_energy", 0.3, 0.51), FAIL),
        (row("top_randomised", -0.1, 0.29), PASS),
        (row("top_randomised", 0.2, 0.31), FAIL),
        (row("deletion", 8, 12, (5, 4, 7)), PASS),
        (row("deletion", 7, 12, (5, 4, 7)), FAIL),  # intervals that touch overlap
        (row("insertion", 2, 3, (5, 4, 7)), PASS),
        (row("insertion", 2, 4.5, (5, 4, 7)), FAIL),
        (row("road", 0, 1), ""),  # no goal set
        (row("outside_energy", np.nan, np.nan), ""),  # too few images for an interval
        (row("deletion", 8, 12, (5, 4, 7), CENTRE), ""),  # a control has none to meet
    ],
)
def test_a_goal_is_met_by_the_whole_interval(given, said):
    assert audit_evidence.verdict(given) == said


def test_the_recommended_method_meets_most_goals_then_gains_most_months():
    table = pd.DataFrame(
        [
            ("pretty", "ossification_energy", 3.0, PASS), ("pretty", "deletion_less_random", 0.5, ""),
            ("true", "ossification_energy", 2.1, PASS), ("true", "deletion_less_random", 2.0, ""),
            ("poor", "ossification_energy", 1.0, FAIL), ("poor", "deletion_less_random", 9.0, ""),
        ], columns=["method", "metric", "value", "verdict"],
    ).assign(set=HEADLINE)  # fmt: skip
    assert audit_evidence.recommended(table) == "true"


# --- the job --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few():
    """Counts that make an audit take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        small = {"PHANTOMS": 12, "REMOVED": 8, "STABLE": 8, "SHUFFLED": 8, "DRAWS": 1, "MOVED": 8, "SLOW": 8}
        for name, value in small.items():
            patch.setattr(audit, name, value)
        yield


@pytest.fixture(scope="module")
def audited(few, tiny_run, phantom_cache, tmp_path_factory):
    """`outputs` with one audited run of the phantom, and `images` beside it."""
    place = tmp_path_factory.mktemp("audited")
    run = place / "outputs" / "Tiny" / "joint"
    shutil.copytree(tiny_run, run)
    audit.audit([run], phantom_cache.folder, None, place / "images")
    return place


def test_an_audit_leaves_tables_a_summary_and_figures(audited):
    folder = audited / "outputs" / "Tiny" / "joint" / "audit"
    tables = {"localisation", "curves", "stability", "randomisation", "moved", "by_age", "evidence"}
    assert {p.stem for p in folder.glob("*.csv")} == tables
    said = json.loads((folder / "audit.json").read_text())
    assert said["phantom"]
    assert said["recommended"] in said["verdicts"]
    assert set(said["verdicts"][said["recommended"]]) == set(audit_evidence.GOALS)
    figures = {"audit_Tiny_joint.png", "audit_Tiny_joint.pdf", "audit_failures_Tiny_joint.png"}
    assert {p.name for p in (audited / "images").iterdir()} == figures
    assert said["cells"] == 8  # 32 px at stride 4


def test_evidence_has_direction_chance_and_interval(audited):
    table = audit_tables.read_evidence(audited / "outputs" / "Tiny" / "joint")
    assert set(table["better"]) == {"higher", "lower"}
    assert table["chance"].notna().all()
    known = table[table["n"] >= 5]
    assert (known["low"] <= known["value"]).all()
    assert (known["value"] <= known["high"]).all()
    assert set(table["method"]) == {"Grad-CAM = HiResCAM", "Grad-CAM++ = Layer-CAM", RANDOM, CENTRE}


def test_the_table_of_a_report_shows_methods_by_goals_and_says_fail(audited):
    table = audit_tables.audit_table(audited / "outputs")
    assert set(table["Model"]) == {"Tiny/joint"}
    assert table["Method"].str.startswith("**").sum() == 1  # one is recommended
    cells = table.iloc[:2, 2:-2].to_numpy().ravel()
    assert all(cell.startswith(("pass ", "🟥 FAIL ")) for cell in cells)
    assert audit_tables.audit_table(audited / "images").empty


def test_boxed_radiographs_are_audited_and_compared_across_runs(few, audited, tiny_run, phantom_cache, tmp_path):
    """The way of real images, on drawings that are said to be real and boxes that are made up."""
    cache = tmp_path / "cache"
    shutil.copytree(phantom_cache.folder, cache)
    info = json.loads((cache / "cache.json").read_text()) | {"phantom": False}
    (cache / "cache.json").write_text(json.dumps(info))
    shapes = [
        ("MCP", (0.25, 0.4, 0.55, 0.7), 0.45),
        ("PIP", (0.25, 0.4, 0.55, 0.7), 0.3),
        ("DIP", (0.25, 0.4, 0.55, 0.7), 0.2),
    ]
    joints = [(name, x, y) for name, xs, y in shapes for x in xs]
    joints += [("MCP", 0.85, 0.6), ("PIP", 0.9, 0.5), ("Wrist", 0.5, 0.7), ("Radius", 0.55, 0.8), ("Ulna", 0.4, 0.8)]
    bones = [("DistalPhalanx", 0.2, 0.1), ("Radius", 0.5, 0.8), ("MCP", 0.8, 0.5)]
    ids = phantom_cache.index["id"]
    for name, boxes, some in ((box.OSSIFICATION, joints, ids[::2]), (box.BONES, bones, ids[1::2])):
        rows = [(i, region, x - 0.04, y - 0.03, x + 0.04, y + 0.03) for i in some for region, x, y in boxes]
        pd.DataFrame(rows, columns=list(box.COLUMNS)).to_csv(tmp_path / name, index=False)
    runs = [tmp_path / "outputs" / "Tiny" / name for name in ("joint", "again")]
    for run in runs:
        shutil.copytree(tiny_run, run)
    done = audit.audit(runs, cache, tmp_path, tmp_path / "images")
    said = json.loads(done[1].read_text())
    assert not said["phantom"]
    assert said["images"] < said["images_all"] == 60
    assert (tmp_path / "images" / "audit_by_age_Tiny_joint.png").exists()
    evidence = audit_tables.read_evidence(runs[1])
    assert {HEADLINE, "all"} == set(evidence["set"])
    same = evidence[evidence["metric"] == "agreement"]
    assert np.allclose(same["value"], 1)  # the other run is the same model
    assert (same["chance"] < 1).all()


def test_what_cannot_be_audited_is_said_in_one_line(tiny_run, phantom_cache, tmp_path):
    with pytest.raises(BoneageError, match="no run to audit"):
        audit.audit([], phantom_cache.folder, None, tmp_path)
    run = tmp_path / "classifier"
    shutil.copytree(tiny_run, run)
    config = json.loads((run / "config.json").read_text()) | {"head": "classification"}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(BoneageError, match="predicts no months"):
        audit.audit([run], phantom_cache.folder, None, tmp_path)
