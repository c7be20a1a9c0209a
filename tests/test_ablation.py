"""The table of an ablation: each variant against the recipe, image by image, over all seeds there are."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from boneage.config import Augmentation, TrainConfig
from boneage.report import ablation

REFERENCE = np.array([20.0, 60, 100, 140, 180, 200])


@pytest.fixture
def run(tmp_path):
    """`run(name, errors, **settings)`: an evaluated run of the ablation with these errors in months on every set."""

    def make(name, errors, backbone="EfficientNetB0", **settings):
        folder = tmp_path / "ablation" / backbone / name
        folder.mkdir(parents=True)
        replace(TrainConfig(), name=name, backbone=backbone, **settings).save(folder / "config.json")
        table = pd.DataFrame({"id": [f"{i}" for i in range(6)], "male": 1, "reference_months": REFERENCE})
        if errors is None:
            table[["p_0_5", "p_5_10", "p_10_15", "p_15_20"]] = 0.25
        else:
            table["predicted_months"] = REFERENCE + errors
        for name_of_set in ("validation", "holdout"):
            table.to_csv(folder / f"predictions_{name_of_set}.csv", index=False)
        return folder

    return make


def test_a_variant_is_compared_image_by_image(run, tmp_path):
    run("ours", [1, -1, 1, -1, 1, -1])
    run("whole-frame", [3, -3, 3, -3, 3, -3], frame="hand")
    row = ablation.differences(tmp_path).set_index("variant").loc["whole-frame"]
    assert row["value"] == pytest.approx(2.0)
    assert (row["low"], row["high"]) == pytest.approx((2.0, 2.0)), "every image is worse by the same two months"
    assert row["on_validation"] == pytest.approx(2.0)
    assert row["settings"] == "frame=hand"


def test_seeds_are_one_variant_and_their_errors_are_averaged_before_they_are_compared(run, tmp_path):
    run("ours", [2.0] * 6)
    run("ours-seed1", [-4.0] * 6, seed=1)  # mean absolute error 3; the mean prediction would be off by 1 only
    run("no-sex", [5.0] * 6, use_sex=False)
    table = ablation.differences(tmp_path).set_index("variant")
    assert list(table.index) == ["ours", "no-sex"]
    assert table.loc["ours", "seeds"] == 2
    assert np.isnan(table.loc["ours", "value"])
    assert table.loc["no-sex", "value"] == pytest.approx(2.0)
    assert table["mae"].tolist() == pytest.approx([3.0, 5.0])
    assert "Its seeds alone: EfficientNetB0 2.00, 4.00 months." in ablation.text(tmp_path)


def test_settings_inside_the_augmentation_are_named(run, tmp_path):
    run("ours", [1.0] * 6)
    run("no-flip", [1.0] * 6, augmentation=Augmentation(flip=0.0))
    assert ablation.differences(tmp_path)["settings"].tolist() == ["", "augmentation.flip=0"]


def test_a_classifier_has_no_months_to_compare(run, tmp_path):
    run("ours", [1.0] * 6)
    run("classification", None, head="classification")
    row = ablation.differences(tmp_path).set_index("variant").loc["classification"]
    assert row[["on_validation", "value", "low", "high"]].isna().all()
    assert row["accuracy"] == pytest.approx(100 / 6), (
        "equal probabilities say the first group, right for one child of six"
    )
    assert "| classification | head=classification | 1 | – | 16.7 | – | – |" in ablation.text(tmp_path)


def test_backbones_are_compared_each_with_its_own(run, tmp_path):
    run("ours", [2.0] * 6)
    run("lookalike", [5.0] * 6, loss="mse")
    run("ours", [1.0] * 6, backbone="Xception")
    run("lookalike", [2.0] * 6, backbone="Xception", loss="mse")
    run("lookalike", [9.0] * 6, backbone="ResNet101", loss="mse")  # nothing to compare it with
    table = ablation.differences(tmp_path)
    assert table["backbone"].tolist() == ["EfficientNetB0"] * 2 + ["Xception"] * 2
    assert table["variant"].tolist() == ["ours", "lookalike"] * 2
    assert table["value"].dropna().tolist() == pytest.approx([3.0, 1.0])


def test_without_the_recipe_itself_there_is_nothing_to_compare_with(run, tmp_path):
    run("no-sex", [5.0] * 6, use_sex=False)
    assert ablation.text(tmp_path) == "The ablation has not been run; `boneage campaign ablation` does it."
