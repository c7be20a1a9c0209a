"""The arithmetic of an audit, by hand: ranks, similarity, energy, removal, imputation, intervals."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from boneage.explain import audit_metrics as measure

RAMP = np.arange(16.0).reshape(1, 4, 4) / 15


def test_rank_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(0)
    a, b = np.maximum(rng.normal(size=(2, 5, 8, 8)), 0)  # many zeros, as after a ReLU
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    assert np.allclose(measure.rank_correlation(a, b), expected)


def test_a_map_without_heat_resembles_nothing():
    assert measure.rank_correlation(np.zeros((1, 4, 4)), RAMP) == 0


def test_rank_correlation_looks_inside_only():
    other = RAMP.copy()
    other[0, 2:] = other[0, 2:][::-1, ::-1]  # the lower half upside down
    inside = np.zeros((4, 4), bool)
    inside[:2] = True
    assert measure.rank_correlation(RAMP, other, inside) == pytest.approx(1)
    assert measure.rank_correlation(RAMP, other)[0] < 1


def test_ssim_is_one_for_the_same_and_falls_with_noise():
    maps = np.repeat(np.clip(np.add.outer(np.arange(28), np.arange(28)) / 54, 0, 1)[None], 2, 0)
    noisy = np.clip(maps + np.random.default_rng(0).normal(0, 0.3, maps.shape), 0, 1)
    assert np.allclose(measure.ssim(maps, maps), 1)
    assert (measure.ssim(maps, noisy) < 0.6).all()


def test_energy_is_the_share_inside_and_unknown_without_heat():
    region = np.zeros((2, 2, 2), bool)
    region[:, 0, 0] = True
    maps = np.array([[[3.0, 1.0], [0, 0]], [[0, 0], [0, 0]]])
    first, second = measure.energy(maps, region)
    assert first == 0.75
    assert np.isnan(second)
    assert measure.peak_inside(maps, region).tolist() == [1, 0]  # a map without heat points nowhere


def test_pixels_go_from_the_highest_down_and_equals_by_chance():
    maps = np.zeros((1, 8, 8))
    maps[0, 5, 6], maps[0, 1, 2] = 1.0, 0.5
    orders = [measure.order(maps, np.random.default_rng(seed))[0] for seed in (0, 1)]
    for ranks in orders:
        assert ranks[5, 6] == 0
        assert ranks[1, 2] == 1
        assert sorted(ranks.ravel()) == list(range(64))
    assert (orders[0] != orders[1]).any()
    assert abs(np.corrcoef(orders[0].ravel(), np.arange(64))[0, 1]) < 0.5  # zeros are not taken row by row


def test_controls_know_nothing_but_smoothness_and_the_middle():
    random = measure.random_maps(2, 7, 56, np.random.default_rng(0))
    assert random.shape == (2, 56, 56)
    assert not np.allclose(random[0], random[1])
    assert np.abs(np.diff(random[0], axis=0)).max() < 0.2  # as smooth as a feature map's
    blob = measure.centre_blob(2, 57)
    assert np.unravel_index(blob[0].argmax(), (57, 57)) == (28, 28)
    assert np.allclose(blob[0], blob[1].T)


def test_imputation_continues_a_plane_through_the_hole():
    """A harmonic filling reproduces a linear slope; what was not removed is untouched."""
    image = np.add.outer(np.arange(64.0), np.arange(64.0)).astype("float32")
    removed = np.zeros((64, 64), bool)
    removed[20:44, 20:44] = True
    filled = measure.impute(image, removed, np.random.default_rng(0))
    assert (filled[~removed] == image[~removed]).all()
    assert np.abs(filled - image)[removed].mean() < 3 * measure.ROAD_NOISE


def test_imputation_with_nothing_left_gives_the_mean_and_with_all_left_the_image():
    image = np.full((32, 32), 90, "float32")
    everything, nothing = np.ones((32, 32), bool), np.zeros((32, 32), bool)
    assert measure.impute(image, everything, np.random.default_rng(0)).mean() == pytest.approx(90, abs=1)
    assert (measure.impute(image, nothing, np.random.default_rng(0)) == image).all()


def test_area_is_the_mean_height_of_a_curve():
    assert measure.area(np.array([0.0, 2.0, 2.0]), np.array([0, 0.5, 1])) == pytest.approx(1.5)
    assert measure.area(np.array([4.0, 4.0]), np.array([0, 0.5])) == 4


def test_interval_of_a_quotient_of_means():
    value, low, high, n = measure.interval(np.array([2.0, 4, np.nan, 6, 4, 4]), np.array([1.0, 2, 9, 3, 2, 2]))
    assert (value, n) == (2, 5)  # the image without a value counts for neither mean
    assert low == high == pytest.approx(2)  # every image has the same quotient


def test_few_images_have_no_interval_and_none_no_value():
    value, low, _, n = measure.interval(np.array([1.0, 3.0]))
    assert (value, n) == (2, 2)
    assert np.isnan(low)
    assert np.isnan(measure.interval(np.array([np.nan]))[0])


def test_intervals_narrow_with_images():
    rng = np.random.default_rng(0)
    width = [np.diff(measure.interval(rng.normal(size=n))[1:3])[0] for n in (20, 500)]
    assert width[1] < 0.4 * width[0]
