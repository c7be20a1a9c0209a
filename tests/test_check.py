"""`boneage data check`: counts, every problem by id, and a picture of the ages."""

import cv2
import numpy as np
import pytest

from boneage import style
from boneage.data import check
from boneage.data.phantom import make_dataset
from boneage.errors import BoneageError


@pytest.fixture
def root(tmp_path):
    """Six images: one black, one absent; ages on the edges of the groups; two test images without ages."""
    folder = tmp_path / "d"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (40, 30), np.uint8)
    for ident in ("a", "b", "c", "d", "t1", "t2"):
        cv2.imwrite(str(folder / f"{ident}.png"), picture * (ident != "d"))
    (folder / "train.csv").write_text("id,boneage,male\na,59,1\nb,60,0\nc,180,0\nd,100,1\ngone,100,1\n")
    (folder / "test.csv").write_text("Case ID,Sex\nt1,M\nt2,F\n")
    return folder


def test_counts_by_subset_sex_and_age_group(root):
    counts = check.check(root).counts
    assert list(counts.columns) == ["0-5", "5-10", "10-15", "15-20", "no age", "all"]
    assert {key: row.tolist() for key, row in counts.iterrows()} == {
        ("test", "female"): [0, 0, 0, 0, 1, 1],
        ("test", "male"): [0, 0, 0, 0, 1, 1],
        ("train", "female"): [0, 1, 0, 1, 0, 2],
        ("train", "male"): [1, 0, 0, 0, 0, 1],
    }


def test_problems_of_labels_and_of_pixels_come_together(root):
    problems = check.check(root).problems
    assert problems["id"].tolist() == ["gone", "d"]
    assert "missing image" in problems["problem"][0]
    assert "the image is empty" in problems["problem"][1]


def test_a_report_for_the_terminal(root):
    text = check.describe(check.check(root))
    assert "5 usable images, 2 problems" in text
    assert "Bone age 59 to 180 months, mean 99.7, standard deviation 56.8" in text
    assert text.splitlines()[-2].startswith("  gone: missing image")
    assert "PHANTOM" not in text


def test_a_folder_without_problems(tmp_path):
    report = check.check(make_dataset(tmp_path / "p", n=4, height=96))
    text = check.describe(report)
    assert report.problems.empty
    assert "4 usable images, 0 problems" in text
    assert "Problems:" not in text
    assert "PHANTOM: synthetic drawings, not patients" in text


def test_nothing_usable_is_still_described(root):
    for path in root.glob("*.png"):
        path.write_bytes(b"")
    report = check.check(root)
    assert "0 usable images, 7 problems" in check.describe(report)
    with pytest.raises(BoneageError, match="so there is no distribution to draw"):
        check.figure(report)


def test_the_picture_has_a_bar_of_every_image_with_an_age(root, tmp_path):
    figure = check.figure(check.check(root))
    axes = figure.axes[0]
    bars = {(round(p.get_x()), p.get_height()) for p in axes.patches if p.get_height()}
    assert bars == {(54, 1), (60, 1), (180, 1)}  # a bar covers six months from its left edge on
    assert sorted(line.get_xdata()[0] for line in axes.lines) == [60, 120, 180]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["female (2)", "male (1)"]
    assert style.save(figure, tmp_path / "ages.png").stat().st_size > 10_000
