"""Training: the batches it sees, the statistics and weights it keeps, and the folder it leaves."""

import json
import pickle
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import TINY_CONFIG
from keras import layers

from boneage.config import Augmentation, Stage, TrainConfig
from boneage.data.augment import augmented
from boneage.data.cache import prepare
from boneage.data.phantom import make_dataset
from boneage.errors import BoneageError
from boneage.labels import age_group
from boneage.models.batchnorm import BatchNormEstimator
from boneage.models.build import build
from boneage.models.predict import predict
from boneage.models.weights import load_model
from boneage.training import live, precision, train
from boneage.training.feed import TrainingBatches
from boneage.training.live import LiveLine
from boneage.training.run_folder import Checkpoint, RunFolder


def numpy_of(variables) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# --- the feed


@pytest.fixture
def feed(phantom_cache, small):
    """`feed(epoch, **config)`: batches of the first 42 images; `steps` as for TrainingBatches."""

    def make(epoch=0, steps=None, **changes):
        return TrainingBatches(phantom_cache, phantom_cache.index.iloc[:42], small(**changes), 32, epoch, steps)

    return make


def batches_equal(first, second) -> bool:
    return all(
        np.array_equal(a, b)
        for i in range(len(first))
        for a, b in zip(keras.tree.flatten(first[i]), keras.tree.flatten(second[i]), strict=True)
    )


def test_seed_epoch_and_image_decide_a_batch_and_threads_do_not(feed):
    assert batches_equal(feed(workers=1), feed(workers=4))
    assert not batches_equal(feed(epoch=0), feed(epoch=1))
    assert not batches_equal(feed(seed=0), feed(seed=1))


def test_a_batch_is_made_as_documented(feed, phantom_cache, small):
    config = small(seed=3)
    order = np.random.default_rng([3, 2]).permutation(42)
    inputs, targets = feed(epoch=2, seed=3)[1]
    assert inputs["image"].shape == (8, 32, 32, 1)
    assert inputs["sex"].shape == targets["months"].shape == (8, 1)
    rows = phantom_cache.index.iloc[order[8:16]].reset_index(drop=True)
    assert targets["months"][:, 0].tolist() == rows["months"].tolist()
    assert inputs["sex"][:, 0].tolist() == rows["male"].tolist()
    rng = np.random.default_rng([3, 2, order[10]])
    expected = augmented(phantom_cache.images[rows["row"][2]], 32, rng, config.augmentation)
    np.testing.assert_array_equal(inputs["image"][2, :, :, 0], expected)


def test_an_epoch_shows_each_image_at_most_once_in_whole_batches(feed):
    batches = feed()
    assert len(batches) == 42 // 8
    assert all(len(batches[i][0]["image"]) == 8 for i in range(len(batches)))
    months = np.concatenate([batches[i][1]["months"] for i in range(5)])
    order = np.random.default_rng([0, 0]).permutation(42)[:40]
    np.testing.assert_array_equal(months[:, 0], batches.months[order])


def test_fewer_images_than_a_batch_make_one_small_batch(feed):
    batches = feed(batch_size=64)
    assert len(batches) == 1
    assert len(batches[0][0]["image"]) == 42


def test_steps_cut_an_epoch_short_or_go_on_with_fresh_passes(feed):
    assert len(feed(steps=2)) == 2
    long = feed(epoch=7, steps=12)
    assert len(long) == 12
    for step in range(5):
        assert np.array_equal(long[step][0]["image"], feed(epoch=7)[step][0]["image"])
        assert np.array_equal(long[5 + step][0]["image"], feed(epoch=8)[step][0]["image"])


@pytest.mark.parametrize(
    ("head", "targets"), [("joint", {"months", "groups"}), ("regression", {"months"}), ("classification", {"groups"})]
)
def test_targets_are_those_of_the_head(feed, head, targets):
    _, got = feed(head=head)[0]
    assert set(got) == targets
    if head == "joint":
        np.testing.assert_array_equal(got["groups"], age_group(got["months"][:, 0]))


# --- BatchNorm statistics


