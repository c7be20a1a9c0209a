"""Does a training on four times the images need more memory? Peaks of two trainings, each in a process of its own.

Only anonymous memory counts (`RssAnon` of Linux's /proc): what the process has made its own. The cache is mapped from
its file, whose pages show up as resident too, but the system takes them back whenever it wants them.
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.common import Result, noise_cache

IMAGES, SIZE = 4000, 128


def run() -> list[Result]:
    few, many = _peaks(IMAGES), _peaks(4 * IMAGES)
    growth = (many["RssAnon"] - few["RssAnon"]) / (3 * IMAGES * SIZE * SIZE)
    return [
        Result(
            "Peak memory of a training on four times the images", many["RssAnon"] / few["RssAnon"], "x", 1.05, "at most"
        ),
        Result("Memory for each image more, in units of that image's bytes", growth, "x", 0.1, "at most"),
        Result("Peak memory of a training", many["RssAnon"] / 1e6, "MB"),
        Result("Peak of mapped file pages, which the system can take back", many["RssFile"] / 1e6, "MB"),
    ]


def _peaks(n: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        noise_cache(Path(folder) / "cache", n, SIZE)
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", folder], check=True, stdout=subprocess.PIPE, text=True
        )
    return json.loads(child.stdout.splitlines()[-1])


def _train(folder: Path) -> None:
    """One epoch of a backbone of three layers, so that the images and not the model decide."""
    import keras
    from keras import layers

    from boneage.config import Stage, TrainConfig
    from boneage.models import backbones
    from boneage.training.train import train

    def small(include_top, weights, input_tensor=None, input_shape=None):
        x = keras.Input(input_shape) if input_tensor is None else input_tensor
        inputs = keras.utils.get_source_inputs(x)
        for filters in (8, 16):
            x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization()(x)
        return keras.Model(inputs, layers.Activation("relu", name="small_out")(x))

    backbones.register(
        backbones.BackboneSpec(
            "Small", small, 32, 1 / 127.5, -1.0, "small_out", stride=4, features=16, parameters=0, paper=""
        )
    )
    config = TrainConfig(
        backbone="Small", initial_weights="none", stages=(Stage(32, 1),), batchnorm_batches=5, precision="float32"
    )
    train(config, folder / "cache", folder / "outputs")


def _watch(peaks: dict[str, int], done: threading.Event) -> None:
    while not done.wait(0.02):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(rest.split()[0]) * 1024)


if __name__ == "__main__":
    peaks, done = {"RssAnon": 0, "RssFile": 0}, threading.Event()
    watcher = threading.Thread(target=_watch, args=(peaks, done))
    watcher.start()
    try:
        _train(Path(sys.argv[1]))
    finally:
        done.set()
        watcher.join()
    print(json.dumps(peaks))
