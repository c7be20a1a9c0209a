"""What `deterministic=true` costs: training steps with TensorFlow's deterministic kernels against its usual ones.

The switch cannot be turned back, so it is thrown in a process of its own, where both kinds of steps are timed.
"""

import subprocess
import sys
import time
from statistics import median

from benchmarks.common import Result

SIZE, STEPS = 96, 12


def run() -> list[Result]:
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.determinism"], check=True, stdout=subprocess.PIPE, text=True
    )
    wall, cpu = (float(x) for x in child.stdout.split()[-2:])
    return [
        Result("A deterministic training step against a usual one (EfficientNetB0, 96 px)", wall, "x"),
        Result("the same in CPU-seconds", cpu, "x"),
    ]


def _steps() -> tuple[float, float]:
    """Median wall and CPU seconds of a step of a fresh model."""
    import numpy as np

    from benchmarks.epoch import compiled
    from boneage.config import TrainConfig

    model, n = compiled(TrainConfig()), TrainConfig().batch_size
    x = {"image": np.full((n, SIZE, SIZE, 1), 100, "float32"), "sex": np.ones((n, 1), "float32")}
    y = {"months": np.full((n, 1), 120, "float32"), "groups": np.full(n, 2)}
    taken = []
    for _ in range(STEPS + 2):
        wall, cpu = time.perf_counter(), time.process_time()
        model.train_on_batch(x, y)
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = zip(*taken[2:], strict=True)
    return median(walls), median(cpus)


if __name__ == "__main__":
    import keras

    usual = _steps()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    deterministic = _steps()
    print(*(d / u for d, u in zip(deterministic, usual, strict=True)))
