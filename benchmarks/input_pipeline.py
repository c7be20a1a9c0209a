"""Augmented training images a second: Boneage's cache against decoding and augmenting each image in each epoch.

The other way is the usual one of Keras notebooks for this task: read the full-size PNG grey, squash it to 224 x 224,
divide by 255, repeat to three channels, and let `ImageDataGenerator` rotate, zoom, shift and flip the floats. Both ways
run on one thread and see the same radiographs, so that the ratio is the one of their work.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf  # Keras 3 keeps ImageDataGenerator under this name only

from benchmarks.common import Result, compare, radiographs, rate
from boneage.config import TrainConfig
from boneage.data.augment import augmented
from boneage.data.cache import prepare
from boneage.training.feed import TrainingBatches

IMAGES, SIZE, REPEATS, ROUNDS = 40, 224, 25, 5


def decode_every_time(files: list[Path], generator) -> int:
    for path in files:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(grey, (SIZE, SIZE)).astype("float32") / 255
        generator.random_transform(np.stack([small] * 3, axis=-1))
    return len(files)


def run() -> list[Result]:
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=10, zoom_range=0.1, width_shift_range=0.1, height_shift_range=0.1, horizontal_flip=True
    )
    config = TrainConfig()
    with tempfile.TemporaryDirectory() as folder:
        data, files = radiographs(Path(folder), IMAGES, copies=1)
        cache = prepare(data, SIZE, Path(folder) / "cache")
        rows = pd.concat([cache.index] * REPEATS)
        batches = TrainingBatches(cache, rows, config, SIZE, epoch=0)

        def from_cache() -> int:
            for i, row in enumerate(rows["row"]):
                augmented(cache.images[row], SIZE, np.random.default_rng([0, i]), config.augmentation)
            return len(rows)

        def whole_batches() -> int:
            for step in range(len(batches)):
                batches[step]
            return len(batches) * config.batch_size

        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            decode_every_time(files[:2], generator)
            whole_batches()
            images = compare(lambda: decode_every_time(files, generator), from_cache, ROUNDS)
            fed = compare(lambda: decode_every_time(files, generator), whole_batches, ROUNDS)
        finally:
            cv2.setNumThreads(threads)
    return [
        Result(
            "Augmented images from the cache, times as fast as decoding each time", images.wall, "x", 50, "at least"
        ),
        Result("the same in CPU-seconds", images.cpu, "x", 50, "at least"),
        Result(
            "Training batches (stacked, float32), times as fast as decoding each time", fed.wall, "x", 50, "at least"
        ),
        Result("the same in CPU-seconds", fed.cpu, "x", 50, "at least"),
        Result("Decoding each time, one thread", rate(images.first), "images/s"),
        Result("Training batches, one thread", rate(fed.second), "images/s"),
    ]
