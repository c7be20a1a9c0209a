"""How the earlier work prepares a radiograph: the whole frame pressed into a square, grey levels as they are.

Kept for the fair comparison only: the aspect of the hand, which tells of age, is lost, and every vendor's tone is kept.
"""

import cv2
import numpy as np


def squash(grey: np.ndarray, size: int) -> np.ndarray:
    """A `boneage.data.frame.Locate`: every edge of the image onto an edge of the square; (2, 3) float64."""
    height, width = grey.shape
    fx, fy = size / width, size / height
    return np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2]])


def to_squashed(grey: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """In place of `boneage.data.frame.to_square`, with the same results; the window is the full range of the dtype."""
    white = float(np.iinfo(grey.dtype).max)
    square = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
    return (square * (255 / white)).round().astype(np.uint8), squash(grey, size), (0.0, white)
