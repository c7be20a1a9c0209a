"""One split for everything, made before any statistic."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from boneage.data import splits
from boneage.errors import BoneageError
from boneage.labels import age_group


def labelled(n: int, seed: int = 0, ids=None) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)] if ids is None else ids,
            "months": rng.integers(1, 229, n).astype(float),
            "male": rng.integers(0, 2, n),
            "subset": "train",
        }
    )


def ids_of(made: pd.DataFrame, name: str) -> set:
    return set(made["id"][made["set"] == name])


# --- the committed split


def test_the_committed_split_has_the_published_sizes():
    made = splits.committed_rsna()
    assert len(made) == made["id"].nunique() == splits.RSNA_ROWS == 12_611
    assert made["set"].value_counts().to_dict() == {"train": 9_088, "validation": 1_000, "holdout": 2_523}
    assert tuple(made["id"][:3]) == splits.RSNA_FIRST_IDS


def test_the_committed_holdout_is_the_one_earlier_work_reports_on():
    made = splits.committed_rsna()
    _, holdout = train_test_split(np.arange(12_611), test_size=0.2, random_state=42)
    assert ids_of(made, "holdout") == set(made["id"].iloc[holdout])


def test_the_images_of_earlier_accuracies_are_part_of_the_holdout():
    ids = splits.earlier_accuracy_ids()
    assert len(ids) == ids.nunique() == 1_892
    assert set(ids) < ids_of(splits.committed_rsna(), "holdout")


def test_how_the_committed_split_was_made():
    table = labelled(12_611, ids=splits.committed_rsna()["id"])
    made = splits.make_rsna(table)
    assert made["set"].value_counts().to_dict() == {"train": 9_088, "validation": 1_000, "holdout": 2_523}
    assert ids_of(made, "holdout") == ids_of(splits.committed_rsna(), "holdout")  # needs no labels
    assert list(made["id"]) == list(table["id"])
    kept = made["set"] != "holdout"
    stratum = table["male"] * 10 + age_group(table["months"])
    share = stratum[made["set"] == "validation"].value_counts() / stratum[kept].value_counts()
    np.testing.assert_allclose(share, 1_000 / 10_088, atol=0.002)


# --- which split a data set gets


def test_rsna_images_follow_the_committed_split_also_when_some_are_missing():
    committed = splits.committed_rsna()
    table = labelled(12_611, ids=committed["id"]).drop(index=[0, 5, 700])
    made = splits.split(table).set_index("id")["set"]
    assert len(made) == 12_608
    expected = committed.set_index("id")["set"]
    assert (made == expected[made.index]).all()


def test_images_added_to_rsna_train():
    ids = [*splits.committed_rsna()["id"], "my own"]
    made = splits.split(labelled(len(ids), ids=ids)).set_index("id")["set"]
    assert made["my own"] == "train"
    assert (made == "train").sum() == 9_089


@pytest.mark.parametrize("months", [100.0, np.nan])
def test_official_test_images_never_train_whether_ages_are_known_or_not(months):
    table = labelled(200)
    table.loc[150:, "subset"], table.loc[150:, "months"] = "test", months
    table.loc[140:149, "subset"] = "validation"
    made = splits.split(table)
    assert ids_of(made, "rsna_test") == set(table["id"][150:])
    assert ids_of(made, "validation") >= set(table["id"][140:150])
    assert len(made) == 200


@pytest.mark.parametrize(
    ("subset", "months", "found"),
    [("test", 100.0, "50 test"), ("test", np.nan, "50 test"), ("validation", 100.0, "50 validation"),
     ("train", np.nan, "50 train")],
)  # fmt: skip
def test_there_must_be_something_to_train_on(subset, months, found):
    with pytest.raises(BoneageError, match=f"no image with an age to train on; found {found} images. Add a training"):
        splits.split(labelled(50).assign(subset=subset, months=months))


def test_nothing_at_all_is_nothing_to_train_on():
    with pytest.raises(BoneageError, match="found 0 images"):
        splits.split(labelled(50)[:0])


def test_nine_images_are_too_few():
    with pytest.raises(BoneageError, match=r"at least 10 labelled images\. Received: 9"):
        splits.split(labelled(9))


# --- any other data set


@settings(max_examples=40, deadline=None)
@given(n=st.integers(10, 400), labels=st.integers(0, 5), seed=st.integers(0, 5))
def test_a_stratified_split_uses_each_image_once(n, labels, seed):
    table = labelled(n, labels)
    made = splits.make_stratified(table, seed)
    assert list(made["id"]) == list(table["id"])
    share = made["set"].value_counts()
    assert abs(share["holdout"] - 0.2 * n) <= 1
    assert abs(share["validation"] - 0.1 * n) <= 1
    assert share.sum() == n
    pd.testing.assert_frame_equal(made, splits.make_stratified(table, seed))


def test_sexes_and_age_groups_are_spread_evenly():
    table = labelled(2_000)
    made = splits.split(table, seed=3)
    stratum = table["male"] * 10 + age_group(table["months"])
    for name, share in (("train", 0.7), ("validation", 0.1), ("holdout", 0.2)):
        counts = stratum[made["set"] == name].value_counts()
        np.testing.assert_allclose(counts, share * stratum.value_counts()[counts.index], atol=1.5)
        assert len(counts) == 8


def test_another_seed_gives_another_split():
    table = labelled(100)
    assert ids_of(splits.split(table, 0), "holdout") != ids_of(splits.split(table, 1), "holdout")


def test_overlap_and_unknown_sets_are_refused():
    with pytest.raises(BoneageError, match="1 ids stand in the split twice, such as a"):
        splits.check_disjoint(pd.DataFrame({"id": ["a", "b", "a"], "set": ["train", "train", "holdout"]}))
    with pytest.raises(BoneageError, match=r"unknown set \['tset'\]"):
        splits.check_disjoint(pd.DataFrame({"id": ["a"], "set": ["tset"]}))
