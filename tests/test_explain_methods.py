"""All methods keep one contract; each is held to numbers made by hand and to toys whose truth is known."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from boneage import style
from boneage.errors import BoneageError
from boneage.explain.counterfactual import Counterfactual, counterfactual, counterfactual_figure
from boneage.explain.gradcam import CAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from boneage.explain.maps import background, normalise, weighted_map
from boneage.explain.methods import METHODS, IntegratedGradients, Occlusion, hidden_scores, variant_answers
from boneage.models.build import build
from boneage.models.probe import Probe

CAMS = [name for name, method in METHODS.items() if issubclass(method, CAM)]
every_method = pytest.mark.parametrize("name", METHODS)
SIDE = 28


def toy(features, months, groups=None, side: int = SIDE) -> Probe:
    """A model from a function image -> feature map, and one (features, sex) -> months, sd 1, mean 100."""
    image, sex = keras.Input((side, side, 1), name="image"), keras.Input((1,), name="sex")
    known = layers.Identity(name="feature_map")(features(image))
    z = months(known, sex)
    return Probe(keras.Model({"image": image, "sex": sex}, layers.Rescaling(1.0, 100.0, name="months")(z)))


def linear(weights: np.ndarray) -> Probe:
    """months = 100 + sum(weights * image) + 5 sex: it knows where in the picture something is."""
    dense = layers.Dense(1, use_bias=False)
    probe = toy(
        lambda image: image,
        lambda features, sex: dense(layers.Concatenate()([layers.Flatten()(features), sex])),
        side=len(weights),
    )
    dense.set_weights([np.append(weights.ravel(), 5.0)[:, None]])
    return probe


def corner(value: float = 0.01, side: int = SIDE) -> np.ndarray:
    """Weights that look at the upper left quarter only."""
    weights = np.zeros((side, side))
    weights[: side // 2, : side // 2] = value
    return weights


@pytest.fixture(scope="module")
def hands() -> tuple[np.ndarray, np.ndarray]:
    """Three images of noise, (3, 32, 32, 1), and sexes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, 32, 32, 1)).astype("uint8"), np.array([0, 1, 1])


@pytest.fixture(scope="module")
def tiny(tiny_backbone) -> Probe:
    from conftest import TINY_CONFIG

    keras.utils.set_random_seed(3)
    return Probe(build(TINY_CONFIG, 120.0, 40.0, size=32))


# -- the contract --------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("target", ["older", "younger", "10-15"])
def test_maps_have_one_form_whatever_made_them(tiny, hands, name, target):
    maps, outputs = METHODS[name](tiny)(*hands, target)

    assert maps.shape == (3, 32, 32)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    np.testing.assert_array_equal(np.isin(maps.max((1, 2)), (0, 1)), True)  # NaN is neither
    plain = tiny.scores(*hands, target)[1]
    assert set(outputs) == {"months", "groups"}
    for head, values in outputs.items():
        np.testing.assert_allclose(values, plain[head], rtol=1e-4)


@every_method
def test_a_batch_is_its_images_one_by_one(tiny, hands, name):
    images, sex = hands
    method = METHODS[name](tiny)
    size = 2 if name in CAMS else 20  # neither divides the images, or their variants
    together, _ = method(images, sex, "older", size)
    alone = np.concatenate([method(images[i : i + 1], sex[i : i + 1], "older", size)[0] for i in range(3)])

    assert together.any()
    np.testing.assert_allclose(together, alone, atol=2e-3)


@every_method
def test_shapes_without_a_channel_axis_and_in_bytes_mean_the_same(tiny, hands, name):
    images, sex = hands
    method = METHODS[name](tiny)

    np.testing.assert_array_equal(
        method(images[:1, ..., 0], sex[:1], "older")[0], method(images[:1].astype("float32"), sex[:1, None], "older")[0]
    )


