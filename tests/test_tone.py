"""Robustness to tone: what a mapping does to a square, and what the table says of it."""

import shutil

import numpy as np
import pandas as pd
import pytest

from boneage.data.frame import intensity_window
from boneage.data.phantom import render
from boneage.evaluation import tone
from boneage.evaluation.evaluate import evaluate
from boneage.paths import write_csv


@pytest.fixture
def square():
    """A drawing in the middle of a square, as the cache would hold it: padding left and right."""
    made = np.zeros((96, 96), np.uint8)
    grey = render(120, 1, 3, height=96).image
    low, high = np.percentile(grey, (1, 99.5))
    made[:, 16:80] = (np.clip((grey[:, :64].astype(float) - low) / (high - low), 0, 1) * 255).round()
    return made


@pytest.fixture
def inside():
    made = np.zeros((96, 96), bool)
    made[:, 16:80] = True
    return made


def test_images_as_they_are_stay_so(square, inside):
    np.testing.assert_array_equal(tone.mapped(square, inside, tone.PLAIN), square)


@pytest.mark.parametrize("mapping", [m for m in tone.MAPPINGS if m != tone.PLAIN])
@pytest.mark.parametrize("windowed", [True, False])
def test_every_mapping_changes_the_content_and_never_the_padding(square, inside, mapping, windowed):
    changed = tone.mapped(square, inside, mapping, windowed)
    assert (changed[~inside] == 0).all()
    assert (changed[inside] != square[inside]).mean() > 0.3


@pytest.mark.parametrize("mapping", ["gamma 0.5", "gamma 2", "histogram equalisation"])
def test_the_window_is_taken_anew(square, inside, mapping):
    low, high = intensity_window(tone.mapped(square, inside, mapping), inside)
    assert low <= 1
    assert high >= 254


def test_a_window_undoes_what_is_linear(square, inside):
    raised = tone.mapped(square, inside, "black raised by a quarter")
    plain_low, plain_high = intensity_window(square, inside)
    expected = np.clip((square[inside].astype(float) - plain_low) / (plain_high - plain_low), 0, 1) * 255
    assert np.abs(raised[inside] - expected).max() <= 3  # roundings
    assert tone.mapped(square, inside, "black raised by a quarter", windowed=False)[inside].min() >= 64


def test_curves_do_as_they_are_named():
    levels = np.arange(256, dtype=np.uint8)[None]
    assert tone.MAPPINGS["gamma 2"](levels)[0, 128] == round(255 * (128 / 255) ** 2)
    assert tone.MAPPINGS["gamma 0.5"](levels)[0, 64] == round(255 * (64 / 255) ** 0.5)
    assert len(np.unique(tone.MAPPINGS["32 grey levels"](levels))) == 32


@pytest.fixture
def run(tiny_run, phantom_cache, tmp_path):
    """An evaluated run, its tone measured."""
    made = shutil.copytree(tiny_run, tmp_path / "Tiny" / "joint")
    evaluate(made, phantom_cache.folder, with_tone=True)
    return made


def test_the_run_is_measured_on_validation_and_the_card_says_so(run):
    predictions = pd.read_csv(run / "predictions_tone.csv", dtype={"id": str})
    plain = pd.read_csv(run / "predictions_validation.csv", dtype={"id": str})
    assert list(predictions["id"]) == list(plain["id"])  # all six: fewer than a sample
    np.testing.assert_allclose(predictions[tone.PLAIN], plain["predicted_months"], rtol=1e-4)
    assert (predictions["gamma 2"] - predictions[tone.PLAIN]).abs().max() > 0.01
    table = pd.read_csv(run / "tone.csv")
    assert list(table["mapping"]) == list(tone.MAPPINGS)
    card = (run / "MODEL_CARD.md").read_text()
    for row in table.itertuples():
        assert f"| {row.mapping} | {row.mae:.2f} | {row.bias:+.2f} |" in card
    assert "not measured" not in card


def test_the_table_is_what_the_predictions_say(run):
    """By hand: one mapping costs a month and shifts, another loses nothing."""
    known = pd.DataFrame({"id": [str(i) for i in range(8)], "male": 0, "reference_months": 100.0})
    signs = np.array([1, -1] * 4)
    write_csv(
        run / "predictions_tone.csv",
        known.assign(**{tone.PLAIN: 100 + 4 * signs, "gamma 2": 100 + 5.0 * signs, "gamma 0.5": 104.0}),
    )
    table = tone.table(run).set_index("mapping")
    assert table.loc[tone.PLAIN, ["mae", "bias", "worse", "passes"]].tolist() == [4, 0, 0, True]
    assert table.loc["gamma 2", ["mae", "bias", "worse", "low", "high", "passes"]].tolist() == [5, 0, 1, 1, 1, False]
    assert table.loc["gamma 0.5", ["mae", "bias", "worse", "passes"]].tolist() == [4, 4, 0, False]
