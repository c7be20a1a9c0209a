"""Radiologist-made boxes of hand bones and ossification regions: read, placed into a cache's square, and compared.

Two files lie in a boxes folder, both with columns `id, region, xmin, ymin, xmax, ymax`, coordinates as fractions of the
radiograph's width and height:

    hand-bones.csv             phalanges, MCP joints, radius and ulna: 21 boxes a hand
    ossification-regions.csv   DIP, PIP and MCP joints, wrist, radius and ulna: where maturity is read
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from boneage.errors import BoneageError

BONES, OSSIFICATION = "hand-bones.csv", "ossification-regions.csv"
COLUMNS = ("id", "region", "xmin", "ymin", "xmax", "ymax")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
OSSIFICATION_REGIONS = ("Wrist", "Radius", "Ulna", "MCP", "PIP", "DIP")
FINGERS = 5
FINER = 4  # sub-pixels a side when a box is filled
LANDMARKS = (
    [f"MCP{f}" for f in range(FINGERS, 0, -1)]
    + [f"PIP{f}" for f in range(FINGERS, 0, -1)]
    + [f"DIP{f}" for f in range(FINGERS, 1, -1)]
    + ["radius", "ulna"]
)
JOINT_BOXES = {"MCP": 5, "PIP": 5, "DIP": 4, "Radius": 1, "Ulna": 1}
BONE_BOXES = {
    "MCP": 4, "MCPFirst": 1, "ProximalPhalanx": 5, "MiddlePhalanx": 4, "DistalPhalanx": 5, "Radius": 1, "Ulna": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Boxes:
    """The two tables of a boxes folder, columns as in the files; `id` is text."""

    bones: pd.DataFrame
    ossification: pd.DataFrame

    @property
    def ids(self) -> list[str]:
        """Of all radiographs that have boxes of either kind, in the order of the files."""
        return list(dict.fromkeys([*self.bones["id"], *self.ossification["id"]]))


def read(folder: str | Path) -> Boxes:
    """Read a boxes folder.

    Raises
    ------
    BoneageError
        A file is missing, lacks a column, or holds something else than numbers.
    """
    return Boxes(*(_table(Path(folder) / name) for name in (BONES, OSSIFICATION)))


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BoneageError(f"no boxes at {path}; expected a folder with {BONES} and {OSSIFICATION}")
    table = pd.read_csv(path, dtype={"id": str})
    lacking = [c for c in COLUMNS if c not in table]
    if lacking:
        raise BoneageError(f"{path} lacks column {lacking[0]}; expected {', '.join(COLUMNS)}")
    values = table[list(CORNERS)].apply(pd.to_numeric, errors="coerce")
    if values.isna().any(axis=None):
        raise BoneageError(f"{path} has a box whose corners are not numbers; expected fractions of width and height")
    # Some boxes reach a little beyond the film; one was drawn from the far corner.
    table[["xmin", "xmax"]] = np.sort(values[["xmin", "xmax"]].clip(0, 1), axis=1)
    table[["ymin", "ymax"]] = np.sort(values[["ymin", "ymax"]].clip(0, 1), axis=1)
    return table[list(COLUMNS)]


def to_square(points: np.ndarray, row, square: int, size: int) -> np.ndarray:
    """Points of the radiograph in the square of a cache, read at another size.

    Parameters
    ----------
    points
        (..., 2), fractions of the radiograph's width and height.
    row
        Of a cache's index: `height`, `width` (px of the radiograph) and the map `m00` .. `m12` into its square.
    square
        The cache's side in pixels.
    size
        Side in pixels that the square is read at.

    Returns
    -------
    array, (..., 2) float64
        Pixels; the middle of the first pixel is 0, hence the halves.
    """
    matrix = np.array([[row.m00, row.m01, row.m02], [row.m10, row.m11, row.m12]])
    pixels = np.asarray(points, float) * (row.width, row.height) - 0.5
    placed = pixels @ matrix[:, :2].T + matrix[:, 2]
    return (placed + 0.5) * size / square - 0.5


def corners(boxes: pd.DataFrame) -> np.ndarray:
    """The four corners of each box in turn, (n, 4, 2), fractions of width and height."""
    xmin, ymin, xmax, ymax = boxes[list(CORNERS)].to_numpy(float).T
    return np.stack([[xmin, ymin], [xmax, ymin], [xmax, ymax], [xmin, ymax]]).transpose(2, 0, 1)


def fill(polygons: np.ndarray, size: int) -> np.ndarray:
    """Union of convex polygons (n, k, 2), in pixels, as a (size, size) bool mask: pixels covered by half or more."""
    # OpenCV also fills every pixel that an edge touches: on a fine grid that does not widen a small box.
    fine = np.zeros((size * FINER, size * FINER), np.uint8)
    for polygon in polygons:
        cv2.fillConvexPoly(fine, np.rint(((polygon + 0.5) * FINER - 0.5) * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) >= 128


def hand_outline(polygons: np.ndarray, size: int, margin: float) -> np.ndarray:
    """Where the hand is: the convex hull of all its bones' boxes, wider all around by a share of its longer side.

    The hull holds the gaps between the fingers too, and of the forearm only what the boxes of radius and ulna hold: it
    is generous inside the hand and strict towards the forearm.

    Parameters
    ----------
    polygons
        (n, 4, 2): the boxes of one hand, in pixels.
    margin
        Share of the longer side of the hull's smallest enclosing rectangle: the flesh beyond the bones.

    Returns
    -------
    array, (size, size) bool
    """
    hull = cv2.convexHull(polygons.reshape(-1, 2).astype(np.float32))[:, 0]
    reach = round(margin * max(cv2.minAreaRect(hull)[1]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(fill(hull[None], size).astype(np.uint8), disc) > 0


def landmarks(boxes: pd.DataFrame, height: int, width: int) -> np.ndarray | None:
    """Sixteen points of a hand that both kinds of boxes give: the joints of the fingers, radius and ulna.

    Boxes do not say which finger they belong to. Fingers are told apart by their order across the hand; the thumb is
    the outer ray whose MCP joint lies nearer to the wrist. The joint between two bones is the middle of their boxes'
    overlap or gap; radius and ulna are the middle of the distal edges of their boxes.

    Parameters
    ----------
    boxes
        Of one radiograph, from either table.
    height, width
        Of that radiograph, in pixels: a direction across the hand needs its true proportions.

    Returns
    -------
    array, (16, 2) float64, or None
        In the order of `LANDMARKS` (little finger first), fractions of width and height; None where a box is missing.
    """
    wanted = JOINT_BOXES if "Wrist" in set(boxes["region"]) else BONE_BOXES
    unit = np.array([width, height] * 2, float)
    parts = {name: of_one[list(CORNERS)].to_numpy(float) * unit for name, of_one in boxes.groupby("region")}
    if any(len(parts.get(name, ())) != n for name, n in wanted.items()):
        return None
    forearm = np.array([[(b[0] + b[2]) / 2, b[1]] for (b,) in (parts["Radius"], parts["Ulna"])])
    if wanted is BONE_BOXES:
        parts["MCP"] = np.concatenate([parts["MCP"], parts["MCPFirst"]])
    along = _middle(parts["DIP" if wanted is JOINT_BOXES else "MiddlePhalanx"]).mean(0) - forearm.mean(0)
    across = np.array([-along[1], along[0]])
    knuckles = _middle(parts["MCP"])[np.argsort(_middle(parts["MCP"]) @ across)]
    if knuckles[0] @ along < knuckles[-1] @ along:
        across = -across  # the thumb comes last
    rays = {name: b[np.argsort(_middle(b) @ across)] for name, b in parts.items()}
    if wanted is JOINT_BOXES:
        joints = [_middle(rays[name]) for name in ("MCP", "PIP", "DIP")]
    else:
        proximal, middle, distal = (rays[f"{name}Phalanx"] for name in ("Proximal", "Middle", "Distal"))
        # The thumb has no middle phalanx: its one joint stands with the PIP joints, as in the other table.
        joints = [_between(rays["MCP"], proximal), _between(proximal, np.concatenate([middle, distal[-1:]]))]
        joints.append(_between(middle, distal[:-1]))
    return np.concatenate([*joints, forearm]) / unit[:2]


def _middle(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Middle of the overlap, or of the gap, of boxes (n, 4) and (n, 4); (n, 2)."""
    return (np.maximum(a[:, :2], b[:, :2]) + np.minimum(a[:, 2:], b[:, 2:])) / 2
