"""What feeding costs a training: an epoch of fresh augmented batches against the same steps on one staged batch.

1.00 means that the training step never waits for its input and loses no core to it.
"""

import tempfile
from pathlib import Path

import keras

from benchmarks.common import Result, compare, noise_cache
from boneage.config import TrainConfig
from boneage.data.cache import open_cache
from boneage.models.build import build
from boneage.training import precision
from boneage.training.feed import TrainingBatches

SIZE, STEPS, ROUNDS = 128, 30, 5


class OneBatch(keras.utils.PyDataset):
    """The same batch again and again."""

    def __init__(self, batch, steps: int):
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int):
        return self.batch


def compiled(config: TrainConfig) -> keras.Model:
    """A joint model with the optimizer of a real training."""
    model = precision.build_under("float32", lambda: build(config, 127.0, 41.0))
    model.compile(
        keras.optimizers.AdamW(1e-4, global_clipnorm=config.clip_norm, use_ema=True, ema_momentum=config.average),
        loss={"months": keras.losses.Huber(delta=config.huber_months), "groups": "sparse_categorical_crossentropy"},
    )
    return model


def run() -> list[Result]:
    config = TrainConfig()
    model = compiled(config)
    with tempfile.TemporaryDirectory() as folder:
        cache = open_cache(noise_cache(Path(folder) / "cache", STEPS * config.batch_size, 2 * SIZE))
        staged = OneBatch(TrainingBatches(cache, cache.index, config, SIZE, epoch=0)[0], STEPS)
        epochs = iter(range(1, 2 * ROUNDS))

        def fit(batches: keras.utils.PyDataset) -> int:
            model.fit(batches, epochs=1, shuffle=False, verbose=0)
            return len(batches)

        fit(OneBatch(staged.batch, 3))
        cost = compare(
            lambda: fit(TrainingBatches(cache, cache.index, config, SIZE, next(epochs))), lambda: fit(staged), ROUNDS
        )
    return [
        Result(
            "An epoch, against the same steps on one staged batch (EfficientNetB0, 128 px)",
            cost.wall,
            "x",
            1.05,
            "at most",
        ),
        Result("the same in CPU-seconds", cost.cpu, "x", 1.05, "at most"),
    ]
