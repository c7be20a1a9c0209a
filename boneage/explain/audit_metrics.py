"""The arithmetic of an audit: likeness of maps, energy in regions, removal of pixels, intervals."""

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from scipy.stats import rankdata

# What the rows of an audit's tables are called.
HEADLINE = "headline"  # images of the set that is reported on; `audit.json` names it
CONTROLS = RANDOM, CENTRE = ("random map", "centre blob")
DEPTHS = ("nothing", "head", "last convolution", "top quarter", "top half", "three quarters", "all")
HEAD, TOP = DEPTHS[1:3]
DISTURBANCES = ("flip", "rotation", "noise")

COARSE = 28  # px a side at which maps are compared: they are smooth, and ranks of 784 cells say what 50,000 would
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles: a 95 % interval
FEWEST = 5  # images below which an interval would say nothing
ROAD_COARSER = 4  # the linear system of an imputation is solved on pixels this much larger
ROAD_NOISE = 2.5  # grey levels: one hundredth of the range, as in the paper


def coarse(maps: np.ndarray) -> np.ndarray:
    """Maps (B, H, W) averaged to (B, 28, 28), as they are compared."""
    return np.stack([cv2.resize(m.astype("float32"), (COARSE, COARSE), interpolation=cv2.INTER_AREA) for m in maps])


def rank_correlation(a: np.ndarray, b: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Spearman's correlation of each of two stacks of maps (B, h, w), over the cells `inside` (h, w); (B,).

    A map of one single value says nothing of where anything is; its correlation counts as 0.
    """
    cells = slice(None) if inside is None else inside.ravel()
    x, y = (rankdata(m.reshape(len(m), -1)[:, cells], axis=1) for m in (a, b))
    x, y = (r - r.mean(1, keepdims=True) for r in (x, y))
    spread = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.where(spread > 0, (x * y).sum(1) / np.where(spread > 0, spread, 1), 0.0)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean structural similarity (Wang et al. 2004, eq. 13) of maps (B, h, w) with values 0..1; (B,)."""
    c1, c2 = 0.01**2, 0.03**2

    def blurred(maps: np.ndarray) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(m.astype("float64"), (11, 11), 1.5) for m in maps])

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2))


def energy(maps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Share of each map (B, H, W) that lies in its region (B, H, W) bool; NaN for a map that is zero everywhere."""
    total = maps.sum((1, 2), dtype=float)
    return np.where(total > 0, (maps * region).sum((1, 2), dtype=float) / np.where(total > 0, total, 1), np.nan)


def peak_inside(maps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Pointing game (Zhang et al. 2016), no tolerance: does a map's maximum lie in its region; a zero map misses."""
    flat = maps.reshape(len(maps), -1)
    hit = region.reshape(len(maps), -1)[np.arange(len(maps)), flat.argmax(1)]
    return (hit & (flat.max(1) > 0)).astype(float)


def random_maps(count: int, cells: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Maps that know nothing, as smooth as those of a feature map of `cells` x `cells`; (count, size, size), 0..1."""
    return np.stack([cv2.resize(m, (size, size)) for m in rng.random((count, cells, cells), "float32")])


def centre_blob(count: int, size: int) -> np.ndarray:
    """A map that knows only that hands lie in the middle: a Gaussian, standard deviation a quarter of the side."""
    along = np.exp(-0.5 * ((np.arange(size) + 0.5) / size - 0.5) ** 2 / 0.25**2)
    return np.repeat(np.outer(along, along)[None].astype("float32"), count, 0)


def order(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank of each pixel, 0 for the highest of its map; equals (a map's zeros) in random order; (B, H, W) int."""
    flat = maps.reshape(len(maps), -1)
    mixed = rng.permuted(np.tile(np.arange(flat.shape[1]), (len(flat), 1)), axis=1)
    ranked = np.take_along_axis(mixed, np.argsort(-np.take_along_axis(flat, mixed, 1), axis=1, kind="stable"), 1)
    ranks = np.empty_like(ranked)
    np.put_along_axis(ranks, ranked, np.arange(flat.shape[1])[None], 1)
    return ranks.reshape(maps.shape)


def impute(image: np.ndarray, removed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Removed pixels filled from their surroundings: noisy linear imputation (ROAD, Rong et al. 2022, section 4).

    Each removed pixel becomes the weighted mean of its eight neighbours (direct ones count twice), removed ones
    included: a linear system. It is solved on pixels four times as large, a light form: what it gives is smooth anyway.

    Parameters
    ----------
    image
        (S, S) grey, 0..255.
    removed
        (S, S) bool.
    """
    side = max(1, len(image) // ROAD_COARSER)
    known = cv2.resize((~removed).astype("float32"), (side, side), interpolation=cv2.INTER_AREA)
    grey = cv2.resize(np.where(removed, 0, image).astype("float32"), (side, side), interpolation=cv2.INTER_AREA)
    grey /= np.maximum(known, 1e-6)
    unknown = known < 0.5
    number = np.full(unknown.shape, -1)
    number[unknown] = np.arange(unknown.sum())
    rows, columns, weights, right = [], [], [], np.zeros(unknown.sum())
    total = np.zeros(unknown.sum())
    y, x = np.nonzero(unknown)
    here = number[unknown]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy == dx == 0:
                continue
            weight = 2.0 if dy == 0 or dx == 0 else 1.0
            ny, nx = y + dy, x + dx
            there = (ny >= 0) & (ny < side) & (nx >= 0) & (nx < side)
            neighbour = number[ny[there], nx[there]]
            np.add.at(total, here[there], weight)
            missing = neighbour >= 0
            rows.append(here[there][missing])
            columns.append(neighbour[missing])
            weights.append(np.full(missing.sum(), -weight))
            np.add.at(right, here[there][~missing], weight * grey[ny[there][~missing], nx[there][~missing]])
    if unknown.all():  # nothing to go by
        filled = np.full(unknown.shape, float(image.mean()))
    elif len(here):
        rows, columns, weights = (np.concatenate([*v, w]) for v, w in ((rows, here), (columns, here), (weights, total)))
        filled = grey.copy()
        filled[unknown] = spsolve(coo_matrix((weights, (rows, columns))).tocsr(), right)
    else:
        filled = grey
    smooth = cv2.resize(filled.astype("float32"), image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    noisy = smooth + rng.normal(0, ROAD_NOISE, image.shape).astype("float32")
    return np.where(removed, np.clip(noisy, 0, 255), image).astype("float32")


def area(values: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Area below curves (..., F) over fractions (F,) from 0 to 1: the mean height."""
    return np.trapezoid(values, fractions, axis=-1) / (fractions[-1] - fractions[0])


def interval(values: np.ndarray, below: np.ndarray | None = None, seed: int = 0) -> tuple[float, float, float, int]:
    """Mean of values (n,), or the quotient of two means, with a 95 % bootstrap interval over images.

    Parameters
    ----------
    values
        NaN where an image has none.
    below
        (n,): the mean of `values` is divided by the mean of these.

    Returns
    -------
    value, low, high, n
        NaN bounds below 5 images, a NaN value without any.
    """
    below = np.ones(len(values)) if below is None else below
    kept = ~(np.isnan(values) | np.isnan(below))
    above, below = np.asarray(values, float)[kept], np.asarray(below, float)[kept]
    n = len(above)
    if n == 0:
        return np.nan, np.nan, np.nan, 0
    value = above.mean() / below.mean()
    if n < FEWEST:
        return value, np.nan, np.nan, n
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    low, high = np.percentile(above[drawn].mean(1) / below[drawn].mean(1), INTERVAL)
    return value, low, high, n