class Batches:
    """Three batches whose two channels have other means and variances than a fresh BatchNorm assumes."""

    values = np.random.default_rng(0).normal((3.0, -20.0), (2.0, 5.0), (3, 16, 2)).astype("float32")

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {"image": self.values[i], "sex": np.zeros((16, 1), "float32")}, {}


@pytest.fixture
def one_batchnorm():
    inputs = {"image": keras.Input((2,), name="image"), "sex": keras.Input((1,), name="sex")}
    x = layers.BatchNormalization(momentum=0.99)(inputs["image"])
    return keras.Model(inputs, layers.Dense(1)(x))


@pytest.mark.parametrize(("count", "used"), [(3, 3), (2, 2), (40, 3)])
def test_statistics_are_those_of_the_batches_alone_the_later_the_heavier(one_batchnorm, count, used):
    BatchNormEstimator(one_batchnorm).run(Batches(), count)
    weights = 0.9 ** np.arange(used)[::-1]
    mean = np.average([batch.mean(0) for batch in Batches.values[:used]], axis=0, weights=weights)
    variance = np.average([batch.var(0) for batch in Batches.values[:used]], axis=0, weights=weights)
    layer = next(v for v in one_batchnorm.layers if isinstance(v, layers.BatchNormalization))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.moving_mean), mean, rtol=1e-4)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.moving_variance), variance, rtol=1e-4)


def test_estimating_changes_nothing_but_the_statistics(one_batchnorm):
    layer = next(v for v in one_batchnorm.layers if isinstance(v, layers.BatchNormalization))
    layer.trainable = False
    before = numpy_of([layer.gamma, layer.beta, *one_batchnorm.layers[-1].weights])
    BatchNormEstimator(one_batchnorm).run(Batches(), 3)
    assert (layer.momentum, layer.trainable) == (0.99, False)
    assert same(before, numpy_of([layer.gamma, layer.beta, *one_batchnorm.layers[-1].weights]))
    assert np.abs(numpy_of([layer.moving_mean])[0]).min() > 0.5


def test_a_failing_batch_leaves_the_flags_as_they_were(one_batchnorm):
    class Broken(Batches):
        def __getitem__(self, i):
            raise OSError("the disk went away")

    layer = next(v for v in one_batchnorm.layers if isinstance(v, layers.BatchNormalization))
    with pytest.raises(OSError, match="went away"):
        BatchNormEstimator(one_batchnorm).run(Broken(), 3)
    assert (layer.momentum, layer.trainable) == (0.99, True)


def test_no_batches_no_change(one_batchnorm):
    before = numpy_of(one_batchnorm.weights)
    BatchNormEstimator(one_batchnorm).run(Batches(), 0)
    assert same(before, numpy_of(one_batchnorm.weights))


# --- the run folder


def test_a_finished_run_explains_itself(tiny_run, tiny_config, phantom_cache):
    assert {p.name for p in tiny_run.iterdir()} >= {
        "config.json", "split.csv", "history.csv", "history.pkl", "predictions_validation.csv", "run.json",
        "model.keras", "logs",
    }  # fmt: skip
    assert not (tiny_run / "checkpoint").exists()
    assert not [p for p in tiny_run.iterdir() if p.name.startswith(".")]
    assert TrainConfig.load(tiny_run / "config.json") == tiny_config
    facts = json.loads((tiny_run / "run.json").read_text())
    assert facts["phantom"] is True
    assert facts["images"] == {"train": 42, "validation": 6}
    assert facts["initial_weights"] == {"name": "none (random)"}
    assert facts["parameters"] == load_model(tiny_run / "model.keras").count_params()
    split = pd.read_csv(tiny_run / "split.csv", dtype={"id": str})
    months = phantom_cache.rows(split["id"][split["set"] == "train"])["months"]
    assert facts["months_mean"] == pytest.approx(months.mean())
    assert list((tiny_run / "logs").glob("events*"))


