"""The training loop, whole: warm up the head, fine-tune through the stages, average, select on validation, export."""

import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from boneage.config import TrainConfig
from boneage.data import splits
from boneage.data.cache import Cache, open_or_prepare
from boneage.errors import BoneageError
from boneage.labels import GROUP_COLUMNS, age_group
from boneage.models.batchnorm import BatchNormEstimator
from boneage.models.build import backbone_layers, build
from boneage.models.compiled import predictor
from boneage.models.predict import predict
from boneage.models.weights import assign, load_initial
from boneage.training import precision
from boneage.training.feed import TrainingBatches
from boneage.training.live import LiveLine
from boneage.training.run_folder import RunFolder
from boneage.training.teacher import PREDICTIONS, mixed_targets, refuse_leakage

WARMUP_EPOCH = 1_000_000  # numbers the head's warm-up apart from every real epoch, for its random draws
NO_DECAY = ["bias", "gamma", "beta"]
PLATEAU_PATIENCE = 2  # epochs without a better validation score before the learning rate is halved


class AveragedAdamW(keras.optimizers.AdamW):
    """AdamW whose weight average is looked at and not trained on.

    Keras itself puts the average into the model at the end of every `fit`, here after every epoch.
    """

    def finalize_variable_values(self, var_list):
        """What `fit` calls at its end; nothing, so that the next epoch goes on from the raw weights."""

    def put_average(self, var_list):
        """Replace the variables by their averages."""
        super().finalize_variable_values(var_list)


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    epoch: int = 0  # epochs finished
    best_score: float = float("inf")
    best_epoch: int = -1
    waited: int = 0  # epochs since the last better validation score or halving of the learning rate
    seconds: float = 0.0


def train(config: TrainConfig, data: str | Path, outputs: Path, resume: bool = False) -> Path:
    """Train one model and leave a finished run folder.

    Parameters
    ----------
    data
        A folder of radiographs (prepared on first use) or a cache.
    outputs
        The run goes to `outputs/<backbone>/<name>`.
    resume
        Continue an unfinished run at the epoch it had reached.

    Raises
    ------
    BoneageError
        A finished run is there already; an unfinished one is and `resume` is false, or was started with another config
        or on other images; initial weights or teacher have learnt from images that this split holds back.
    """
    folder = RunFolder(outputs / config.backbone / config.run_name)
    folder.claim(config, resume)
    cache = open_or_prepare(data, max(s.size for s in config.stages), config.frame)
    split = splits.split(cache.index, config.seed)
    state = folder.checkpoint.load()
    folder.save_split(split, begun=state is not None)
    if config.initial_weights.endswith(".keras") and Path(config.initial_weights).is_file():
        refuse_leakage(Path(config.initial_weights), split)
    rows = {name: cache.rows(split["id"][split["set"] == name]) for name in ("train", "validation")}
    months = rows["train"]["months"]
    taught = {}
    if config.teacher:
        if state is None:  # another teacher's answers may lie there, of a run that was given up
            (folder.path / PREDICTIONS).unlink(missing_ok=True)
        targets, taught["teacher"] = mixed_targets(config, cache, split, folder.path)
        rows["train"] = rows["train"].assign(target=targets.to_numpy())

    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    # "auto" goes by timings: a resumed run keeps what its first part found.
    policy = (state and state["started"].get("precision")) or precision.choose(config)

    def plain(size: int | None = None) -> keras.Model:
        return build(config, float(months.mean()), float(months.std()), size)

    model = precision.build_under(policy, plain)
    run = _Run(config, folder, cache, rows, model)
    started = run.fine_tune(policy, state)
    arrays = folder.checkpoint.best()

    final = plain(config.size)
    assign(final, final.weights, arrays)
    facts = {
        "phantom": cache.phantom, "data": cache.info["source"], "precision": policy, "backend": keras.backend.backend(),
        "keras": keras.__version__, "images": {k: len(v) for k, v in rows.items()},
        "months_mean": float(months.mean()), "months_sd": float(months.std()), **started, **taught,
    }  # fmt: skip
    folder.finish(final, facts, lambda shipped: predict(shipped, cache, rows["validation"]["id"], config.size))
    return folder.path


