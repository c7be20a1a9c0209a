"""Our Grad-CAM and Grad-CAM++ against tf-keras-vis, another implementation, on a flat model; TensorFlow only."""

import keras
import numpy as np
import pytest
from conftest import TINY_CONFIG
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear

from boneage.explain.gradcam import GradCAM, GradCAMPlusPlus
from boneage.explain.maps import weighted_map
from boneage.models.build import build


@pytest.mark.parametrize(
    ("output", "target", "score"),
    [
        ("months", "older", lambda y: y[:, 0]),
        ("months", "younger", lambda y: -y[:, 0]),
        ("groups", "0-5", lambda y: y[:, 0]),
        ("groups", "10-15", lambda y: y[:, 2]),
    ],
)
@pytest.mark.parametrize(("method", "reference"), [(GradCAM, Gradcam), (GradCAMPlusPlus, GradcamPlusPlus)])
def test_agreement_with_tf_keras_vis(method, reference, output, target, score):
    keras.utils.set_random_seed(5)
    model = build(TINY_CONFIG, 1.0, 0.5, size=32)  # small months: its Grad-CAM++ takes their exponential
    image = np.random.default_rng(1).uniform(0, 255, (4, 32, 32, 1)).astype("float32")
    sex = np.array([[0], [1], [1], [0]], "float32")

    features, gradients, _ = method(model).gradients(image, sex, target)
    ours = weighted_map(features, method.weights(features, gradients))
    # It takes lists; its ReplaceToLinear removes the softmax, so that both explain the same score.
    single = keras.Model([model.input["image"], model.input["sex"]], model.get_layer(output).output)
    # Unless told not to, it takes another layer than the one named; and it cannot enlarge a map to a sex.
    theirs = reference(single, model_modifier=ReplaceToLinear() if output == "groups" else None, clone=True)(
        score, [image, sex], penultimate_layer="feature_map", seek_penultimate_conv_layer=False, expand_cam=False,
        normalize_cam=False,
    )  # fmt: skip

    # Grad-CAM++ of ours leaves out exp(y), one factor a map.
    ours, theirs = (m / m.max((1, 2), keepdims=True) for m in (ours, np.asarray(theirs)))
    assert np.isfinite(ours).all()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
