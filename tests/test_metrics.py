"""Metrics against hand-computed values, against scikit-learn, and as properties of the bootstrap."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from boneage.errors import BoneageError
from boneage.evaluation import metrics
from boneage.labels import GROUP_COLUMNS, GROUPS, age_group


def months_table(reference, predicted) -> pd.DataFrame:
    ids = [str(i) for i in range(len(reference))]
    table = pd.DataFrame(
        {"id": ids, "male": [i % 2 for i in range(len(ids))], "reference_months": np.asarray(reference, float)}
    )
    return table.assign(predicted_months=np.asarray(predicted, float))


def groups_table(reference, probabilities) -> pd.DataFrame:
    table = months_table(reference, reference).drop(columns="predicted_months")
    table[list(GROUP_COLUMNS)] = np.asarray(probabilities, float)
    return table


def random_table(n: int, seed: int = 0) -> pd.DataFrame:
    """A joint head's table: errors of about 10 months, a head that leans to the right group."""
    rng = np.random.default_rng(seed)
    table = months_table(reference := rng.uniform(5, 225, n), reference + rng.normal(2, 12, n))
    scores = rng.normal(0, 1, (n, 4))
    scores[np.arange(n), age_group(reference)] += 1.5
    table[list(GROUP_COLUMNS)] = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return table


def values(table: pd.DataFrame) -> dict[str, float]:
    return metrics.summarise(table, resamples=10).set_index("metric")["value"].to_dict()


def test_regression_by_hand():
    # errors 6, -12, 18, -30, 0 months
    found = values(months_table([50, 100, 110, 200, 40], [56, 88, 128, 170, 40]))
    assert found["mae"] == pytest.approx(66 / 5)
    assert found["rmse"] == pytest.approx(np.sqrt((36 + 144 + 324 + 900) / 5))
    assert found["median_error"] == 12
    assert found["bias"] == pytest.approx(-18 / 5)
    assert [found[f"within_{m}"] for m in (6, 12, 18, 24)] == [40, 60, 80, 80]  # an error of exactly 6 is within 6
    assert found["r2"] == pytest.approx(1 - 1404 / 16200)  # about the mean 100: 50² + 0 + 10² + 100² + 60²
    assert found["binned_accuracy"] == 60  # 110 -> 128 and 200 -> 170 cross an edge


def test_median_of_an_even_number_is_halfway():
    assert values(months_table([10, 10, 10, 10], [11, 12, 14, 20]))["median_error"] == 3


def test_classification_by_hand():
    table = groups_table(
        [30, 90, 100, 200],  # groups 0, 1, 1, 3
        [[0.6, 0.2, 0.1, 0.1], [0.1, 0.8, 0.1, 0.0], [0.1, 0.3, 0.4, 0.2], [0.0, 0.0, 0.1, 0.9]],  # 0, 1, 2, 3
    )
    found = values(table)
    assert found["accuracy"] == 75
    assert found["balanced_accuracy"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)  # no reference in the third group
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    # Four bins of one image each: |.6 - 1|, |.8 - 1|, |.4 - 0|, |.9 - 1|.
    assert found["calibration_error"] == pytest.approx(100 * (0.4 + 0.2 + 0.4 + 0.1) / 4)
    # Observed disagreement 1; by chance, from the margins (1, 2, 0, 1) and (1, 1, 1, 1): (14 + 2 * 6 + 14) / 4.
    assert found["kappa"] == pytest.approx(1 - 1 / 10)


def test_confidences_in_one_bin_are_averaged_before_they_are_judged():
    # Both in (0.7, 0.8]: mean confidence 0.75, half of them right.
    table = groups_table([30, 30], [[0.72, 0.28, 0, 0], [0.22, 0.78, 0, 0]])
    assert values(table)["calibration_error"] == pytest.approx(25)
    # In two bins, an edge closing the lower one: 0.9 right and 0.95 wrong do not make up for each other.
    table = groups_table([30, 30], [[0.9, 0.1, 0, 0], [0.05, 0.95, 0, 0]])
    assert values(table)["calibration_error"] == pytest.approx(100 * (0.1 + 0.95) / 2)


def test_ages_on_an_edge_belong_to_the_older_group():
    found = values(months_table([60, 120, 180, 60], [60, 120, 180, 59.9]))
    assert found["binned_accuracy"] == 75
    counts = metrics.confusion(groups_table([59.9, 60, 120, 180], np.eye(4)))
    assert (counts.to_numpy() == np.eye(4)).all()


