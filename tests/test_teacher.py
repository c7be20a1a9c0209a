"""A student learns a mixture of the reference and of what a trained model says of the same images."""

import json

import numpy as np
import pandas as pd
import pytest

from boneage.config import Stage, TrainConfig
from boneage.data import splits
from boneage.errors import BoneageError
from boneage.training.feed import TrainingBatches
from boneage.training.teacher import PREDICTIONS, mixed_targets
from boneage.training.train import train


@pytest.fixture
def split(phantom_cache) -> pd.DataFrame:
    return splits.split(phantom_cache.index, 0)


def test_the_target_is_the_weighted_mean_of_reference_and_answer(small, phantom_cache, tiny_run, split, tmp_path):
    config = small(teacher=str(tiny_run / "model.keras"), teacher_weight=0.25)
    targets, said = mixed_targets(config, phantom_cache, split, tmp_path)
    answers = pd.read_csv(tmp_path / PREDICTIONS, dtype={"id": str})
    assert list(answers["id"]) == list(split["id"][split["set"] == "train"])
    np.testing.assert_allclose(targets, 0.75 * answers["reference_months"] + 0.25 * answers["predicted_months"])
    assert said["name"] == "Tiny/joint/model.keras"
    assert len(said["sha256"]) == 64


def test_a_resumed_student_reads_what_its_teacher_said(small, phantom_cache, tiny_run, split, tmp_path):
    config = small(teacher=str(tiny_run / "model.keras"), teacher_weight=1.0)
    mixed_targets(config, phantom_cache, split, tmp_path)
    answers = pd.read_csv(tmp_path / PREDICTIONS, dtype={"id": str})
    answers.assign(predicted_months=7.0).to_csv(tmp_path / PREDICTIONS, index=False)
    targets, _ = mixed_targets(config, phantom_cache, split, tmp_path)
    assert set(targets) == {7.0}


def test_batches_teach_the_target_and_group_by_the_reference(small, phantom_cache):
    rows = phantom_cache.index.iloc[:8].assign(target=1.0, months=[10.0, 70, 130, 190] * 2)
    _, targets = TrainingBatches(phantom_cache, rows, small(batch_size=8), 32, epoch=0)[0]
    assert set(targets["months"].ravel()) == {1.0}
    assert sorted(targets["groups"]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_student_trains_and_says_who_taught_it(small, phantom_cache, tiny_run, tmp_path):
    config = small(teacher=str(tiny_run / "model.keras"), stages=(Stage(32, 1),), name="student")
    run = train(config, phantom_cache.folder, tmp_path)
    assert json.loads((run / "run.json").read_text())["teacher"]["name"] == "Tiny/joint/model.keras"
    assert TrainConfig.load(run / "config.json").teacher_weight == 0.5


def test_a_teacher_that_has_seen_what_is_held_back_is_refused(small, phantom_cache, tiny_run, split, tmp_path):
    config = small(teacher=str(tiny_run / "model.keras"))
    swapped = split.assign(set=split["set"].map({"train": "holdout"}).fillna("train"))
    with pytest.raises(BoneageError, match=r"was trained on [0-9]+ images that this run holds back"):
        mixed_targets(config, phantom_cache, swapped, tmp_path)


def test_a_teacher_of_other_frames_is_refused(small, phantom_cache, tiny_run, split, tmp_path):
    config = small(teacher=str(tiny_run / "model.keras"), frame="hand")
    with pytest.raises(BoneageError, match=r"sees the frame 'whole' .* expected the frame 'hand'"):
        mixed_targets(config, phantom_cache, split, tmp_path)


def test_answers_of_a_run_that_was_given_up_are_not_another_teachers(small, phantom_cache, tiny_run, tmp_path):
    config = small(teacher=str(tiny_run / "model.keras"), stages=(Stage(32, 1),), name="student")
    (tmp_path / "Tiny" / "student").mkdir(parents=True)
    (tmp_path / "Tiny" / "student" / PREDICTIONS).write_text("of another teacher\n")
    run = train(config, phantom_cache.folder, tmp_path)
    assert len(pd.read_csv(run / PREDICTIONS)) > 0


def test_initial_weights_that_have_learnt_from_what_is_held_back_are_refused(small, phantom_cache, tiny_run, tmp_path):
    config = small(initial_weights=str(tiny_run / "model.keras"), seed=1, name="leaky")  # another seed, another split
    with pytest.raises(BoneageError, match=r"was trained on [0-9]+ images that this run holds back"):
        train(config, phantom_cache.folder, tmp_path)
