"""Hands with known regions, in the frame that a network sees: real ones by boxes, phantoms by their truth."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pandas as pd

from boneage.data import boxes as box
from boneage.data import phantom
from boneage.data.augment import sample
from boneage.data.cache import Cache
from boneage.data.frame import place
from boneage.data.frames import FRAMES
from boneage.data.phantom_anatomy import REGIONS
from boneage.explain.audit_metrics import HEADLINE

HAND_MARGIN = 0.05  # of the hand's longer side: flesh beyond the boxes of the bones
PHANTOM_SEED = 1_000_000  # hands that no data set of the phantom holds
MOVED = 24  # months by which one region's maturity is moved
PARTS = (*box.OSSIFICATION_REGIONS, *REGIONS)  # of the ossification regions


@dataclass(frozen=True)
class Hands:
    """Images of a common size and what is known of them.

    Attributes
    ----------
    table
        One row an image: `id`, `months`, `male`, `set`.
    images
        (B, S, S) float32, grey 0..255.
    film
        (B, S, S) bool: where the square shows the radiograph and not its padding.
    regions
        Name -> (B, S, S) bool; an image that lacks the region's boxes has an empty mask. "ossification" (all regions
        where maturity is read), its parts, "hand" and "outside" (all that is not the hand).
    landmarks
        (B, 16, 2) pixels, in the order of `boneage.data.boxes.LANDMARKS`; NaN where they are not known.
    """

    table: pd.DataFrame
    images: np.ndarray
    film: np.ndarray
    regions: dict[str, np.ndarray]
    landmarks: np.ndarray

    @property
    def sex(self) -> np.ndarray:
        """(B,) float32, male = 1."""
        return self.table["male"].to_numpy("float32")

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: np.ndarray) -> "Hands":
        """Some of them, by position."""
        return replace(
            self,
            table=self.table.iloc[rows].reset_index(drop=True),
            images=self.images[rows],
            film=self.film[rows],
            regions={name: mask[rows] for name, mask in self.regions.items()},
            landmarks=self.landmarks[rows],
        )

    def spread(self, count: int) -> "Hands":
        """At most `count` of them, evenly along age, half with each kind of boxes; no prediction has a say."""
        by_age = np.lexsort([self.table["id"], self.table["months"]])
        with_joints = self.regions["ossification"].any((1, 2))[by_age]
        kinds = [of_kind for of_kind in (by_age[with_joints], by_age[~with_joints]) if len(of_kind)]
        each = [min(len(of_kind), -(-count // len(kinds))) for of_kind in kinds]
        rows = [k[np.linspace(0, len(k) - 1, n).round().astype(int)] for k, n in zip(kinds, each, strict=True)]
        return self.take(np.concatenate(rows))


def of_boxes(cache: Cache, boxes: box.Boxes, table: pd.DataFrame, size: int) -> Hands:
    """Radiographs of a cache, read at `size` px, with the regions that their boxes give.

    Parameters
    ----------
    table
        `id` and `set` of the images wanted.
    """
    rows = cache.rows(table["id"])
    by_id = [dict(list(t.groupby("id"))) for t in (boxes.bones, boxes.ossification)]
    names = ("ossification", *box.OSSIFICATION_REGIONS, "hand", "outside")
    regions = {name: np.zeros((len(rows), size, size), bool) for name in names}
    film = np.zeros((len(rows), size, size), bool)
    landmarks = np.full((len(rows), len(box.LANDMARKS), 2), np.nan)
    for i, row in enumerate(rows.itertuples()):
        bones, ossification = (of_one.get(row.id) for of_one in by_id)
        everywhere = np.array([[[0, 0], [1, 0], [1, 1], [0, 1]]])
        film[i] = box.fill(box.to_square(everywhere, row, cache.size, size), size)
        if ossification is not None:
            for name, part in ossification.groupby("region"):
                regions[name][i] = box.fill(box.to_square(box.corners(part), row, cache.size, size), size)
                regions["ossification"][i] |= regions[name][i]
        if bones is not None:
            placed = box.to_square(box.corners(bones), row, cache.size, size)
            regions["hand"][i] = box.hand_outline(placed, size, HAND_MARGIN)
            regions["outside"][i] = ~regions["hand"][i]
        found = box.landmarks(bones if bones is not None else ossification, row.height, row.width)
        if found is not None:
            landmarks[i] = box.to_square(found, row, cache.size, size)
    images = np.stack([sample(cache.images[r], size) for r in rows["row"]]).astype("float32")
    known = rows[["id", "months", "male"]].assign(set=table["set"].to_numpy())
    return Hands(known, images, film, regions, landmarks)


def of_phantom(count: int, cache: Cache, size: int) -> Hands:
    """Freshly drawn hands, ages spread evenly, girls and boys by turns, with their true masks.

    Parameters
    ----------
    cache
        Of the data that the model was trained on: its hands take the same way.
    size
        Side in pixels of what the model sees.
    """
    ages = np.linspace(*phantom.AGE_RANGE, count)
    drawn = [_drawn(float(age), i % 2, PHANTOM_SEED + i, cache, size) for i, age in enumerate(ages)]
    table = pd.DataFrame({"id": [f"phantom {i}" for i in range(count)], "months": ages, "set": HEADLINE})
    table["male"] = np.arange(count) % 2
    regions = {name: np.stack([masks[name] for _, masks in drawn]) for name in drawn[0][1]}
    film = regions.pop("film")
    landmarks = np.full((count, len(box.LANDMARKS), 2), np.nan)
    return Hands(table, np.stack([image for image, _ in drawn]), film, regions, landmarks)


def moved(hands: Hands, region: str | None, cache: Cache) -> Hands:
    """The same phantoms with one region's maturity moved by two years and all else, noise and tone included, as it was.

    Parameters
    ----------
    hands
        From `of_phantom`.
    region
        One of `boneage.data.phantom_anatomy.REGIONS`; None moves all four.

    Returns
    -------
    Hands
        Whose regions are where they were or are now: a bone that grows leaves its old outline.
    """
    drawn = []
    for row in hands.table.itertuples():
        maturity = dict.fromkeys(REGIONS if region is None else [region], row.months + MOVED)
        seed = PHANTOM_SEED + int(row.id.split()[1])
        drawn.append(_drawn(row.months, row.male, seed, cache, hands.images.shape[1], maturity))
    both = {name: mask | np.stack([masks[name] for _, masks in drawn]) for name, mask in hands.regions.items()}
    return replace(hands, images=np.stack([image for image, _ in drawn]), regions=both)


def _drawn(
    months: float, male: int, seed: int, cache: Cache, size: int, maturity: dict[str, float] | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    height = max(phantom.MIN_HEIGHT, round(1.5 * cache.size))
    plain = phantom.render(months, male, seed, height)
    _, matrix, (low, high) = FRAMES[cache.frame].to_square(plain.image, cache.size)
    hand = phantom.render(months, male, seed, height, maturity) if maturity else plain
    # In place and grey window of the plain hand: what moved is the bone alone.
    square = np.clip((place(hand.image, matrix, cache.size).astype("float32") - low) / (high - low), 0, 1) * 255
    scale = size / cache.size
    into = np.diag([scale, scale, 1.0]) @ np.vstack([matrix, [0, 0, 1]])
    into[:2, 2] += (scale - 1) / 2  # pixel centres lie at half-integers

    def placed(mask: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(mask.astype("uint8"), into[:2], (size, size), flags=cv2.INTER_NEAREST) > 0

    masks = {name: placed(mask) for name, mask in hand.masks.items()}
    masks |= {"outside": ~masks["hand"], "film": placed(np.ones_like(hand.image))}
    return sample(square.round().astype(np.uint8), size).astype("float32"), masks
