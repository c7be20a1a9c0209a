"""How the hand finder is trained, written for OpenCV, and measured."""

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from boneage.data import hand
from boneage.data.hand import INPUT, Hand
from boneage.errors import BoneageError
from boneage.evaluation import hand_finder as measured
from boneage.training import hand_finder

# Boxes of one upright hand, 60 % of the height of its image, fingers up.
REGIONS = [
    *["DistalPhalanx"] * 5,
    *["MiddlePhalanx"] * 4,
    *["ProximalPhalanx"] * 5,
    *["MCP"] * 4,
    "MCPFirst",
    "Radius",
    "Ulna",
]
TOPS = [0.2] * 5 + [0.3] * 4 + [0.4] * 5 + [0.5] * 5 + [0.7] * 2


def bones_of(ids) -> pd.DataFrame:
    across = [0.3 + 0.08 * (i % 5) for i in range(len(REGIONS))]
    one = pd.DataFrame({"region": REGIONS, "xmin": across, "ymin": TOPS})
    one["xmax"], one["ymax"] = one["xmin"] + 0.05, one["ymin"] + 0.1
    return pd.concat([one.assign(id=name) for name in ids], ignore_index=True)


def test_the_onnx_file_says_what_the_network_says():
    keras.utils.set_random_seed(0)
    model = hand_finder.build()
    for layer in model.layers:  # statistics as a trained network has them
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.random.default_rng(1).normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(np.random.default_rng(2).uniform(0.5, 2, layer.moving_variance.shape))
    images = np.random.default_rng(0).uniform(0, 255, (3, INPUT, INPUT, 1)).astype("float32")
    net = cv2.dnn.readNetFromONNX(np.frombuffer(hand_finder.to_onnx(model).SerializeToString(), np.uint8))
    net.setInput(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(net.forward(), keras.ops.convert_to_numpy(model(images)), atol=1e-4)


def test_the_shipped_file_has_the_shape_of_the_network():
    assert len(hand_finder.build().output_shape) == 2
    assert hand_finder.build().output_shape[1] == 5
    assert 1e6 < len(hand.weights()) < 4e6  # bytes


@pytest.mark.parametrize("seed", range(6))
def test_a_view_shows_the_hand_where_its_target_says(seed):
    """Two bright spots mark the wrist's and the fingers' end of a hand; the target must lead back to them."""
    square = np.full((256, 256), 60, np.uint8)
    truth = Hand(0.5, 0.5, 0.5, 0.0)
    square[60:70, 123:133], square[186:196, 123:133] = 255, 200
    views = hand_finder.Views.__new__(hand_finder.Views)
    views.squares, views.hands, views.seed = square[None], [truth], seed
    image, target = (part[0] for part in views[0])
    found = hand.decode(target)
    along = np.array([np.sin(np.deg2rad(found.angle)), -np.cos(np.deg2rad(found.angle))])
    for sign in (1, -1):
        at = np.array([found.centre_x, found.centre_y]) + sign * along * found.size * (63 / 128)
        x, y = (at * INPUT).astype(int)
        if 3 < x < INPUT - 3 and 3 < y < INPUT - 3:  # else the view has cut it off
            spot = image[y - 2 : y + 3, x - 2 : x + 3, 0].mean()
            assert spot >= np.median(image)


def test_a_network_learns_from_boxes_of_the_training_side_and_lands_in_one_file(phantom_cache, tmp_path):
    ids = phantom_cache.index["id"]
    known = hand_finder.known_hands(phantom_cache, bones_of(ids))
    assert set(known["set"]) == {"train", "validation", "holdout"}
    assert len(known) == len(ids)
    out = hand_finder.train(phantom_cache.folder, bones_of(ids), tmp_path / "finder.onnx", steps=2)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    assert cv2.dnn.readNetFromONNX(str(out)).getUnconnectedOutLayersNames() == ("answer",)


def test_boxes_of_other_images_are_refused(phantom_cache):
    with pytest.raises(BoneageError, match="no image of the data has boxes of 21 bones"):
        hand_finder.known_hands(phantom_cache, bones_of(["elsewhere"]))


def test_errors_are_in_percent_of_the_hand_and_in_degrees(phantom_dir):
    table = measured.sources.find(phantom_dir).table
    name = table["id"].iloc[0]
    grey = measured.decode_grey(measured.read_bytes(table["path"].iloc[0]))
    truth = hand.from_bones(bones_of([name]), *grey.shape)
    found = pd.DataFrame(
        [
            (
                name,
                truth.centre_x + 0.03 * truth.size,
                truth.centre_y - 0.04 * truth.size,
                1.1 * truth.size,
                truth.angle - 350,
                1.0,
            )
        ],
        columns=["id", *measured.COLUMNS],
    )
    row = measured.errors(found, bones_of([name]), table).iloc[0]
    assert row[list(measured.QUANTITIES)].tolist() == pytest.approx([5, 10, 10])


def test_percentiles_are_told_by_set():
    each = pd.DataFrame(
        {"id": list("abc"), "set": ["train", "holdout", "holdout"], **{q: [1.0, 2, 4] for q in measured.QUANTITIES}}
    )
    table = measured.percentiles(each)
    holdout = table[(table["set"] == "holdout") & (table["quantity"] == "size, %")].iloc[0]
    assert (holdout["images"], holdout["p50"]) == (2, 3.0)
    assert "| holdout | 2 | size, % | 3.0 |" in measured.card(table, 3)


def test_every_radiograph_gets_an_answer_and_a_place_on_disk(phantom_dir, tmp_path):
    table = measured.sources.find(phantom_dir).table
    made = measured.evaluate(phantom_dir, bones_of(table["id"]), tmp_path)
    assert made["id"].tolist() == table["id"].tolist()
    assert made["confidence"].between(0, 1).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "MODEL_CARD.md", "disagreements.png", "errors.csv", "least_sure.png", "predictions.csv"
    ]  # fmt: skip
    assert "not a medical device" in (tmp_path / "MODEL_CARD.md").read_text()
