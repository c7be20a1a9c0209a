"""How well the hand finder finds: answers for every radiograph, errors against radiologists' boxes, doubtful cases."""

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
QUANTITIES = ("centre, % of size", "size, %", "angle, degrees")
PERCENTILES = (50, 90, 99)
CARD = Path(__file__).with_name("hand_finder_card.md")
KNUCKLE, FOREARM, BONE = "#E69F00", "#009E73", "#56B4E9"  # Okabe & Ito
SHOWN = 64  # least sure crops on the page


def evaluate(data: str | Path, bones: pd.DataFrame | None, out: Path) -> pd.DataFrame:
    """Find the hand in every radiograph of a folder.

    Writes `predictions.csv` (`id, centre_x, centre_y, size, angle, confidence`; units in `boneage.data.hand.Hand`),
    `least_sure.png` and, with `bones`, `errors.csv`, `disagreements.png` and `MODEL_CARD.md`.

    Parameters
    ----------
    bones
        `id, region, xmin, ymin, xmax, ymax` of radiologist-made boxes; None: there is nothing to compare with.

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
    style.save(least_sure(predictions, table), out / "least_sure.png", palette=True)
    if bones is not None:
        each = errors(predictions, bones, table)
        summary = percentiles(each)
        write_csv(out / "errors.csv", summary)
        style.save(disagreements(each, predictions, bones, table), out / "disagreements.png", palette=True)
        write_text(out / "MODEL_CARD.md", card(summary, len(predictions)))
    return predictions


def _find(path: str) -> tuple:
    try:
        found = hand.find(decode_grey(read_bytes(path)))
    except BoneageError:
        return (np.nan,) * 4 + (0.0,)
    return tuple(getattr(found, name) for name in COLUMNS)


def errors(predictions: pd.DataFrame, bones: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Errors against boxes, one row an image.

    Parameters
    ----------
    predictions
        `id` and the columns of a hand.
    table
        `id, path` and labels of the images, for their sizes and their split.

    Returns
    -------
    DataFrame
        `id`, `set`, and the errors of `QUANTITIES`: centre and size in percent of the true size, angle in degrees.
    """
    paths, sides = table.set_index("id")["path"], splits.split(table).set_index("id")["set"]
    predicted, rows = predictions.set_index("id"), []
    for name, boxes in bones.groupby("id"):
        if name not in paths or len(boxes) < hand.BONES - 1:
            continue
        truth, found = hand.from_bones(boxes, *decode_grey(read_bytes(paths[name])).shape), predicted.loc[name]
        off = np.hypot(found["centre_x"] - truth.centre_x, found["centre_y"] - truth.centre_y) / truth.size
        turn = abs((found["angle"] - truth.angle + 180) % 360 - 180)
        rows.append((name, sides[name], 100 * off, 100 * abs(found["size"] / truth.size - 1), turn))
    if not rows:
        raise BoneageError("no image of the data has boxes of its hand's bones")
    return pd.DataFrame(rows, columns=["id", "set", *QUANTITIES])


def percentiles(each: pd.DataFrame) -> pd.DataFrame:
    """`set, images, quantity, p50, p90, p99` of errors, the lower the better."""
    rows = [
        (name, len(part), quantity, *np.percentile(part[quantity], PERCENTILES))
        for name in splits.SETS
        if len(part := each[each["set"] == name])
        for quantity in QUANTITIES
    ]
    return pd.DataFrame(rows, columns=["set", "images", "quantity", *(f"p{p}" for p in PERCENTILES)])


def card(summary: pd.DataFrame, images: int) -> str:
    """The model card, from `percentiles`, in Markdown."""
    heads = ["set", "images", "error", *(f"{p} %" for p in PERCENTILES)]
    rows = [
        [r.set, str(r.images), r.quantity, *(f"{v:.1f}" for v in (r.p50, r.p90, r.p99))] for r in summary.itertuples()
    ]
    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    return CARD.read_text(encoding="utf-8").format(errors="\n".join(lines), images=images)


def disagreements(each: pd.DataFrame, predictions: pd.DataFrame, bones: pd.DataFrame, table: pd.DataFrame, n: int = 8):
    """The hands whose angle is farthest from what their boxes say: who is wrong, the finder or the boxes?"""
    worst, paths = each.nlargest(n, "angle, degrees"), table.set_index("id")["path"]
    predicted = predictions.set_index("id")
    figure, axes = style.new_figure(9, 5.4, nrows=2, ncols=-(-n // 2), squeeze=False)
    for axis, (name, turn) in zip(axes.flat, worst[["id", "angle, degrees"]].itertuples(index=False), strict=False):
        grey = decode_grey(read_bytes(paths[name]))
        height, width = grey.shape
        axis.imshow(grey, cmap="gray", vmin=0, vmax=np.percentile(grey, 99))
        for box in bones[bones["id"] == name].itertuples():
            colour = KNUCKLE if box.region.startswith("MCP") else FOREARM if box.region in hand.FOREARM else BONE
            corner, size = (box.xmin * width, box.ymin * height), (box.xmax - box.xmin, box.ymax - box.ymin)
            axis.add_patch(Rectangle(corner, size[0] * width, size[1] * height, fill=False, edgecolor=colour))
        found = hand.Hand(*(predicted.loc[name, column] for column in COLUMNS))
        back = cv2.invertAffineTransform(hand.upright(found, height, width, 100, margin=1.0))
        edge = back @ np.array([[0, 0, 1], [99, 0, 1], [99, 99, 1], [0, 99, 1], [0, 0, 1.0]]).T
        axis.plot(*edge, color="white", linewidth=1)
        axis.plot(*edge[:, :2], color="white", linewidth=3)  # the fingers' side
        axis.set(xlim=(0, width), ylim=(height, 0), title=f"{turn:.0f}° apart")
        axis.set_axis_off()
    figure.suptitle(
        "White: the hand as found, thick on the fingers' side. Radiologists' boxes: MCP orange, radius and ulna green",
        fontsize=11,
    )
    return figure


def least_sure(predictions: pd.DataFrame, table: pd.DataFrame, size: int = 128):
    """A page of the doubtful crops as the models see them, least sure first; a red frame marks a kept whole frame."""
    worst = predictions.sort_values("confidence").head(SHOWN)
    paths = table.set_index("id")["path"]
    side = int(np.ceil(np.sqrt(len(worst))))
    figure, axes = style.new_figure(8, 8.6, nrows=side, ncols=side, squeeze=False)
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
