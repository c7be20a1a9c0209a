"""An export says what the model says, of months, groups and maps, and a file that does not is never left."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from serving_run import exported  # noqa: F401

from boneage.data.phantom import make_dataset
from boneage.errors import BoneageError
from boneage.explain import DEFAULT_METHOD
from boneage.explain.gradcam import GradCAM
from boneage.explain.maps import channel_weights, weighted_map
from boneage.explain.methods import METHODS
from boneage.models.build import build
from boneage.models.compiled import predictor
from boneage.models.predict import inputs_of
from boneage.models.weights import load_model
from boneage.serving import export as exporting
from boneage.serving import litert
from boneage.serving.calibrate import calibrate
from boneage.serving.shelf import digest


@pytest.fixture(scope="session")
def lite(exported, phantom_cache, tmp_path_factory):  # noqa: F811
    """A copy of the run, exported for LiteRT, and what the export's check found."""
    run = Path(shutil.copytree(exported, tmp_path_factory.mktemp("lite") / "Tiny" / "joint"))
    return run, exporting.export(run, phantom_cache.folder, "litert")


@pytest.fixture(scope="session")
def both(exported, phantom_cache):  # noqa: F811
    """The Keras model, its inputs for 12 phantom hands, and what the export answers to them."""
    model = load_model(exported / "model.keras")
    inputs = inputs_of(phantom_cache, phantom_cache.index.head(12), 32)
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return model, inputs, dict(zip(names, session.run(names, inputs), strict=True))


def test_months_and_groups_are_those_of_the_model(both):
    model, inputs, answers = both
    expected = predictor(model)(inputs)
    np.testing.assert_allclose(answers["months"], expected["months"], atol=0.05)
    np.testing.assert_allclose(answers["groups"], expected["groups"], atol=1e-3)


def test_months_other_are_those_of_the_other_sex(both):
    model, inputs, answers = both
    expected = predictor(model)(inputs | {"sex": 1 - inputs["sex"]})["months"]
    np.testing.assert_allclose(answers["months_other"], expected, atol=0.05)


@pytest.mark.parametrize(("name", "sign"), exporting.MAPS.items())
def test_maps_without_gradients_are_those_of_the_default_method(both, name, sign):
    """The closed form of the head against automatic differentiation, in months per unit of the feature map."""
    model, inputs, answers = both
    method = METHODS[DEFAULT_METHOD]
    features, gradients, _ = method(model).gradients(inputs["image"], inputs["sex"], "older")
    expected = weighted_map(features, method.weights(features, sign * gradients))
    assert expected.max() > 0
    np.testing.assert_allclose(answers[name], expected, atol=2e-3 * expected.max())


def test_older_less_younger_is_the_signed_map(both):
    """Channels for older and channels for younger, told apart: together Grad-CAM's map before its positive part."""
    model, inputs, answers = both
    features, gradients, _ = GradCAM(model).gradients(inputs["image"], inputs["sex"], "older")
    signed = np.einsum("bhwc,bc->bhw", features, channel_weights(gradients))
    difference = answers["cam_older"] - answers["cam_younger"]
    np.testing.assert_allclose(difference, signed, atol=4e-3 * np.abs(signed).max())


def test_the_pooled_features_are_the_mean_over_the_feature_map(both):
    model, inputs, answers = both
    features = GradCAM(model).gradients(inputs["image"], inputs["sex"], "older")[0]
    np.testing.assert_allclose(answers["pooled"], features.mean((1, 2)), rtol=1e-2, atol=1e-3)


def test_an_export_tells_which_model_it_is_made_from(exported):  # noqa: F811
    facts = {p.key: p.value for p in onnx.load(exported / "model.onnx").metadata_props}
    assert facts["run"] == "Tiny/joint"
    assert facts["source"] == digest(exported)


def test_an_export_and_its_intervals_want_the_data_of_the_run(exported, tmp_path):  # noqa: F811
    other = make_dataset(tmp_path / "other", n=60, seed=9, height=96)  # ids alike, images and ages not
    for make in (exporting.export, calibrate):
        with pytest.raises(BoneageError, match="the same ids in"):
            make(exported, other)


def test_litert_says_the_same_under_the_same_names(lite, both):
    run, found = lite
    assert found["months_apart"] <= exporting.MAX_MONTHS_APART
    assert found["correlation"] > exporting.MIN_CORRELATION
    answer, (_, inputs, expected) = litert.load(run / "model.tflite"), both
    seen = [answer(inputs["image"][i : i + 1], inputs["sex"][i : i + 1]) for i in range(2)]
    assert set(seen[0]) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(np.concatenate([s[name] for s in seen]), values[:2], atol=2e-3 * abs(values).max())