def test_history_is_a_plain_dict_of_lists_that_needs_no_keras(tiny_run):
    class OnlyBuiltins(pickle.Unpickler):
        def find_class(self, module, name):
            raise AssertionError(f"history.pkl needs {module}.{name}")

    with (tiny_run / "history.pkl").open("rb") as file:
        history = OnlyBuiltins(file).load()
    table = pd.read_csv(tiny_run / "history.csv")
    assert list(history) == list(table.columns)
    assert history["epoch"] == [1, 2, 3]
    assert all(type(v) is float for v in history["val_mae"])
    np.testing.assert_allclose(history["val_mae"], table["val_mae"], rtol=1e-5)
    assert {"loss", "months_mae", "groups_accuracy", "val_accuracy", "learning_rate", "size"} <= set(history)


def test_validation_predictions_are_those_of_the_shipped_file(tiny_run, phantom_cache):
    table = pd.read_csv(tiny_run / "predictions_validation.csv", dtype={"id": str})
    again = predict(load_model(tiny_run / "model.keras"), phantom_cache, table["id"], 32, progress=False)
    np.testing.assert_allclose(again["predicted_months"], table["predicted_months"], rtol=1e-4)
    split = pd.read_csv(tiny_run / "split.csv", dtype={"id": str})
    assert table["id"].tolist() == split["id"][split["set"] == "validation"].tolist()
    best = json.loads((tiny_run / "run.json").read_text())["best_epoch"]
    mae = (table["predicted_months"] - table["reference_months"]).abs().mean()
    assert mae == pytest.approx(pd.read_csv(tiny_run / "history.csv")["val_mae"][best - 1], abs=0.05)


def test_a_run_repeated_gives_the_same_weights_and_scores(tiny_run, tiny_config, phantom_cache, tmp_path):
    again = train.train(tiny_config, phantom_cache.folder, tmp_path)
    first, second = (load_model(r / "model.keras").weights for r in (tiny_run, again))
    assert same(numpy_of(first), numpy_of(second))
    first, second = (
        pd.read_csv(r / "history.csv").drop(columns=["seconds", "images_per_second"]) for r in (tiny_run, again)
    )
    pd.testing.assert_frame_equal(first, second)


def test_a_finished_run_is_never_overwritten(tiny_run, tiny_config):
    for resume in (False, True):
        with pytest.raises(BoneageError, match=r"joint holds a finished run; give this one another name"):
            RunFolder(tiny_run).claim(tiny_config, resume)


@pytest.fixture
def unfinished(tmp_path, tiny_config):
    folder = RunFolder(tmp_path / "run")
    folder.claim(tiny_config, resume=False)
    (folder.path / "checkpoint").mkdir()
    np.savez(folder.path / "checkpoint/state.npz", state=json.dumps({"progress": {}}))
    return folder


def test_an_unfinished_run_is_continued_only_on_request_and_only_as_it_was(unfinished, tiny_config, small):
    with pytest.raises(BoneageError, match="holds an unfinished run; continue it with --resume"):
        unfinished.claim(tiny_config, resume=False)
    with pytest.raises(BoneageError, match="has another config; give its own"):
        unfinished.claim(small(learning_rate=0.5), resume=True)
    unfinished.claim(tiny_config, resume=True)
    assert TrainConfig.load(unfinished.path / "config.json") == tiny_config


def test_there_must_be_something_to_resume(tmp_path, tiny_config):
    with pytest.raises(BoneageError, match=r"nothing to resume in .*run"):
        RunFolder(tmp_path / "run").claim(tiny_config, resume=True)
    assert not (tmp_path / "run").exists()


# --- checkpoints


@pytest.fixture(scope="module")
def trained(phantom_cache):
    """A compiled model after one epoch, its optimizer's slots, averages and dropout seed no longer fresh."""
    rows = phantom_cache.index.iloc[:24]
    model = build(TINY_CONFIG, 120, 40)
    run = train._Run(TINY_CONFIG, RunFolder("unused"), phantom_cache, {"train": rows, "validation": rows}, model)
    run.compile()
    model.fit(TrainingBatches(phantom_cache, rows, TINY_CONFIG, 32, 0), verbose=0, shuffle=False)
    return model


