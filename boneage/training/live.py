"""The line that tells how training stands: epoch, loss, error in months, time left."""

import sys
import time

import keras
from tqdm import tqdm

from boneage.config import TrainConfig

QUIET = 300  # seconds after which a log is told how an epoch goes
NO_BETTER = 0.9  # of the error of always answering the mean: more than this is hardly better


def clock(seconds: float) -> str:
    """`4800` -> `"1 h 20 min"`."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


class LiveLine:
    """One progress bar an epoch on a terminal; in a log a plain line now and then, and one an epoch.

    `guess` is the validation MAE in months of always answering the mean: a model that stays near it learns nothing.
    """

    def __init__(self, config: TrainConfig, steps: int, first_epoch: int, guess: float):
        self.config, self.steps, self.guess = config, steps, guess
        self.begin, self.first_epoch, self.bar = time.perf_counter(), first_epoch, None

    def open(self, epoch: int | None, size: int) -> None:
        """`epoch` counts from 0; None is the warm-up of the head."""
        c = self.config
        name = "head warm-up" if epoch is None else f"epoch {epoch + 1}/{c.epochs}"
        self.what = f"{c.backbone} {c.run_name}: {name}, {size} px"
        self.bar = tqdm(total=self.steps, desc=self.what, unit="batch", leave=False, disable=not sys.stderr.isatty())

    def callback(self) -> keras.callbacks.Callback:
        bar, what, steps, told = self.bar, self.what, self.steps, time.monotonic()

        class Tick(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                nonlocal told
                bar.update(1)
                quiet = bar.disable and time.monotonic() - told < QUIET
                if quiet or (not bar.disable and batch % 10):
                    return
                shown = {"loss": logs["loss"]}
                if (mae := logs.get("mae", logs.get("months_mae"))) is not None:
                    shown["MAE"] = mae
                shown = {k: f"{float(v):.2f}" for k, v in shown.items()}
                bar.set_postfix(shown, refresh=False)
                if bar.disable:
                    told = time.monotonic()
                    values = ", ".join(f"{k} {v}" for k, v in shown.items())
                    print(f"{what}: batch {batch + 1}/{steps}, {values}", flush=True)

        return Tick()

    def close(self, record: dict | None, progress) -> None:
        """Replace the bar by one line that stays."""
        self.bar.close()
        if record is None:
            return
        c = self.config
        work = [c.stage_of(e).size ** 2 for e in range(c.epochs)]  # cost grows with the pixels
        done = sum(work[self.first_epoch : progress.epoch])
        left = (time.perf_counter() - self.begin) * sum(work[progress.epoch :]) / done
        parts = [f"loss {record['loss']:.3f}"]
        if "val_mae" in record:
            parts.append(f"validation MAE {record['val_mae']:.2f} months")
        if "val_accuracy" in record:
            parts.append(f"accuracy {record['val_accuracy']:.1%}")
        parts.append(f"{record['images_per_second']:.0f} images/s")
        parts.append(
            "best so far" if progress.best_epoch + 1 == record["epoch"] else f"best was epoch {progress.best_epoch + 1}"
        )
        if left:
            parts.append(f"about {clock(left)} left")
        if record.get("val_mae", 0) > NO_BETTER * self.guess:
            parts.append(
                f"hardly better than always answering the mean ({self.guess:.2f}): if it stays so, start anew with a "
                "lower learning_rate"
            )
        print(
            f"{c.backbone} {c.run_name}: epoch {record['epoch']}/{c.epochs} at {record['size']} px: "
            + ", ".join(parts),
            flush=True,
        )