def test_how_well_each_export_agrees_is_kept_beside_it(lite):
    run, found = lite
    rows = pd.read_csv(run / exporting.CHECKED).set_index("format")
    assert list(rows.index) == ["litert", "onnx"]
    assert rows.loc["litert", "months_apart"] == pytest.approx(found["months_apart"], rel=1e-4)
    assert rows.loc["litert", "images"] == found["images"]
    assert rows.loc["onnx", "megabytes"] == pytest.approx((run / "model.onnx").stat().st_size / 1e6, rel=1e-4)
    assert set(rows["source"]) == {digest(run)}


def test_what_was_found_for_an_earlier_model_is_dropped(lite, phantom_cache, tmp_path):
    run = Path(shutil.copytree(lite[0], tmp_path / "Tiny" / "joint"))
    rows = pd.read_csv(run / exporting.CHECKED)
    rows.assign(source="0" * 64).to_csv(run / exporting.CHECKED, index=False)
    exporting.export(run, phantom_cache.folder, images=4)
    assert pd.read_csv(run / exporting.CHECKED)["format"].tolist() == ["onnx"]


def test_a_damaged_litert_file_says_so(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"half of it")
    with pytest.raises(BoneageError, match=r"model\.tflite is damaged"):
        litert.load(tmp_path / "model.tflite")


def one_layer(kernel: np.ndarray) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "kernel"], ["y"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, d]) for n, d in (("x", 64), ("y", 8))]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], [numpy_helper.from_array(kernel, "kernel")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", exporting.OPSET)], ir_version=10)


def test_shrinking_halves_the_file_and_keeps_each_channel_to_a_65535th_of_its_range():
    kernel = np.random.default_rng(0).normal(size=(64, 8)).astype("float32") * 10.0 ** np.arange(-4, 4)
    kernel = kernel.astype("float32")
    shrunk = exporting.shrink(one_layer(kernel))
    session = onnxruntime.InferenceSession(shrunk.SerializeToString(), providers=["CPUExecutionProvider"])
    (seen,) = session.run(None, {"x": np.eye(64, dtype="float32")})
    assert (np.abs(seen - kernel) <= 0.51 * np.abs(kernel).max(0) / 32767).all()
    assert shrunk.ByteSize() < 0.75 * one_layer(kernel).ByteSize()  # of which a part is names


def test_shrinking_leaves_a_channel_of_zeros_and_small_arrays_alone():
    kernel = np.ones((64, 8), "float32")
    kernel[:, 3] = 0
    shrunk = exporting.shrink(one_layer(kernel))
    session = onnxruntime.InferenceSession(shrunk.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": np.eye(64, dtype="float32")})[0], kernel)
    small = exporting.shrink(one_layer(kernel[:, :2].copy())).graph
    assert [tensor.name for tensor in small.initializer] == ["kernel"]


def test_an_export_that_disagrees_is_refused_and_the_older_one_kept(exported, phantom_cache, tmp_path, monkeypatch):  # noqa: F811
    run = shutil.copytree(exported, tmp_path / "Tiny" / "joint")
    (run / "model.onnx").write_bytes(b"the older one")

    def spoil(graph):
        for tensor in graph.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.01), tensor.name))
        return graph

    monkeypatch.setattr(exporting, "shrink", spoil)
    with pytest.raises(BoneageError, match=r"disagrees with its model and is not kept: .* months apart"):
        exporting.export(run, phantom_cache.folder, images=3)
    assert (run / "model.onnx").read_bytes() == b"the older one"
    assert not list(run.glob(".*part*"))


def test_a_model_without_months_is_refused(tiny_config):
    model = build(replace(tiny_config, head="classification"), 100.0, 40.0, size=32)
    with pytest.raises(BoneageError, match="only a model with a months output"):
        exporting.forward(model)


def test_a_head_without_a_closed_form_is_refused(tiny_config):
    model = build(tiny_config, 100.0, 40.0, size=32)
    model.get_layer("head_dense").activation = keras.activations.tanh
    with pytest.raises(BoneageError, match="closed form"):
        exporting.forward(model)


def test_a_model_trained_in_bfloat16_is_exported_in_single_precision(tiny_config):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(tiny_config, 100.0, 40.0, size=32)
    finally:
        keras.config.set_dtype_policy("float32")
    plain = build(tiny_config, 100.0, 40.0, size=32)
    plain.set_weights(model.get_weights())
    inputs = {"image": np.full((1, 32, 32, 1), 99, "float32"), "sex": np.ones((1, 1), "float32")}
    tensors = (keras.ops.convert_to_tensor(inputs[name]) for name in ("image", "sex"))
    answers = exporting.forward(exporting.as_float32(model))(*tensors)
    np.testing.assert_allclose(answers["months"], predictor(plain)(inputs)["months"], rtol=1e-5)


def test_the_run_keeps_what_the_predictor_needs(exported):  # noqa: F811
    settings = json.loads((exported / "serving.json").read_text())
    assert settings["square"] == 64  # the cache's size, through which training saw its images
    assert settings["level"] == 0.9
    assert len(settings["half_widths"]) == 4
    assert (exported / "interval_coverage.csv").is_file()
    assert (exported / "door_rates.csv").is_file()
