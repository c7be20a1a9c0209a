"""Compiled calls of a model, the same on every Keras backend: where the three differ, they differ here only."""

from collections.abc import Callable

import keras
import numpy as np


def training_forward(model: keras.Model) -> Callable[[dict], None]:
    """A function that runs a batch forward in training mode, so that BatchNorm statistics move and nothing else does."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda inputs: model(inputs, training=True), reduce_retracing=True)
        return lambda inputs: compiled({k: tf.convert_to_tensor(v) for k, v in inputs.items()})
    if backend == "jax":
        import jax

        @jax.jit
        def step(trainable, fixed, inputs):
            return model.stateless_call(trainable, fixed, inputs, training=True)[1]

        def run(inputs):
            state = [[v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)]
            for variable, value in zip(model.non_trainable_variables, step(*state, inputs), strict=True):
                variable.assign(value)

        return run

    import torch

    def run(inputs):
        with torch.no_grad():
            model({k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}, training=True)

    return run


def predictor(model: keras.Model) -> Callable[[dict], dict]:
    """A function from numpy inputs to numpy outputs in inference mode, compiled once; no `predict` overhead."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    elif backend == "jax":
        import jax

        @jax.jit
        def stateless(trainable, fixed, inputs):
            return model.stateless_call(trainable, fixed, inputs, training=False)[0]

        def compiled(inputs):
            return stateless(*[[v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)], inputs)
    else:
        import torch

        def compiled(inputs):
            with torch.no_grad():
                return model(inputs, training=False)

    def run(inputs):
        tensors = {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}
        return {k: np.asarray(keras.ops.convert_to_numpy(v)) for k, v in compiled(tensors).items()}

    return run
