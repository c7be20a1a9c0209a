"""Distillation: what a trained model says of the training images, mixed into the months a student learns.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015; for a regression the mixture of reference
and teacher's answer is the target. A teacher smooths the noise of a single reading. The groups stay the reference's.
"""

import hashlib
from pathlib import Path

import pandas as pd

from boneage.config import TrainConfig
from boneage.data.cache import Cache
from boneage.errors import BoneageError
from boneage.models.predict import predict
from boneage.models.weights import load_model
from boneage.paths import write_csv

PREDICTIONS = "predictions_teacher.csv"  # in the student's folder


def mixed_targets(config: TrainConfig, cache: Cache, split: pd.DataFrame, folder: Path) -> tuple[pd.Series, dict]:
    """`(1 - w) * reference + w * teacher's answer` in months for the split's training images, in their order.

    Parameters
    ----------
    config
        Uses `teacher` (a run's `model.keras`), `teacher_weight` w and `frame`.
    split
        `id`, `set` of the student's images.
    folder
        The student's run: the teacher is asked once and its answers kept there, for a resumed run to read.

    Returns
    -------
    Series, dict
        The targets, and what `run.json` says of the teacher: `name` and `sha256`.

    Raises
    ------
    BoneageError
        No such run, one that sees other frames of the images, one without months, or one that was trained on images
        that this split holds back.
    """
    path = Path(config.teacher)
    teacher = load_model(path)
    its_config = TrainConfig.load(path.parent / "config.json")
    if its_config.frame != config.frame or its_config.head == "classification":
        raise BoneageError(
            f"the teacher {path} sees the frame {its_config.frame!r} and has a {its_config.head} head; "
            f"expected the frame {config.frame!r} and a head that tells months"
        )
    refuse_leakage(path, split)
    ids = split["id"][split["set"] == "train"]
    if not (folder / PREDICTIONS).exists():
        write_csv(folder / PREDICTIONS, predict(teacher, cache, ids, its_config.size))
    table = pd.read_csv(folder / PREDICTIONS, dtype={"id": str}).set_index("id").loc[ids]
    w = config.teacher_weight
    mixture = (1 - w) * table["reference_months"] + w * table["predicted_months"]
    said = {"name": "/".join(path.parts[-3:]), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return mixture, said


def refuse_leakage(model: Path, split: pd.DataFrame) -> None:
    """Raises BoneageError when a run's `model.keras` has learnt from images that `split` (`id`, `set`) holds back."""
    if not (table := model.parent / "split.csv").exists():
        raise BoneageError(
            f"no split.csv beside {model}, which tells what it was trained on; give a finished run's model"
        )
    its_split = pd.read_csv(table, dtype=str)
    leaked = set(its_split["id"][its_split["set"] == "train"]) & set(split["id"][split["set"] != "train"])
    if leaked:
        raise BoneageError(
            f"{model} was trained on {len(leaked)} images that this run holds back, {min(leaked)} among them; "
            "take one trained on the same split"
        )