@every_method
@pytest.mark.parametrize("level", [0, 255])
def test_a_constant_image_gives_a_map_within_bounds(tiny, name, level):
    maps, _ = METHODS[name](tiny)(np.full((2, 32, 32), level), np.array([0, 1]), "older")

    assert ((maps >= 0) & (maps <= 1)).all()


@every_method
def test_a_model_that_does_not_see_the_image_has_no_map(name):
    blind = linear(np.zeros((SIDE, SIDE)))
    images = np.random.default_rng(1).uniform(0, 255, (2, SIDE, SIDE))

    for target in ("older", "younger"):
        np.testing.assert_array_equal(METHODS[name](blind)(images, np.array([0, 1]), target)[0], 0)


@every_method
def test_a_mirrored_hand_has_a_mirrored_map(name):
    """On a network that is blind to mirroring: kernels that are their own mirror images."""
    keras.utils.set_random_seed(1)
    convolution = layers.Conv2D(4, 3, padding="same", activation="relu")

    def pooled(features, sex):
        return layers.Dense(1)(layers.Dense(8, "relu")(layers.GlobalAveragePooling2D()(features)))

    probe = toy(lambda image: layers.AveragePooling2D(4)(convolution(image)), pooled)
    kernel, bias = convolution.get_weights()
    convolution.set_weights([kernel + kernel[:, ::-1], bias])
    images = np.random.default_rng(2).uniform(0, 255, (2, SIDE, SIDE))
    images[0, :10, :14] *= 0.2
    method, sex = METHODS[name](probe), np.array([0, 1])

    for target in ("older", "younger"):
        maps, _ = method(images, sex, target)
        np.testing.assert_allclose(method(images[:, :, ::-1], sex, target)[0], maps[:, :, ::-1], atol=2e-3)


@every_method
def test_what_a_model_has_not_is_refused(tiny, hands, name):
    method = METHODS[name](tiny)

    assert method.targets == ("older", "younger", "0-5", "5-10", "10-15", "15-20")
    with pytest.raises(BoneageError, match=r"can explain older, .*15-20\. Received: 'wiser'"):
        method(*hands, "wiser")
    with pytest.raises(BoneageError, match=r"at least one\. Received: 0 and 0"):
        method(hands[0][:0], hands[1][:0], "older")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradcam++", "integrated-gradients", "occlusion"])
@pytest.mark.parametrize("backbone", ["EfficientNetB0", "Xception"])
def test_real_backbones(hands, name, backbone):
    from boneage.config import TrainConfig

    keras.utils.set_random_seed(0)
    method = METHODS[name](build(TrainConfig(backbone=backbone), 120.0, 40.0, size=64))
    maps, outputs = method(np.kron(hands[0][:2, ..., 0], np.ones((2, 2))), hands[1][:2], "older")

    assert maps.shape == (2, 64, 64)
    assert maps.min() >= 0
    # Of random weights any answer will do, also that nothing here speaks for older; of trained ones see the audit.
    assert np.isin(maps.max((1, 2)), (0, 1)).all()
    assert name == "occlusion" or maps.max() == 1
    assert set(outputs) == {"months", "groups"}