def test_a_checkpoint_brings_back_every_variable(trained, tmp_path):
    checkpoint = Checkpoint(tmp_path)
    variables = trained.variables + trained.optimizer.variables
    paths = " ".join(v.path for v in variables)
    assert all(part in paths for part in ("seed", "moving_mean", "iteration", "momentum", "velocity", "average"))
    kept = numpy_of(variables)
    checkpoint.save(trained, {"progress": {"epoch": 1}})
    for variable in variables:
        variable.assign(np.ones(variable.shape, variable.dtype))
    assert not same(kept, numpy_of(variables))
    checkpoint.restore(trained)
    assert same(kept, numpy_of(variables))
    assert checkpoint.load() == {"progress": {"epoch": 1}}


def test_a_full_disk_is_told_and_spares_the_earlier_checkpoint(trained, tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(trained, {"progress": {"epoch": 1}})
    before = (tmp_path / "state.npz").read_bytes()

    def full(path, **arrays):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(BoneageError, match=r"state.npz \(No space left on device\); free some space"):
        checkpoint.save(trained, {"progress": {"epoch": 2}})
    assert (tmp_path / "state.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


# --- the loop


@pytest.fixture
def watched(monkeypatch):
    """Weights that a run validated with and weights that it checkpointed, one entry an epoch."""
    seen = {"validated": [], "checkpointed": [], "all": []}
    score, save = train._Run.score, Checkpoint.save

    def watched_score(self, size):
        seen["validated"].append(numpy_of(self.model.trainable_variables))
        seen["all"].append(numpy_of(self.model.weights))
        return score(self, size)

    def watched_save(self, model, state):
        seen["checkpointed"].append(numpy_of(model.trainable_variables))
        save(self, model, state)

    monkeypatch.setattr(train._Run, "score", watched_score)
    monkeypatch.setattr(Checkpoint, "save", watched_save)
    return seen


def test_averaged_weights_are_validated_and_raw_ones_trained_on(small, phantom_cache, tmp_path, watched):
    config = small(head="regression", batch_size=42, stages=(Stage(32, 4),), average=0.8, warmup_epochs=0.0)
    train.train(config, phantom_cache.folder, tmp_path)  # one step an epoch
    average = watched["checkpointed"][0]
    for raw, validated in zip(watched["checkpointed"], watched["validated"], strict=True):
        average = [0.8 * a + 0.2 * w for a, w in zip(average, raw, strict=True)]
        for ours, hand in zip(validated, average, strict=True):
            np.testing.assert_allclose(ours, hand, atol=1e-6)
    last_raw, last_average = watched["checkpointed"][-1], watched["validated"][-1]
    assert max(np.abs(r - a).max() for r, a in zip(last_raw, last_average, strict=True)) > 1e-4


def test_without_an_average_the_trained_weights_are_validated(small, phantom_cache, tmp_path, watched):
    train.train(small(average=0.0, stages=(Stage(32, 2),)), phantom_cache.folder, tmp_path)
    assert len(watched["validated"]) == 2
    for raw, validated in zip(watched["checkpointed"], watched["validated"], strict=True):
        assert same(raw, validated)


@pytest.mark.parametrize("batches", [0, 5])
def test_batchnorm_statistics_are_estimated_with_or_without_an_average(
    small, phantom_cache, tmp_path, monkeypatch, batches
):
    asked = []
    monkeypatch.setattr(BatchNormEstimator, "run", lambda self, batches, count: asked.append(count))
    config = small(average=0.0, batchnorm_batches=batches, stages=(Stage(32, 2),))
    train.train(config, phantom_cache.folder, tmp_path)
    assert asked == [batches] * 3, "before the first step and after each epoch"


def test_training_stops_early_and_exports_its_best_epoch(small, phantom_cache, tmp_path, watched, monkeypatch):
    scores = iter([50.0, 30.0, 31.0, 30.0, 1.0])
    score = train._Run.score
    monkeypatch.setattr(train._Run, "score", lambda self, size: score(self, size) | {"score": next(scores)})
    config = small(head="regression", patience=2, stages=(Stage(32, 5),))
    run = train.train(config, phantom_cache.folder, tmp_path)
    facts = json.loads((run / "run.json").read_text())
    assert (facts["epochs"], facts["best_epoch"]) == (4, 2)
    exported = numpy_of(load_model(run / "model.keras").weights)
    for ours, best in zip(exported, watched["all"][1], strict=True):
        np.testing.assert_array_equal(ours, best.astype("float16") if best.ndim >= 2 else best)
    assert not same(watched["validated"][1], watched["validated"][3])


def test_only_epochs_of_the_last_size_compete(small, phantom_cache, tmp_path, monkeypatch):
    scores = iter([1.0, 9.0, 8.0])  # the small images do best, and do not count
    monkeypatch.setattr(train._Run, "score", lambda self, size: {"val_mae": (s := next(scores)), "score": s})
    config = small(head="regression", patience=1, stages=(Stage(24, 1), Stage(32, 2)))
    folder = train.train(config, phantom_cache.folder, tmp_path)
    assert json.loads((folder / "run.json").read_text())["best_epoch"] == 3


def test_stages_change_the_size_and_the_schedule_ends_at_nought(small, phantom_cache, tmp_path):
    config = small(head="classification", stages=(Stage(24, 1), Stage(32, 1), Stage(48, 2)), ramp_steps=10_000)
    run = train.train(config, phantom_cache.folder, tmp_path)
    history = pd.read_csv(run / "history.csv")
    assert history["size"].tolist() == [24, 32, 48, 48]
    assert load_model(run / "model.keras").get_layer("image").output.shape == (None, 48, 48, 1)
    # A rise longer than the run is cut to its tenth: the rate still reaches its height, and then falls to nothing.
    assert history["learning_rate"].is_monotonic_decreasing
    assert history["learning_rate"][0] > 0.8 * config.learning_rate
    assert history["learning_rate"].iloc[-1] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(history["score"], history["val_log_loss"])
    assert "val_mae" not in history
    assert "predicted_months" not in pd.read_csv(run / "predictions_validation.csv")


def test_a_plateau_halves_the_rate_after_two_epochs_without_a_better_score(small, phantom_cache, tmp_path, monkeypatch):
    scores = iter([9.0, 8.0, 8.5, 8.0, 8.1, 7.0, 7.5])
    monkeypatch.setattr(train._Run, "score", lambda self, size: {"score": next(scores)})
    config = small(
        head="regression", schedule="plateau", loss="mse", learning_rate=0.01, patience=9, stages=(Stage(32, 7),),
        batch_size=42, clip_norm=0.0, weight_decay=0.0, average=0.0, batchnorm_batches=0, warmup_epochs=0.0,
    )  # fmt: skip
    history = pd.read_csv(train.train(config, phantom_cache.folder, tmp_path) / "history.csv")
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.005], rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "cost"),
    [
        ("mse", (0.5**2 + 3**2) / 2),  # z-scored: errors of half a standard deviation and of three
        ("huber", (12 * (20 - 6) + 12 * (120 - 6)) / 2 / (12 * 40)),  # straight from 12 months on
    ],
)
def test_what_an_error_costs(small, phantom_cache, loss, cost):
    rows = phantom_cache.index.iloc[:24]
    config = small(head="regression", loss=loss)
    run = train._Run(
        config, RunFolder("unused"), phantom_cache, {"train": rows, "validation": rows}, build(config, 120, 40)
    )
    run.sd = 40.0
    run.compile()
    got = run.model.compute_loss(
        y={"months": np.float32([[100], [100]])}, y_pred={"months": keras.ops.convert_to_tensor([[120.0], [220.0]])}
    )
    assert float(got) == pytest.approx(cost, rel=1e-5)


