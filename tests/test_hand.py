"""The hand finder: geometry by hand-computed numbers, the shipped network on drawings, the crop as a cache's frame."""

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage.data import hand
from boneage.data.cache import open_or_prepare, prepare
from boneage.data.frame import place, to_square, whole_frame
from boneage.data.frames import FRAMES
from boneage.data.hand import Hand
from boneage.data.phantom import render
from boneage.errors import BoneageError


def bones(**boxes) -> pd.DataFrame:
    """Boxes as the file has them: `Region=(xmin, ymin, xmax, ymax)`."""
    return pd.DataFrame(
        [(name, *box) for name, box in boxes.items()], columns=["region", "xmin", "ymin", "xmax", "ymax"]
    )


def test_an_upright_hand_is_the_bounding_box_of_its_bones():
    # In an image of 200 x 100 px the box x 0.2..0.4, y 0.1..0.9 is 40 px wide and 80 px high: 0.2 and 0.4 of 200 px.
    found = hand.from_bones(
        bones(DistalPhalanx=(0.2, 0.1, 0.4, 0.2), MCP=(0.25, 0.4, 0.35, 0.5), Radius=(0.25, 0.8, 0.35, 0.9)), 100, 200
    )
    assert (found.centre_x, found.centre_y, found.size) == pytest.approx((0.3, 0.25, 0.4))
    assert found.angle == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("knuckles", "angle"),
    [((0.5, 0.1), 0), ((0.9, 0.5), 90), ((0.1, 0.5), -90), ((0.9, 0.1), 45), ((0.5, 0.9), 180)],
)
def test_the_angle_is_clockwise_from_up(knuckles, angle):
    x, y = knuckles
    found = hand.from_bones(bones(MCP=(x, y, x, y), Ulna=(0.5, 0.5, 0.5, 0.5)), 100, 100)
    assert abs(found.angle) == pytest.approx(abs(angle))
    assert angle == 180 or found.angle == pytest.approx(angle)


def test_a_turned_hand_is_measured_along_itself():
    # Wrist at (0.2, 0.8), knuckles at (0.6, 0.4): 0.4 * sqrt(2) long at 45 degrees, and as thin as the boxes.
    found = hand.from_bones(bones(MCP=(0.6, 0.4, 0.6, 0.4), Radius=(0.2, 0.8, 0.2, 0.8)), 64, 64)
    assert (found.angle, found.size) == pytest.approx((45, 0.4 * 2**0.5))
    assert (found.centre_x, found.centre_y) == pytest.approx((0.4, 0.6))


@pytest.mark.parametrize("angle", [-170.0, -30.0, 0.0, 75.0])
def test_upright_puts_the_hand_upright_into_the_middle(angle):
    height, width, size = 300, 200, 96
    matrix = hand.upright(Hand(0.3, 0.6, 0.5, angle), height, width, size, margin=1.25)
    centre = np.array([0.3, 0.6]) * 300 - 0.5
    np.testing.assert_allclose(matrix @ [*centre, 1], [47.5, 47.5])
    turn = np.deg2rad(angle)
    tip = centre + 75 * np.array([np.sin(turn), -np.cos(turn)])  # half of the hand's 150 px towards the fingers
    np.testing.assert_allclose(matrix @ [*tip, 1], [47.5, 47.5 - 48 / 1.25])
    assert np.linalg.det(matrix[:, :2]) > 0  # a left hand stays a left hand


@pytest.mark.parametrize("angle", [-179.0, -45.0, 0.0, 120.0])
def test_the_networks_numbers_are_read_as_they_are_written(angle):
    truth = Hand(0.31, 0.62, 0.47, angle)
    back = hand.decode(hand.encode(truth))
    np.testing.assert_allclose(list(vars(back).values()), list(vars(truth).values()), rtol=1e-5)


def test_doubt_is_the_length_of_sine_and_cosine():
    assert hand.decode(np.array([0, 0, 0, 0.3, 0.4])).confidence == pytest.approx(0.5)


@pytest.mark.parametrize("turn", [0, 25, -90])
def test_a_drawn_hand_is_found_however_it_lies(turn):
    """A drawing, unlike any radiograph the network has seen, and still where a hand is."""
    picture = drawn(age=10)
    height, width = picture.shape
    middle = (width / 2, height / 2)
    turned = cv2.warpAffine(picture, cv2.getRotationMatrix2D(middle, -turn, 1.0), (width, height))
    straight, found = hand.find(picture), hand.find(turned)
    assert abs((found.angle - straight.angle - turn + 180) % 360 - 180) < 8
    assert found.size == pytest.approx(straight.size, rel=0.12)


def test_noise_holds_no_sure_hand_and_keeps_the_whole_frame():
    noise = np.random.default_rng(0).integers(0, 255, (200, 150), dtype=np.uint8)
    assert not hand.find(noise).sure
    np.testing.assert_array_equal(hand.upright_hand(noise, 64), whole_frame(noise, 64))


def test_eight_and_sixteen_bits_give_the_same_hand():
    picture = drawn(age=8)
    a, b = hand.find(picture), hand.find(picture.astype(np.uint16) * 257)
    np.testing.assert_allclose(list(vars(a).values()), list(vars(b).values()), rtol=2e-3)


def test_the_hand_is_told_in_the_image_that_came_in_not_in_a_smaller_one():
    picture = drawn(age=12)
    double = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    a, b = hand.find(picture), hand.find(double)
    assert (a.centre_x, a.centre_y, a.size) == pytest.approx((b.centre_x, b.centre_y, b.size), abs=0.02)


def test_a_cache_of_hands_shows_crops_and_says_where_it_does_not(phantom_dir, tmp_path):
    made = prepare(phantom_dir, 48, tmp_path / "hands", frame="hand")
    assert made.frame == "hand"
    assert made.info["whole_frames"] == int((~made.index["hand"]).sum())
    assert made.index["hand"].any()
    row = made.index[made.index["hand"]].iloc[0]
    matrix = row[["m00", "m01", "m02", "m10", "m11", "m12"]].to_numpy(float).reshape(2, 3)
    image = np.zeros((int(row["height"]), int(row["width"])))
    assert not np.allclose(matrix, whole_frame(image, 48))


def test_a_cache_of_another_frame_is_refused(phantom_cache):
    with pytest.raises(BoneageError, match="shows the frame 'whole', the model wants 'hand'"):
        open_or_prepare(phantom_cache.folder, 64, "hand")


def test_squares_of_a_frame_are_those_of_its_map():
    picture = drawn(age=14)
    square, matrix, _ = FRAMES["hand"].to_square(picture, 64)
    expected, _, _ = to_square(picture, 64, lambda *_: matrix)
    np.testing.assert_array_equal(square, expected)
    assert place(picture, matrix, 64).shape == square.shape


def drawn(age: float) -> np.ndarray:
    """An upright phantom hand."""
    return render(12 * age, male=1, seed=3, height=256).image
