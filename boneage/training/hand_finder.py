"""How the hand finder of `boneage.data.hand` is made: from radiologist-made boxes to an ONNX file."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pandas as pd
from keras import layers
from onnx import TensorProto, helper, numpy_helper
from tqdm.keras import TqdmCallback

from boneage.config import Augmentation
from boneage.data import hand, splits
from boneage.data.augment import random_tone
from boneage.data.cache import Cache, open_cache
from boneage.data.frame import to_square
from boneage.data.hand import INPUT, LOOK_MARGIN, Hand
from boneage.errors import BoneageError
from boneage.paths import atomic

FILTERS = (24, 48, 48, 96, 96, 128, 128, 24)
STRIDES = (2, 2, 1, 2, 1, 2, 1, 1)
KERNELS = (5, 3, 3, 3, 3, 3, 3, 1)
DENSE = 128
STEPS, BATCH, LEARNING_RATE = 6000, 32, 2e-3
TONE = Augmentation(brightness=0.15, contrast=0.4, gamma=2.5, equalise=0.15)


def build() -> keras.Model:
    """(B, 128, 128, 1) grey 0..255 -> (B, 5), the numbers of `boneage.data.hand.decode`."""
    image = keras.Input((INPUT, INPUT, 1), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for filters, stride, kernel in zip(FILTERS, STRIDES, KERNELS, strict=True):
        x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
    x = layers.Flatten()(x)  # not pooled: where something lies is the whole question
    x = layers.Dropout(0.2)(x)
    x = layers.Dense(DENSE, "relu")(x)
    return keras.Model(image, layers.Dense(5, dtype="float32")(x), name="hand_finder")


def loss(truth, answer):
    """Mean absolute errors: of the centre in sizes of the hand, of log2 of the size, of sine and cosine."""
    size = keras.ops.exp2(truth[:, 2:3] - 1)
    error = keras.ops.abs(truth - answer)
    return keras.ops.mean(keras.ops.concatenate([error[:, :2] / size, error[:, 2:]], -1), -1)


class Views(keras.utils.PyDataset):
    """Random looks at hands whose place is known: whole frames and crops such as the second look has."""

    def __init__(self, cache: Cache, rows: pd.DataFrame, hands: list[Hand], steps: int, seed: int):
        super().__init__(workers=2, max_queue_size=16)
        self.squares = np.stack([cache.images[row] for row in rows["row"]])
        self.hands, self.steps, self.seed = hands, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int):
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.integers(len(self.hands), size=BATCH)
        views = [_view(rng, self.squares[i], self.hands[i]) for i in chosen]
        return np.stack([v[0] for v in views])[..., None].astype("float32"), np.stack([v[1] for v in views])


def _view(rng: np.random.Generator, square: np.ndarray, truth: Hand) -> tuple[np.ndarray, np.ndarray]:
    n = len(square)
    if rng.random() < 0.25:
        square = _surrounded(rng, square, truth)
    if rng.random() < 0.5:  # a whole frame, its hand anywhere
        turn = rng.normal(0, 12) if rng.random() < 0.75 else rng.uniform(-180, 180)
        wanted = truth.size * np.exp(rng.uniform(-0.45, 0.3))
        centre = np.array([truth.centre_x, truth.centre_y]) + rng.uniform(-0.15, 0.15, 2)
        angle = truth.angle + turn
    else:
        wanted = np.exp(rng.normal(0, 0.1)) / LOOK_MARGIN
        centre = 0.5 + rng.normal(0, 0.05, 2)
        angle = rng.normal(0, 8)
    # The truth turned upright at its wanted size, then turned to its wanted angle and moved to its wanted centre.
    base = np.vstack([hand.upright(truth, n, n, INPUT, 1 / wanted), [0, 0, 1]])
    radians, middle = np.deg2rad(angle), (INPUT - 1) / 2
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    offset = (INPUT * centre - 0.5) - turn @ (middle, middle)
    matrix = (np.vstack([np.c_[turn, offset], [0, 0, 1]]) @ base)[:2]
    try:
        image, _, _ = to_square(square, INPUT, lambda *_: matrix)
    except BoneageError:  # an empty middle
        return _view(rng, square, truth)
    image = random_tone(rng, TONE, image)[image]
    target = hand.encode(Hand(*centre, wanted, angle))
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target * np.array([-1, 1, 1, -1, 1], "float32")
    if rng.random() < 0.3:  # a marker, a label, a piece of metal
        image = image.copy()
        y, x = rng.integers(INPUT, size=2)
        image[y : y + rng.integers(4, 30), x : x + rng.integers(4, 30)] = rng.integers(256)
    return image, target


def _surrounded(rng: np.random.Generator, square: np.ndarray, truth: Hand) -> np.ndarray:
    """The hand behind a bright or dark collimator: everything outside of a rectangle about it is one grey."""
    n = len(square)
    centre = np.array([truth.centre_x, truth.centre_y])
    low = ((centre - truth.size * rng.uniform(0.5, 0.75, 2)) * n).round().astype(int).clip(0, n)
    high = ((centre + truth.size * rng.uniform(0.5, 0.75, 2)) * n).round().astype(int).clip(0, n)
    covered = np.full_like(square, rng.integers(256))
    covered[low[1] : high[1], low[0] : high[0]] = square[low[1] : high[1], low[0] : high[0]]
    return covered


def known_hands(cache: Cache, bones: pd.DataFrame) -> pd.DataFrame:
    """Ids of the cache that have boxes of all 21 bones: `id`, `set` and `hand`, in the frame of the radiograph.

    The cache may hold any frame; the hand is told in the image's own.
    """
    sides = splits.split(cache.index, 0).set_index("id")["set"]
    index = cache.index.set_index("id")
    found = []
    for name, boxes in bones.groupby("id"):
        if len(boxes) >= 20 and name in index.index and name in sides.index:
            row = index.loc[name]
            found.append(
                {"id": name, "set": sides[name], "hand": hand.from_bones(boxes, int(row.height), int(row.width))}
            )
    if not found:
        raise BoneageError("no image of the data has boxes of 21 bones; expected ids of the RSNA training set")
    return pd.DataFrame(found)


def train(data: str | Path, bones: pd.DataFrame, out: Path = hand.WEIGHTS, steps: int = STEPS, seed: int = 0) -> Path:
    """Train on the training side's boxes and write the ONNX file.

    Parameters
    ----------
    data
        A cache of whole frames.
    bones
        From `hand-bones.csv`: `id, region, xmin, ymin, xmax, ymax`.
    """
    cache = open_cache(data)
    if cache.info["frame"] != "whole":
        raise BoneageError(f"the hand finder learns from whole frames; {data} holds frame {cache.info['frame']!r}")
    known = known_hands(cache, bones)
    known = known[known["set"] == "train"]
    rows = cache.rows(known["id"])
    inside = [_in_square(h, int(r.height), int(r.width)) for h, r in zip(known["hand"], rows.itertuples(), strict=True)]
    keras.utils.set_random_seed(seed)
    model = build()
    ramp = max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps - ramp, warmup_target=LEARNING_RATE, warmup_steps=ramp)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.02, global_clipnorm=1.0), loss=loss)
    views = Views(cache, rows, inside, steps, seed)
    model.fit(views, epochs=1, verbose=0, shuffle=False, callbacks=[TqdmCallback(verbose=2)])
    with atomic(out) as part:
        part.write_bytes(to_onnx(model).SerializeToString())
    return out


def _in_square(h: Hand, height: int, width: int) -> Hand:
    """From units of the image to those of its letterboxed square."""
    longer = max(height, width)
    return Hand(
        h.centre_x + (longer - width) / 2 / longer, h.centre_y + (longer - height) / 2 / longer, h.size, h.angle
    )


def to_onnx(model: keras.Model) -> onnx.ModelProto:
    """The trained network for `cv2.dnn`: BatchNorm folded into the convolutions, (B, 1, 128, 128) in, (B, 5) out.

    Written with `onnx.helper`, since five kinds of layers need no converter, and any Keras backend will do.
    """
    nodes, weights, x, side = [], [], "image", INPUT

    def store(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    nodes.append(helper.make_node("Mul", [x, store("scale", np.array(1 / 127.5))], ["scaled"]))
    nodes.append(helper.make_node("Add", ["scaled", store("offset", np.array(-1.0))], ["ranged"]))
    x = "ranged"
    for i, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        gamma, beta, mean, variance = norm.get_weights()
        factor = gamma / np.sqrt(variance + norm.epsilon)
        kernel = convolution.get_weights()[0] * factor
        stride, width = convolution.strides[0], kernel.shape[0]
        total = max(0, (-(-side // stride) - 1) * stride + width - side)  # "same", as Keras pads
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        inputs = [x, store(f"kernel{i}", kernel.transpose(3, 2, 0, 1)), store(f"bias{i}", beta - mean * factor)]
        nodes.append(helper.make_node("Conv", inputs, [f"conv{i}"], strides=[stride, stride], pads=pads))
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"]))
        x, side = f"relu{i}", -(-side // stride)
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    x = "flat"
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    for i, layer in enumerate(dense):
        kernel, bias = layer.get_weights()
        if i == 0:  # Keras flattens (h, w, c), ONNX (c, h, w)
            kernel = kernel.reshape(side, side, -1, kernel.shape[1]).transpose(2, 0, 1, 3).reshape(kernel.shape)
        last = i == len(dense) - 1
        out = "answer" if last else f"dense{i}"
        nodes.append(helper.make_node("Gemm", [x, store(f"W{i}", kernel), store(f"b{i}", bias)], [out]))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"active{i}"]))
            x = f"active{i}"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 1, INPUT, INPUT])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["B", 5])
    graph = helper.make_graph(nodes, "hand_finder", [image], [answer], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
