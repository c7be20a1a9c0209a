"""A training killed by the operating system goes on as if nothing had happened, wherever the kill struck."""

import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from boneage.errors import BoneageError
from boneage.models.weights import load_model
from boneage.training.run_folder import Checkpoint
from boneage.training.train import train

# What a child does before it kills itself in its n-th checkpoint (write it, or not get that far), and the epochs left.
KILLS = {
    "after the first epoch's checkpoint": (1, "save(self, model, state)", [2, 3]),
    "between best weights and checkpoint": (2, "pass", [2, 3]),
    "before any checkpoint": (1, "pass", [1, 2, 3]),
}
CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import TINY_CONFIG
from boneage.training.run_folder import Checkpoint
from boneage.training.train import train

save, calls = Checkpoint.save, []
def save_and_die(self, model, state):
    calls.append(state)
    if len(calls) < {count}:
        return save(self, model, state)
    {last}
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
train(TINY_CONFIG, {data!r}, Path({outputs!r}))
"""


@pytest.fixture(scope="module")
def killed(phantom_cache, tmp_path_factory) -> dict[str, Path]:
    """Outputs folders with a killed run of the tiny config each; the children run side by side."""
    folders, children = {}, []
    for name, (count, last, _) in KILLS.items():
        folders[name] = tmp_path_factory.mktemp("killed")
        values = {"tests": str(Path(__file__).parent), "data": str(phantom_cache.folder), "outputs": str(folders[name])}
        code = CHILD.format(count=count, last=last, **values)
        children.append(subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE))
    for child in children:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == -9, errors.decode()
    return folders


@pytest.fixture
def outputs(killed, tmp_path):
    """A copy of a killed run's outputs folder."""
    return lambda name: shutil.copytree(killed[name], tmp_path / "outputs")


def assert_same_run(run: Path, reference: Path) -> None:
    ours, theirs = (load_model(r / "model.keras").weights for r in (run, reference))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), atol=1e-6, err_msg=one.path
        )
    ours, theirs = (
        pd.read_csv(r / "history.csv").drop(columns=["seconds", "images_per_second"]) for r in (run, reference)
    )
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)
    ours, theirs = (pd.read_csv(r / "predictions_validation.csv") for r in (run, reference))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("name", KILLS)
def test_a_resumed_run_ends_as_an_uninterrupted_one(outputs, name, tiny_run, tiny_config, phantom_cache, monkeypatch):
    epochs, save = [], Checkpoint.save

    def count(self, model, state):
        epochs.append(state["progress"]["epoch"])
        save(self, model, state)

    monkeypatch.setattr(Checkpoint, "save", count)
    run = train(tiny_config, phantom_cache.folder, outputs(name), resume=True)
    assert epochs == KILLS[name][2]  # none is done twice
    assert_same_run(run, tiny_run)
    assert not (run / "checkpoint").exists()


def test_a_run_that_never_reached_a_checkpoint_just_starts_again(outputs, tiny_run, tiny_config, phantom_cache):
    run = train(tiny_config, phantom_cache.folder, outputs("before any checkpoint"))
    assert_same_run(run, tiny_run)


def test_an_unfinished_run_is_not_started_over_by_mistake(outputs, tiny_config, small, phantom_cache):
    folder = outputs("after the first epoch's checkpoint")
    with pytest.raises(BoneageError, match="unfinished run; continue it with --resume"):
        train(tiny_config, phantom_cache.folder, folder)
    with pytest.raises(BoneageError, match="has another config"):
        train(small(seed=1), phantom_cache.folder, folder, resume=True)
    assert (folder / "Tiny/joint/checkpoint/state.npz").exists()
