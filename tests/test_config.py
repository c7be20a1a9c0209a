"""A config is plain values: it round-trips through JSON and refuses what it does not know."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage.config import Augmentation, Stage, TrainConfig, format_stages, parse_stages
from boneage.errors import BoneageError


def test_a_config_survives_saving_and_loading(tmp_path):
    config = TrainConfig(
        backbone="Xception",
        stages=(Stage(96, 2), Stage(160, 1)),
        use_sex=False,
        learning_rate=5e-4,
        augmentation=Augmentation(rotation=3.5, flip=0.0),
    )
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert json.loads((tmp_path / "config.json").read_text())["stages"] == "96x2,160x1"


def test_missing_keys_take_their_defaults():
    assert TrainConfig.from_dict({}) == TrainConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1e-3}, r"unknown config key learning_rat; known keys: .*learning_rate"),
        ({"augmentation": {"zoom": 1.0}}, r"unknown augmentation key zoom; known keys: rotation"),
        ({"batch_size": "32"}, r"batch_size takes a int\. Received: '32'"),
        ({"batch_size": 32.0}, r"batch_size takes a int"),
        ({"use_sex": 1}, r"use_sex takes a bool"),
        ({"learning_rate": True}, r"learning_rate takes a float"),
        ({"backbone": 5}, r"backbone takes a str"),
        ({"augmentation": 5}, r"augmentation takes keys and values\. Received: 5"),
        ({"stages": "128"}, r"SIZExEPOCHS"),
        ({"stages": 128}, r"SIZExEPOCHS"),
        ({"stages": "128x2x3"}, r"SIZExEPOCHS"),
        ({"stages": "8x1"}, r"at least 16 px"),
        ({"stages": "128x0"}, r"at least one epoch"),
        ({"head": "ordinal"}, r"head must be one of joint, regression, classification"),
        ({"loss": "mae"}, r"loss must be one of huber, mse\. Received: 'mae'"),
        ({"schedule": "step"}, r"schedule must be one of cosine, plateau"),
        ({"input_scale": "255"}, r"input_scale must be one of backbone, unit"),
        ({"precision": "float16"}, r"precision must be one of"),
        ({"average": 1.0}, r"average must lie in"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(BoneageError, match=message):
        TrainConfig.from_dict(values)


def test_a_whole_number_will_do_for_a_float():
    config = TrainConfig.from_dict({"dropout": 0})
    assert config.dropout == 0.0
    assert type(config.dropout) is float


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "no config file at"), ("{", "is not valid JSON"), ("[1]", "keys and values")]
)
def test_a_config_file_that_is_none(tmp_path, text, reason):
    path = tmp_path / "config.json"
    if text:
        path.write_text(text)
    with pytest.raises(BoneageError, match=reason):
        TrainConfig.load(path)


def test_settings_from_the_command_line():
    config = TrainConfig().with_settings(
        ["backbone=ResNet101", "stages=96x2,128x1", "use_sex=False", "deterministic=true", "batch_size=16",
         "learning_rate=5e-4", "augmentation.rotation=0", "augmentation.flip=0.25", "name=try 1"]
    )  # fmt: skip
    assert config == TrainConfig(
        backbone="ResNet101",
        stages=(Stage(96, 2), Stage(128, 1)),
        use_sex=False,
        deterministic=True,
        batch_size=16,
        learning_rate=5e-4,
        augmentation=Augmentation(rotation=0.0, flip=0.25),
        name="try 1",
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size", r"key=value\. Received: 'batch_size'"),
        ("epochs=3", "unknown config key epochs"),
        ("augmentation.zoom=1", "unknown augmentation key zoom"),
        ("model.size=1", r"unknown config key model\.size"),
        ("use_sex=yes", "use_sex takes a bool"),
        ("augmentation=1", "augmentation takes keys and values"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(BoneageError, match=message):
        TrainConfig().with_settings([setting])


def test_the_last_of_two_settings_wins_and_the_original_stays():
    config = TrainConfig()
    assert config.with_settings(["seed=1", "seed=2"]).seed == 2
    assert config.seed == 0


def test_which_stage_an_epoch_belongs_to():
    config = TrainConfig(stages=(Stage(96, 2), Stage(128, 1), Stage(160, 3)))
    assert [config.stage_of(e).size for e in range(6)] == [96, 96, 128, 160, 160, 160]
    assert (config.size, config.epochs) == (160, 6)
    with pytest.raises(IndexError):
        config.stage_of(6)


def test_a_run_is_named_after_its_head_unless_named():
    assert TrainConfig(head="regression").run_name == "regression"
    assert TrainConfig(name="no-sex").run_name == "no-sex"


@given(st.lists(st.tuples(st.integers(16, 1024), st.integers(1, 99)), min_size=1, max_size=5))
def test_stages_and_their_text_are_inverse(pairs):
    stages = tuple(Stage(*p) for p in pairs)
    assert parse_stages(format_stages(stages)) == stages
