"""Compiled calls say what the plain model says, on every backend, and see weights that change under them."""

import keras
import numpy as np
import pytest
from keras import layers

from boneage.models.build import build
from boneage.models.compiled import predictor, training_forward
from boneage.models.predict import inputs_of, predict


def images(n: int, size: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {"image": rng.uniform(0, 255, (n, size, size, 1)).astype("float32"), "sex": np.ones((n, 1), "float32")}


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.weights]


def test_predictor_agrees_with_the_model_and_gives_numpy(tiny_config):
    model = build(tiny_config, 120, 40)
    outputs = predictor(model)(images(3))
    plain = model(images(3), training=False)
    assert all(type(v) is np.ndarray for v in outputs.values())
    for name, value in plain.items():
        np.testing.assert_allclose(outputs[name], keras.ops.convert_to_numpy(value), rtol=1e-4, atol=1e-4)


def test_predictor_sees_new_weights_without_being_made_again(tiny_config):
    model = build(tiny_config, 120, 40)
    run = predictor(model)
    before = run(images(2))["months"]
    bias = model.get_layer("head_z").bias
    bias.assign([1.0])
    np.testing.assert_allclose(run(images(2))["months"], before + 40, atol=1e-3)


def test_predictor_takes_another_size_and_batch(tiny_config):
    run = predictor(build(tiny_config, 120, 40))
    assert [run(images(n, size))["months"].shape for n, size in ((2, 32), (5, 48))] == [(2, 1), (5, 1)]


def test_dropout_is_off(small):
    run = predictor(build(small(dropout=0.9), 120, 40))
    first, second = run(images(3)), run(images(3))
    np.testing.assert_array_equal(first["months"], second["months"])


def test_a_training_forward_moves_batchnorm_statistics_and_no_weight(tiny_config):
    model = build(tiny_config, 120, 40)
    statistics = {v.path for v in model.non_trainable_variables if "moving" in v.path}
    before = weights_of(model)
    training_forward(model)(images(4))
    moved = {v.path for v, old, new in zip(model.weights, before, weights_of(model), strict=True) if (old != new).any()}
    assert moved == statistics
    assert len(moved) == 6  # mean and variance of three layers


def test_a_training_forward_by_hand():
    inputs = {"image": keras.Input((2,), name="image"), "sex": keras.Input((1,), name="sex")}
    model = keras.Model(inputs, layers.BatchNormalization(momentum=0.75)(inputs["image"]))
    forward = training_forward(model)
    for _ in range(2):
        forward({"image": np.array([[1, 10], [3, 30]], "float32"), "sex": np.zeros((2, 1), "float32")})
    mean, variance = (keras.ops.convert_to_numpy(v) for v in model.layers[-1].non_trainable_variables)
    # mean: 0 -> 0.25 * 2 = 0.5 -> 0.75 * 0.5 + 0.5 = 0.875; variance (biased): 1 -> 0.75 + 0.25 * 1 -> the same.
    np.testing.assert_allclose(mean, [0.875, 8.75], rtol=1e-5)
    np.testing.assert_allclose(variance, [1.0, 0.75 * (0.75 + 25) + 25], rtol=1e-5)


# --- predictions as a table


def test_the_table_of_a_joint_model(tiny_config, phantom_cache):
    ids = ["7", "3", "12"]
    table = predict(build(tiny_config, 120, 40), phantom_cache, ids, 32, batch_size=2, progress=False)
    columns = ["id", "male", "reference_months", "predicted_months", "p_0_5", "p_5_10", "p_10_15", "p_15_20"]
    assert list(table.columns) == columns
    assert table["id"].tolist() == ids
    assert table["male"].tolist() == [1, 1, 0]  # the phantom's odd ids are boys
    known = phantom_cache.index.set_index("id")["months"]
    assert table["reference_months"].tolist() == [known[i] for i in ids]


@pytest.mark.parametrize(("head", "absent"), [("regression", "p_0_5"), ("classification", "predicted_months")])
def test_a_head_that_is_not_there_has_no_columns(small, phantom_cache, head, absent):
    table = predict(build(small(head=head), 120, 40), phantom_cache, ["1"], 32, progress=False)
    assert absent not in table


def test_the_batch_does_not_matter(tiny_config, phantom_cache):
    model = build(tiny_config, 120, 40)
    ids = phantom_cache.index["id"].iloc[:7]
    one, three, all_ = (predict(model, phantom_cache, ids, 32, n, progress=False) for n in (1, 3, 64))
    for other in (three, all_):
        np.testing.assert_allclose(other["predicted_months"], one["predicted_months"], rtol=1e-4)


def test_inputs_are_grey_levels_as_cached(phantom_cache):
    rows = phantom_cache.rows(["5", "8"])
    inputs = inputs_of(phantom_cache, rows, 64)
    assert inputs["image"].dtype == inputs["sex"].dtype == np.float32
    np.testing.assert_array_equal(inputs["image"][..., 0], phantom_cache.images[rows["row"]])
    assert inputs["sex"].tolist() == [[1.0], [0.0]]
