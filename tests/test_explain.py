"""Grad-CAM: the two equations of the paper by hand, the way back to the radiograph, and the job."""

from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from PIL import Image

from boneage import style
from boneage.data.cache import Cache
from boneage.data.frame import place, whole_frame
from boneage.errors import BoneageError
from boneage.explain import DEFAULT_METHOD, figures, lesson
from boneage.explain.explain import choose, explain, explain_files, side_by_side
from boneage.explain.gradcam import GradCAM
from boneage.explain.maps import channel_weights, enlarge, normalise, to_original, weighted_map
from boneage.explain.run_maps import energy_inside, in_radiographs
from boneage.labels import GROUPS
from boneage.models.build import build

# The toy's feature map, for the image below: A1 = x and A2 = 5 - x, where x is the mean of each 2 x 2 block.
BLOCKS = np.array([[1.0, 2.0], [3.0, 4.0]])
IMAGE = np.kron(BLOCKS, np.ones((2, 2)))[None, ..., None]  # (1, 4, 4, 1)
GIRL, BOY = np.array([[0]]), np.array([[1]])


@pytest.fixture(scope="module")
def toy() -> GradCAM:
    """months = 4 mean(A1) - 8 mean(A2) + 6 sex + 100, and four logits that are linear in the means too."""
    image, sex = keras.Input((4, 4, 1), name="image"), keras.Input((1,), name="sex")
    pooled = layers.AveragePooling2D(2)(image)
    channels = layers.Conv2D(2, 1, name="channels")
    features = layers.Identity(name="feature_map")(channels(pooled))
    joined = layers.Concatenate()([layers.GlobalAveragePooling2D()(features), sex])
    months, groups = layers.Dense(1, name="months"), layers.Dense(4, "softmax", name="groups")
    model = keras.Model({"image": image, "sex": sex}, {"months": months(joined), "groups": groups(joined)})
    channels.set_weights([np.array([[[[1.0, -1.0]]]]), np.array([0.0, 5.0])])
    months.set_weights([np.array([[4.0], [-8.0], [6.0]]), np.array([100.0])])
    logits = np.array([[4.0, 0.0, -4.0, 0.0], [0.0, 4.0, 4.0, 0.0], [0.5, 0.0, 0.0, 0.0]])
    groups.set_weights([logits, np.array([0.0, 1.0, 2.0, 3.0])])
    return GradCAM(model)


