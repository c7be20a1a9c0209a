"""Augmentation: one warp and one grey-level table a sample, on the cached bytes."""

import cv2
import numpy as np

from boneage.config import Augmentation


def random_affine(rng: np.random.Generator, augmentation: Augmentation) -> np.ndarray:
    """A (3, 3) map of the unit square onto itself, about its middle: flip, rotate, scale, shift."""
    a = augmentation
    angle = np.deg2rad(rng.uniform(-a.rotation, a.rotation))
    scale = rng.uniform(1 - a.scale, 1 + a.scale)
    shift = rng.uniform(-a.shift, a.shift, 2)
    flip = -1.0 if rng.random() < a.flip else 1.0
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
    offset = 0.5 + shift - linear @ (0.5, 0.5)
    return np.array([[*linear[0], offset[0]], [*linear[1], offset[1]], [0, 0, 1]])


def random_tone(rng: np.random.Generator, augmentation: Augmentation, image: np.ndarray) -> np.ndarray:
    """A (256,) uint8 table for `cv2.LUT`: equalisation at times, then gamma, contrast and brightness."""
    a = augmentation
    level = np.linspace(0, 1, 256)
    if rng.random() < a.equalise:
        counts = np.bincount(image[image > 0].ravel(), minlength=256)
        level = np.cumsum(counts) / max(1, counts.sum())
    level = level ** np.exp(rng.uniform(-np.log(a.gamma), np.log(a.gamma)))
    level = (level - 0.5) * rng.uniform(1 - a.contrast, 1 + a.contrast) + 0.5
    level = level + rng.uniform(-a.brightness, a.brightness)
    return (np.clip(level, 0, 1) * 255).round().astype(np.uint8)


def sample(square: np.ndarray, size: int, unit_map: np.ndarray | None = None) -> np.ndarray:
    """Read a cached square at another size, through a map of the unit square, in one bilinear warp.

    Training and evaluation both read through here, so that they never see differently resampled pixels.

    Parameters
    ----------
    square
        (N, N) uint8 from the cache.
    size
        Side of the result in pixels.
    unit_map
        (3, 3) from `random_affine`; None: as it is.

    Returns
    -------
    array, shape (size, size), uint8
    """
    n = square.shape[0]
    if n == size and unit_map is None:
        return np.ascontiguousarray(square)
    while n >= 2 * size:  # halve by area first: a bilinear read that skips pixels would alias
        square = cv2.resize(square, (n // 2, n // 2), interpolation=cv2.INTER_AREA)
        n = n // 2
    # pixel index -> unit square (pixel centres at half-integers) -> mapped -> pixel index of the result
    into = np.array([[1 / n, 0, 0.5 / n], [0, 1 / n, 0.5 / n], [0, 0, 1]])
    out = np.array([[size, 0, -0.5], [0, size, -0.5], [0, 0, 1.0]])
    matrix = out @ (np.eye(3) if unit_map is None else unit_map) @ into
    return cv2.warpAffine(square, matrix[:2], (size, size), flags=cv2.INTER_LINEAR, borderValue=0)


def augmented(square: np.ndarray, size: int, rng: np.random.Generator, augmentation: Augmentation) -> np.ndarray:
    """One training sample, (size, size) uint8."""
    image = sample(square, size, random_affine(rng, augmentation))
    return cv2.LUT(image, random_tone(rng, augmentation, image))