def test_confusion_has_the_reference_in_rows():
    counts = metrics.confusion(groups_table([30, 30, 90], [[0.9, 0.1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]))
    assert list(counts.index) == list(counts.columns) == list(GROUPS)
    assert counts.loc["0-5", "15-20"] == 1
    assert counts.loc["15-20", "0-5"] == 0
    assert counts.to_numpy().sum() == 3


def test_vectorised_metrics_equal_scikit_learn():
    table = random_table(400)
    y, p = table["reference_months"], table["predicted_months"]
    truth, guess = age_group(y), table[list(GROUP_COLUMNS)].to_numpy().argmax(1)
    assert values(table) == pytest.approx(
        {
            "mae": sk.mean_absolute_error(y, p),
            "rmse": sk.root_mean_squared_error(y, p),
            "median_error": sk.median_absolute_error(y, p),
            "bias": (p - y).mean(),
            **{f"within_{m}": 100 * ((p - y).abs() <= m).mean() for m in (6, 12, 18, 24)},
            "r2": sk.r2_score(y, p),
            "binned_accuracy": 100 * sk.accuracy_score(truth, age_group(p)),
            "accuracy": 100 * sk.accuracy_score(truth, guess),
            "balanced_accuracy": 100 * sk.balanced_accuracy_score(truth, guess),
            "macro_f1": sk.f1_score(truth, guess, average="macro"),
            "kappa": sk.cohen_kappa_score(truth, guess, weights="quadratic"),
            "calibration_error": 100 * calibration_error(table),
        }
    )
    assert list(values(table)) == list(metrics.METRICS)


def calibration_error(table: pd.DataFrame) -> float:
    """Guo et al. 2017, eq. 3, bin by bin."""
    p, truth = table[list(GROUP_COLUMNS)].to_numpy(), age_group(table["reference_months"])
    total = 0.0
    for low in np.arange(10) / 10:
        inside = (p.max(1) > low) & (p.max(1) <= low + 0.1)
        if inside.any():
            right = (p.argmax(1) == truth)[inside].mean()
            total += inside.mean() * abs(right - p.max(1)[inside].mean())
    return total


def test_a_count_is_a_repeated_row():
    """The bootstrap weighs images by how often they are drawn: the same as a table with repeated rows."""
    table, counts = random_table(40), np.random.default_rng(1).integers(0, 4, (5, 40))
    weighted = metrics._statistics(table)(counts.astype(float))
    for i, times in enumerate(counts):
        repeated = values(table.loc[table.index.repeat(times)])
        assert {name: float(v[i]) for name, v in weighted.items()} == pytest.approx(repeated)


def test_bootstrap_agrees_with_scipy_and_with_the_standard_error():
    from scipy.stats import bootstrap

    table = random_table(300)
    error = (table["predicted_months"] - table["reference_months"]).to_numpy()
    estimate, low, high = metrics.bootstrap(table, "bias", resamples=4000)
    theirs = bootstrap((error,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    step = error.std(ddof=1) / np.sqrt(len(error))
    assert estimate == pytest.approx(error.mean())
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.15 * step)
    assert high - low == pytest.approx(2 * 1.96 * step, rel=0.08)


def test_intervals_hold_the_estimate_and_shrink_with_the_number_of_images():
    small, large = (metrics.summarise(random_table(n), resamples=500).set_index("metric") for n in (150, 2400))
    for found in (small, large):
        usual = found.drop("calibration_error")  # resampling noise raises this one's whole interval
        assert ((usual["low"] <= usual["value"]) & (usual["value"] <= usual["high"])).all()
    ratio = (large["high"] - large["low"]) / (small["high"] - small["low"])
    assert ((ratio > 0.12) & (ratio < 0.5)).all()  # a quarter, for sixteen times the images
    assert (large["n"] == 2400).all()


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    table = random_table(100)
    first = metrics.bootstrap(table, "mae", 300, seed=1)
    assert metrics.bootstrap(table, "mae", 300, seed=1) == first
    assert metrics.bootstrap(table, "mae", 300, seed=2) != first


def test_heads_decide_which_metrics_there_are():
    both = random_table(30)
    assert list(values(both.drop(columns=list(GROUP_COLUMNS)))) == list(metrics.REGRESSION)
    assert list(values(both.drop(columns="predicted_months"))) == list(metrics.CLASSIFICATION)
    assert {m.better for m in metrics.METRICS.values()} == {"lower", "higher", "zero"}


def test_r2_of_a_single_age_is_undefined():
    assert np.isnan(values(months_table([50.1] * 6, range(50, 56)))["r2"])
    # A third of the resamples holds the five equal ages only: left out, not an R² of minus infinity.
    assert metrics.bootstrap(months_table([50.1] * 5 + [70.3], [51] * 5 + [71]), "r2", 200)[1] > 0.9


def test_by_group_is_the_summary_of_each_part():
    table = random_table(200)
    found = metrics.by_group(table, resamples=50)
    assert len(found) == (2 + 4 + 8) * len(metrics.GROUP_METRICS)
    part = table[(table["male"] == 1) & (age_group(table["reference_months"]) == 2)]
    row = found.query("sex == 'male' and age_group == '10-15' and metric == 'mae'").iloc[0]
    assert row["n"] == len(part)
    assert row["value"] == pytest.approx(sk.mean_absolute_error(part["reference_months"], part["predicted_months"]))
    girls = found.query("sex == 'female' and age_group == 'all' and metric == 'accuracy'").iloc[0]
    assert girls["value"] == pytest.approx(values(table[table["male"] == 0])["accuracy"])
    months_only = metrics.by_group(table.drop(columns=list(GROUP_COLUMNS)), resamples=50)
    assert list(months_only["metric"].unique()) == ["mae", "bias"]


def test_small_groups_have_no_interval_and_empty_ones_no_value():
    found = metrics.by_group(months_table([30, 31, 32, 33, 70], [31, 32, 33, 34, 72]), resamples=50)
    four = found.query("sex == 'all' and age_group == '0-5' and metric == 'mae'").iloc[0]
    assert (four["value"], four["n"]) == (1, 4)
    assert np.isnan([four["low"], four["high"]]).all()
    empty = found.query("sex == 'all' and age_group == '15-20' and metric == 'mae'").iloc[0]
    assert empty["n"] == 0
    assert np.isnan(empty["value"])


def test_difference_of_a_table_with_itself_is_nothing():
    table = random_table(60)
    found = metrics.paired_difference(table, table.sample(frac=1, random_state=0), resamples=200)
    nothing = {"value": 0, "low": 0, "high": 0}
    assert found == {"n": 60, "mae": nothing, "binned_accuracy": nothing, "accuracy": nothing}


def test_paired_difference_is_a_less_b_and_narrower_than_unpaired():
    a = random_table(300)
    better = a["reference_months"] + 0.9 * (a["predicted_months"] - a["reference_months"])
    found = metrics.paired_difference(a, a.assign(predicted_months=better), resamples=500)["mae"]
    assert found["value"] == pytest.approx(0.1 * values(a)["mae"])
    assert 0 < found["low"] < found["value"] < found["high"]
    _, low, high = metrics.bootstrap(a, "mae", 500)
    assert found["high"] - found["low"] < 0.2 * (high - low)


def test_paired_difference_compares_only_heads_in_common():
    table = random_table(20)
    months, groups = table.drop(columns=list(GROUP_COLUMNS)), table.drop(columns="predicted_months")
    assert set(metrics.paired_difference(table, groups, resamples=20)) == {"n", "accuracy"}
    with pytest.raises(BoneageError, match="no head in common"):
        metrics.paired_difference(months, groups)


def test_paired_difference_refuses_other_images_and_other_references():
    table = random_table(20)
    with pytest.raises(BoneageError, match=r"same images.*Received: 20 and 19 rows, 1 ids"):
        metrics.paired_difference(table, table[1:])
    with pytest.raises(BoneageError, match="other reference ages"):
        metrics.paired_difference(table, table.assign(reference_months=table["reference_months"] + 1))


@pytest.mark.parametrize("function", [metrics.summarise, metrics.by_group, metrics.confusion])
def test_bad_tables_are_refused(function):
    table = random_table(10)
    with pytest.raises(BoneageError, match="no rows"):
        function(table[:0])
    with pytest.raises(BoneageError, match=r"lacks column reference_months.*Received: id, male"):
        function(table.drop(columns="reference_months"))
    with pytest.raises(BoneageError, match="lacks column p_5_10"):
        function(table.drop(columns="p_5_10"))
    with pytest.raises(BoneageError, match=r"column p_0_5 .* 1 of 10 values"):
        function(table.assign(p_0_5=[np.nan, *table["p_0_5"][1:]]))


def test_predictions_that_are_no_numbers_are_refused():
    table = months_table([50, 60], [np.nan, 61])
    with pytest.raises(BoneageError, match=r"column predicted_months .* 1 of 2 values"):
        metrics.summarise(table)
    with pytest.raises(BoneageError, match="lacks predicted_months and p_0_5"):
        metrics.summarise(table.drop(columns="predicted_months"))
    with pytest.raises(BoneageError, match="no metric accuracy; it has mae"):
        metrics.bootstrap(months_table([50], [51]), "accuracy")
