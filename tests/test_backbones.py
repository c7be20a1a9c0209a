"""What the registry says of a backbone is true of the network that its builder makes."""

from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import TINY, build_tiny

from boneage.errors import BoneageError
from boneage.models import backbones

REAL = ("EfficientNetB0", "EfficientNetB5", "ResNet101", "Xception")
EVERY = ["Tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in REAL)]
PREPROCESS = {
    "EfficientNetB0": keras.applications.efficientnet.preprocess_input,
    "EfficientNetB5": keras.applications.efficientnet.preprocess_input,
    "ResNet101": keras.applications.resnet.preprocess_input,
    "Xception": keras.applications.xception.preprocess_input,
}


@cache
def network(name: str) -> keras.Model:
    return backbones.get(name).builder(include_top=False, weights=None, input_shape=(None, None, 3))


@pytest.mark.parametrize("name", EVERY)
class TestSpec:
    def test_the_feature_layer_is_the_last_one_with_spatial_extent(self, name):
        spec, model = backbones.get(name), network(name)
        layer = model.get_layer(spec.feature_layer)
        assert layer.output is model.output
        assert len(layer.output.shape) == 4

    def test_channels_and_stride(self, name):
        spec, model = backbones.get(name), network(name)
        side = spec.stride * 4
        assert model.compute_output_shape((None, side, side, 3)) == (None, 4, 4, spec.features)

    def test_the_number_of_parameters(self, name):
        assert network(name).count_params() == backbones.get(name).parameters

    def test_its_paper_size_is_seen_whole(self, name):
        assert backbones.get(name).size >= 4 * backbones.get(name).stride


@pytest.mark.parametrize("name", REAL)
def test_the_range_is_what_keras_itself_feeds_the_backbone(name):
    spec = backbones.get(name)
    grey = np.repeat(np.arange(256, dtype="float32").reshape(1, 16, 16, 1), 3, axis=3)
    ours = keras.layers.Rescaling(spec.scale, spec.offset)(grey)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), PREPROCESS[name](grey.copy()), atol=1e-4)


@pytest.mark.parametrize("name", REAL)
def test_a_real_backbone_cites_its_paper(name):
    bibliography = Path(__file__).parents[1] / "research papers/references.bib"
    assert f"{{{backbones.get(name).paper}," in bibliography.read_text(encoding="utf-8")


def test_names_are_in_the_order_of_registration():
    assert backbones.names()[:4] == REAL
    assert "Tiny" in backbones.names()


def test_an_unknown_backbone_is_answered_with_the_known_ones():
    with pytest.raises(BoneageError, match=r"known: EfficientNetB0, .*Xception.*Received: 'VGG19'"):
        backbones.get("VGG19")


def test_a_name_is_registered_once():
    with pytest.raises(BoneageError, match="named Tiny is registered already"):
        backbones.register(TINY)
    assert backbones.get("Tiny").builder is build_tiny
