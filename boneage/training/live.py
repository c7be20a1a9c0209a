"""The line that tells how training stands: epoch, loss, error in months, time left."""

import sys
import time

import keras
from tqdm import tqdm

from boneage.config import TrainConfig


def clock(seconds: float) -> str:
    """`4800` -> `"1 h 20 min"`."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


class LiveLine:
    """One progress bar an epoch on a terminal, one plain line an epoch in a log."""

    def __init__(self, config: TrainConfig, steps: int, first_epoch: int):
        self.config, self.steps = config, steps
        self.begin, self.first_epoch, self.bar = time.perf_counter(), first_epoch, None

    def open(self, epoch: int | None, size: int) -> None:
        """`epoch` counts from 0; None is the warm-up of the head."""
        c = self.config
        name = "head warm-up" if epoch is None else f"epoch {epoch + 1}/{c.epochs}"
        self.bar = tqdm(
            total=self.steps, desc=f"{c.backbone} {c.run_name}: {name}, {size} px", unit="batch", leave=False,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def callback(self) -> keras.callbacks.Callback:
        bar = self.bar

        class Tick(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                bar.update(1)
                if not bar.disable and batch % 10 == 0:
                    shown = {"loss": logs["loss"]}
                    if (mae := logs.get("mae", logs.get("months_mae"))) is not None:
                        shown["MAE"] = mae
                    bar.set_postfix({k: f"{float(v):.2f}" for k, v in shown.items()}, refresh=False)

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
        print(
            f"{c.backbone} {c.run_name}: epoch {record['epoch']}/{c.epochs} at {record['size']} px: "
            + ", ".join(parts),
            flush=True,
        )
