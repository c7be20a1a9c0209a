"""Weights in and out of models: exact where they should be, small on disk, clear about what is wrong with a file."""

import io
import zipfile
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest
from conftest import TINY, build_tiny
from keras import layers

from boneage.errors import BoneageError
from boneage.models import backbones
from boneage.models.build import backbone_layers, build
from boneage.models.compiled import predictor
from boneage.models.predict import predict
from boneage.models.weights import assign, load_initial, load_model, save_half


def build_normalised(include_top=False, weights=None, input_tensor=None, input_shape=None) -> keras.Model:
    """Tiny behind a Normalization layer, which is what EfficientNet has inside."""
    x = keras.Input(input_shape) if input_tensor is None else input_tensor
    y = layers.Normalization(name="normalisation")(x)
    return keras.Model(keras.utils.get_source_inputs(x), build_tiny(input_tensor=y).output)


@pytest.fixture
def normalised(monkeypatch):
    spec = replace(TINY, name="Normalised", builder=build_normalised)
    monkeypatch.setitem(backbones._REGISTRY, "Normalised", spec)
    return spec


@pytest.fixture
def initial(tmp_path):
    """A weights file of Tiny without top whose every value differs from a fresh network's."""
    keras.utils.set_random_seed(11)
    source = build_tiny(input_shape=(None, None, 3))
    for variable in source.weights:
        variable.assign(variable + 0.25)
    source.save_weights(tmp_path / "tiny.weights.h5")
    return tmp_path / "tiny.weights.h5", source


def numpy_of(variables) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def images() -> dict[str, np.ndarray]:
    image = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype("float32")
    return {"image": image, "sex": np.ones((3, 1), "float32")}


# --- initial weights


