"""A small trained EfficientNet grown into a larger one: the same function, from another network."""

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
from keras.src.applications.efficientnet import EfficientNet  # the public builders are all of full size

from boneage.errors import BoneageError
from boneage.models import backbones
from boneage.models.build import build
from boneage.models.grow import grow
from boneage.models.weights import load_initial, save_half

SIZES = {"Small": (0.25, 0.5), "Large": (0.5, 1.1), "Narrow": (0.15, 0.5)}  # width and depth, times EfficientNetB0's


def builder(width, depth, include_top=False, weights=None, input_tensor=None, input_shape=None):
    return EfficientNet(
        width, depth, default_size=32, include_top=include_top, weights=weights, input_tensor=input_tensor,
        input_shape=input_shape, name="efficientnet",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    like = backbones.get("EfficientNetB0")
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones._REGISTRY, name, replace(like, name=name, builder=partial(builder, *size)))


@pytest.fixture
def make(tiny_config):
    """`make(name, seed)`: a model with random weights, random BatchNorm statistics and a scale of colours."""

    def made(name, seed=0, **changes):
        keras.utils.set_random_seed(seed)
        model = build(replace(tiny_config, backbone=name, **changes), 120.0, 40.0, size=32)
        random = np.random.default_rng(seed)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        return model

    return made


@pytest.fixture
def hands():
    random = np.random.default_rng(5)
    return {"image": random.uniform(0, 255, (4, 32, 32, 1)).astype("float32"), "sex": np.array([[0.0], [1], [0], [1]])}


def test_the_grown_network_answers_as_the_small_one_did(make, hands):
    small, large = make("Small", 1), make("Large", 2)
    assert large.count_params() > 3 * small.count_params()
    grow(large, small, noise=0.0)
    ours, theirs = large.predict(hands, verbose=0), small.predict(hands, verbose=0)
    assert np.ptp(theirs["months"]) > 0.01, "an answer that never varies would prove nothing"
    np.testing.assert_allclose(ours["months"], theirs["months"], rtol=1e-4)
    np.testing.assert_allclose(ours["groups"], theirs["groups"], atol=1e-4)


def test_copies_of_a_channel_differ_by_the_noise_and_the_answer_hardly(make, hands):
    small, large = make("Small", 1), make("Large", 2)
    grow(large, small, noise=0.01)
    kernel = large.get_layer("top_conv").get_weights()[0]
    width = small.get_layer("top_conv").output.shape[-1]
    first, copy = kernel[..., 0], kernel[..., width]
    assert 0 < np.abs(first / copy - 1).mean() < 0.05
    np.testing.assert_allclose(
        large.predict(hands, verbose=0)["months"], small.predict(hands, verbose=0)["months"], atol=2.0
    )


def test_a_run_of_the_small_one_is_initial_weights_for_the_large_one(make, hands, tmp_path):
    small, large = make("Small", 1), make("Large", 2)
    (tmp_path / "Small/joint").mkdir(parents=True)
    save_half(small, tmp_path / "Small/joint/model.keras")
    said = load_initial(large, "Large", str(tmp_path / "Small/joint/model.keras"))
    assert said["name"] == "Small/joint/model.keras, grown (Net2Net)"
    assert len(said["sha256"]) == 64
    np.testing.assert_allclose(
        large.predict(hands, verbose=0)["months"], small.predict(hands, verbose=0)["months"], atol=2.0
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Narrow", {}, "is narrower"),
        ("Tiny", {}, "Small_joint does not fit Tiny_joint; start from a run of the same"),
        ("Large", {"dense": 8}, "differ in head_dense; give both the same head"),
    ],
)
def test_what_does_not_fit_is_refused(make, name, changes, message):
    with pytest.raises(BoneageError, match=message):
        grow(make(name, **changes), make("Small"))
