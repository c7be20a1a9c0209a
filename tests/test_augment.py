"""Augmentation: one warp and one table, drawn within its limits, and nothing at evaluation."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from boneage.config import Augmentation
from boneage.data import augment
from boneage.data.phantom import render

NONE = Augmentation(rotation=0, scale=0, shift=0, flip=0, brightness=0, contrast=0, gamma=1.0, equalise=0)


@pytest.fixture
def square():
    return cv2.resize(render(120, 1, 3, height=192).image, (64, 64), interpolation=cv2.INTER_AREA)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_evaluation_reads_the_cached_bytes_as_they_are(square):
    np.testing.assert_array_equal(augment.sample(square, 64), square)


def test_the_identity_map_changes_nothing(square):
    np.testing.assert_array_equal(augment.sample(square, 64, np.eye(3)), square)


def test_no_augmentation_is_what_evaluation_sees(square):
    for size in (64, 48, 32, 100):
        np.testing.assert_array_equal(augment.augmented(square, size, rng(), NONE), augment.sample(square, size))


def test_flip_mirrors_left_and_right(square):
    np.testing.assert_array_equal(augment.augmented(square, 64, rng(), replace(NONE, flip=1.0)), square[:, ::-1])


def test_a_quarter_turn_moves_each_pixel_where_it_belongs(square):
    clockwise = np.array([[0.0, -1, 1], [1, 0, 0], [0, 0, 1]])  # (u, v) -> (1 - v, u), y down
    turned = augment.sample(square, 64, clockwise)
    assert turned[10, 64 - 1 - 20] == square[20, 10]
    np.testing.assert_array_equal(turned, np.rot90(square, -1))


def test_a_shift_is_a_share_of_the_side(square):
    right = np.array([[1.0, 0, 0.25], [0, 1, 0], [0, 0, 1]])
    shifted = augment.sample(square, 64, right)
    assert (shifted[:, :15] == 0).all()
    np.testing.assert_array_equal(shifted[:, 16:], square[:, :48])


def test_halving_averages_areas():
    blocks = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 10, np.array([[1, 1], [1, 1]], np.uint8))
    blocks[0, 0] += 8  # a mean of 2 over the first block
    expected = np.arange(16).reshape(4, 4) * 10
    expected[0, 0] = 2
    np.testing.assert_array_equal(augment.sample(blocks, 4), expected)


@pytest.mark.parametrize("size", [16, 31, 48, 64, 90])
def test_the_size_asked_for_comes_out(square, size):
    image = augment.augmented(square, size, rng(), Augmentation())
    assert image.shape == (size, size)
    assert image.dtype == np.uint8


def test_size_does_not_move_the_content(square):
    """The same map at two sizes shows the same place: pixel centres, not corners, are matched."""
    unit_map = augment.random_affine(rng(5), Augmentation())
    small, large = (augment.sample(square, s, unit_map) for s in (48, 96))
    shrunk = cv2.resize(large, (48, 48), interpolation=cv2.INTER_AREA)
    difference = np.abs(small.astype(int) - shrunk)
    assert np.median(difference) <= 2
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.995


def test_all_geometry_is_one_warp(square, monkeypatch):
    warps = []
    warp = cv2.warpAffine
    monkeypatch.setattr(cv2, "warpAffine", lambda *a, **k: warps.append(1) or warp(*a, **k))
    for size in (64, 48, 32):
        augment.augmented(square, size, rng(), Augmentation())
    assert len(warps) == 3


def test_geometry_stays_within_its_limits():
    limits = Augmentation(rotation=20, scale=0.15, shift=0.08, flip=0.5)
    flips = 0
    for seed in range(300):
        made = augment.random_affine(rng(seed), limits)
        size = np.sqrt(abs(np.linalg.det(made[:2, :2])))
        assert 0.85 <= size <= 1.15
        assert np.abs((made @ (0.5, 0.5, 1))[:2] - 0.5).max() <= 0.08 + 1e-12
        assert np.degrees(np.arccos(made[1, 1] / size)) <= 20 + 1e-9  # down stays down
        flips += np.linalg.det(made[:2, :2]) < 0
    assert 120 < flips < 180


def test_tone_keeps_the_order_of_grey_levels(square):
    for seed in range(200):
        table = augment.random_tone(rng(seed), replace(Augmentation(), equalise=0.0), square)
        assert table.shape == (256,)
        assert table.dtype == np.uint8
        assert (np.diff(table.astype(int)) >= 0).all()


def test_gamma_is_drawn_as_often_above_one_as_below(square):
    only = replace(NONE, gamma=2.0)
    middle = [augment.random_tone(rng(s), only, square)[128] for s in range(400)]
    assert min(middle) >= 64  # 0.502 ** 2
    assert max(middle) <= 181  # 0.502 ** 0.5
    assert 170 < sum(m > 128 for m in middle) < 230


def test_equalisation_spreads_the_levels_of_the_picture_and_not_of_its_padding():
    image = np.zeros((20, 20), np.uint8)
    image[:5], image[5:10] = 100, 101  # two levels, half each, beside padding
    table = augment.random_tone(rng(), replace(NONE, equalise=1.0), image)
    assert (table[99], table[100], table[101]) == (0, 128, 255)


WIDE = replace(Augmentation(), curve=0.5, local_contrast=0.5, background=0.2, quantise=0.5)


def test_wide_tone_is_off_unless_asked_for():
    """A config.json of before these settings draws the very samples that it drew then."""
    a = Augmentation()
    assert (a.curve, a.local_contrast, a.background, a.quantise, a.erase) == (0, 0, 0, 0, 0)
    draws = rng(3)
    augment.random_tone(draws, a, np.ones((4, 4), np.uint8))
    expected = rng(3)
    expected.random()  # equalise?
    expected.uniform(size=3)  # gamma, contrast, brightness
    assert draws.random() == expected.random()


def test_a_random_curve_rises_between_black_and_white_and_differs_each_time():
    level = np.linspace(0, 1, 256)
    curves = np.array([augment.random_curve(rng(s), level) for s in range(300)])
    np.testing.assert_allclose(curves[:, [0, -1]], [[0, 1]] * 300)
    assert (np.diff(curves) >= 0).all()
    assert abs(curves[:, 128].mean() - 0.5) < 0.05  # brighter as often as darker
    assert curves[:, 128].min() < 0.15
    assert curves[:, 128].max() > 0.85


def test_a_curve_stands_in_for_gamma(square):
    """Otherwise the two together would go far beyond what a radiograph can look like."""
    tables = [augment.random_tone(rng(s), replace(NONE, curve=1.0, gamma=g), square) for s in (1,) for g in (1.0, 9.0)]
    np.testing.assert_array_equal(*tables)


def test_coarse_levels_are_few_and_keep_black_and_white(square):
    counts = [len(np.unique(augment.random_tone(rng(s), replace(NONE, quantise=1.0), square))) for s in range(100)]
    assert min(counts) >= 8
    assert max(counts) <= 128
    assert len(set(counts)) > 20
    table = augment.random_tone(rng(), replace(NONE, quantise=1.0), square)
    assert (table[0], table[255]) == (0, 255)


def test_background_raises_black_in_half_of_the_samples_and_leaves_white(square):
    tables = np.array([augment.random_tone(rng(s), replace(NONE, background=0.2), square) for s in range(300)])
    assert tables[:, 0].max() in range(45, 52)  # 0.2 of 255
    assert 120 < (tables[:, 0] == 0).sum() < 180
    assert (tables[:, 255] == 255).all()


def test_local_contrast_spreads_a_flat_region_and_leaves_the_padding_black():
    ramp = np.tile(np.linspace(100, 120, 64).astype(np.uint8), (64, 1))
    ramp[:, :8] = 0
    changed = augment.local_contrast(rng(1), ramp)
    assert (changed[:, :8] == 0).all()
    assert np.ptp(changed[:, 12:]) > 30


def test_an_erased_rectangle_touches_the_border_and_leaves_the_middle():
    grey = np.full((100, 100), 7, np.uint8)
    shares, edges, noisy = [], set(), 0
    for seed in range(400):
        image = augment.erased(rng(seed), grey)
        gone = image != 7
        shares.append(gone.mean())
        edges |= {e for e in range(4) if np.rot90(gone, e)[0].any()}
        assert not gone[15:85, 15:85].any()
        ring = gone.copy()
        ring[1:-1, 1:-1] = False
        assert ring.any() == gone.any()  # whatever is gone reaches the border
        noisy += len(np.unique(image[gone])) > 2
    assert max(shares) <= augment.ERASED == 0.15
    assert max(shares) > 0.1
    assert edges == {0, 1, 2, 3}
    assert 100 < noisy < 250  # about half; the rest is one grey level


def test_erase_is_a_chance_and_comes_last(square):
    """What is blanked tells nothing, not even the tone of the picture."""
    changed = [augment.augmented(square, 64, rng(s), replace(NONE, erase=0.5)) != square for s in range(200)]
    assert 70 < sum(c.any() for c in changed) < 130
    black = replace(NONE, brightness=0.0, erase=1.0)
    levels = [augment.augmented(np.zeros((64, 64), np.uint8), 64, rng(s), black).max() for s in range(20)]
    assert max(levels) > 200


def test_the_same_seed_gives_the_same_sample(square):
    one, two, other = (augment.augmented(square, 48, rng(s), WIDE) for s in (7, 7, 8))
    np.testing.assert_array_equal(one, two)
    assert (one != other).mean() > 0.3


def test_the_cached_bytes_are_left_alone(square):
    before = square.copy()
    square.flags.writeable = False  # as the memory map is
    for seed in range(5):
        augment.augmented(square, 32, rng(seed), WIDE)
    np.testing.assert_array_equal(square, before)