class _Run:
    def __init__(
        self, config: TrainConfig, folder: RunFolder, cache: Cache, rows: dict[str, pd.DataFrame], model: keras.Model
    ):
        self.config, self.folder, self.cache, self.rows, self.model = config, folder, cache, rows, model
        self.steps = max(1, len(rows["train"]) // config.batch_size)
        self.statistics, self.predictor = BatchNormEstimator(model), predictor(model)
        self.sd = float(rows["train"]["months"].std())
        self.guess = float((rows["validation"]["months"] - rows["train"]["months"].mean()).abs().mean())

    def fine_tune(self, policy: str, state: dict | None) -> dict:
        """The whole of training, from the checkpoint's `state` where there is one; returns facts for `run.json`."""
        c = self.config
        if state is None:
            loaded = load_initial(self.model, c.backbone, c.initial_weights)
            progress, started = Progress(), {"initial_weights": loaded, "precision": policy}
            self.re_estimate(WARMUP_EPOCH, c.stages[0].size)
            self.warm_up_head()
            self.compile()
        else:
            progress, started = Progress(**state["progress"]), state["started"]
            self.compile()
            self.folder.checkpoint.restore(self.model)
        line = LiveLine(c, self.steps, progress.epoch, self.guess)
        while progress.epoch < c.epochs and not self.stops_early(progress):
            size, begin = c.stage_of(progress.epoch).size, time.perf_counter()
            if progress.epoch and size != c.stage_of(progress.epoch - 1).size:
                progress.best_score = float("inf")  # what ships is made for the last size: only its epochs compete
            line.open(progress.epoch, size)
            batches = TrainingBatches(self.cache, self.rows["train"], c, size, progress.epoch)
            logs = self.model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[line.callback()]).history
            stepping = time.perf_counter() - begin
            with self.averaged(progress.epoch, size):
                record = self.score(size)
                if record["score"] < progress.best_score:
                    progress.best_score, progress.best_epoch = record["score"], progress.epoch
                    progress.waited = 0
                    self.folder.checkpoint.save_best(self.model)
                else:
                    progress.waited += 1
            progress.epoch += 1
            progress.seconds += time.perf_counter() - begin
            record = {
                "epoch": progress.epoch, "size": size,
                "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
                **{k: float(v[-1]) for k, v in logs.items()}, **record,
                "seconds": time.perf_counter() - begin, "images_per_second": self.steps * c.batch_size / stepping,
            }  # fmt: skip
            self.folder.log(record)
            self.reduce_on_plateau(progress)
            self.folder.checkpoint.save(self.model, {"progress": vars(progress), "started": started})
            line.close(record, progress)
        return started | {"best_epoch": progress.best_epoch + 1, "seconds": progress.seconds, "epochs": progress.epoch}

    def stops_early(self, progress: Progress) -> bool:
        """Whether the last stage has gone on for too long without a better validation score."""
        c = self.config
        before = c.epochs - c.stages[-1].epochs - 1  # the last epoch of the stage before
        return progress.epoch - max(progress.best_epoch, before) > c.patience

    def reduce_on_plateau(self, progress: Progress) -> None:
        """Halve the learning rate where the config asks for it and validation no longer improves."""
        if self.config.schedule == "plateau" and progress.waited >= PLATEAU_PATIENCE:
            progress.waited = 0
            self.model.optimizer.learning_rate = 0.5 * self.model.optimizer.learning_rate

    def warm_up_head(self) -> None:
        """A short training of the head alone, so that its random gradients do not tear up the backbone."""
        steps = round(self.config.warmup_epochs * self.steps)
        if steps == 0:
            return
        frozen = list(backbone_layers(self.model))
        for layer in frozen:
            layer.trainable = False
        self._compile(keras.optimizers.Adam(self.config.warmup_learning_rate))
        batches = TrainingBatches(
            self.cache, self.rows["train"], self.config, self.config.stages[0].size, WARMUP_EPOCH, steps
        )
        line = LiveLine(self.config, steps, 0, self.guess)
        line.open(None, batches.size)
        self.model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[line.callback()])
        line.close(None, None)
        for layer in frozen:
            layer.trainable = True

    def compile(self) -> None:
        c = self.config
        total = self.steps * c.epochs
        ramp = max(1, min(c.ramp_steps, total // 10))  # a short run must not end before it is up to speed
        cosine = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, total - ramp), warmup_target=c.learning_rate, warmup_steps=ramp
        )
        optimizer = AveragedAdamW(
            cosine if c.schedule == "cosine" else c.learning_rate,
            weight_decay=c.weight_decay,
            global_clipnorm=c.clip_norm or None,
            use_ema=c.average > 0,
            ema_momentum=c.average or 0.99,
        )
        optimizer.exclude_from_weight_decay(var_names=NO_DECAY)
        self._compile(optimizer)

    def _compile(self, optimizer) -> None:
        c, losses, weights, metrics = self.config, {}, {}, {}
        if c.head != "classification":
            # Scaled so that an error of one standard deviation costs about 1: its square, or its size if that is large.
            if c.loss == "huber":
                losses["months"] = keras.losses.Huber(delta=c.huber_months)
                weights["months"] = 1 / (c.huber_months * self.sd)
            else:
                losses["months"] = keras.losses.MeanSquaredError()
                weights["months"] = 1 / self.sd**2
            metrics["months"] = keras.metrics.MeanAbsoluteError(name="mae")
        if c.head != "regression":
            losses["groups"] = keras.losses.SparseCategoricalCrossentropy()
            weights["groups"] = c.classification_weight if c.head == "joint" else 1.0
            metrics["groups"] = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.model.compile(optimizer, loss=losses, loss_weights=weights, metrics=metrics)
        optimizer.build(self.model.trainable_variables)
        # On JAX and PyTorch `fit` would build what follows on a batch taken from its queue, and so shift the order of
        # the first epoch's batches: of another epoch in a resumed run than in an uninterrupted one.
        outputs = {k: keras.ops.ones((1, v.shape[-1])) for k, v in self.model.output.items()}
        targets = {k: keras.ops.zeros((1, 1)) for k in outputs}
        self.model.compute_loss(y=targets, y_pred=outputs)
        self.model.compute_metrics(x=None, y=targets, y_pred=outputs)

    def re_estimate(self, epoch: int, size: int) -> None:
        batches = TrainingBatches(
            self.cache, self.rows["train"], self.config, size, epoch, self.config.batchnorm_batches
        )
        self.statistics.run(batches, self.config.batchnorm_batches)

    @contextmanager
    def averaged(self, epoch: int, size: int):
        """The model with averaged weights and BatchNorm statistics estimated for them; afterwards it is as it was."""
        kept = [np.array(keras.ops.convert_to_numpy(v)) for v in self.model.variables]
        if self.config.average:
            self.model.optimizer.put_average(self.model.trainable_variables)
        self.re_estimate(epoch, size)
        try:
            yield
        finally:
            for variable, value in zip(self.model.variables, kept, strict=True):
                variable.assign(value)

    def score(self, size: int) -> dict:
        """Validation MAE in months, accuracy and log loss; `score`, the lower the better, is what selection goes by."""
        table = predict(self.model, self.cache, self.rows["validation"]["id"], size, progress=False, run=self.predictor)
        record = {}
        if "predicted_months" in table:
            record["val_mae"] = float((table["predicted_months"] - table["reference_months"]).abs().mean())
        if GROUP_COLUMNS[0] in table:
            truth = age_group(table["reference_months"])
            p = table[list(GROUP_COLUMNS)].to_numpy()
            record["val_accuracy"] = float((p.argmax(1) == truth).mean())
            record["val_log_loss"] = float(-np.log(np.clip(p[np.arange(len(p)), truth], 1e-7, 1)).mean())
        record["score"] = record.get("val_mae", record.get("val_log_loss"))
        if not np.isfinite(record["score"]):
            raise BoneageError(
                f"training diverged (validation score {record['score']} at learning_rate {self.config.learning_rate}); "
                "start a new run with a lower one (--set learning_rate=... --set name=...)"
            )
        return record
