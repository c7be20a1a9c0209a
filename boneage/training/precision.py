"""Mixed precision where the hardware gains from it, found out by timing, in a few seconds.

Three ways to compute a training step; weights, BatchNorm and the head are float32 in all of them:

`float32`
    everything in single precision.
`mixed_bfloat16`
    Keras's policy of that name: every layer of the backbone in bfloat16. For GPUs.
`dense_bfloat16`
    convolutions that mix channels in bfloat16, depthwise ones and everything between in float32. For CPUs, whose
    matrix products are twice as fast in bfloat16 and whose depthwise convolutions are slower.
"""

import time
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

from boneage.config import TrainConfig
from boneage.models.backbones import get
from boneage.models.weights import assign
from boneage.training.fused import fused

GAIN = 1.2  # bfloat16 must be this much faster to be worth its rounding
HOPELESS = 2  # times single precision's time: a step that slow needs no repetition


class _DenseInHalf(layers.SeparableConv2D):
    """Depthwise part in float32, pointwise part in bfloat16; a layer's policy could only rule both."""

    def call(self, inputs):
        spatial = (self.strides, self.padding, self.data_format, self.dilation_rate)
        x = ops.cast(ops.depthwise_conv(inputs, self.depthwise_kernel, *spatial), "bfloat16")
        x = ops.conv(x, ops.cast(self.pointwise_kernel, "bfloat16"), data_format=self.data_format)
        x = ops.cast(x, self.compute_dtype)
        return self.activation(x + self.bias if self.use_bias else x)


def build_under(precision: str, make: Callable[[], keras.Model]) -> keras.Model:
    """The model that `make` builds, computing as `precision` says, with fused layers; the same weights in one order."""
    dense = precision == "dense_bfloat16"
    keras.config.set_dtype_policy("float32" if dense else precision)
    try:
        plain = make()
        model = keras.models.clone_model(plain, clone_function=_dense_in_half if dense else fused)
    finally:
        keras.config.set_dtype_policy("float32")
    assign(model, model.weights, [np.array(ops.convert_to_numpy(weight)) for weight in plain.weights])
    return model


def choose(config: TrainConfig) -> str:
    """How to train: `config.precision`, or for "auto" what is fastest on this machine for the backbone's kind."""
    if config.precision != "auto":
        return config.precision
    backbone = get(config.backbone).builder(include_top=False, weights=None, input_shape=(None, None, 3))
    kinds = {type(layer) for layer in backbone.layers}
    blocks = _separable if layers.SeparableConv2D in kinds else _inverted if layers.DepthwiseConv2D in kinds else _plain
    single = _seconds("float32", blocks)
    seconds = {p: _seconds(p, blocks, HOPELESS * single) for p in ("mixed_bfloat16", "dense_bfloat16")}
    fastest = min(seconds, key=seconds.get)
    return fastest if single > GAIN * seconds[fastest] else "float32"


def _dense_in_half(layer: layers.Layer) -> layers.Layer:
    if isinstance(layer, layers.SeparableConv2D):
        return _DenseInHalf.from_config(layer.get_config())
    made = fused(layer)
    if type(layer) is layers.Conv2D:
        made.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    return made


def _plain() -> list[layers.Layer]:
    """The convolutions of a bottleneck, as in ResNet."""
    return [layers.Conv2D(96, 1), layers.Conv2D(96, 3, padding="same"), layers.Conv2D(32, 1)]


def _inverted() -> list[layers.Layer]:
    """Of an inverted bottleneck, as in EfficientNet."""
    return [layers.Conv2D(192, 1), layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(32, 1)]


def _separable() -> list[layers.Layer]:
    """Of wide separable ones, as in Xception."""
    return [layers.SeparableConv2D(256, 3, padding="same") for _ in range(3)]


def _seconds(precision: str, convolutions: Callable[[], list[layers.Layer]], hopeless: float = np.inf) -> float:
    """Time of a training step of a block that a backbone of this kind spends its time in, best of five; of fewer when
    one takes longer than is `hopeless`."""

    def block():
        model = keras.Sequential([keras.Input((32, 32, 32))])
        for layer in convolutions():
            model.add(layer)
            model.add(layers.BatchNormalization())
            model.add(layers.Activation("relu"))
        model.add(layers.GlobalAveragePooling2D(dtype="float32"))
        return model

    model = build_under(precision, block)
    model.compile("sgd", "mse")
    x, y = np.zeros((32, 32, 32, 32), "float32"), np.zeros((32, model.output_shape[-1]), "float32")
    times = []
    for _ in range(6):
        start = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(time.perf_counter() - start)
        if len(times) > 1 and times[-1] > hopeless:
            break
    return min(times[1:])