@pytest.fixture(scope="module")
def hands() -> tuple[np.ndarray, np.ndarray]:
    """Five images of noise, (5, 32, 32, 1), and sexes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 32, 32, 1)).astype("uint8"), np.array([0, 1, 0, 1, 1])


@pytest.fixture(scope="module")
def tiny(tiny_backbone) -> GradCAM:
    from conftest import TINY_CONFIG

    keras.utils.set_random_seed(3)
    return GradCAM(build(TINY_CONFIG, 120.0, 40.0, size=32))


# Gradients of a mean over four cells: dy/dA = coefficient / 4. So older: 1, -2; group 0: 1, 0; group 1: 0, 1;
# group 2: -1, 1; group 3: 0, 0.
@pytest.mark.parametrize(
    ("target", "weights", "cells"),
    [
        ("older", (1, -2), [[0, 0], [0, 2]]),  # x - 2 (5 - x) = 3 x - 10 = -7, -4, -1, 2
        ("younger", (-1, 2), [[7, 4], [1, 0]]),
        ("0-5", (1, 0), [[1, 2], [3, 4]]),
        ("5-10", (0, 1), [[4, 3], [2, 1]]),
        ("10-15", (-1, 1), [[3, 1], [0, 0]]),  # 5 - 2 x
        ("15-20", (0, 0), [[0, 0], [0, 0]]),
    ],
)
def test_the_two_equations_by_hand(toy, target, weights, cells):
    features, gradients, _ = toy.gradients(IMAGE, GIRL, target)

    np.testing.assert_allclose(features[0, ..., 0], BLOCKS, atol=1e-5)
    np.testing.assert_allclose(features[0, ..., 1], 5 - BLOCKS, atol=1e-5)
    np.testing.assert_allclose(gradients, np.broadcast_to(weights, (1, 2, 2, 2)), atol=1e-5)
    np.testing.assert_allclose(channel_weights(gradients), [weights], atol=1e-5)
    np.testing.assert_allclose(weighted_map(features, channel_weights(gradients)), [cells], atol=1e-4)


def test_map_at_image_size_by_hand(toy):
    maps, outputs = toy(IMAGE, BOY, "older")

    along = [0, 0.25, 0.75, 1]  # two cells read at four pixels, bilinear, pixel centres at half-integers
    np.testing.assert_allclose(maps, [np.outer(along, along)], atol=1e-5)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(outputs["months"], [[4 * 2.5 - 8 * 2.5 + 6 + 100]], atol=1e-4)
    assert set(outputs) == {"months", "groups"}


def test_a_map_of_zeros_stays_zeros(toy):
    maps, _ = toy(IMAGE, GIRL, "15-20")

    np.testing.assert_array_equal(maps, np.zeros((1, 4, 4)))
    np.testing.assert_array_equal(normalise(np.zeros((2, 3, 3))), np.zeros((2, 3, 3)))


def test_each_map_is_normalised_by_its_own_maximum():
    maps = normalise(np.stack([np.full((2, 2), 8.0), np.array([[0.0, 1.0], [2.0, 4.0]])]))

    np.testing.assert_allclose(maps, [[[1, 1], [1, 1]], [[0, 0.25], [0.5, 1]]])


def test_the_heat_of_a_map_is_the_months_that_its_features_account_for(toy):
    """A cell's part of the months is its A1 - 2 A2 = 3 x - 10, hence -7, -4, -1 and 2: positive are two months."""
    np.testing.assert_allclose(lesson.heat(toy, IMAGE, BOY), [2.0], atol=1e-5)


def test_the_steps_of_a_map_are_pictures_in_their_order(toy):
    features, gradients, _ = toy.gradients(IMAGE, BOY, "older")
    shown = lesson.steps(IMAGE[0, ..., 0].astype("uint8"), features, channel_weights(gradients), strongest=1)

    assert list(shown) == ["the radiograph", "feature 1, weight -2.00", "weighted sum", "enlarged", "laid over"]
    assert [p.shape[:2] for p in shown.values()] == [(4, 4), (2, 2), (2, 2), (4, 4), (4, 4)]


def test_a_hand_is_asked_for_older_younger_and_its_own_group(toy):
    rows = pd.DataFrame({"male": [0, 1], "reference_months": [60.0, 200.0]})
    shown, each = lesson.questions(toy, np.repeat(IMAGE[..., 0], 2, 0).astype("uint8"), rows)

    assert each == 4
    assert [title.strip() for title in shown] == [
        "female, 5 y 0 mo", "older", "younger", "5-10 years", "male, 16 y 8 mo", "older", "younger", "15-20 years",
    ]  # fmt: skip


def test_effect_of_sex_is_its_weight_in_months(toy):
    images = np.repeat(IMAGE, 3, 0)

    np.testing.assert_allclose(toy.sex_effect(images, np.array([1, 0, 1])), [6, -6, 6], atol=1e-4)


def test_older_and_younger_are_the_two_signs_of_one_map(tiny, hands):
    features, up, _ = tiny.gradients(*hands, "older")
    _, down, _ = tiny.gradients(*hands, "younger")

    np.testing.assert_allclose(up, -down, rtol=1e-5)
    older, younger = (weighted_map(features, channel_weights(g)) for g in (up, down))
    signed = np.einsum("bhwc,bc->bhw", features, channel_weights(up))
    np.testing.assert_allclose(older - younger, signed, atol=1e-4)
    assert not (older * younger).any()