# -- truth that is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"),
    [("hirescam", 1), ("layercam", 1), ("smoothgrad", 0.9), ("integrated-gradients", 0.9), ("occlusion", 0.85),
     ("rise", 0.5)],
)  # fmt: skip
def test_heat_lies_where_the_model_looks(name, least):
    """A quarter of the picture: spread evenly, a map would have 0.25 of its energy there."""
    images = np.random.default_rng(3).uniform(0, 20, (2, SIDE, SIDE))
    images[:, 2:12, 2:12] += 200  # bright, and soon gone when blurred
    maps, _ = METHODS[name](linear(corner()))(images, np.array([0, 1]), "older")

    assert (maps[:, : SIDE // 2, : SIDE // 2].sum((1, 2)) >= least * maps.sum((1, 2)) * 0.999).all()


def test_grad_cam_cannot_know_where_a_head_looks():
    """Its weight is one for the whole map: with the image itself as feature map, the map is the image."""
    images = np.random.default_rng(3).uniform(0, 255, (2, SIDE, SIDE)).astype("float32")
    maps, _ = GradCAM(linear(corner()))(images, np.array([0, 1]), "older")

    np.testing.assert_allclose(maps, normalise(images), rtol=1e-4)


# Two cells by two; a feature's map, its gradients, and the weights by hand.
FEATURES = np.array([[1.0, 2.0], [1.0, 0.0]])  # sum 4
GRADIENTS = np.array([[1.0, 0.0], [0.0, -1.0]])


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        (GradCAM, 0),
        (HiResCAM, GRADIENTS),
        (LayerCAM, [[1, 0], [0, 0]]),
        # alpha: 1 / (2 + 4) and 1 / (2 - 4), sum -1/3; so -1/2 and 3/2, of which only the first has a gradient above 0
        (GradCAMPlusPlus, -0.5),
    ],
)
def test_weights_by_hand(method, weights):
    np.testing.assert_allclose(
        method.weights(FEATURES[None, ..., None], GRADIENTS[None, ..., None]).squeeze(), weights, atol=1e-6
    )


def test_grad_cam_plus_plus_weights_of_two_channels_by_hand():
    features = np.stack([np.array([[1.0, 0], [0, 0]]), np.full((2, 2), 2.5)], -1)[None]  # sums 1 and 10
    gradients = np.stack([np.array([[2.0, 0], [0, 1]]), np.full((2, 2), 3.0)], -1)[None]

    # First: alpha = 4 / (8 + 8) and 1 / (2 + 1), sum 7/12; (2/4 + 1/3) / (7/12) = 10/7. Second: alpha 1/4 each.
    np.testing.assert_allclose(GradCAMPlusPlus.weights(features, gradients), [[10 / 7, 3]], rtol=1e-6)


def test_weights_of_cells_are_applied_cell_by_cell():
    features = np.stack([FEATURES, FEATURES.T], -1)[None]
    weights = np.stack([GRADIENTS, 2 * np.ones((2, 2))], -1)[None]

    np.testing.assert_allclose(weighted_map(features, weights), [[[1 + 2, 2], [4, 0]]])


def test_behind_a_mean_over_cells_four_methods_are_two(tiny, hands):
    """The heads of this package begin with that mean: dy/dA is one number a channel."""
    maps = {name: METHODS[name](tiny)(*hands, "older")[0] for name in CAMS}

    np.testing.assert_allclose(maps["gradcam"], maps["hirescam"], atol=1e-4)
    np.testing.assert_allclose(maps["gradcam++"], maps["layercam"], atol=1e-4)
    assert np.abs(maps["gradcam"] - maps["layercam"]).max() > 0.05


def test_integrated_gradients_by_hand():
    images = np.array([[[0.0, 10], [20, 40]]])
    method = IntegratedGradients(linear(np.array([[1.0, 2], [-1, 0.5]])))

    np.testing.assert_allclose(method.attributions(images, [0], "older"), [[[0, 20], [-20, 20]]], atol=1e-4)
    np.testing.assert_allclose(method(images, [0], "older")[0], [[[0, 1], [0, 1]]], atol=1e-5)
    np.testing.assert_allclose(method(images, [0], "younger")[0], [[[0, 0], [1, 0]]], atol=1e-5)


def test_integrated_gradients_add_up_to_the_change_of_the_score(tiny, hands):
    images, sex = hands
    for target in ("older", "5-10"):
        total = IntegratedGradients(tiny).attributions(images, sex, target).sum((1, 2))
        change = tiny.scores(images, sex, target)[0] - tiny.scores(np.zeros_like(images), sex, target)[0]

        np.testing.assert_allclose(total, change, rtol=0.05, atol=0.1)  # 32 steps cut the corners of the ReLUs


