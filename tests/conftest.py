"""What the tests share: a phantom, its cache, a backbone that trains in seconds and a finished run of it."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow

from dataclasses import replace
from pathlib import Path

import keras
import pytest
from keras import layers

from boneage import cli
from boneage.config import Stage, TrainConfig
from boneage.data.cache import Cache, prepare
from boneage.data.phantom import make_dataset
from boneage.models import backbones


def build_tiny(include_top=False, weights=None, input_tensor=None, input_shape=None) -> keras.Model:
    """A builder as `keras.applications` has them: three convolutions, each with BatchNorm, 16 channels at stride 4."""
    assert not include_top
    assert weights is None
    x = keras.Input(input_shape) if input_tensor is None else input_tensor
    inputs = keras.utils.get_source_inputs(x)  # of a model that input_tensor belongs to, as keras.applications does
    for filters, strides, name in ((16, 2, "tiny_1"), (32, 2, "tiny_2"), (16, 1, "tiny_out")):
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=name + "_conv")(x)
        x = layers.BatchNormalization(name=name + "_bn")(x)
        x = layers.Activation("relu", name=name)(x)
    return keras.Model(inputs, x, name="tiny")


TINY = backbones.register(
    backbones.BackboneSpec(
        name="Tiny", builder=build_tiny, size=32, scale=1 / 127.5, offset=-1.0, feature_layer="tiny_out", stride=4,
        features=16, parameters=9_904, paper="none",
    )
)  # fmt: skip

TINY_CONFIG = TrainConfig(
    backbone="Tiny", initial_weights="none", stages=(Stage(32, 3),), batch_size=8, learning_rate=3e-3, ramp_steps=2,
    average=0.8, batchnorm_batches=5, dense=32, dropout=0.1, precision="float32",
)  # fmt: skip


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """No test writes into the repository: default places lie in its own temporary folder."""
    monkeypatch.setenv("BONEAGE_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("BONEAGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory) -> Path:
    """A phantom data set of 60 images, 96 px high."""
    return make_dataset(tmp_path_factory.mktemp("data") / "phantom", n=60, height=96)


@pytest.fixture(scope="session")
def phantom_cache(phantom_dir, tmp_path_factory) -> Cache:
    """Its opened cache, 64 px; `phantom_cache.folder` is what `train` takes as data."""
    return prepare(phantom_dir, 64, tmp_path_factory.mktemp("cache") / "phantom-64")


@pytest.fixture(scope="session")
def tiny_backbone() -> backbones.BackboneSpec:
    return TINY


@pytest.fixture
def tiny_config() -> TrainConfig:
    """Three epochs of a joint Tiny at 32 px."""
    return TINY_CONFIG


@pytest.fixture(scope="session")
def tiny_run(phantom_cache, tmp_path_factory) -> Path:
    """A finished joint run of Tiny on the phantom, `<outputs>/Tiny/joint`; read it, do not change it."""
    from boneage.training.train import train

    return train(TINY_CONFIG, phantom_cache.folder, tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def small():
    """`small(**changes)`: the tiny config with some fields changed."""
    return lambda **changes: replace(TINY_CONFIG, **changes)


@pytest.fixture
def boneage(monkeypatch, capsys):
    """`boneage(*arguments)` -> exit code, standard output, error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["boneage", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run
