"""Mixed precision where the hardware gains from it, found out by timing, in a few seconds."""

import time

import keras
import numpy as np
from keras import layers

from boneage.config import TrainConfig
from boneage.models.backbones import get

GAIN = 1.2  # bfloat16 must be this much faster to be worth its rounding


def choose(config: TrainConfig) -> str:
    """The dtype policy to train under: `config.precision`, or for "auto" the faster one on this machine."""
    if config.precision != "auto":
        return config.precision
    backbone = get(config.backbone).builder(include_top=False, weights=None, input_shape=(None, None, 3))
    kinds = (layers.DepthwiseConv2D, layers.SeparableConv2D)
    depthwise = any(isinstance(layer, kinds) for layer in backbone.layers)
    return (
        "mixed_bfloat16" if _seconds("float32", depthwise) > GAIN * _seconds("mixed_bfloat16", depthwise) else "float32"
    )


def _seconds(policy: str, depthwise: bool) -> float:
    """Time of a training step of the block that such a backbone spends its time in, best of five."""

    def convolution(filters, size):
        return layers.Conv2D(filters, size, padding="same", use_bias=False, dtype=policy)

    spatial = (
        layers.DepthwiseConv2D(3, padding="same", use_bias=False, dtype=policy) if depthwise else convolution(96, 3)
    )
    model = keras.Sequential([keras.Input((32, 32, 32))])
    for layer in (convolution(192 if depthwise else 96, 1), spatial, convolution(32, 1)):
        model.add(layer)
        model.add(layers.BatchNormalization(dtype=policy))
        model.add(layers.Activation("relu", dtype=policy))
    model.add(layers.GlobalAveragePooling2D(dtype="float32"))
    model.compile("sgd", "mse")
    x, y = np.zeros((32, 32, 32, 32), "float32"), np.zeros((32, 32), "float32")
    times = []
    for _ in range(6):
        start = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(time.perf_counter() - start)
    return min(times[1:])