def test_smoothgrad_of_a_linear_model_is_the_size_of_its_weights():
    maps, _ = METHODS["smoothgrad"](linear(np.array([[1.0, 2], [-4, 0]])))(np.array([[[9.0, 7], [1, 3]]]), [1], "older")

    np.testing.assert_allclose(maps, [[[0.25, 0.5], [1, 0]]], atol=1e-5)


def test_what_is_hidden_is_replaced_by_the_blurred_picture_and_keeps_its_sex(hands):
    weights = np.random.default_rng(4).normal(0, 0.1, (32, 32))
    images, sex = hands[0][..., 0].astype("float32"), hands[1]
    half = np.zeros((32, 32), "float32")
    half[:, :16] = 1
    masks = np.stack([np.zeros((32, 32), "float32"), half, np.full((32, 32), 0.5, "float32")])
    found = hidden_scores(linear(weights), images, sex, "older", masks, batch_size=4)  # 9 variants

    blurred = background(images)
    shown = [images, np.where(half, blurred, images), (images + blurred) / 2]
    np.testing.assert_allclose(found.T, [100 + (s * weights).sum((1, 2)) + 5 * sex for s in shown], rtol=1e-4)


def test_the_background_keeps_brightness_and_no_bone():
    image = np.full((64, 64), 100.0, "float32")
    image[:, 30:34] = 200
    blurred = background(image[None])[0]

    assert blurred.mean() == pytest.approx(image.mean(), rel=0.02)
    assert np.ptp(blurred) < 30
    np.testing.assert_allclose(background(np.full((1, 8, 8), 7.0)), 7)


def test_every_variant_of_every_image_is_asked_about_once_in_full_batches():
    sizes, seen = [], []

    def ask(pictures, sexes):
        sizes.append(len(pictures))
        np.testing.assert_array_equal(pictures // 100, sexes)
        return pictures

    images, sex = np.array([100, 200, 300]), np.array([1, 2, 3])
    for image, variant, answer in variant_answers(ask, images, sex, 5, lambda pictures, n: pictures + n, 4):
        np.testing.assert_array_equal(answer, images[image] + variant)
        seen += list(zip(image.tolist(), variant.tolist(), strict=True))

    assert sizes == [4, 4, 4, 4]
    assert seen == [(i, n) for i in range(3) for n in range(5)]


# -- the model as it is asked --------------------------------------------------------------------------------------


def test_gradients_by_the_image_of_a_linear_model_are_its_weights():
    weights = np.array([[1.0, 2], [-4, 0]])
    images, probe = np.ones((3, 2, 2)), linear(weights)

    for target, sign in (("older", 1), ("younger", -1)):
        gradients, outputs = probe.image_gradients(images, [0, 1, 1], target, batch_size=2)
        np.testing.assert_allclose(gradients, np.broadcast_to(sign * weights, (3, 2, 2)), atol=1e-6)
        np.testing.assert_allclose(outputs["months"], [[99], [104], [104]], rtol=1e-6)
        np.testing.assert_allclose(probe.scores(images, [0, 1, 1], target)[0], [sign * m for m in (99, 104, 104)])


def test_the_score_of_a_group_is_its_logit(tiny, hands):
    logits = np.stack([tiny.scores(*hands, group)[0] for group in ("0-5", "5-10", "10-15", "15-20")], -1)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    np.testing.assert_allclose(chances, tiny.scores(*hands, "0-5")[1]["groups"], rtol=1e-4)


def test_weights_that_change_are_seen_by_what_was_compiled_before(tiny_config, hands):
    model = build(tiny_config, 120.0, 40.0, size=32)
    probe = Probe(model)
    for target in ("older", "0-5"):
        probe.scores(*hands, target), probe.feature_gradients(*hands, target), probe.image_gradients(*hands, target)
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.1, variable.shape))

    fresh = Probe(model)
    for target in ("older", "0-5"):
        np.testing.assert_allclose(probe.scores(*hands, target)[0], fresh.scores(*hands, target)[0], rtol=1e-5)
        for ask in ("feature_gradients", "image_gradients"):
            old, new = (getattr(p, ask)(*hands, target)[-2] for p in (probe, fresh))
            np.testing.assert_allclose(old, new, rtol=1e-4, atol=1e-7)


