"""BatchNorm and swish in one operation each: on TensorFlow, Keras composes BatchNorm of a dozen, and the gradient of
swish takes six; both cost a CPU a good part of each step.

For training only. What is saved is a model of plain Keras layers, with the same weights in the same order.
"""

from functools import cache

import keras
from keras import layers


class FusedBatchNormalization(layers.BatchNormalization):
    """The Keras layer over channels last, its training step by TensorFlow's `FusedBatchNormV3`.

    Keras's moving variance is that of the batch; the operation's is the unbiased estimate, n / (n - 1) times as large.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        scale = self.gamma if self.scale else tf.ones(inputs.shape[-1:])
        offset = self.beta if self.center else tf.zeros(inputs.shape[-1:])
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(inputs, scale, offset, epsilon=self.epsilon)
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], "float32")
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


class FusedSwish(layers.Activation):
    """x sigmoid(x) (Ramachandran, Zoph, Le 2017), value and gradient each compiled by XLA into one pass."""

    def call(self, inputs, training=None):
        return _swish()(inputs) if training else super().call(inputs)


@cache
def _swish():
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def value(x):
        return x * tf.sigmoid(x)

    @tf.function(jit_compile=True)
    def gradient(x, upstream):
        s = tf.sigmoid(x)
        return upstream * (s + x * s * (1 - s))

    @tf.custom_gradient
    def swish(x):
        return value(x), lambda upstream: gradient(x, upstream)

    return swish


def fused(layer: layers.Layer) -> layers.Layer:
    """A layer's copy, for `clone_model`; on TensorFlow, BatchNorm of feature maps and swish become fused ones."""
    kind = type(layer)
    if keras.backend.backend() == "tensorflow":
        if kind is layers.BatchNormalization and _fits(layer):
            kind = FusedBatchNormalization
        if kind is layers.Activation and layer.activation is keras.activations.silu:
            kind = FusedSwish
    return kind.from_config(layer.get_config())


def _fits(layer: layers.BatchNormalization) -> bool:
    rank = len(layer.output.shape)
    return rank == 4 and layer.axis in (-1, 3) and not getattr(layer, "renorm", False)