def test_warming_up_trains_the_head_and_only_the_head(small, phantom_cache):
    rows = phantom_cache.index.iloc[:42]
    config = small(warmup_epochs=1.5, batchnorm_batches=0)
    model = build(config, 120, 40)
    before = {v.path: value for v, value in zip(model.weights, numpy_of(model.weights), strict=True)}
    trainable = [v.path for v in model.trainable_variables]
    run = train._Run(config, RunFolder("unused"), phantom_cache, {"train": rows, "validation": rows}, model)
    run.warm_up_head()
    moved = {
        v.path
        for v, value in zip(model.weights, numpy_of(model.weights), strict=True)
        if (value != before[v.path]).any()
    }
    assert moved
    assert all(path.startswith(("head_", "groups")) for path in moved)
    assert int(model.optimizer.iterations) == round(1.5 * (42 // 8))
    assert [v.path for v in model.trainable_variables] == trainable


def test_only_epochs_of_the_last_stage_count_as_waiting(small):
    long = SimpleNamespace(config=small(stages=(Stage(32, 7), Stage(64, 9)), patience=5))
    stops = train._Run.stops_early
    assert not stops(long, train.Progress(epoch=7, best_epoch=0))
    assert not stops(long, train.Progress(epoch=11, best_epoch=0))
    assert stops(long, train.Progress(epoch=12, best_epoch=0))
    assert not stops(long, train.Progress(epoch=12, best_epoch=7))


def test_a_run_begun_on_another_split_is_not_resumed(tmp_path):
    split = pd.DataFrame({"id": ["1", "2"], "set": ["train", "holdout"]})
    folder = RunFolder(tmp_path)
    folder.save_split(split)
    folder.save_split(split, begun=True)
    with pytest.raises(BoneageError, match="was begun on other images, or on another split of them"):
        folder.save_split(split.assign(set=["holdout", "train"]), begun=True)
    assert list(pd.read_csv(tmp_path / "split.csv")["set"]) == ["train", "holdout"]


def test_a_diverged_run_is_told(small, phantom_cache, tmp_path):
    config = small(head="regression", learning_rate=1e38, warmup_epochs=0.0, stages=(Stage(32, 1),))
    with pytest.raises(
        BoneageError, match=r"training diverged \(validation score nan at .*start a new run with a lower"
    ):
        train.train(config, phantom_cache.folder, tmp_path)


def test_biases_and_normalisation_are_not_decayed(trained):
    decayed = {v.name for v in trained.trainable_variables if trained.optimizer._use_weight_decay(v)}
    assert decayed == {"kernel"}


def test_a_log_gets_one_line_an_epoch(small, capsys):
    line = LiveLine(small(stages=(Stage(32, 2), Stage(64, 1))), steps=5, first_epoch=0, guess=30.0)
    line.open(0, 32)
    record = {"epoch": 1, "size": 32, "loss": 1.25, "val_mae": 12.345, "val_accuracy": 0.5, "images_per_second": 99.6}
    line.begin -= 60
    line.close(record, train.Progress(epoch=1, best_epoch=0))
    assert capsys.readouterr().out == (
        "Tiny joint: epoch 1/3 at 32 px: loss 1.250, validation MAE 12.35 months, accuracy 50.0%, 100 images/s, "
        "best so far, about 5 min left\n"  # one epoch of 32 px and one of 64 px are left: five times the work
    )


def test_a_log_hears_of_a_long_epoch_now_and_then(small, capsys, monkeypatch):
    minutes = [0]
    clock = SimpleNamespace(monotonic=lambda: 60.0 * minutes[0], perf_counter=live.time.perf_counter)
    monkeypatch.setattr(live, "time", clock)
    line = LiveLine(small(stages=(Stage(32, 3),)), steps=5, first_epoch=0, guess=30.0)
    line.open(0, 32)
    tick = line.callback()
    for batch, minutes[0] in enumerate((1, 4, 6, 7, 12)):
        tick.on_train_batch_end(batch, {"loss": 1.25, "months_mae": 9.0})
    assert capsys.readouterr().out == (
        "Tiny joint: epoch 1/3, 32 px: batch 3/5, loss 1.25, MAE 9.00\n"
        "Tiny joint: epoch 1/3, 32 px: batch 5/5, loss 1.25, MAE 9.00\n"
    )


@pytest.mark.parametrize(("mae", "warned"), [(27.5, True), (26.5, False)])
def test_a_model_that_does_no_better_than_the_mean_is_told(small, capsys, mae, warned):
    line = LiveLine(small(), steps=5, first_epoch=0, guess=30.0)
    line.open(0, 32)
    line.close(
        {"epoch": 1, "size": 32, "loss": 1.0, "val_mae": mae, "images_per_second": 1.0},
        train.Progress(epoch=1, best_epoch=0),
    )
    said = "hardly better than always answering the mean (30.00): if it stays so, start anew with a lower learning_rate"
    assert (said in capsys.readouterr().out) is warned


# --- precision


def test_a_given_precision_is_taken(small):
    assert precision.choose(small(precision="float32")) == "float32"
    assert precision.choose(small(precision="mixed_bfloat16")) == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"float32": 1.1, "mixed_bfloat16": 1.0, "dense_bfloat16": 1.0}, "float32"),
        ({"float32": 1.3, "mixed_bfloat16": 1.0, "dense_bfloat16": 1.1}, "mixed_bfloat16"),
        ({"float32": 1.3, "mixed_bfloat16": 2.0, "dense_bfloat16": 1.0}, "dense_bfloat16"),
    ],
)
def test_half_precision_must_pay(small, monkeypatch, seconds, chosen):
    monkeypatch.setattr(precision, "_seconds", lambda policy, block, hopeless=0: seconds[policy])
    assert precision.choose(small(precision="auto")) == chosen


