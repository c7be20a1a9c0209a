"""The average map of an age group, after every hand has been bent onto one common hand by its joints."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from boneage.data.boxes import LANDMARKS
from boneage.explain.audit_regions import Hands
from boneage.labels import GROUPS, age_group

HEIGHT, WIDTH = 320, 256  # px of the common hand
REACH = 1.0  # wrist to knuckles is the unit of the common hand
ABOVE, BELOW, ASIDE = (
    1.35,
    0.42,
    0.2,
)  # of that unit: fingertips above the knuckles, forearm below the wrist, flesh aside
GRID = 24  # cells a side at which a bending is worked out; it is smooth
FORCE = 0.02  # of a landmark: boxes are not exact, and a bending through every point would crumple

KNUCKLES = [LANDMARKS.index(f"MCP{f}") for f in (5, 4, 3, 2)]
LITTLE, THUMB = LANDMARKS.index("MCP5"), LANDMARKS.index("MCP1")
FOREARM = [LANDMARKS.index("radius"), LANDMARKS.index("ulna")]


@dataclass(frozen=True)
class Average:
    """Of one age group: `group` (its name), `image` (H, W) grey 0..255 and `cam` (H, W) 0..1, mean of `n` hands."""

    group: str
    image: np.ndarray
    cam: np.ndarray
    n: int


def normalised(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (16, 2) of one hand upright: wrist at the origin, knuckles one unit above, thumb on the right."""
    wrist = landmarks[FOREARM].mean(0)
    up = landmarks[KNUCKLES].mean(0) - wrist
    across = np.array([-up[1], up[0]])
    if (landmarks[THUMB] - landmarks[LITTLE]) @ across < 0:
        across = -across
    return (landmarks - wrist) @ np.stack([across, -up], 1) / (up @ up)


def average_by_age(hands: Hands, maps: np.ndarray) -> list[Average]:
    """Mean picture and mean map of each age group that has hands with known joints; [] where none has.

    Maps without heat are left out, here as everywhere where energy is averaged.
    """
    known = np.flatnonzero(np.isfinite(hands.landmarks).all((1, 2)) & maps.any((1, 2)))
    if not len(known):
        return []
    common = np.mean([normalised(hands.landmarks[i]) for i in known], 0)
    common = (common - common[FOREARM].mean(0)) / -common[KNUCKLES, 1].mean()
    bent = {i: _bending(common, hands.landmarks[i]) for i in known}
    group, found = age_group(hands.table["months"]), []
    for g, name in enumerate(GROUPS):
        members = [i for i in known if group[i] == g]
        if members:
            images, cams = (
                np.mean([cv2.remap(stack[i].astype("float32"), *bent[i], cv2.INTER_LINEAR) for i in members], 0)
                for stack in (hands.images, maps)
            )
            found.append(Average(name, images, cams, len(members)))
    return found


def _bending(common: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of the common hand the x and y in a hand's image: a thin-plate spline through the joints."""
    low, high = common.min(0) - ASIDE, common.max(0) + ASIDE
    low[1], high[1] = -1 - ABOVE, BELOW
    unit = min(WIDTH / (high[0] - low[0]), HEIGHT / (high[1] - low[1]))
    middle = (low + high) / 2
    x = np.linspace(0, WIDTH - 1, GRID)
    y = np.linspace(0, HEIGHT - 1, GRID)
    grid = np.stack(np.meshgrid((x + 0.5 - WIDTH / 2) / unit, (y + 0.5 - HEIGHT / 2) / unit), -1) + middle
    spline = RBFInterpolator(common, landmarks, kernel="thin_plate_spline", smoothing=FORCE)
    coarse = spline(grid.reshape(-1, 2)).reshape(GRID, GRID, 2).astype("float32")
    # The grid's first and last points are the first and last pixels, so it is widened by matching corners, not areas.
    to_grid = [np.linspace(0, GRID - 1, n, dtype="float32") for n in (WIDTH, HEIGHT)]
    at_x, at_y = np.meshgrid(*to_grid)
    return tuple(cv2.remap(coarse[..., k], at_x, at_y, cv2.INTER_LINEAR) for k in (0, 1))
