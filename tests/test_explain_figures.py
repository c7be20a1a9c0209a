"""Figures of heat maps: what they say, and that they hold whatever is shown."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from boneage.explain import figures


def hands(count: int, shape=(32, 24)) -> list[figures.Hand]:
    image = np.linspace(0, 255, shape[0] * shape[1]).reshape(shape).astype("uint8")
    return [figures.Hand(str(i), image, i % 2, [100.0, None][i % 2]) for i in range(count)]


def told(of: list[figures.Hand], models: int, months: float, effect: float | None = None) -> list[figures.Explanation]:
    cam = np.zeros(of[0].image.shape, "float32")
    cam[4:9, 5:8] = 1
    n = len(of)
    return [
        figures.Explanation(
            f"ResNet101 number{k}", "ResNet101", [cam] * n, np.full(n, months), np.tile([0.1, 0.2, 0.7, 0], (n, 1)),
            None if effect is None else np.full(n, effect),
        )
        for k in range(models)
    ]  # fmt: skip


def test_overlay_leaves_cold_places_grey_and_bone_brighter_than_flesh():
    image = np.tile(np.array([60, 200], np.uint8), (2, 1))  # flesh, bone
    cold, hot = figures.overlay(image, np.zeros((2, 2))), figures.overlay(image, np.ones((2, 2)))

    assert (cold[..., 0] == cold[..., 1]).all()
    assert (cold[..., 1] == cold[..., 2]).all()
    assert (hot[..., 0] > hot[..., 2] + 30).all()  # yellow
    for picture in (cold, hot):
        assert picture.dtype == np.uint8
        assert (picture[:, 1].astype(int).sum(-1) > picture[:, 0].astype(int).sum(-1) + 30).all()


def test_a_hand_without_heat_says_so_in_its_picture():
    hand = figures.Hand("7", np.zeros((8, 8), np.uint8), 1, 100.0)
    maps = [np.zeros((8, 8), np.float32), np.eye(8, dtype=np.float32)]
    said = [
        figures.Explanation(name, name, [cam], np.array([99.6]), None) for name, cam in zip("AB", maps, strict=True)
    ]
    _, cold, hot, _ = figures.explain_figure([hand], said, "older", phantom=False).axes[:4]

    assert [t.get_text() for t in cold.texts] == ["no heat"]
    assert not hot.texts
    assert cold.get_title(loc="left") == "A\n8 y 4 mo (+0 mo)"


def test_what_sex_adds_stands_above_the_map_and_on_the_line_of_ages():
    shown = hands(1)
    figure = figures.explain_figure(shown, told(shown, 1, 120.0, -9.0), "older", False, "RISE")
    _, overlay, ages = figure.axes[:3]
    marks = [(line.get_marker(), *line.get_xdata()) for line in ages.lines if line.get_marker() in "D<>"]

    assert overlay.get_title(loc="left").endswith("10 y 0 mo (+20 mo)\nsex input: \u22129.0 mo")
    assert marks == [("D", 129 / 12), ("D", 120 / 12)]  # with the other sex, and as given
    assert any(t.get_text().endswith("RISE: what pushes the estimate up") for t in figure.texts)
    assert "predicted with the other sex" in [t.get_text() for t in figure.legends[0].get_texts()]


def test_an_answer_stands_with_its_error_or_where_no_reference_is_known_in_months():
    known, unknown = hands(2)  # reference 100 months, and none
    figure = figures.explain_figure([known, unknown], told([known, unknown], 1, 88.0), "older", False)
    titles = [figure.axes[i].get_title(loc="left").split("\n") for i in (0, 1, 3, 4)]

    assert [t[1] for t in titles if len(t) > 1] == ["reference 8 y 4 mo", "7 y 4 mo (\u221212 mo)", "7 y 4 mo (88 mo)"]
    assert titles[2] == ["male, image 1"]


def test_without_the_effect_of_sex_nothing_is_said_of_it():
    shown = hands(1)
    figure = figures.explain_figure(shown, told(shown, 1, 120.0), "older", False)

    assert "sex" not in figure.axes[1].get_title(loc="left")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "predicted", "reference", "probability of the age group",
    ]  # fmt: skip


@pytest.mark.parametrize(("months", "tip", "years"), [(198641.5, ">", 20), (-30.0, "<", 0)])
def test_an_absurd_prediction_stays_in_the_figure(months, tip, years):
    """A network after one epoch may say ten thousand years; its figure must still be one."""
    shown = hands(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.explain_figure(shown, told(shown, 4, months, 3.0), "older", phantom=True)
        figure.draw_without_rendering()

    ages = figure.axes[5]
    assert {line.get_marker() for line in ages.lines if line.get_marker() in "D<>"} == {tip}
    assert all(0 <= x <= 20 for line in ages.lines for x in line.get_xdata())
    assert figure.axes[1].get_title(loc="left").split("\n")[1] == f"{months:.0f} mo"
    box = figure.get_tightbbox()
    assert 0 <= box.x0 < box.x1 <= figure.get_figwidth()


@pytest.mark.parametrize(
    ("count", "models", "shape"),
    [(1, 1, (16, 16)), (2, 9, (16, 16)), (7, 4, (32, 24)), (3, 2, (24, 64)), (2, 1, (96, 24))],
)
def test_no_picture_collapses_and_no_row_touches_another(count, models, shape):
    shown = hands(count, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.explain_figure(shown, told(shown, models, 120.0, 3.0), "older", phantom=True)
        figure.draw_without_rendering()
    axes = np.reshape(figure.axes[: count * (models + 2)], (count, models + 2))
    width, height = figure.get_size_inches()
    boxes = np.array([[ax.get_position().extents * (width, height, width, height) for ax in row] for row in axes])

    assert (boxes[..., 2] - boxes[..., 0]).min() > 0.3  # inches
    assert (boxes[..., 3] - boxes[..., 1]).min() > 0.3
    assert boxes[..., 0].min() >= 0
    assert boxes[..., 2].max() <= width
    assert boxes[..., 1].min() > 0.8  # room for what the colours mean
    titles = np.zeros(boxes.shape)
    titles[:, :-1, 3] = 0.4  # above pictures
    flat = (boxes + titles).reshape(-1, 4)
    assert flat[:, 3].max() < height
    for i, one in enumerate(flat):
        apart = (flat[:i, :2] >= one[2:] - 1e-9).any(1) | (flat[:i, 2:] <= one[:2] + 1e-9).any(1)
        assert apart.all()


def test_few_models_have_their_line_of_ages_as_wide_as_their_pictures():
    """Of one model it would else be a long strip beside two small pictures."""
    for models in (1, 2):
        axes = figures.explain_figure(hands(2), told(hands(2), models, 120.0), "older", False).axes[: models + 2]
        left, right = axes[0].get_position().x0, axes[-2].get_position().x1
        ages = axes[-1].get_position()
        assert left < ages.x0 < ages.x1 < right
        assert ages.width > 0.9 * (right - left)


def test_a_vector_file_keeps_words_as_words(tmp_path):
    figure = figures.explain_figure(hands(1), told(hands(1), 1, 120.0), "older", False)
    for name, start in (("maps.pdf", b"%PDF"), ("maps.svg", b"<?xml"), ("maps.png", b"\x89PNG")):
        assert figures.save(figure, tmp_path / name).read_bytes().startswith(start)


def test_maps_and_their_figures_need_no_keras():
    """What serves a model without Keras draws them too."""
    code = "import sys, boneage.explain.maps, boneage.explain.figures; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "boneage.explain.maps" in loaded
    assert not {"keras", "tensorflow", "jax", "torch"} & set(loaded)
