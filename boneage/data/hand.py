"""Where the hand lies in a radiograph: a small network that `cv2.dnn` runs, and the upright crop made from it.

The network (weights beside this file; trained by `boneage.training.hand_finder`) looks two times: at the whole frame,
then at the upright crop that its first answer gives, each with its mirror image.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from boneage.data.frame import to_square, whole_frame

if TYPE_CHECKING:  # what answers a radiograph does without pandas
    import pandas as pd

WEIGHTS = Path(__file__).with_name("hand_finder.onnx")
INPUT = 128  # pixels a side of what the network looks at
LOOK_MARGIN = 1.4  # side of the second look, in sizes of the hand
CROP_MARGIN = 1.2  # side of the crop that the models see, in sizes of the hand
BONES = 21
FOREARM = ("Radius", "Ulna")
MIN_CONFIDENCE = 0.9  # below it the whole frame is kept

_local = threading.local()  # a cv2 network holds its activations: one a thread


@dataclass(frozen=True)
class Hand:
    """A hand's place, in units of the image's longer side, from the image's top left corner.

    `size` is the longer side of the bounding box of the 21 bones of `hand-bones.csv` (phalanges, MCP, radius, ulna)
    with its sides along and across the hand, `centre_x` and `centre_y` its centre. `angle` is the direction from the
    middle of radius and ulna to the middle of the MCP joints, in degrees clockwise from up. `confidence` is 0..1.
    """

    centre_x: float
    centre_y: float
    size: float
    angle: float
    confidence: float = 1.0

    @property
    def sure(self) -> bool:
        return self.confidence >= MIN_CONFIDENCE


def from_bones(boxes: "pd.DataFrame", height: int, width: int) -> Hand:
    """The hand that radiologist-made boxes enclose.

    Parameters
    ----------
    boxes
        Of one image: `region`, and `xmin, ymin, xmax, ymax` as fractions of the image's width and height.
    height, width
        Of that image, in pixels.
    """
    unit = np.array([width, height]) / max(height, width)
    low, high = boxes[["xmin", "ymin"]].to_numpy() * unit, boxes[["xmax", "ymax"]].to_numpy() * unit
    middle = (low + high) / 2
    wrist = boxes["region"].isin(FOREARM).to_numpy()
    knuckles = boxes["region"].str.startswith("MCP").to_numpy()
    along = middle[knuckles].mean(0) - middle[wrist].mean(0)
    along /= np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    corners = np.concatenate([low, high, np.c_[low[:, 0], high[:, 1]], np.c_[high[:, 0], low[:, 1]]])
    turned = corners @ np.stack([across, along], 1)
    first, last = turned.min(0), turned.max(0)
    centre = (first + last) / 2 @ np.stack([across, along])
    return Hand(*centre.tolist(), float((last - first).max()), float(np.rad2deg(np.arctan2(along[0], -along[1]))))


def upright(hand: Hand, height: int, width: int, size: int, margin: float = CROP_MARGIN) -> np.ndarray:
    """The map that turns the hand upright and puts it into the middle of a square.

    Returns
    -------
    array, shape (2, 3), float64
        From pixels of the (height, width) image to pixels of the square of `size` px.
    """
    longer = max(height, width)
    scale = size / (margin * hand.size * longer)
    angle = np.deg2rad(hand.angle)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = np.array([hand.centre_x, hand.centre_y]) * longer - 0.5  # pixel centres lie at half-integers
    return np.c_[turn, (size - 1) / 2 - turn @ centre]


def find(grey: np.ndarray) -> Hand:
    """The hand in a radiograph.

    Parameters
    ----------
    grey
        (H, W) uint8 or uint16, bone bright.

    Returns
    -------
    Hand
        With a low `confidence` where there is none, more than one, or one the network has not learned.

    Raises
    ------
    BoneageError
        For an empty (constant) image.
    """
    first = _look(grey, whole_frame(grey, INPUT))
    second = _look(grey, upright(first, *grey.shape, INPUT, LOOK_MARGIN))
    return Hand(second.centre_x, second.centre_y, second.size, second.angle, min(first.confidence, second.confidence))


def upright_hand(grey: np.ndarray, size: int) -> np.ndarray:
    """A `boneage.data.frame.Locate`: the upright hand, or the whole frame where the finder is not sure."""
    hand = find(grey)
    return upright(hand, *grey.shape, size) if hand.sure else whole_frame(grey, size)


def decode(answer: np.ndarray) -> Hand:
    """The network's numbers as a hand in its (unit) square.

    Parameters
    ----------
    answer
        (5,): centre x and y minus a half, log2 of twice the size, sine and cosine of the angle, these two both scaled
        down by doubt: their length is the confidence.
    """
    x, y, size, sine, cosine = (float(v) for v in answer)
    return Hand(
        x + 0.5, y + 0.5, 2 ** (size - 1), float(np.rad2deg(np.arctan2(sine, cosine))), float(np.hypot(sine, cosine))
    )


def encode(hand: Hand) -> np.ndarray:
    """The inverse of `decode`, for a sure hand; (5,) float32."""
    angle = np.deg2rad(hand.angle)
    values = [hand.centre_x - 0.5, hand.centre_y - 0.5, np.log2(hand.size) + 1, np.sin(angle), np.cos(angle)]
    return np.array(values, "float32")


def _look(grey: np.ndarray, matrix: np.ndarray) -> Hand:
    """One look at the image through a map into the network's square; the hand in the image's frame."""
    square, _, _ = to_square(grey, INPUT, lambda *_: matrix)
    net = _network()
    net.setInput(np.stack([square, square[:, ::-1]])[:, None].astype("float32"))
    plain, mirrored = net.forward()
    mirrored = mirrored * (-1, 1, 1, -1, 1)
    hand = decode((plain + mirrored) / 2)
    back = cv2.invertAffineTransform(matrix)
    centre = back @ (hand.centre_x * INPUT - 0.5, hand.centre_y * INPUT - 0.5, 1)
    longer, scale = max(grey.shape), float(np.sqrt(np.linalg.det(back[:, :2])))
    angle = hand.angle + float(np.rad2deg(np.arctan2(back[1, 0], back[0, 0])))
    return Hand(
        *((centre + 0.5) / longer).tolist(),
        float(np.clip(hand.size * INPUT * scale / longer, 0.05, 2.0)),
        (angle + 180) % 360 - 180,
        min(1.0, hand.confidence),
    )


def _network() -> cv2.dnn.Net:
    if not hasattr(_local, "net"):
        _local.net = cv2.dnn.readNetFromONNX(np.frombuffer(weights(), np.uint8))
    return _local.net


@lru_cache(maxsize=1)
def weights() -> bytes:
    """The network's ONNX file."""
    return WEIGHTS.read_bytes()