@pytest.mark.parametrize(
    ("head", "targets"),
    [
        ("joint", ("older", "younger", *GROUPS)),
        ("regression", ("older", "younger")),
        ("classification", GROUPS),
    ],
)
def test_every_head(small, hands, head, targets):
    images, sex = hands
    model = build(small(head=head), 120.0, 40.0, size=32)
    gradcam = GradCAM(model)
    expected = model({"image": images.astype("float32"), "sex": sex[:, None].astype("float32")})

    assert gradcam.targets == targets
    for target in (targets[0], targets[-1]):
        maps, outputs = gradcam(images, sex, target)
        assert maps.shape == (5, 32, 32)
        assert maps.dtype == np.float32
        assert set(outputs) == set(expected)
        for name, values in outputs.items():
            np.testing.assert_allclose(values, keras.ops.convert_to_numpy(expected[name]), rtol=1e-4, atol=1e-5)


def test_what_a_model_cannot_explain_is_refused(small, hands):
    gradcam = GradCAM(build(small(head="classification"), 120.0, 40.0, size=32))

    with pytest.raises(BoneageError, match=r"can explain 0-5, 5-10, 10-15, 15-20\. Received: 'older'"):
        gradcam(*hands, "older")
    with pytest.raises(BoneageError, match="needs a model with a months output"):
        gradcam.sex_effect(*hands)
    with pytest.raises(BoneageError, match="Received: 5 and 4"):
        gradcam(hands[0], hands[1][:4], "0-5")


@pytest.mark.slow
def test_the_real_backbone(hands):
    from boneage.config import TrainConfig

    keras.utils.set_random_seed(0)
    gradcam = GradCAM(build(TrainConfig(), 120.0, 40.0, size=64))
    features, gradients, _ = gradcam.gradients(enlarge(hands[0][:2, ..., 0], 64, 64), hands[1][:2], "older")

    assert features.shape == gradients.shape == (2, 2, 2, 1280)
    assert gradients.any()


# -- the way back to the radiograph --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(120, 80), (70, 130), (90, 90)], ids=["portrait", "landscape", "square"])
def test_a_marker_goes_back_to_where_it_was(shape):
    radiograph = np.zeros(shape, np.uint8)
    cv2.circle(radiograph, (22, 51), 5, 255, -1)  # x, y
    matrix = whole_frame(radiograph, 64)
    back = to_original(place(radiograph, matrix, 64) / 255, matrix, *shape)

    assert back.shape == shape
    y, x = (float((back * axis).sum() / back.sum()) for axis in np.mgrid[: shape[0], : shape[1]])
    assert (x, y) == pytest.approx((22, 51), abs=0.3)


@pytest.mark.parametrize("side", [64, 32])
@pytest.mark.parametrize("shape", [(120, 80), (70, 130)], ids=["portrait", "landscape"])
def test_every_pixel_reads_the_map_where_the_matrix_says(shape, side):
    matrix = whole_frame(np.zeros(shape), 64)
    columns = np.broadcast_to((np.arange(side) + 0.5) * 64 / side - 0.5, (side, side))  # x in the square of 64 px
    back = to_original(columns, matrix, *shape, square=64)

    expected = np.broadcast_to(matrix[0, 0] * np.arange(shape[1]) + matrix[0, 2], shape)
    inside = np.s_[4:-4, 4:-4]  # at the rim a map goes on with its last value
    np.testing.assert_allclose(back[inside], expected[inside], atol=0.05)


def test_a_map_covers_the_radiograph_to_its_rim_and_nothing_that_was_cut_off():
    np.testing.assert_allclose(to_original(np.ones((32, 32)), whole_frame(np.zeros((300, 200)), 32), 300, 200), 1)

    crop = np.array([[1.0, 0, -20], [0, 1.0, 0]])  # the square begins at column 20 of the radiograph
    back = to_original(np.ones((32, 32)), crop, 32, 60)
    assert not back[:, :19].any()
    np.testing.assert_allclose(back[:, 20:52], 1)
    assert not back[:, 53:].any()


