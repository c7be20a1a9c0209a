"""The phantom as a specification: what it promises to tests, notebooks and Grad-CAM checks that rely on it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage.data import phantom
from boneage.data import phantom_anatomy as anatomy
from boneage.data.sources import find
from boneage.errors import BoneageError

REGIONS = ("carpals", "radius_ulna_epiphyses", "metacarpal_epiphyses", "phalangeal_epiphyses")


def digest(hand: phantom.PhantomHand) -> str:
    return hashlib.sha256(hand.image.tobytes() + b"".join(m.tobytes() for m in hand.masks.values())).hexdigest()


def near(mask: np.ndarray, pixels: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)) > 0


def pieces(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


# --- the picture


def test_a_picture_is_portrait_uint8_with_one_mask_a_region():
    hand = phantom.render(100, 1, seed=3)
    assert hand.image.shape == (384, 304)
    assert hand.image.dtype == np.uint8
    assert set(hand.masks) == {*REGIONS, "ossification", "hand", "marker", "border"}
    assert all(m.shape == hand.image.shape and m.dtype == bool for m in hand.masks.values())
    assert (hand.months, hand.male) == (100.0, 1)


def test_height_scales_the_picture_and_not_its_content():
    small, large = (phantom.render(130, 0, seed=5, height=h) for h in (192, 384))
    assert small.image.shape == (192, 152)
    for name in (*REGIONS, "hand"):
        assert small.masks[name].mean() == pytest.approx(large.masks[name].mean(), rel=0.08)


def test_bone_is_brighter_than_flesh_and_flesh_than_air():
    for seed in range(6):
        hand = phantom.render(150, 1, seed)
        outside = ~near(hand.masks["hand"] | hand.masks["border"] | hand.masks["marker"], 6)
        flesh = hand.masks["hand"] & ~hand.masks["ossification"]
        bone, air = hand.image[hand.masks["carpals"]], hand.image[outside]
        assert np.median(bone) > np.percentile(hand.image[flesh], 25) + 15
        assert np.percentile(hand.image[flesh], 25) > np.median(air) + 8


def test_same_seed_same_bytes_twice_and_in_another_process():
    here = digest(phantom.render(77, 0, seed=12))
    assert digest(phantom.render(77, 0, seed=12)) == here
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from test_phantom import digest, phantom; print(digest(phantom.render(77, 0, seed=12)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert there.stdout.split()[-1] == here
    assert digest(phantom.render(77, 0, seed=13)) != here


# --- what the age does


@pytest.mark.parametrize(
    ("months", "girls", "boys"),
    [
        (3, {"capitate", "hamate"}, {"capitate"}),
        (24, {"capitate", "hamate", "triquetrum"}, {"capitate", "hamate"}),
        (
            60,
            {"capitate", "hamate", "triquetrum", "lunate", "scaphoid", "trapezium", "trapezoid"},
            {"capitate", "hamate", "triquetrum", "lunate"},
        ),
        (120, set(anatomy.CARPALS), set(anatomy.CARPALS) - {"pisiform"}),
    ],
)
def test_carpals_by_the_published_medians(months, girls, boys):
    assert set(anatomy.visible(months, 0, "carpals")) == girls
    assert set(anatomy.visible(months, 1, "carpals")) == boys


@pytest.mark.parametrize(("months", "male", "count"), [(24, 0, 3), (24, 1, 2), (60, 1, 4)])
def test_each_small_carpal_is_drawn_as_a_piece_of_its_own(months, male, count):
    for seed in range(3):
        assert pieces(phantom.render(months, male, seed, height=512).masks["carpals"]) == count


def test_the_table_is_in_the_order_of_life():
    for name, centre in anatomy.CENTRES.items():
        for male in (0, 1):
            ages = [centre.appears[male], centre.full[male], *([centre.fused[male]] if centre.fused else [])]
            assert ages == sorted(ages), name
        assert centre.appears[0] <= centre.appears[1], f"girls lead: {name}"
        assert centre.full[0] < centre.full[1], f"girls lead: {name}"
        assert centre.fused is None or centre.fused[0] < centre.fused[1], f"girls lead: {name}"


def test_growth_starts_at_appearance_and_ends_with_the_adult_outline():
    months = np.arange(0, 240)
    curve = [anatomy.growth(m, 20, 140) for m in months]
    assert curve[20] == 0
    assert curve[140] == 1
    assert (np.diff(curve) >= 0).all()


@pytest.mark.parametrize("months", [30, 72, 120])
def test_girls_are_ahead_of_boys_of_the_same_age(months):
    girl, boy = phantom.render(months, 0, seed=4), phantom.render(months, 1, seed=4)
    assert girl.masks["ossification"].sum() > 1.05 * boy.masks["ossification"].sum()


def test_everything_has_fused_at_18_and_nothing_at_10():
    for male in (0, 1):
        for name, centre in anatomy.CENTRES.items():
            if centre.fused:
                assert anatomy.stage(name, 18 * 12, male).bridged == 1
                assert anatomy.stage(name, 10 * 12, male).bridged == 0


def test_a_growth_plate_is_dark_until_it_fuses():
    # Along the axis of the third proximal phalanx, between its epiphysis and its shaft.
    region = "phalangeal_epiphyses"
    open_, fused = (phantom.render(150, 1, 6, height=768, maturity={region: m}) for m in (150, 230))
    change = fused.image.astype(int) - open_.image
    inside = open_.masks[region] & fused.masks[region]
    assert np.percentile(change[inside], 98) > 30


# --- what the age must not do


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_size_and_surroundings_do_not_tell_the_age(seed):
    young, old = phantom.render(15, 0, seed), phantom.render(216, 0, seed)
    assert young.masks["hand"].sum() == pytest.approx(old.masks["hand"].sum(), rel=0.03)
    for name in ("marker", "border"):
        assert np.array_equal(young.masks[name], old.masks[name])
    outside = ~near(young.masks["hand"], 6)
    assert np.array_equal(young.image[outside], old.image[outside])


def test_markers_and_shutters_come_with_some_seeds_and_spare_the_hand():
    hands = [phantom.render(90, 1, seed, height=192) for seed in range(30)]
    for name in ("marker", "border"):
        share = np.mean([h.masks[name].any() for h in hands])
        assert 0.2 < share < 0.8, name
    assert not any((h.masks["hand"] & (h.masks["marker"] | h.masks["border"])).any() for h in hands)


# --- masks


def test_masks_nest():
    for months in (10, 60, 140, 216):
        hand = phantom.render(months, 1, seed=months)
        union = np.logical_or.reduce([hand.masks[r] for r in REGIONS])
        assert not (union & ~hand.masks["ossification"]).any()
        assert not (hand.masks["ossification"] & ~hand.masks["hand"]).any()
        assert hand.masks["ossification"].sum() < 0.35 * hand.masks["hand"].sum()


@pytest.mark.parametrize("region", REGIONS)
def test_the_maturity_of_one_region_changes_only_that_region(region):
    plain = phantom.render(100, 0, seed=9)
    moved = phantom.render(100, 0, seed=9, maturity={region: 190})
    changed = plain.image != moved.image
    assert changed.sum() > 50
    assert not (changed & ~near(plain.masks[region] | moved.masks[region], 6)).any()
    for other in set(REGIONS) - {region}:
        assert np.array_equal(plain.masks[other], moved.masks[other])


# --- the data set


def test_a_data_set_has_the_kaggle_layout_and_the_ordinary_loader_reads_it(tmp_path):
    root = phantom.make_dataset(tmp_path / "p", n=6, seed=2, height=96, with_test=2)
    train = pd.read_csv(root / "boneage-training-dataset.csv")
    assert list(train.columns) == ["id", "boneage", "male"]
    assert train["id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert train["male"].sum() == 3
    assert train["boneage"].between(12, 216).all()
    test = pd.read_csv(root / "boneage-test-dataset.csv")
    assert list(test.columns) == ["Case ID", "Sex"]
    assert set(test["Sex"]) == {"M", "F"}
    assert cv2.imread(str(root / "boneage-training-dataset/boneage-training-dataset/1.png"), -1).shape == (96, 76)
    assert json.loads((root / "PHANTOM.json").read_text())["phantom"] is True

    source = find(root)
    assert source.phantom
    assert source.problems.empty
    assert source.table["subset"].value_counts().to_dict() == {"train": 6, "test": 2}


def test_a_second_run_changes_nothing_and_a_broken_one_is_completed(tmp_path):
    def files():
        return {p.relative_to(tmp_path): p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}

    phantom.make_dataset(tmp_path / "p", n=5, height=96, with_test=1)
    first = files()
    phantom.make_dataset(tmp_path / "p", n=5, height=96, with_test=1)
    assert files() == first
    for name in ("boneage-training-dataset/boneage-training-dataset/2.png", "boneage-training-dataset.csv"):
        (tmp_path / "p" / name).unlink()
    phantom.make_dataset(tmp_path / "p", n=5, height=96, with_test=1)
    assert files() == first


def test_ages_of_a_data_set_are_spread_over_childhood(tmp_path):
    draws = [np.random.default_rng([0, i]).integers(12, 217) for i in range(1, 401)]
    assert np.histogram(draws, bins=4, range=(12, 216))[0].min() > 70
    root = phantom.make_dataset(tmp_path / "p", n=3, height=96)
    assert pd.read_csv(root / "boneage-training-dataset.csv")["boneage"].tolist() == draws[:3]


def test_a_data_set_never_mixes_with_other_files(tmp_path):
    (tmp_path / "boneage-training-dataset.csv").write_text("id,boneage,male\n1,12,True\n")
    with pytest.raises(BoneageError, match="not empty and holds no phantom"):
        phantom.make_dataset(tmp_path, n=2)
    phantom.make_dataset(tmp_path / "p", n=2, height=96)
    with pytest.raises(BoneageError, match="another phantom"):
        phantom.make_dataset(tmp_path / "p", n=3, height=96)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"months": 0}, "above 0 and at most 240 months. Received: 0"),
        ({"months": 241}, "at most 240 months. Received: 241"),
        ({"months": float("nan")}, "Received: nan"),
        ({"male": 2}, "male must be 1 or 0. Received: 2"),
        ({"seed": -1}, "seed must not be negative. Received: -1"),
        ({"height": 50}, "96 to 2048 pixels. Received: 50"),
        ({"maturity": {"elbow": 100}}, "knows the regions carpals, .*Received: elbow"),
        ({"maturity": {"carpals": 300}}, "Received: 300"),
    ],
)
def test_a_bad_argument_is_explained(arguments, message):
    with pytest.raises(BoneageError, match=message):
        phantom.render(**({"months": 100, "male": 0, "seed": 1} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"n": 0}, "at least 1 image. Received: n=0"), ({"n": 1, "with_test": -1}, "with_test must not be negative")],
)
def test_a_bad_data_set_is_explained_and_leaves_nothing(tmp_path, arguments, message):
    with pytest.raises(BoneageError, match=message):
        phantom.make_dataset(tmp_path / "p", **arguments)
    assert not (tmp_path / "p").exists()


def test_the_gallery_says_that_it_shows_no_patients():
    figure = phantom.gallery(ages_years=(2, 14))
    assert len(figure.axes) == 4
    assert figure.get_suptitle() == "Synthetic phantom, not patients"