# -- what would change the answer by a year ------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "sign"), [("older", 1), ("younger", -1)])
def test_the_least_that_changes_the_answer_by_a_year(target, sign):
    probe = linear(sign * corner(0.005))
    images = np.full((1, SIDE, SIDE), 10.0, "float32")
    images[0, 3:9, 3:9] = 250
    maps, _ = METHODS["integrated-gradients"](probe)(images, [1], target)
    [answer] = counterfactual(probe, images, [1], maps, target)

    predicted = probe.scores(images, [1], "older")[0][0]
    hidden = np.where(answer.mask, background(images), images)
    after = probe.scores(hidden, [1], "older")[0][0]
    step = answer.step
    assert answer.reached
    assert answer.area == answer.mask.mean() == pytest.approx(answer.shares[step], abs=1 / SIDE**2)
    assert answer.shares[0] == 0
    assert answer.months[0] == pytest.approx(predicted, rel=1e-5)
    assert answer.months[step] == pytest.approx(after, rel=1e-5)
    assert sign * (predicted - after) >= 12  # younger without what made it older, and the reverse
    assert sign * (predicted - answer.months[step - 1]) < 12
    assert answer.mask[4:8, 4:8].all()
    assert not answer.mask[SIDE // 2 :].any()


def test_where_nothing_suffices_all_that_has_heat_is_hidden_and_no_more():
    probe, maps = linear(corner()), np.zeros((2, SIDE, SIDE), "float32")
    maps[0, 5:9, 5:9] = 1
    images = np.random.default_rng(6).uniform(0, 255, (2, SIDE, SIDE))
    some, none = counterfactual(probe, images, [0, 1], maps, change=1000)

    assert not some.reached
    np.testing.assert_array_equal(some.mask, maps[0] > 0)
    assert some.area == pytest.approx(16 / SIDE**2)
    assert not none.reached
    assert not none.mask.any()
    assert some.step == none.step == 64
    np.testing.assert_allclose(none.months, none.months[0])


def test_a_year_is_asked_of_months_and_of_maps_that_fit(tiny, hands):
    with pytest.raises(BoneageError, match=r"older or younger\. Received: '0-5'"):
        counterfactual(tiny, *hands, np.zeros((3, 32, 32)), "0-5")
    with pytest.raises(BoneageError, match=r"Received: \(3, 8, 8\) and \(3, 32, 32\)"):
        counterfactual(tiny, *hands, np.zeros((3, 8, 8)))
    assert Occlusion(tiny).targets == tiny.targets


def test_its_figure_says_what_was_found():
    shares = np.arange(65) / 64
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    found = Counterfactual(mask, True, 1 / 16, shares, 150.0 - np.minimum(3 * np.arange(65), 30), 4)
    missed = Counterfactual(~mask & False, False, 0.0, shares, np.full(65, 80.0), 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = counterfactual_figure(np.full((2, 16, 16), 99, np.uint8), [found, missed], phantom=True)
        figure.draw_without_rendering()

    first, second, curve, flat = figure.axes
    assert first.get_title() == "6% hidden\n150 \u2192 138 months"
    assert second.get_title() == "all heat hidden, no year\n80 \u2192 80 months"
    assert curve.get_ylabel() == "prediction (months)"
    np.testing.assert_allclose(curve.lines[1].get_xydata(), [[0, 150], [6.25, 138]])
    assert np.diff(flat.get_ylim()) >= 24
    assert style.PHANTOM_NOTE in [t.get_text() for t in figure.texts]
