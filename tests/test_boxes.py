"""Boxes: read strictly, placed where the radiograph's pixels go, and turned into joints in whatever order they come."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from boneage.data import boxes as box
from boneage.data.frame import place, whole_frame
from boneage.errors import BoneageError

HEIGHT, WIDTH = 200, 100


def row_of(matrix: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> SimpleNamespace:
    names = ("m00", "m01", "m02", "m10", "m11", "m12")
    return SimpleNamespace(height=height, width=width, **dict(zip(names, np.ravel(matrix), strict=True)))


def table(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(box.COLUMNS))


def around(region: str, x: float, y: float, half: float = 0.02) -> tuple:
    return ("1", region, x - half, y - half, x + half, y + half)


# Columns of a left hand, little finger to index finger, with the thumb apart; y grows towards the wrist.
FINGERS = (0.2, 0.35, 0.5, 0.65)
JOINTS = (
    [around("MCP", x, 0.5) for x in FINGERS] + [around("MCP", 0.85, 0.65)]
    + [around("PIP", x, 0.35) for x in FINGERS] + [around("PIP", 0.9, 0.5)]
    + [around("DIP", x, 0.2) for x in FINGERS]
    + [around("Wrist", 0.45, 0.75, 0.1), around("Radius", 0.55, 0.9), around("Ulna", 0.35, 0.9)]
)  # fmt: skip


def test_both_files_are_read_with_text_ids(tmp_path):
    table([("0012", "Radius", 0.1, 0.2, 0.3, 0.4)]).to_csv(tmp_path / box.BONES, index=False)
    table([("7", "Wrist", 0.1, 0.2, 0.3, 0.4)]).to_csv(tmp_path / box.OSSIFICATION, index=False)
    found = box.read(tmp_path)
    assert found.ids == ["0012", "7"]
    assert found.bones.loc[0, "ymax"] == 0.4


def test_corners_beyond_the_film_and_in_the_wrong_order_are_mended(tmp_path):
    for name in (box.BONES, box.OSSIFICATION):
        table([("1", "Radius", 0.3, -0.1, 0.1, 1.2)]).to_csv(tmp_path / name, index=False)
    assert box.read(tmp_path).bones[list(box.CORNERS)].iloc[0].tolist() == [0.1, 0.0, 0.3, 1.0]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no boxes at"), ("id,region,xmin\n1,Ulna,0.1\n", "lacks column ymin"),
     ("id,region,xmin,ymin,xmax,ymax\n1,Ulna,left,0,1,1\n", "not numbers")],
)  # fmt: skip
def test_bad_files_are_refused_by_name(tmp_path, content, said):
    table([around("Wrist", 0.5, 0.5)]).to_csv(tmp_path / box.OSSIFICATION, index=False)
    if content:
        (tmp_path / box.BONES).write_text(content)
    with pytest.raises(BoneageError, match=rf"hand-bones\.csv.*{said}|{said}.*hand-bones\.csv"):
        box.read(tmp_path)


def test_the_whole_radiograph_fills_its_place_in_the_letterbox():
    """A film of 200 x 100 in a square of 50: half as wide as high, so columns 12.5 to 37.5; pixel middles are whole."""
    row = row_of(whole_frame(np.zeros((HEIGHT, WIDTH)), 50))
    low, high = box.to_square(np.array([[0, 0], [1, 1]]), row, square=50, size=50)
    assert np.allclose(low, [12.0, -0.5])
    assert np.allclose(high, [37.0, 49.5])
    assert np.allclose(box.to_square(np.array([1, 1]), row, square=50, size=100), [74.5, 99.5])


def test_a_box_lands_where_its_pixels_land():
    """Whatever the map, here one that turns and shrinks: a bright box of the film is bright in the box's place."""
    film = np.zeros((HEIGHT, WIDTH), np.uint8)
    film[60:140, 30:60] = 255
    angle = np.deg2rad(25)
    turn = 0.4 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.c_[turn, [40, 5]]
    seen = place(film, matrix, 96) > 127
    corners = box.corners(table([("1", "Radius", 0.3, 0.3, 0.6, 0.7)]))
    drawn = box.fill(box.to_square(corners, row_of(matrix), 96, 96), 96)
    assert (seen & drawn).sum() / (seen | drawn).sum() > 0.9


def test_the_hand_outline_holds_the_gaps_and_a_margin_around():
    squares = np.array([[[20, 20], [29, 20], [29, 29], [20, 29]], [[70, 70], [79, 70], [79, 79], [70, 79]]], float)
    bare, wide = (box.hand_outline(squares, 100, margin) for margin in (0.0, 0.1))
    assert bare[50, 50]  # between the two boxes
    assert not bare[80, 20]
    assert not bare[15, 15]
    assert wide[15, 15]
    assert (wide & bare).sum() == bare.sum() < wide.sum()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turned", [0, 30])
def test_fingers_are_told_apart_however_the_boxes_are_shuffled_and_the_hand_lies(mirrored, turned):
    boxes = table(JOINTS).sample(frac=1, random_state=3)
    middle = (boxes[["xmin", "ymin"]].to_numpy() + boxes[["xmax", "ymax"]].to_numpy()) / 2
    angle = np.deg2rad(turned)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    place_of = lambda p: ((np.asarray(p) - 0.5) * (-1 if mirrored else 1, 1)) @ turn.T * 0.6 + 0.5  # noqa: E731
    boxes[["xmin", "ymin"]], boxes[["xmax", "ymax"]] = place_of(middle) - 0.01, place_of(middle) + 0.01
    found = dict(zip(box.LANDMARKS, box.landmarks(boxes, 100, 100), strict=True))
    assert np.allclose(found["MCP5"], place_of([0.2, 0.5]))
    assert np.allclose(found["MCP1"], place_of([0.85, 0.65]))
    assert np.allclose(found["PIP1"], place_of([0.9, 0.5]))
    assert np.allclose(found["DIP2"], place_of([0.65, 0.2]))


def test_joints_lie_between_the_boxes_of_two_bones():
    bones = [("1", "DistalPhalanx", x - 0.02, 0.1, x + 0.02, 0.2) for x in FINGERS]
    bones += [("1", "MiddlePhalanx", x - 0.02, 0.2, x + 0.02, 0.3) for x in FINGERS]
    bones += [("1", "ProximalPhalanx", x - 0.02, 0.28, x + 0.02, 0.45) for x in FINGERS]
    bones += [("1", "MCP", x - 0.02, 0.5, x + 0.02, 0.7) for x in FINGERS]
    bones += [("1", "DistalPhalanx", 0.9, 0.4, 0.98, 0.5), ("1", "ProximalPhalanx", 0.86, 0.5, 0.92, 0.6)]
    bones += [
        ("1", "MCPFirst", 0.75, 0.6, 0.88, 0.75),
        ("1", "Radius", 0.5, 0.8, 0.6, 1),
        ("1", "Ulna", 0.3, 0.8, 0.4, 1),
    ]
    found = dict(zip(box.LANDMARKS, box.landmarks(table(bones), 100, 100), strict=True))
    assert np.allclose(found["DIP4"], [0.35, 0.2])  # the boxes touch
    assert np.allclose(found["PIP4"], [0.35, 0.29])  # they overlap from 0.28 to 0.30
    assert np.allclose(found["MCP4"], [0.35, 0.475])  # a gap from 0.45 to 0.50
    assert np.allclose(found["PIP1"], [0.91, 0.5])
    assert np.allclose(found["radius"], [0.55, 0.8])


def test_a_hand_that_lacks_a_box_has_no_landmarks():
    assert box.landmarks(table(JOINTS[1:]), 100, 100) is None