def test_a_file_fills_the_backbone_and_leaves_the_head(tiny_config, initial):
    path, source = initial
    model = build(tiny_config, 120, 40)
    head = numpy_of(model.get_layer("head_dense").weights)
    said = load_initial(model, "Tiny", str(path))
    filled = numpy_of(v for layer in backbone_layers(model) for v in layer.weights)
    for ours, theirs in zip(filled, numpy_of(source.weights), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for before, after in zip(head, numpy_of(model.get_layer("head_dense").weights), strict=True):
        np.testing.assert_array_equal(before, after)
    assert said["name"] == "tiny.weights.h5"
    assert len(said["sha256"]) == 64


def test_none_leaves_the_random_weights_and_says_so(tiny_config):
    model = build(tiny_config, 120, 40)
    before = numpy_of(model.weights)
    assert load_initial(model, "Tiny", "none") == {"name": "none (random)"}
    assert all((a == b).all() for a, b in zip(before, numpy_of(model.weights), strict=True))


@pytest.mark.parametrize("how", ["load_initial", "assign"])
def test_a_normalisation_inside_computes_with_its_new_constants_at_once(small, normalised, tmp_path, how):
    """Keras derives constants from the variables on loading only: assigned alone, the layer goes on with the old."""
    config = small(backbone="Normalised")
    source = normalised.builder(input_shape=(None, None, 3))
    mean, variance, *_ = source.get_layer("normalisation").weights
    mean.assign([0.3, 0.3, 0.3])
    variance.assign([4.0, 4.0, 4.0])
    source.save_weights(tmp_path / "n.weights.h5")
    model = build(config, 120, 40, size=32)
    fresh = predictor(model)(images())["months"]
    if how == "load_initial":
        load_initial(model, "Normalised", str(tmp_path / "n.weights.h5"))
    else:
        variables = [v for layer in backbone_layers(model) for v in layer.weights]
        assign(model, variables, numpy_of(source.weights))
    now = predictor(model)(images())["months"]
    model.save(tmp_path / "saved.keras")
    read_back = predictor(keras.saving.load_model(tmp_path / "saved.keras"))(images())["months"]
    np.testing.assert_allclose(now, read_back, atol=1e-3)
    assert np.abs(now - fresh).max() > 1e-2


def test_a_finished_run_goes_on_with_its_head(tiny_config, tiny_run, tmp_path):
    model = build(tiny_config, 120, 40)
    said = load_initial(model, "Tiny", str(tiny_run / "model.keras"))
    source = keras.saving.load_model(tiny_run / "model.keras", compile=False)
    for ours, theirs in zip(numpy_of(model.weights), numpy_of(source.weights), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert said["name"] == "Tiny/joint/model.keras"
    assert len(said["sha256"]) == 64


def test_a_finished_run_of_another_head_is_no_start(small, tiny_run):
    with pytest.raises(BoneageError, match="Tiny_joint does not fit Tiny_regression; start from a run of the same"):
        load_initial(build(small(head="regression"), 120, 40), "Tiny", str(tiny_run / "model.keras"))


def test_a_missing_file_is_named(tiny_config, tmp_path):
    with pytest.raises(BoneageError, match=r"no initial weights at .*gone.weights.h5; expected a .weights.h5 file"):
        load_initial(build(tiny_config, 120, 40), "Tiny", str(tmp_path / "gone.weights.h5"))


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_are_refused(tiny_config, tmp_path):
    other = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.weights.h5").write_text("not HDF5")
    for name in ("other.weights.h5", "text.weights.h5"):
        with pytest.raises(BoneageError, match=f"{name} does not fit Tiny without top: "):
            load_initial(build(tiny_config, 120, 40), "Tiny", str(tmp_path / name))


def test_without_internet_imagenet_weights_are_refused_with_a_way_out(small, monkeypatch):
    def offline(**arguments):
        if arguments["weights"] == "imagenet":
            raise Exception("URL fetch failure on https://storage.example: Name or service not known")
        return build_tiny(**arguments)

    monkeypatch.setitem(backbones._REGISTRY, "Offline", replace(TINY, name="Offline", builder=offline))
    model = build(small(backbone="Offline"), 120, 40)
    with pytest.raises(BoneageError, match=r"could not be downloaded \(URL fetch.*initial_weights=FILE.*=none"):
        load_initial(model, "Offline", "imagenet")


# --- finished models


@pytest.fixture
def saved(tiny_config, tmp_path):
    model = build(tiny_config, 120, 40, size=32)
    save_half(model, tmp_path / "half.keras")
    return model, tmp_path / "half.keras"


def arrays_of(path) -> list[np.ndarray]:
    found = []
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return found


def test_kernels_are_halved_and_nothing_else(saved):
    model, path = saved
    arrays = arrays_of(path)
    assert len(arrays) == len(model.weights)
    assert {a.dtype for a in arrays if a.ndim >= 2} == {np.dtype("float16")}
    assert {a.dtype for a in arrays if a.ndim < 2} == {np.dtype("float32")}


def test_the_file_is_about_half_of_what_keras_writes(saved, tmp_path):
    model, path = saved
    model.save(tmp_path / "full.keras")
    halves, fulls = (sum(a.nbytes for a in arrays_of(p)) for p in (path, tmp_path / "full.keras"))
    assert halves == pytest.approx(fulls / 2, rel=0.1)
    assert path.stat().st_size < 0.75 * (tmp_path / "full.keras").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full.keras", "half.keras"]


def test_plain_keras_loads_it_and_widens_it(saved):
    model, path = saved
    loaded = keras.saving.load_model(path)
    assert {v.dtype for v in loaded.weights} == {"float32"}
    for ours, theirs in zip(numpy_of(model.weights), numpy_of(loaded.weights), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-7)


def test_a_trained_model_moves_by_less_than_a_twentieth_of_a_month(tiny_run, phantom_cache, tmp_path):
    model = load_model(tiny_run / "model.keras")
    rng = np.random.default_rng(0)  # off the half-precision grid again, as weights are before their export
    for variable in model.weights:
        if len(variable.shape) >= 2:
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(value * (1 + rng.uniform(-4e-4, 4e-4, value.shape)))
    save_half(model, tmp_path / "half.keras")
    ids = phantom_cache.index["id"]
    before, after = (
        predict(m, phantom_cache, ids, 32, progress=False) for m in (model, load_model(tmp_path / "half.keras"))
    )
    moved = (before["predicted_months"] - after["predicted_months"]).abs()
    assert 0 < moved.max() < 0.05
    assert before["predicted_months"].std() > 0.1


def test_a_shipped_model_carries_no_optimizer(tiny_run):
    with zipfile.ZipFile(tiny_run / "model.keras") as archive:
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            assert "optimizer" not in file
    assert len(arrays_of(tiny_run / "model.keras")) == len(load_model(tiny_run / "model.keras").weights)


def test_a_failed_write_leaves_the_file_as_it_was(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(BoneageError, match=r"half.keras \(No space left on device\); free some"):
        save_half(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["half.keras"]


# --- what is not a model of ours


def test_no_file(tmp_path):
    with pytest.raises(BoneageError, match=r"no model at .*model.keras; train one with `boneage train`"):
        load_model(tmp_path / "model.keras")


def test_a_git_lfs_pointer(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 8812345\n"
    (tmp_path / "model.keras").write_text(pointer)
    with pytest.raises(BoneageError, match="is a Git LFS pointer, not the model; run `git lfs pull`"):
        load_model(tmp_path / "model.keras")


def test_a_zip_of_something_else_and_a_truncated_model(saved, tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("letter.txt", "hello")
    (tmp_path / "cut.keras").write_bytes(saved[1].read_bytes()[:2000])
    for name in ("zip.keras", "cut.keras"):
        with pytest.raises(BoneageError, match=f"{name} is not a readable .keras model"):
            load_model(tmp_path / name)


def test_a_model_of_somebody_else(tmp_path):
    made = {
        "dense.keras": keras.Sequential([keras.Input((8,)), layers.Dense(3)]),
        "tiny.keras": build_tiny(input_shape=(32, 32, 3)),
    }
    for name, model in made.items():
        model.save(tmp_path / name)
        with pytest.raises(BoneageError, match="not a model of this project; expected inputs image and sex"):
            load_model(tmp_path / name)
