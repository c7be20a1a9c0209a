"""Batches for training, made in threads ahead of the step that eats them."""

import keras
import numpy as np
import pandas as pd

from boneage.config import TrainConfig
from boneage.data.augment import augmented
from boneage.data.cache import Cache
from boneage.labels import age_group


class TrainingBatches(keras.utils.PyDataset):
    """One epoch of augmented batches.

    Order and augmentation depend on seed, epoch and image alone, not on threads: a resumed run sees the same batches.

    Parameters
    ----------
    rows
        The training images' rows of the cache's index; a column `target`, where there is one, holds the months to learn
        in place of `months` (see `boneage.training.teacher`).
    size
        Image side in pixels.
    epoch
        Number of the epoch, counted from 0.
    steps
        Batches to give; None: as many whole ones as there are. More than those are taken from further passes over the
        images, each with an order and augmentation of its own.

    Each item is `({"image": (B, size, size, 1), "sex": (B, 1)}, targets)`, float32; targets holds `months` (B, 1) and,
    or, `groups` (B,) int.
    """

    def __init__(
        self, cache: Cache, rows: pd.DataFrame, config: TrainConfig, size: int, epoch: int, steps: int | None = None
    ):
        super().__init__(workers=config.workers, use_multiprocessing=False, max_queue_size=4 * config.workers)
        self.cache, self.config, self.size, self.epoch = cache, config, size, epoch
        self.where = rows["row"].to_numpy()
        self.months = rows["months"].to_numpy("float32")
        self.target = rows["target"].to_numpy("float32") if "target" in rows else self.months
        self.male = rows["male"].to_numpy("float32")
        self.whole = max(1, len(rows) // config.batch_size)
        self.steps = self.whole if steps is None else steps
        passes = range(-(-self.steps // self.whole))
        self.orders = [np.random.default_rng([config.seed, epoch + k]).permutation(len(rows)) for k in passes]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int):
        k, start = step // self.whole, step % self.whole * self.config.batch_size
        chosen = self.orders[k][start : start + self.config.batch_size]
        images = [
            augmented(
                self.cache.images[self.where[i]],
                self.size,
                np.random.default_rng([self.config.seed, self.epoch + k, int(i)]),
                self.config.augmentation,
            )
            for i in chosen
        ]
        inputs = {"image": np.stack(images)[..., None].astype("float32"), "sex": self.male[chosen][:, None]}
        targets = {}
        if self.config.head != "classification":
            targets["months"] = self.target[chosen][:, None]
        if self.config.head != "regression":
            targets["groups"] = age_group(self.months[chosen])
        return inputs, targets
