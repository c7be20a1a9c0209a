"""BatchNorm and swish in one operation are Keras's own: the same answers, gradients and statistics."""

import keras
import numpy as np
import pytest
from conftest import TINY_CONFIG
from keras import layers

from boneage.models.build import build
from boneage.training import precision
from boneage.training.fused import FusedBatchNormalization, FusedSwish, fused

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="an operation of TensorFlow")


def pair(**settings) -> tuple[layers.Layer, layers.Layer]:
    """Keras's layer and its fused copy, with the same weights, unlike those that it starts with."""
    inputs = keras.Input((5, 4, 3))
    plain = layers.BatchNormalization(**settings)
    plain(inputs)
    copy = fused(plain)
    copy.build((None, 5, 4, 3))
    assert type(copy) is FusedBatchNormalization
    values = [np.random.default_rng(i).uniform(0.5, 2, 3).astype("float32") for i in range(len(plain.weights))]
    plain.set_weights(values)
    copy.set_weights(values)
    return plain, copy


@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}, {"momentum": 0.7, "epsilon": 0.1}])
def test_a_training_step_is_that_of_keras(settings):
    x = tf.constant(np.random.default_rng(9).normal(3, 2, (6, 5, 4, 3)).astype("float32"))
    found = []
    for layer in pair(**settings):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y**3)
        found.append([y, *tape.gradient(loss, [x, *layer.trainable_weights]), *layer.weights])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize(("training", "trainable"), [(False, True), (True, False)])
def test_statistics_stand_still_in_inference_and_when_frozen(training, trainable):
    x = np.random.default_rng(9).normal(3, 2, (6, 5, 4, 3)).astype("float32")
    plain, copy = pair()
    plain.trainable = copy.trainable = trainable
    before = copy.get_weights()
    np.testing.assert_allclose(copy(x, training=training), plain(x, training=training), rtol=1e-5)
    assert all((a == b).all() for a, b in zip(before, copy.get_weights(), strict=True))


def test_what_is_no_feature_map_stays_keras_own():
    inputs = keras.Input((7,))
    layer = layers.BatchNormalization()
    layer(inputs)
    assert type(fused(layer)) is layers.BatchNormalization


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_swish_and_its_gradient_are_those_of_keras(dtype):
    plain = layers.Activation("swish", dtype=dtype)
    copy = fused(plain)
    assert type(copy) is FusedSwish
    x = tf.constant([-200.0, -3, -1, -1e-4, 0, 1e-4, 1, 3, 200])
    found = []
    for layer in (copy, plain):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x, training=True) if layer is copy else layer(x), "float32")
            loss = tf.reduce_sum(y**3)
        found.append((y, tape.gradient(loss, x)))
    (ours, our_slope), (theirs, their_slope) = found
    close = {"rtol": 1e-5, "atol": 1e-7} if dtype == "float32" else {"rtol": 0.03, "atol": 1e-3}
    np.testing.assert_allclose(ours, theirs, **close)
    np.testing.assert_allclose(our_slope, their_slope, **close)


def test_other_activations_stay_keras_own():
    assert type(fused(layers.Activation("relu"))) is layers.Activation


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "dense_bfloat16"])
def test_every_batchnorm_of_a_model_in_training_is_fused_and_its_weights_fit_the_plain_one(policy, tiny_backbone):
    def plain():
        return build(TINY_CONFIG, 120.0, 40.0, size=32)

    keras.utils.set_random_seed(0)
    first = plain()
    keras.utils.set_random_seed(0)
    model = precision.build_under(policy, plain)
    assert all((np.array(a) == np.array(b)).all() for a, b in zip(first.weights, model.weights, strict=True))
    kinds = [type(layer) for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    assert kinds == [FusedBatchNormalization] * 3
    assert [(w.path.split("/")[-2:], w.shape) for w in model.weights] == [
        (w.path.split("/")[-2:], w.shape) for w in first.weights
    ]
    inputs = {"image": np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 1)), "sex": np.ones((4, 1))}
    model.compile("sgd", {"months": "mse", "groups": "sparse_categorical_crossentropy"})
    before = np.array(model.get_layer("tiny_1_bn").moving_mean)
    model.train_on_batch(inputs, {"months": np.full((4, 1), 100.0), "groups": np.zeros((4, 1))})
    assert (np.array(model.get_layer("tiny_1_bn").moving_mean) != before).all()