def turned(degrees: float, scale: float, centre: tuple[float, float], size: int) -> np.ndarray:
    """Turns about `centre` (x, y), scales, and puts it into the middle, as a crop to an upright hand does."""
    matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
    matrix[:, 2] += (size - 1) / 2 - np.array(centre)
    return matrix


@pytest.mark.parametrize("side", [64, 32], ids=["as large as the square", "half as large"])
def test_a_map_of_a_turned_crop_goes_back_to_the_radiograph(side):
    radiograph = np.zeros((150, 110), np.uint8)
    cv2.circle(radiograph, (48, 85), 6, 255, -1)  # x, y
    matrix = turned(35, 0.95, (54, 80), 64)  # the square lies wholly on the radiograph
    square = place(radiograph, matrix, 64).astype("float32") / 255
    maps = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)[None]
    geometry = dict(zip(("m00", "m01", "m02", "m10", "m11", "m12"), matrix.ravel(), strict=True))
    rows = pd.DataFrame([geometry | {"height": 150, "width": 110}])
    [back] = in_radiographs(maps, rows, 64)

    assert back.shape == (150, 110)
    y, x = (float((back * axis).sum() / back.sum()) for axis in np.mgrid[:150, :110])
    assert (x, y) == pytest.approx((48, 85), abs=0.4)
    assert back[85, 48] > 0.95
    [covered] = in_radiographs(np.ones_like(maps), rows, 64)
    assert covered.sum() == pytest.approx(64 * 64 / 0.95**2, rel=0.15)  # the square's area, and a rim
    assert covered[80, 54] == 1
    assert not covered[[0, 0, -1, -1], [0, -1, 0, -1]].any()  # the radiograph's corners were cut off
    assert energy_inside(np.ones_like(maps[0]), next(rows.itertuples()), 64) == pytest.approx(1, abs=0.02)


def test_energy_inside_is_the_share_on_the_radiograph():
    matrix = whole_frame(np.zeros((80, 40)), 64)  # upright: a quarter of the square is padding on either side
    row = SimpleNamespace(
        height=80, width=40, **dict(zip(("m00", "m01", "m02", "m10", "m11", "m12"), matrix.ravel(), strict=True))
    )
    left = np.zeros((32, 32), np.float32)
    left[:, :8] = 1

    assert energy_inside(np.ones((32, 32), np.float32), row, 64) == pytest.approx(0.5, abs=0.02)
    assert energy_inside(left, row, 64) == pytest.approx(0, abs=0.02)
    assert np.isnan(energy_inside(np.zeros((32, 32), np.float32), row, 64))


# -- the job -------------------------------------------------------------------------------------------------------


def index_of(months, male) -> Cache:
    table = pd.DataFrame({"id": [f"h{i}" for i in range(len(months))], "months": months, "male": male})
    return Cache(None, None, table, {})


def test_images_are_chosen_by_age_and_sex_alone():
    cache = index_of([24, 24, 25, 100, 114, 120, 200, 204, np.nan], [1, 0, 0, 1, 0, 1, 0, 1, 0])
    everything = cache.index["id"]

    # 2, 9.5 and 17 years = 24, 114 and 204 months; girl, boy, girl
    assert list(choose(cache, everything, 3)["id"]) == ["h1", "h5", "h6"]
    assert list(choose(cache, ["h0", "h3"], 2)["id"]) == ["h0", "h3"]  # no girl: boys
    assert sorted(choose(cache, everything, 50)["id"]) == [f"h{i}" for i in range(8)]
    with pytest.raises(BoneageError, match="no image with a reference age"):
        choose(cache, ["h8"], 3)


