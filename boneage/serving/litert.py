"""The graph of `boneage.serving.export` as a LiteRT file, for phones and small machines: one image at a time."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from boneage.errors import BoneageError


def convert(forward: Callable, variables: Iterable, size: int) -> bytes:
    """A LiteRT file with one signature: `image` (1, S, S, 1) and `sex` (1, 1) in, outputs by name.

    Parameters
    ----------
    forward
        Of `boneage.serving.export`.
    variables
        Keras variables behind it. A converter that is given none it can save writes a file of NaN, and says nothing.
    size
        S, pixels.
    """
    import tensorflow as tf

    holder = tf.Module()
    holder.variables_behind = [variable.value for variable in variables]
    holder.forward = tf.function(
        forward,
        input_signature=[
            tf.TensorSpec((1, size, size, 1), tf.float32, name="image"),
            tf.TensorSpec((1, 1), tf.float32, name="sex"),
        ],
    )
    graph = holder.forward.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([graph], holder).convert()


def load(path: Path) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """From `image` and `sex` to outputs by name, under `ai-edge-litert`: no TensorFlow."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(str(path), num_threads=1)
        answer = interpreter.get_signature_runner()
    except ValueError as error:
        raise BoneageError(f"{path} is damaged or no export of this project; export the run again") from error
    return lambda image, sex: {name: value.copy() for name, value in answer(image=image, sex=sex).items()}
