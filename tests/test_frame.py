"""From a radiograph to the square: hand-computed letterbox geometry and grey windows."""

import cv2
import numpy as np
import pytest

from boneage.data import frame
from boneage.data.phantom import render
from boneage.errors import BoneageError


def at(matrix, x, y):
    return matrix @ (x, y, 1)


# --- place


def test_letterbox_of_a_portrait():
    matrix = frame.whole_frame(np.zeros((200, 100)), 100)
    # Half the size, so 50 px wide, 25 px from the left; pixel i covers i - 0.5 .. i + 0.5.
    np.testing.assert_allclose(matrix, [[0.5, 0, 24.75], [0, 0.5, -0.25]])
    np.testing.assert_allclose(at(matrix, -0.5, -0.5), (24.5, -0.5))  # outer corner of the first pixel
    np.testing.assert_allclose(at(matrix, 99.5, 199.5), (74.5, 99.5))


def test_letterbox_of_a_landscape():
    matrix = frame.whole_frame(np.zeros((30, 60)), 120)
    np.testing.assert_allclose(at(matrix, -0.5, -0.5), (-0.5, 29.5))
    np.testing.assert_allclose(at(matrix, 59.5, 29.5), (119.5, 89.5))


def test_the_inverse_map_leads_back_to_the_radiograph():
    grey = np.zeros((173, 91), np.uint8)
    matrix = frame.whole_frame(grey, 64)
    back = cv2.invertAffineTransform(matrix)
    np.testing.assert_allclose(at(back, 31.5, 31.5), (45, 86))  # middle to middle
    np.testing.assert_allclose(at(back, *at(matrix, 12, 100)), (12, 100))


def test_the_padding_is_zero_and_the_picture_is_whole():
    placed = frame.place(np.full((200, 100), 180, np.uint8), frame.whole_frame(np.zeros((200, 100)), 100), 100)
    assert placed.shape == (100, 100)
    assert (placed[:, :25] == 0).all()
    assert (placed[:, 25:75] == 180).all()
    assert (placed[:, 75:] == 0).all()


def test_shrinking_averages_areas():
    fine = np.indices((128, 128)).sum(0) % 2 * 200  # a chequerboard of single pixels, which sampling would alias
    placed = frame.place(fine.astype(np.uint8), frame.whole_frame(fine, 32), 32)
    assert (placed == 100).all()


@pytest.mark.parametrize(("shape", "x", "y"), [((160, 120), 40, 100), ((120, 160), 100, 40), ((40, 30), 20, 10)])
def test_a_dot_lands_where_the_map_says(shape, x, y):
    grey = np.zeros(shape, np.uint8)
    grey[y - 1 : y + 2, x - 1 : x + 2] = 255
    matrix = frame.whole_frame(grey, 96)
    placed = frame.place(grey, matrix, 96).astype(float)
    ys, xs = np.indices(placed.shape)
    centre = (xs * placed).sum() / placed.sum(), (ys * placed).sum() / placed.sum()
    np.testing.assert_allclose(centre, at(matrix, x, y), atol=0.35)


def test_any_other_locator_fits_the_seam():
    grey = render(120, 1, 3, height=192).image
    zoom = np.array([[1.0, 0, -40], [0, 1, -60]])
    square, matrix, _ = frame.to_square(grey, 64, locate=lambda image, size: zoom)
    assert matrix is zoom
    table = np.corrcoef(square.ravel(), grey[60:124, 40:104].ravel())
    assert table[0, 1] > 0.999


# --- window


def test_window_percentiles_of_the_middle():
    grey = np.tile(np.arange(100, dtype=np.uint8), (100, 1))
    # The middle 70 % are columns 15..84; every second is looked at: 15, 17 .. 83, each with 1/35 of the pixels.
    assert frame.intensity_window(grey, np.ones_like(grey, bool)) == (15.0, 83.0)


def test_window_leaves_out_the_padding():
    grey = np.zeros((100, 100), np.uint8)
    inside = np.zeros_like(grey, bool)
    inside[:, 25:75] = True
    grey[:, 25:75] = np.linspace(100, 200, 50).astype(np.uint8)
    low, high = frame.intensity_window(grey, inside)
    assert low > 100
    assert high > low


@pytest.mark.parametrize("border", [0, 255])
def test_a_collimator_border_does_not_set_the_window(border):
    hand = render(120, 1, 3, height=384).image
    framed = cv2.copyMakeBorder(hand, 30, 30, 30, 30, cv2.BORDER_CONSTANT, value=border)
    _, _, plain = frame.to_square(hand, 128)
    _, _, with_border = frame.to_square(framed, 128)
    np.testing.assert_allclose(with_border, plain, atol=12)


def test_the_window_spans_the_bytes():
    square, _, (low, high) = frame.to_square(np.tile(np.linspace(60, 120, 200).astype(np.uint8), (200, 1)), 100)
    assert square.dtype == np.uint8
    assert (square.min(), square.max()) == (0, 255)
    assert 60 < low < 80
    assert 100 < high < 120


def test_brightness_and_contrast_of_the_film_cancel_out():
    hand = render(120, 1, 3, height=192).image
    a, _, _ = frame.to_square(hand, 96)
    b, _, _ = frame.to_square((hand.astype(np.uint16) * 100 + 4000), 96)
    assert np.abs(a.astype(int) - b).max() <= 2


@pytest.mark.parametrize(
    "grey", [np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8), np.full((64, 64), 9, np.uint16)]
)
def test_a_picture_of_one_grey_level_is_refused(grey):
    with pytest.raises(BoneageError, match="the image is empty: its middle holds one grey level"):
        frame.to_square(grey, 32)


def test_a_crop_beside_the_picture_is_refused():
    grey = render(120, 1, 3, height=192).image
    with pytest.raises(BoneageError, match="shows nothing of the image"):
        frame.to_square(grey, 32, locate=lambda image, size: np.array([[1.0, 0, 500], [0, 1, 500]]))