@pytest.mark.parametrize("block", [precision._plain, precision._inverted, precision._separable])
def test_the_timing_itself_gives_seconds_for_every_precision(block):
    kinds = ("float32", "mixed_bfloat16", "dense_bfloat16")
    assert all(0 < precision._seconds(kind, block) < 60 for kind in kinds)


@pytest.mark.parametrize(("hopeless", "steps"), [(0, 2), (1e9, 6)])
def test_a_precision_without_hope_is_timed_no_further(monkeypatch, hopeless, steps):
    taken = []
    monkeypatch.setattr(keras.Sequential, "train_on_batch", lambda self, x, y: taken.append(x))
    precision._seconds("float32", precision._inverted, hopeless)
    assert len(taken) == steps, "the first compiles and does not count"


@pytest.mark.parametrize("kind", ["mixed_bfloat16", "dense_bfloat16"])
def test_a_mixed_precision_run_trains_ships_float32_and_leaves_the_policy(small, phantom_cache, tmp_path, kind):
    config = small(head="regression", precision=kind, stages=(Stage(32, 1),))
    run = train.train(config, phantom_cache.folder, tmp_path)
    assert keras.config.dtype_policy().name == "float32"
    with zipfile.ZipFile(run / "model.keras") as archive:
        assert "bfloat16" not in archive.read("config.json").decode()
    assert json.loads((run / "run.json").read_text())["precision"] == kind


