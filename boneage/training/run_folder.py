"""The run folder: what a run leaves, and its checkpoint while it is under way.

outputs/<Backbone>/<name>/
    config.json  split.csv  history.csv  history.pkl  predictions_validation.csv  run.json  model.keras
    checkpoint/   only while unfinished
    logs/         TensorBoard
"""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from boneage import __version__
from boneage.config import TrainConfig
from boneage.errors import BoneageError
from boneage.models.weights import assign, load_model, save_half
from boneage.paths import atomic, write_csv, write_text


class Checkpoint:
    """All that a killed run needs to go on as if nothing had happened: every variable of model and optimizer."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, model: keras.Model, state: dict) -> None:
        arrays = {f"m{i}": v for i, v in enumerate(_arrays(model.variables))}
        arrays |= {f"o{i}": v for i, v in enumerate(_arrays(model.optimizer.variables))}
        with atomic(self.folder / "state.npz") as part:
            np.savez(part, state=json.dumps(state), **arrays)

    def save_best(self, model: keras.Model) -> None:
        with atomic(self.folder / "best.npz") as part:
            np.savez(part, **{f"m{i}": v for i, v in enumerate(_arrays(model.weights))})

    def load(self) -> dict | None:
        """The state saved last, None where there is none."""
        path = self.folder / "state.npz"
        if not path.exists():
            return None
        with np.load(path) as saved:
            return json.loads(str(saved["state"]))

    def restore(self, model: keras.Model) -> None:
        """Put the saved values into a compiled model whose optimizer is built."""
        with np.load(self.folder / "state.npz") as saved:
            for mark, variables in (("m", model.variables), ("o", model.optimizer.variables)):
                assign(model, variables, [saved[f"{mark}{i}"] for i in range(len(variables))])

    def best(self) -> list[np.ndarray]:
        """The weights of the best epoch, in the order of `model.weights`."""
        with np.load(self.folder / "best.npz") as saved:
            return [saved[f"m{i}"] for i in range(len(saved.files))]


def _arrays(variables) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in variables]


class RunFolder:
    """One run's folder; the presence of `model.keras`, written last, means that the run is finished."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.checkpoint = Checkpoint(self.path / "checkpoint")

    @property
    def finished(self) -> bool:
        return (self.path / "model.keras").exists()

    def claim(self, config: TrainConfig, resume: bool) -> None:
        """Take the folder for a run of `config`; see `boneage.training.train.train` for what is refused."""
        if self.finished:
            raise BoneageError(
                f"{self.path} holds a finished run; give this one another name (--set name=...) or move that one away"
            )
        if (self.path / "config.json").exists():
            if self.checkpoint.load() is not None and not resume:
                raise BoneageError(
                    f"{self.path} holds an unfinished run; continue it with --resume, or remove it and start over"
                )
            if resume and TrainConfig.load(self.path / "config.json") != config:
                raise BoneageError(
                    f"the unfinished run in {self.path} has another config; give its own, or remove it and start over"
                )
        elif resume:
            raise BoneageError(f"nothing to resume in {self.path}; start the run without --resume")
        config.save(self.path / "config.json")

    def save_split(self, split: pd.DataFrame, begun: bool = False) -> None:
        """Keep the split; a run that was begun on another one is refused: it has learnt from what is held back now."""
        path = self.path / "split.csv"
        if begun and not pd.read_csv(path, dtype=str)[["id", "set"]].equals(split[["id", "set"]].astype(str)):
            raise BoneageError(
                f"{self.path} was begun on other images, or on another split of them; resume it with the data that it "
                "was begun with, or remove it and start over"
            )
        write_csv(path, split)

    def history(self) -> pd.DataFrame:
        path = self.path / "history.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame()

    def log(self, record: dict) -> None:
        """Add an epoch to `history.csv`, `history.pkl` (a plain dict of lists) and the TensorBoard logs."""
        from tensorboard.summary import Writer

        history = self.history()
        if len(history):
            history = history[history["epoch"] < record["epoch"]]  # an epoch done again after a kill
        history = pd.concat([history, pd.DataFrame([record])], ignore_index=True)
        write_csv(self.path / "history.csv", history)
        with atomic(self.path / "history.pkl") as part:
            part.write_bytes(pickle.dumps(history.to_dict("list")))
        writer = Writer(str(self.path / "logs"))
        for key, value in record.items():
            if key != "epoch":
                writer.add_scalar(key, value, step=record["epoch"])
        writer.close()

    def finish(self, model: keras.Model, facts: dict, predict: Callable[[keras.Model], pd.DataFrame]) -> None:
        """Export, predict validation with the exported file itself, and only then make the run a finished one."""
        part = self.path / "checkpoint" / "export.keras"
        save_half(model, part)
        write_csv(self.path / "predictions_validation.csv", predict(load_model(part)))
        facts = {"boneage": __version__, "parameters": model.count_params(), **facts}
        write_text(self.path / "run.json", json.dumps(facts, indent=2) + "\n")
        part.replace(self.path / "model.keras")
        shutil.rmtree(self.path / "checkpoint")
