"""The phantom: synthetic left-hand PA radiographs of known bone age, sex and anatomy; drawings, not patients.

They let the job, the tests and the notebooks run anywhere, and give Grad-CAM a truth to be checked against. A hand is
drawn as summed attenuation (soft tissue, trabecular bone, cortex) and then exposed through a detector curve. Only
ossification tells the age: size, posture, rotation, exposure, noise, collimation and marker are drawn from the seed
alone. The ages at which centres appear, grow and fuse, and their sources, stand in `phantom_anatomy`.

Pictures are the same bytes on every machine: fixed-point outlines, elementwise arithmetic, integer blurs, and rounding
before every look-up.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.data import phantom_anatomy as anatomy
from boneage.data import phantom_drawing as drawing
from boneage.data.sources import PHANTOM_MARK
from boneage.errors import BoneageError
from boneage.labels import MAX_MONTHS, MONTHS_PER_YEAR
from boneage.paths import atomic, write_csv, write_text

ASPECT = 304 / 384  # width of the film for a height of 1
MIN_HEIGHT, MAX_HEIGHT = 96, 2048  # px
AGE_RANGE = (12, 216)  # months, of a data set
TIMING_SPREAD = 0.02  # standard deviation of one centre's own age, as a share of the hand's
TRAIN, TEST = "boneage-training-dataset", "boneage-test-dataset"

_UNIT = 2000  # integer steps for an attenuation of 1


@dataclass(frozen=True)
class PhantomHand:
    """One synthetic radiograph and its truth.

    Attributes
    ----------
    image
        (H, W) uint8, bright bone on dark.
    months
        Bone age.
    male
        1 male, 0 female.
    masks
        (H, W) bool each: the four regions of `phantom_anatomy.REGIONS` (an epiphysis takes its growth plate along, and
        keeps its place after fusion), "ossification" (their union and the sesamoid), "hand" (within the skin),
        "marker" (the lead letter, if any) and "border" (what the shutters cover, if any).
    """

    image: np.ndarray
    months: float
    male: int
    masks: dict[str, np.ndarray]


def render(
    months: float, male: int, seed: int, height: int = 384, maturity: dict[str, float] | None = None
) -> PhantomHand:
    """Draw one radiograph.

    Parameters
    ----------
    months
        Bone age, above 0 and at most 240 months.
    male
        1 or 0.
    seed
        Chooses everything that is not bone age: posture, size, exposure, noise, borders, marker.
    height
        Of the picture in pixels; the width is 304/384 of it.
    maturity
        Bone ages in months for single regions of `phantom_anatomy.REGIONS`, in place of `months`; all else, the noise
        included, stays as it is.

    Raises
    ------
    BoneageError
        Age, sex, seed, height or a region's name out of range.
    """
    maturity = dict(maturity or {})
    _check(months, male, seed, height, maturity)
    # One stream for each cause, so that no choice of one disturbs the draws of another.
    pose, timing, exposure, grain = (np.random.default_rng([seed, k]) for k in range(4))
    shape = height, round(height * ASPECT)
    placed = anatomy.place(pose)
    film = _fit(placed, pose, shape)
    canvas = drawing.Canvas(film, young=max(0.0, 1 - months / (192 if male else 168)))
    for name, centre in anatomy.CENTRES.items():
        own = 1 + TIMING_SPREAD * float(np.clip(timing.standard_normal(), -2, 2))
        stage = anatomy.stage(name, maturity.get(centre.region, months) * own, male)
        if name in anatomy.TUBES:
            canvas.long_bone(name, placed[name], stage)
        elif stage.present:
            canvas.nodule(centre.region, drawing.outline_of(name, placed), stage.grown)
    outline = drawing.skin(film, placed, plump=pose.uniform(0.94, 1.10))
    masks = {name: drawing.halve(region.astype(np.uint8)) >= 2 for name, region in canvas.regions.items()}
    hand = drawing.halve(outline) >= 2
    border, border_grey = _collimate(exposure, hand)
    marker = _marker(exposure, hand | border)
    attenuation = drawing.soft_tissue(film, outline) + canvas.bone_on_film(grain)
    image = _expose(attenuation, marker, exposure, grain)
    if border_grey is not None:
        image[border] = border_grey
    ossification = np.logical_or.reduce(list(masks.values()))
    del masks["sesamoid"]
    masks |= {"ossification": ossification, "hand": hand & ~border, "marker": marker, "border": border}
    for name in (*anatomy.REGIONS, "ossification"):
        masks[name] &= masks["hand"]
    return PhantomHand(image, float(months), int(male), masks)


def _check(months: float, male: int, seed: int, height: int, maturity: dict[str, float]) -> None:
    for age in (months, *maturity.values()):
        if not 0 < age <= MAX_MONTHS:
            raise BoneageError(f"bone age must be above 0 and at most {MAX_MONTHS} months. Received: {age!r}")
    if male not in (0, 1):
        raise BoneageError(f"male must be 1 or 0. Received: {male!r}")
    if seed < 0:
        raise BoneageError(f"seed must not be negative. Received: {seed!r}")
    if not MIN_HEIGHT <= height <= MAX_HEIGHT:
        raise BoneageError(f"height must be {MIN_HEIGHT} to {MAX_HEIGHT} pixels. Received: {height!r}")
    unknown = sorted(set(maturity) - set(anatomy.REGIONS))
    if unknown:
        raise BoneageError(f"maturity knows the regions {', '.join(anatomy.REGIONS)}. Received: {', '.join(unknown)}")


def _fit(placed: dict[str, anatomy.Placed], rng: np.random.Generator, shape: tuple[int, int]) -> drawing.Film:
    """Turn the hand a little and let it fill most of a film of (height, width) px."""
    turn = rng.uniform(-11, 11)
    sine, cosine = anatomy.towards(turn)
    wrist = -24 - rng.uniform(20, 45)  # mm, how much forearm the picture shows
    points = [p for chain in drawing.joints(placed).values() for p in chain] + [(-34, wrist), (34, wrist)]
    x, y = np.array(points).T
    x, y = cosine * x + sine * y, sine * x - cosine * y  # downwards, as rows count
    flesh = 13  # mm around every joint
    box = np.array([x.max() - x.min() + 2 * flesh, y.max() - y.min() + flesh])
    room = np.array([shape[1], shape[0]])
    scale = rng.uniform(0.84, 0.98) * (room / box).min()
    slack = room - box * scale
    left, top = slack * rng.uniform(0.1, 0.9, 2)
    offset = left + (flesh - x.min()) * scale, top + (flesh - y.min()) * scale
    to_px = np.array([[cosine * scale, sine * scale, offset[0]], [sine * scale, -cosine * scale, offset[1]]])
    fine = drawing.FINER
    return drawing.Film(to_px * fine, scale * fine, (shape[0] * fine, shape[1] * fine))


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    sine, cosine = anatomy.towards(degrees)
    x, y = points.T
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], 1)  # no matrix product: BLAS rounds by machine


def _collimate(rng: np.random.Generator, hand: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Shutters about the hand, (H, W) bool, and their grey; half of the pictures have none."""
    kind, grey, turn = rng.uniform(), int(rng.integers(40, 130)), rng.uniform(-4, 4)
    margins = rng.uniform(0.015, 0.12, 4)
    height, width = hand.shape
    border = np.zeros(hand.shape, np.uint8)
    if kind < 0.5:
        return border.astype(bool), None
    rows, columns = np.flatnonzero(hand.any(1)), np.flatnonzero(hand.any(0))
    left, right = columns[0] - margins[0] * width, columns[-1] + margins[1] * width
    # The lower shutter may cut the forearm, as it often does; no other touches the hand.
    top, bottom = rows[0] - margins[2] * height, height - (margins[3] - 0.06) * height
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - middle
    # Wider by what the turn takes away, so that no shutter cuts into the fingers.
    corners += np.sign(corners) * abs(anatomy.towards(turn)[0]) * np.array([bottom - top, right - left]) / 2
    corners = _turned(corners, turn) + middle
    cv2.fillPoly(border, [np.rint(corners * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return border == 0, 0 if kind < 0.8 else 255 if kind < 0.9 else grey


def _marker(rng: np.random.Generator, taken: np.ndarray) -> np.ndarray:
    """Lead letter L where it covers neither hand nor shutter, (H, W) bool; all False in half of the pictures."""
    height, width = taken.shape
    wanted, size, turn = rng.uniform() < 0.55, rng.uniform(0.032, 0.05) * height, rng.uniform(-12, 12)
    letter = np.array([(-0.5, -0.8), (-0.2, -0.8), (-0.2, 0.5), (0.5, 0.5), (0.5, 0.8), (-0.5, 0.8)])
    letter = _turned(letter * size, turn)
    for x, y, right, low in rng.uniform(0, 1, (16, 4)):
        centre = np.array([0.07 + 0.14 * x, 0.07 + 0.16 * y])
        centre = np.where([right > 0.5, low > 0.7], 1 - centre, centre) * (width, height)
        marker = np.zeros(taken.shape, np.uint8)
        cv2.fillPoly(marker, [np.rint((letter * 1.3 + centre) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        if wanted and not taken[marker > 0].any():
            marker[:] = 0
            cv2.fillPoly(marker, [np.rint((letter + centre) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
            return marker > 0
    return np.zeros(taken.shape, bool)


def _expose(
    attenuation: np.ndarray, marker: np.ndarray, rng: np.random.Generator, grain: np.random.Generator
) -> np.ndarray:
    """Detector: blur, quantum noise and tone curve turn attenuation (H, W) into uint8 with bright bone."""
    height, width = attenuation.shape
    gain, gamma, white = rng.uniform(0.6, 1.6), rng.uniform(0.8, 1.4), rng.uniform(1.5, 2.4)
    fog, noise, sharpness = 45 * rng.uniform() ** 2, rng.uniform(0.006, 0.026), rng.uniform(0.35, 0.8)
    heel = rng.uniform(-0.05, 0.05, 2)  # uneven beam
    slope = heel[0] * (np.arange(height) / height - 0.5)[:, None] + heel[1] * (np.arange(width) / width - 0.5)
    total = attenuation * (1 + slope) + 3.0 * marker
    steps = np.rint(np.clip(total * _UNIT, 0, 65535)).astype(np.uint16)
    sigma = sharpness * height / 384
    size = 2 * int(np.ceil(3 * sigma)) + 1
    steps = cv2.GaussianBlur(steps, (size, size), sigma).astype(np.int32)
    levels = np.arange(65536) / _UNIT
    # Fewer photons arrive behind denser tissue.
    sd = (noise * np.exp(np.minimum(levels, 3) * 0.5) * _UNIT).astype(np.float32)
    steps += np.rint(grain.standard_normal(steps.shape, np.float32) * sd[steps]).astype(np.int32)
    tone = np.clip((1 - np.exp(-gain * levels)) / (1 - np.exp(-gain * white)), 0, 1) ** gamma
    return np.rint(fog + (255 - fog) * tone).astype(np.uint8)[np.clip(steps, 0, 65535)]


def make_dataset(folder: Path, n: int, seed: int = 0, height: int = 384, with_test: int = 0) -> Path:
    """Write a phantom data set in the layout of the Kaggle copy of RSNA.

    Ages are whole months, uniform over 12..216; even ids are girls, odd ids boys. Files that exist are kept, so that an
    interrupted call goes on where it stopped and a second one changes nothing.

    Parameters
    ----------
    folder
        Where the tables, images and `PHANTOM.json` go. That mark makes everything downstream call its results phantom.
    n, with_test
        Images with a bone age (ids 1..n) and without one (the ids that follow).

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    BoneageError
        `n` below 1, `with_test` below 0, or a folder that holds other data.
    """
    if n < 1:
        raise BoneageError(f"a data set needs at least 1 image. Received: n={n!r}")
    if with_test < 0:
        raise BoneageError(f"with_test must not be negative. Received: {with_test!r}")
    _check(1, 0, seed, height, {})
    folder = Path(folder)
    note = {
        "phantom": True,
        "n": int(n),
        "seed": int(seed),
        "height": int(height),
        "with_test": int(with_test),
        "note": "Synthetic drawings, not patients.",
    }
    mark = folder / PHANTOM_MARK
    if mark.exists():
        found = json.loads(mark.read_text())
        if found != note:
            raise BoneageError(f"{folder} holds another phantom ({found}); choose an empty folder. Wanted: {note}")
    elif folder.is_dir() and any(folder.iterdir()):
        raise BoneageError(f"{folder} is not empty and holds no phantom; choose an empty folder")
    write_text(mark, json.dumps(note, indent=1) + "\n")  # first: no unmarked picture may ever lie in the folder

    jobs, rows = [], []
    for i in range(1, n + with_test + 1):
        rng = np.random.default_rng([seed, i])
        months, male, own_seed = int(rng.integers(AGE_RANGE[0], AGE_RANGE[1] + 1)), i % 2, int(rng.integers(2**31))
        subset = TRAIN if i <= n else TEST
        rows.append((subset, i, months, male))
        path = folder / subset / subset / f"{i}.png"
        if not path.exists():
            jobs.append((path, months, male, own_seed, height))
    table = pd.DataFrame(rows, columns=["subset", "id", "boneage", "male"])
    train, test = table[table["subset"] == TRAIN], table[table["subset"] == TEST]
    write_csv(folder / f"{TRAIN}.csv", train[["id", "boneage"]].assign(male=train["male"] == 1))
    if with_test:
        sex = test["male"].map({0: "F", 1: "M"})
        write_csv(folder / f"{TEST}.csv", pd.DataFrame({"Case ID": test["id"], "Sex": sex}))
    # Threads, not processes: numpy and OpenCV let go of the interpreter, and a process pool would run a caller's
    # unguarded script a second time.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for _ in tqdm(pool.map(_write_image, jobs), total=len(jobs), desc="phantom", unit="image", disable=not jobs):
            pass
    return folder


def _write_image(job: tuple[Path, int, int, int, int]) -> None:
    path, months, male, seed, height = job
    with atomic(path) as part:
        part.write_bytes(cv2.imencode(".png", render(months, male, seed, height).image)[1].tobytes())


def gallery(ages_years: Sequence[float] = (2, 6, 10, 14, 18), seed: int = 7):
    """Figure of one hand at several ages in years: girls above, boys below; the posture and exposure stay."""
    from matplotlib.figure import Figure  # the job draws phantoms without matplotlib

    figure = Figure(figsize=(1.8 * len(ages_years), 5.1), layout="constrained")
    figure.suptitle("Synthetic phantom, not patients")
    axes = figure.subplots(2, len(ages_years), squeeze=False)
    for male, row in enumerate(axes):
        for years, ax in zip(ages_years, row, strict=True):
            ax.imshow(render(years * MONTHS_PER_YEAR, male, seed).image, cmap="gray", vmin=0, vmax=255)
            ax.set_title(f"{'boy' if male else 'girl'}, {years:g} years", fontsize=9)
            ax.set_axis_off()
    return figure
