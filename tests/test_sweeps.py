"""A campaign: a list of configs from a file, its state, the time left, and what it makes at its end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from boneage import sweeps
from boneage.config import Stage, TrainConfig
from boneage.errors import BoneageError
from boneage.sweeps import Campaign, describe, load, seconds_left, state

OUTPUTS = Path(__file__).parents[1] / "outputs"
B0 = TrainConfig(stages=(Stage(100, 2), Stage(200, 3)), name="a")


def history(outputs: Path, name: str, sizes: list[int], seconds: list[float]) -> Path:
    folder = outputs / "EfficientNetB0" / name
    folder.mkdir(parents=True)
    table = pd.DataFrame({"epoch": range(1, len(sizes) + 1), "size": sizes, "seconds": seconds})
    table.to_csv(folder / "history.csv", index=False)
    return folder


@pytest.mark.parametrize("name", sorted(f.stem for f in sweeps.SHIPPED.glob("*.toml")))
def test_every_shipped_campaign_is_sound(name):
    plan = load(name)
    runs = {f"{c.backbone}/{c.run_name}" for c in plan.configs}
    for ensemble in plan.ensembles:
        assert {m.removesuffix("/tta") for m in ensemble["members"]} <= runs
        assert all(m.endswith("/tta") <= ("tta" in plan.evaluation) for m in ensemble["members"])


def test_one_figure_compares_a_run_of_each_backbone_that_sees_the_same_frame():
    def run(backbone, name, **changes):
        return replace(B0, backbone=backbone, name=name, **changes)

    plan = Campaign(
        (
            run("EfficientNetB0", "whole"),
            run("EfficientNetB0", "groups", frame="hand", head="classification"),
            run("EfficientNetB0", "a", frame="hand"),
            run("EfficientNetB0", "b", frame="hand"),
            run("Xception", "c", frame="hand"),
        ),
        None,
    )
    assert sweeps.shown(plan, Path("o")) == [Path("o/EfficientNetB0/a"), Path("o/Xception/c")]
    assert sweeps.shown(Campaign(plan.configs[1:2], None), Path("o")) == []


@pytest.mark.parametrize("name", ["cpu", "ablation", "lookalike", "gpu", "real", "phantom"])
def test_a_shipped_campaign_has_a_figure_of_heat_maps(name):
    plan = load(name)
    backbones = {c.backbone for c in plan.configs if c.head != "classification"}
    assert {path.parent.name for path in sweeps.shown(plan, Path("o"))} == backbones


def test_the_lookalike_is_the_earlier_works_recipe():
    for config in load("lookalike").configs:
        assert (config.frame, config.input_scale, config.loss, config.schedule) == ("squash", "unit", "mse", "plateau")
        assert (config.weight_decay, config.clip_norm, config.average, config.batchnorm_batches) == (0, 0, 0, 0)
        a = config.augmentation
        assert (a.rotation, a.scale, a.shift, a.flip) == (10, 0.1, 0.1, 0.5)
        assert (a.brightness, a.contrast, a.gamma, a.equalise, a.curve) == (0, 0, 1, 0, 0)


def test_the_lookalike_has_the_budget_of_the_recipe_that_it_is_compared_with():
    def budget(config):
        return config.stages, config.batch_size, config.seed, config.initial_weights

    ours = {config.backbone: budget(config) for config in load("ablation").configs if config.name == "ours"}
    assert ours == {config.backbone: budget(config) for config in load("lookalike").configs}


def test_a_file_is_read_whole(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'evaluate = ["tone"]\n[defaults]\nseed = 3\n[[run]]\nname = "x"\n[[run]]\nname = "y"\nseed = 4\n'
        '[[ensemble]]\nname = "both"\nmembers = ["EfficientNetB0/x", "EfficientNetB0/y"]\n'
    )
    plan = load(str(path))
    assert plan.configs == (TrainConfig(seed=3, name="x"), TrainConfig(seed=4, name="y"))
    assert plan.evaluation == ("tone",)
    assert plan.ensembles == ({"name": "both", "members": ["EfficientNetB0/x", "EfficientNetB0/y"]},)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"needs \[\[run\]\] tables"),
        ("speed = 1\n[[run]]", "Received also: speed"),
        ('evaluate = ["tome"]\n[[run]]', "evaluate lists of tone, tta, speed. Received: tome"),
        ('[[run]]\n[[ensemble]]\nname = "x"', r"\[\[ensemble\]\] takes name and members.* Received: name"),
        ("[[run]]\n[[run]]", "two runs would share a folder"),
        ("[[run]]\nbackbon = 1", "unknown config key backbon"),
        ("[[run]", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BoneageError, match=message):
        load(str(tmp_path / "c.toml"))


def test_the_cpu_campaign_repeats_the_shipped_runs():
    for config in load("cpu").configs:
        run = OUTPUTS / config.backbone / config.run_name
        if (run / "run.json").exists():
            assert replace(TrainConfig.load(run / "config.json"), precision=config.precision) == config


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(BoneageError, match=r"shipped ones are .*gpu, known_truth, lookalike, phantom"):
        load("gpo")


def test_the_time_left_goes_by_the_runs_own_epochs(tmp_path):
    history(tmp_path, "a", [100, 100, 200], [10, 12, 60])  # 11 s, then 15 s, a hundredth of a megapixel: median 12
    assert seconds_left(B0, tmp_path) == pytest.approx(12 * 4 * 2)


def test_a_run_not_begun_goes_by_others_of_its_backbone_and_else_is_not_known(tmp_path):
    assert pd.isna(seconds_left(B0, tmp_path))
    history(tmp_path, "other", [50], [5])
    assert seconds_left(B0, tmp_path) == pytest.approx(5 * (2 * 4 + 3 * 16))


def test_the_state_is_told_with_the_time_left(tmp_path):
    done = history(tmp_path, "done", [100], [36])
    for name in ("model.keras", "metrics.json"):
        (done / name).write_text("")
    plan = Campaign((TrainConfig(name="done"), B0, TrainConfig(backbone="Xception")), None)
    assert [said for _, said in state(plan, tmp_path)] == ["finished", "to do", "to do"]
    lines = [" ".join(line.split()) for line in describe(plan, tmp_path).splitlines()]
    assert lines == [
        "EfficientNetB0 done finished",
        "EfficientNetB0 a to do about 8 min left",  # 36 s * (2 + 3 * 4)
        "Xception joint to do time not known yet",
        "more than 8 min of training left in all",
    ]
    asked = Campaign(plan.configs[:1], None, ("tone", "tta"))
    assert state(asked, tmp_path)[0][1] == "to evaluate"
    (done / "tta").mkdir()
    for name in ("predictions_tone.csv", "tta/predictions_validation.csv"):
        (done / name).write_text("")
    assert state(asked, tmp_path)[0][1] == "finished"


def test_ensembles_are_made_when_all_runs_are_there(tiny_run, small, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "Tiny" / "joint")
    (tmp_path / "Tiny/joint/metrics.json").write_text("{}")
    plan = Campaign((small(),), None, (), ({"name": "alone", "members": ["Tiny/joint"], "correction": "linear"},))
    assert sweeps.run(plan, Path("unused"), tmp_path) == [tmp_path / "Tiny/joint"]
    facts = json.loads((tmp_path / "Ensemble/alone/run.json").read_text())
    assert facts["members"][0]["run"] == "Tiny/joint"
    assert facts["correction"]["kind"] == "linear"
