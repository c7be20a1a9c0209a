"""The one build function: what goes in, what comes out, and in which units."""

import keras
import numpy as np
import pytest

from boneage.models.build import FEATURE_MAP, backbone_layers, build
from boneage.models.compiled import predictor

INPUTS = {
    "image": np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1)).astype("float32"),
    "sex": np.array([[0], [1], [0], [1]], "float32"),
}


@pytest.fixture
def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def with_sex(male: int) -> dict[str, np.ndarray]:
    return INPUTS | {"sex": np.full((4, 1), male, "float32")}


@pytest.mark.parametrize(
    ("head", "outputs"),
    [
        ("joint", {"months": (4, 1), "groups": (4, 4)}),
        ("regression", {"months": (4, 1)}),
        ("classification", {"groups": (4, 4)}),
    ],
)
def test_a_head_decides_the_outputs(small, head, outputs):
    model = build(small(head=head), 120, 40)
    assert {k: v.shape for k, v in predictor(model)(INPUTS).items()} == outputs
    assert model.name == f"Tiny_{head}"


def test_zero_weights_predict_the_mean_age_and_equal_chances(tiny_config):
    model = build(tiny_config, months_mean=127.3, months_sd=41.2)
    for layer_name in ("head_z", "groups"):
        for variable in model.get_layer(layer_name).weights:
            variable.assign(np.zeros(variable.shape))
    outputs = predictor(model)(INPUTS)
    np.testing.assert_allclose(outputs["months"], 127.3, rtol=1e-6)
    np.testing.assert_allclose(outputs["groups"], 0.25)


def test_months_are_z_times_sd_plus_mean(tiny_config):
    model = build(tiny_config, months_mean=100, months_sd=30)
    kernel, bias = model.get_layer("head_z").weights
    kernel.assign(np.zeros(kernel.shape))
    bias.assign([-1.5])
    np.testing.assert_allclose(predictor(model)(INPUTS)["months"], 100 - 1.5 * 30, rtol=1e-6)


@pytest.mark.parametrize(("scale", "low", "high"), [("backbone", -1, 1), ("unit", 0, 1)])
def test_the_range_that_the_backbone_is_given(small, scale, low, high):
    model = build(small(input_scale=scale), 120, 40)
    seen = keras.Model(model.inputs, model.get_layer("backbone_range").output)
    ramp = {"image": np.tile(np.linspace(0, 255, 32, dtype="float32"), (1, 32, 1))[..., None], "sex": np.zeros((1, 1))}
    values = keras.ops.convert_to_numpy(seen(ramp))
    assert (values.min(), values.max()) == pytest.approx((low, high), abs=1e-6)


def test_group_probabilities_sum_to_one(tiny_config):
    groups = predictor(build(tiny_config, 120, 40))(INPUTS)["groups"]
    assert groups.min() > 0
    np.testing.assert_allclose(groups.sum(1), 1, rtol=1e-6)


def test_the_head_and_the_outputs_stay_float32_under_a_mixed_policy(tiny_config, bfloat16):
    model = build(tiny_config, 120, 40)
    backbone = list(backbone_layers(model))
    assert {layer.compute_dtype for layer in backbone if layer.weights} == {"bfloat16"}
    assert {layer.compute_dtype for layer in model.layers if layer.name.startswith("head_")} == {"float32"}
    assert {v.dtype for v in model.weights} == {"float32"}
    outputs = predictor(model)(INPUTS)
    assert {v.dtype for v in outputs.values()} == {np.dtype("float32")}
    # In bfloat16 months between 64 and 128 would all be multiples of one half.
    assert np.abs(outputs["months"] * 2 - np.round(outputs["months"] * 2)).max() > 1e-3


def test_sex_moves_the_prediction(tiny_config):
    run = predictor(build(tiny_config, 120, 40))
    girls, boys = run(with_sex(0)), run(with_sex(1))
    assert np.abs(girls["months"] - boys["months"]).min() > 1e-3


def test_without_sex_the_input_stays_and_means_nothing(small):
    run = predictor(build(small(use_sex=False), 120, 40))
    girls, boys = run(with_sex(0)), run(with_sex(1))
    for name in girls:
        np.testing.assert_array_equal(girls[name], boys[name])


def test_the_model_is_flat_and_names_its_feature_map(tiny_config):
    model = build(tiny_config, 120, 40)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.get_layer(FEATURE_MAP).output.shape == (None, None, None, 16)
    assert {i.name: i.shape for i in model.inputs} == {"image": (None, None, None, 1), "sex": (None, 1)}


def test_a_given_size_is_told_by_the_model(tiny_config):
    model = build(tiny_config, 120, 40, size=32)
    assert {i.name: i.shape for i in model.inputs}["image"] == (None, 32, 32, 1)
    assert model.get_layer(FEATURE_MAP).output.shape == (None, 8, 8, 16)


def test_an_image_is_seen_in_the_backbones_own_range(tiny_config):
    model = build(tiny_config, 120, 40)
    seen = keras.Model(model.get_layer("image").output, model.get_layer("backbone_range").output)
    values = keras.ops.convert_to_numpy(seen(INPUTS["image"]))
    np.testing.assert_allclose(values, np.repeat(INPUTS["image"] / 127.5 - 1, 3, axis=-1), atol=1e-6)


def test_backbone_layers_are_those_that_the_builder_made(tiny_config, tiny_backbone):
    model = build(tiny_config, 120, 40)
    assert sum(layer.count_params() for layer in backbone_layers(model)) == tiny_backbone.parameters
    names = {layer.name for layer in backbone_layers(model)}
    assert {"three_channels", "tiny_1_conv", "tiny_out_bn"} <= names
    assert not {FEATURE_MAP, "image", "sex", "months", "groups"} & names


def test_a_saved_model_loads_with_plain_keras_in_safe_mode(tiny_config, tmp_path):
    model = build(tiny_config, 120, 40, size=32)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    ours, theirs = predictor(model)(INPUTS), predictor(loaded)(INPUTS)
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-6)
