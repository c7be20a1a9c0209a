"""Compiled calls of a model, the same on every Keras backend, where the three compile in ways of their own."""

from collections.abc import Callable

import keras
import numpy as np


def training_forward(model: keras.Model) -> Callable[[dict], None]:
    """A function that runs a batch forward in training mode: BatchNorm statistics move, no weight does."""
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
            return stateless(
                *[[v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)],
                inputs,
            )
    else:
        import torch

        def compiled(inputs):
            with torch.no_grad():
                return model(inputs, training=False)

    def run(inputs):
        tensors = {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}
        return {k: np.asarray(keras.ops.convert_to_numpy(v)) for k, v in compiled(tensors).items()}

    return run


def score_gradients(first: keras.Model, rest: keras.Model) -> Callable[..., tuple]:
    """A function from inputs to a point inside a network, a score's gradients by it, and outputs; compiled once.

    Parameters
    ----------
    first
        From `image` to the point, say features (B, h, w, C), or the image itself.
    rest
        From there and sex to a dict of outputs, one of which is `scores` (B, n).

    Returns
    -------
    callable
        From `image` (B, H, W, 1), `sex` (B, 1) and a `direction` (n,) to the values at the point and the gradients, of
        one shape, and the dict of outputs; all numpy. An image's score is `scores @ direction`. In inference mode no
        image sees another, so the gradient of the batch's sum holds the gradient of each.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(reduce_retracing=True)
        def compiled(image, sex, direction):
            point = first(image, training=False)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                outputs = rest([point, sex], training=False)
                score = tf.reduce_sum(outputs["scores"] * direction)
            return point, tape.gradient(score, point), outputs
    elif backend == "jax":
        import jax

        @jax.jit
        def stateless(states, image, sex, direction):
            point = first.stateless_call(*states[0], image, training=False)[0]

            def score(point):
                outputs = rest.stateless_call(*states[1], [point, sex], training=False)[0]
                return (outputs["scores"] * direction).sum(), outputs

            gradients, outputs = jax.grad(score, has_aux=True)(point)
            return point, gradients, outputs

        def compiled(image, sex, direction):
            kinds = [(part.trainable_variables, part.non_trainable_variables) for part in (first, rest)]
            return stateless([[[v.value for v in kind] for kind in part] for part in kinds], image, sex, direction)
    else:
        import torch

        def compiled(image, sex, direction):
            with torch.no_grad():
                point = first(image, training=False)
            point = point.detach().requires_grad_()
            outputs = rest([point, sex], training=False)
            (gradients,) = torch.autograd.grad((outputs["scores"] * direction).sum(), point)
            return point, gradients, outputs

    def run(image, sex, direction):
        results = compiled(*(keras.ops.convert_to_tensor(v) for v in (image, sex, direction)))
        return keras.tree.map_structure(lambda v: np.asarray(keras.ops.convert_to_numpy(v)), results)

    return run