def test_the_job(tiny_run, phantom_cache, tmp_path):
    out = explain([tiny_run, tiny_run], phantom_cache.folder, tmp_path / "cam.png", count=3)
    table = pd.read_csv(out.with_suffix(".csv"), dtype={"id": str})
    split = pd.read_csv(tiny_run / "split.csv", dtype=str).set_index("id")["set"]

    assert out.stat().st_size <= 500_000
    assert Image.open(out).width >= 700
    assert list(table["run"]) == ["Tiny/joint"] * 6
    assert set(split[table["id"]]) == {"holdout"}
    assert list(table["male"][:3]) == [0, 1, 0]
    np.testing.assert_allclose(table["reference_months"][:3], phantom_cache.rows(table["id"][:3])["months"])
    np.testing.assert_allclose(table.filter(regex=r"^p_\d").sum(axis=1), 1, atol=1e-4)
    assert table["predicted_months"].between(0, 240).all()
    assert table["sex_effect_months"].notna().all()
    assert (table["target"] == "older").all()
    assert (table["method"] == DEFAULT_METHOD).all()
    assert table["energy_inside"].dropna().between(0, 1).all()


def test_the_job_says_that_it_shows_phantoms(tiny_run, phantom_cache, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(figures, "save", lambda figure, path: said.extend(t.get_text() for t in figure.texts))
    explain([tiny_run], phantom_cache.folder, tmp_path / "cam.png", ids=["1"], target="10-15", method="layercam")

    assert style.PHANTOM_NOTE in said
    assert any("Research use only" in text for text in said)
    assert any(text.endswith("Layer-CAM: what speaks for 10–15 years") for text in said)
    assert set(pd.read_csv(tmp_path / "cam.csv")["method"]) == {"layercam"}


def test_a_notebook_gets_the_same_figure_unwritten(tiny_run, phantom_cache):
    figure, said = side_by_side([tiny_run, tiny_run], phantom_cache, ["1", "2"])

    assert [e.name for e in said] == ["joint", "joint"]  # of one backbone: by the names of the runs
    assert len(said[0].maps) == 2
    assert len(figure.axes) >= 2 * 4
    assert "correlation" in lesson.likeness(said).lower() or not np.ptp(said[0].maps)
    assert lesson.likeness(said[:1]).startswith("Fewer than two")


def test_files_get_maps_in_their_own_frame(tiny_run, phantom_dir, tmp_path):
    portrait = next(phantom_dir.rglob("1.png"))
    landscape = tmp_path / "turned.png"
    cv2.imwrite(str(landscape), np.rot90(cv2.imread(str(portrait), cv2.IMREAD_GRAYSCALE)))
    maps = explain_files([tiny_run], [portrait, landscape], 1, tmp_path / "files.png")
    table = pd.read_csv(tmp_path / "files.csv")

    assert [m.shape for m in maps[0]] == [cv2.imread(str(f)).shape[:2] for f in (portrait, landscape)]
    assert all(m.min() >= 0 and m.max() <= 1 for m in maps[0])
    assert list(table["id"]) == ["1.png", "turned.png"]
    assert table["reference_months"].isna().all()
    assert (tmp_path / "files.png").exists()


def test_a_file_that_cannot_be_used_is_named(tiny_run, tmp_path):
    empty, flat = tmp_path / "empty.png", tmp_path / "flat.png"
    empty.touch()
    cv2.imwrite(str(flat), np.full((64, 64), 7, np.uint8))

    with pytest.raises(BoneageError, match=r"empty\.png: .*0 bytes"):
        explain_files([tiny_run], [empty], 1, tmp_path / "out.png")
    with pytest.raises(BoneageError, match=r"flat\.png: .*one grey level"):
        explain_files([tiny_run], [flat], 1, tmp_path / "out.png")


def test_no_run_and_an_unfinished_run_are_refused(tiny_run, phantom_cache, tmp_path):
    with pytest.raises(BoneageError, match="no run to explain"):
        explain([], phantom_cache.folder, tmp_path / "out.png")
    with pytest.raises(BoneageError, match="no config file"):
        explain([tmp_path], phantom_cache.folder, tmp_path / "out.png")
    with pytest.raises(BoneageError, match=r"one of gradcam, .*occlusion\. Received: 'lime'"):
        explain([tiny_run], phantom_cache.folder, tmp_path / "out.png", method="lime")