def test_dense_bfloat16_rounds_what_mixes_channels_and_nothing_else():
    def make():
        bias = keras.initializers.RandomNormal(stddev=1.0, seed=1)
        return keras.Sequential(
            [
                keras.Input((16, 16, 8)),
                keras.layers.Conv2D(12, 1, name="dense"),
                keras.layers.DepthwiseConv2D(3, name="depthwise"),
                keras.layers.SeparableConv2D(
                    6, 3, padding="same", activation="relu", bias_initializer=bias, name="both"
                ),
            ]
        )

    plain, half = make(), precision.build_under("dense_bfloat16", make)
    half.set_weights(plain.get_weights())
    assert {layer.name: layer.compute_dtype for layer in half.layers} == {
        "dense": "bfloat16", "depthwise": "float32", "both": "float32",
    }  # fmt: skip
    assert all(w.dtype == "float32" for w in half.weights)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype("float32")
    exact, rounded = (numpy_of([m(x)])[0] for m in (plain, half))
    assert rounded.dtype == np.float32
    assert 1e-6 < np.abs(exact - rounded).mean() / np.abs(exact).mean() < 0.02


# --- it learns


def test_a_tiny_network_learns_the_age_of_a_phantom(small, tmp_path):
    cache = prepare(make_dataset(tmp_path / "phantom", n=300, height=128), 64, tmp_path / "cache")
    gentle = Augmentation(5, 0.05, 0.02, 0.5, 0.05, 0.1, 1.1, 0.0)
    config = small(
        head="regression", stages=(Stage(64, 30),), batch_size=16, learning_rate=1e-2, average=0.9, patience=30,
        batchnorm_batches=20, dropout=0.0, augmentation=gentle,
    )  # fmt: skip
    table = pd.read_csv(train.train(config, cache.folder, tmp_path) / "predictions_validation.csv")
    reference = table["reference_months"]
    mean_mae = (reference - reference.mean()).abs().mean()
    assert (table["predicted_months"] - reference).abs().mean() < mean_mae / 2
