"""How well the hand finder finds: its answers for every radiograph, errors against radiologist-made boxes, doubtful cases."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from tqdm import tqdm

from boneage import style
from boneage.data import hand, sources, splits
from boneage.data.decode import decode_grey, read_bytes
from boneage.data.frame import to_square, whole_frame
from boneage.errors import BoneageError
from boneage.paths import write_csv, write_text

COLUMNS = ("centre_x", "centre_y", "size", "angle", "confidence")
PERCENTILES = (50, 90, 99)
SHOWN = 64  # least sure crops on the page


def evaluate(data: str | Path, bones: pd.DataFrame | None, out: Path) -> pd.DataFrame:
    """Find the hand in every radiograph of a folder.

    Writes `predictions.csv` (`id, centre_x, centre_y, size, angle, confidence`; units in `boneage.data.hand.Hand`),
    `least_sure.png` and, with `bones`, `errors.csv` (see `errors`).

    Returns
    -------
    DataFrame
        The predictions.
    """
    table = sources.find(data).table
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image a core
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(tqdm(pool.map(_find, table["path"]), total=len(table), desc="hands", unit="img"))
    finally:
        cv2.setNumThreads(threads)
    predictions = pd.concat([table[["id"]], pd.DataFrame(found, columns=list(COLUMNS))], axis=1)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "predictions.csv", predictions)
    if bones is not None:
        write_csv(out / "errors.csv", errors(predictions, bones, table))
    style.save(least_sure(predictions, table), out / "least_sure.png")
    return predictions


def _find(path: str) -> tuple:
    try:
        found = hand.find(decode_grey(read_bytes(path)))
    except BoneageError:
        return (np.nan,) * 4 + (0.0,)
    return tuple(getattr(found, name) for name in COLUMNS)


def errors(predictions: pd.DataFrame, bones: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Errors against boxes: one row a set and quantity, percentiles over its images, the lower the better.

    Parameters
    ----------
    predictions
        `id` and the columns of a hand.
    bones
        `id, region, xmin, ymin, xmax, ymax`, from radiologists.
    table
        `id, path` and labels of the images, for their sizes and their split.

    Returns
    -------
    DataFrame
        `set, images, quantity, p50, p90, p99`. Centre and size in percent of the true size, angle in degrees.
    """
    paths = table.set_index("id")["path"]
    rows = []
    sides = splits.split(table).set_index("id")["set"]
    predicted = predictions.set_index("id")
    for name, boxes in bones.groupby("id"):
        if name not in paths or len(boxes) < hand.BONES - 1:
            continue
        height, width = decode_grey(read_bytes(paths[name])).shape
        truth, found = hand.from_bones(boxes, height, width), predicted.loc[name]
        off = np.hypot(found.centre_x - truth.centre_x, found.centre_y - truth.centre_y)
        turn = abs((found.angle - truth.angle + 180) % 360 - 180)
        rows.append((sides[name], 100 * off / truth.size, 100 * abs(found["size"] / truth.size - 1), turn))
    if not rows:
        raise BoneageError("no image of the data has boxes of its hand's bones")
    quantities = ["centre, % of size", "size, %", "angle, degrees"]
    each = pd.DataFrame(rows, columns=["set", *quantities])
    out = []
    for name in (s for s in splits.SETS if s in set(each["set"])):
        part = each[each["set"] == name]
        for quantity in quantities:
            out.append((name, len(part), quantity, *np.percentile(part[quantity], PERCENTILES)))
    return pd.DataFrame(out, columns=["set", "images", "quantity", *(f"p{p}" for p in PERCENTILES)])


def least_sure(predictions: pd.DataFrame, table: pd.DataFrame, size: int = 128):
    """A page of the doubtful crops as the models see them, least sure first; a red frame marks a kept whole frame."""
    worst = predictions.sort_values("confidence").head(SHOWN)
    paths = table.set_index("id")["path"]
    side = int(np.ceil(np.sqrt(len(worst))))
    figure, axes = style.new_figure(9, 9.6, nrows=side, ncols=side, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, worst.itertuples(), strict=False):
        grey = decode_grey(read_bytes(paths[row.id]))
        sure = row.confidence >= hand.MIN_CONFIDENCE
        found = hand.Hand(*(getattr(row, name) for name in COLUMNS))
        matrix = hand.upright(found, *grey.shape, size) if sure else whole_frame(grey, size)
        axis.imshow(to_square(grey, size, lambda *_, m=matrix: m)[0], cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{row.confidence:.2f}", fontsize=8, pad=1, color="black" if sure else "#B00020")
        if not sure:
            axis.add_patch(Rectangle((0, 0), size - 1, size - 1, fill=False, edgecolor="#B00020", linewidth=2))
    kept = int((predictions["confidence"] < hand.MIN_CONFIDENCE).sum())
    figure.suptitle(
        f"The {len(worst)} least sure of {len(predictions):,} radiographs, with the finder's confidence; "
        f"{kept} stay whole frames (red)",
        fontsize=11,
    )
    return figure
