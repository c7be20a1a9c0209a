"""From a decoded radiograph to the square the models see: place it, then window its grey levels.

`Locate` is the seam for a hand finder (`boneage.data.hand`): any function from the radiograph to the affine map into
the square.
"""

from collections.abc import Callable

import cv2
import numpy as np

from boneage.errors import BoneageError
from boneage.texts import say

Locate = Callable[[np.ndarray, int], np.ndarray]  # (radiograph, size) -> (2, 3) map from its pixels into the square

WINDOW_PERCENTILES = (1.0, 99.5)
WINDOW_REGION = 0.7  # of the square's content, about its middle: markers and borders live outside


def whole_frame(grey: np.ndarray, size: int) -> np.ndarray:
    """Letterbox: the whole image, aspect kept, centred in a square of `size` px; a (2, 3) float64 affine map."""
    height, width = grey.shape
    scale = size / max(height, width)
    # Pixel centres lie at half-integers of the continuous plane, hence the halves.
    dx, dy = (size - width * scale) / 2, (size - height * scale) / 2
    return np.array([[scale, 0, dx + scale / 2 - 0.5], [0, scale, dy + scale / 2 - 0.5]])


def place(grey: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Warp `grey` by `matrix` into a (size, size) array of the same dtype; outside is 0.

    Shrinking averages areas first (no aliasing), the rest is one bilinear warp.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 1:
        height, width = grey.shape
        shrunk_width, shrunk_height = max(1, round(width * scale)), max(1, round(height * scale))
        grey = cv2.resize(grey, (shrunk_width, shrunk_height), interpolation=cv2.INTER_AREA)
        fx, fy = width / shrunk_width, height / shrunk_height
        back = np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]])
        matrix = matrix @ back
    return cv2.warpAffine(grey, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)


def intensity_window(grey: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Grey levels to become 0 and 255: percentiles over the middle of the picture, away from borders and markers.

    Parameters
    ----------
    grey
        (size, size) placed radiograph.
    inside
        (size, size) bool, where the square shows the radiograph and not its padding.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        raise BoneageError(say("refusals.crop_outside"))

    def middle(along):
        margin = round(len(along) * (1 - WINDOW_REGION) / 2)
        return slice(along[0] + margin, along[-1] + 1 - margin)

    region = grey[middle(rows), middle(columns)]
    low, high = np.percentile(region[::2, ::2], WINDOW_PERCENTILES)
    if high - low < 2:
        raise BoneageError(say("refusals.one_grey_level", level=f"{low:g}"))
    return float(low), float(high)


def to_square(
    grey: np.ndarray, size: int, locate: Locate = whole_frame
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """What the cache holds and a prediction starts from.

    Returns
    -------
    square : (size, size) uint8
    matrix : (2, 3) float64, from pixels of `grey` to pixels of the square
    window : grey levels of the source that became 0 and 255

    Raises
    ------
    BoneageError
        For an empty (constant) image.
    """
    matrix = locate(grey, size)
    placed = place(grey, matrix, size)
    inside = cv2.warpAffine(np.ones(grey.shape, np.uint8), matrix, (size, size), flags=cv2.INTER_NEAREST) > 0
    low, high = intensity_window(placed, inside)
    levels = np.arange(65536 if placed.dtype == np.uint16 else 256)
    table = (np.clip((levels - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    square = np.take(table, placed)
    square[~inside] = 0
    return square, matrix, (low, high)
