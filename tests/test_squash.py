"""The earlier work's preparation: edges on edges, grey levels kept."""

import cv2
import numpy as np
import pytest

from boneage.data.squash import squash, to_squashed


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (64, 64), (300, 97)])
def test_corners_go_to_corners(shape):
    height, width = shape
    matrix = squash(np.zeros(shape, np.uint8), 32)
    corners = np.array([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]])  # outer edges of the first and last pixel
    np.testing.assert_allclose(corners @ matrix.T, [[-0.5, -0.5], [31.5, 31.5]])


def test_no_padding_and_no_window():
    grey = np.full((40, 60), 100, np.uint8)
    grey[:, 30:] = 120
    square, _, window = to_squashed(grey, 20)
    assert window == (0, 255)
    assert set(np.unique(square[:, :9])) == {100}
    assert set(np.unique(square[:, 11:])) == {120}


def test_the_matrix_says_where_a_pixel_went():
    grey = np.zeros((200, 150), np.uint8)
    cv2.circle(grey, (105, 60), 12, 255, -1)
    square, matrix, _ = to_squashed(grey, 100)
    y, x = np.average(np.indices(square.shape).reshape(2, -1), axis=1, weights=square.ravel())
    np.testing.assert_allclose(matrix @ (105, 60, 1), (x, y), atol=0.05)


def test_sixteen_bits_become_eight():
    square, _, window = to_squashed(np.full((32, 32), 65535 // 2, np.uint16), 16)
    assert window == (0, 65535)
    assert set(np.unique(square)) <= {127, 128}
