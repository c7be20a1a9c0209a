"""What BatchNorm and swish in one operation each are worth: a training step with them against Keras's own."""

import keras
import numpy as np

from benchmarks.common import Result, compare
from boneage.config import TrainConfig
from boneage.models.build import build
from boneage.training import precision

SIZE, BATCH, ROUNDS = 128, 32, 5


def run() -> list[Result]:
    config = TrainConfig()
    inputs = {"image": np.full((BATCH, SIZE, SIZE, 1), 100.0, "float32"), "sex": np.ones((BATCH, 1), "float32")}
    targets = {"months": np.full((BATCH, 1), 120.0, "float32"), "groups": np.ones((BATCH, 1), "int32")}

    def plain() -> keras.Model:
        return build(config, 127.0, 41.0, SIZE)

    models = precision.build_under("float32", plain), plain()
    for model in models:
        model.compile("sgd", {"months": "mse", "groups": "sparse_categorical_crossentropy"})
        model.train_on_batch(inputs, targets)

    def step(model: keras.Model) -> int:
        model.train_on_batch(inputs, targets)
        return BATCH

    cost = compare(lambda: step(models[0]), lambda: step(models[1]), ROUNDS)
    return [
        Result(
            "A training step with BatchNorm and swish in one operation each, against Keras's (EfficientNetB0, 128 px)",
            cost.wall,
            "x",
            0.9,
            "at most",
        )
    ]
