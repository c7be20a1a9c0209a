"""Augmentation: one warp and one grey-level table a sample, on the cached bytes; at times a blanked border."""

import cv2
import numpy as np

from boneage.config import Augmentation

CURVE_PIECES = 7  # of a random tone curve
ERASED = (
    0.15  # of the side: how deep a blanked rectangle reaches at most, hence the share of the image it covers at most
)
CURVE_EVENNESS = 1.5  # Dirichlet concentration; the lower, the oftener a piece is so flat that a hand drowns in it


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
    """A (256,) uint8 table for `cv2.LUT`: equalisation and coarse levels at times, a curve, contrast, brightness."""
    a = augmentation
    level = np.linspace(0, 1, 256)
    if rng.random() < a.equalise:
        counts = np.bincount(image[image > 0].ravel(), minlength=256)
        level = np.cumsum(counts) / max(1, counts.sum())
    if happens(rng, a.quantise):
        steps = round(np.exp(rng.uniform(np.log(8), np.log(128)))) - 1
        level = np.round(level * steps) / steps
    if happens(rng, a.curve):
        level = random_curve(rng, level)
    else:
        level = level ** np.exp(rng.uniform(-np.log(a.gamma), np.log(a.gamma)))
    level = (level - 0.5) * rng.uniform(1 - a.contrast, 1 + a.contrast) + 0.5
    if a.background:
        black = max(0.0, rng.uniform(-a.background, a.background))
        level = black + (1 - black) * level
    level = level + rng.uniform(-a.brightness, a.brightness)
    return (np.clip(level, 0, 1) * 255).round().astype(np.uint8)


def happens(rng: np.random.Generator, chance: float) -> bool:
    """Whether something of this chance happens; one of no chance draws nothing, so that it shifts no other draw."""
    return chance > 0 and rng.random() < chance


def random_curve(rng: np.random.Generator, level: np.ndarray) -> np.ndarray:
    """Levels 0..1 through a random rising curve from (0, 0) to (1, 1): the distribution function of a Dirichlet draw.

    Film, detector and display curves, and equalisations, are all rising curves; seven pieces tell them apart.
    """
    steps = rng.dirichlet(np.full(CURVE_PIECES, CURVE_EVENNESS))
    return np.interp(level, np.linspace(0, 1, CURVE_PIECES + 1), [0, *np.cumsum(steps)])


def local_contrast(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive equalisation (CLAHE, Zuiderveld 1994) of random strength; black stays black."""
    tiles = int(rng.integers(2, 9))
    changed = cv2.createCLAHE(rng.uniform(1, 4), (tiles, tiles)).apply(image)
    return np.where(image > 0, changed, 0).astype(np.uint8)


def erased(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A rectangle along one edge blanked, by one grey level or by noise (random erasing, Zhong et al. 2020).

    Only the border is blanked, where markers and collimated film lie, so that they tell a network nothing it can
    count on, while bone is hardly ever lost.
    """
    image = image.copy()
    side = len(image)
    depth = int(rng.integers(1, max(2, int(ERASED * side) + 1)))
    start, stop = np.sort(rng.integers(0, side + 1, 2))
    grey = rng.integers(0, 256, (depth, stop - start) if rng.random() < 0.5 else 1)
    np.rot90(image, rng.integers(4))[:depth, start:stop] = grey  # a view: any of the four edges
    return image


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
    if happens(rng, augmentation.local_contrast):
        image = local_contrast(rng, image)
    image = cv2.LUT(image, random_tone(rng, augmentation, image))
    return erased(rng, image) if happens(rng, augmentation.erase) else image
