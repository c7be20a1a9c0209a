"""`boneage predict`, `models list` and what they say when there is nothing to say it with."""

import csv
import json
import os
import shutil
from pathlib import Path

import cv2
import pytest
from serving_run import exported  # noqa: F401

from boneage.serving.files import predict_files, save_csv
from boneage.serving.shelf import describe, locate_run, shipped


@pytest.fixture
def shelf(exported, monkeypatch) -> Path:  # noqa: F811
    """The outputs folder that the exported run lies in, as the usual one."""
    monkeypatch.setenv("BONEAGE_OUTPUTS", str(exported.parents[1]))
    return exported.parents[1]


@pytest.fixture(scope="session")
def films(phantom_dir) -> list[Path]:
    return sorted(phantom_dir.rglob("*.png"))[:2]


def test_predict_says_age_interval_model_and_notice(boneage, shelf, films):
    code, out, _ = boneage("predict", *films, "--sex", "F")
    assert code == 0
    assert out.count("90 % interval: ") == 2
    assert "years" in out
    assert "read as female; as male it would be" in out
    assert out.endswith("model Tiny/joint. Research use only, not a medical device.\n")


def test_predict_as_json_csv_and_pictures(boneage, shelf, films, tmp_path):
    code, out, _ = boneage(
        "predict", films[0], "--sex", "M", "--json", "--csv", tmp_path / "a.csv", "--overlay", tmp_path
    )
    assert code == 0
    (said,) = json.loads(out)
    assert said["file"] == str(films[0])
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    assert float(row["predicted_months"]) == pytest.approx(said["months"], rel=1e-4)
    assert (row["male"], row["model"], row["error"]) == ("1", "Tiny/joint", "")
    for direction in ("older", "younger"):
        overlay = cv2.imread(str(tmp_path / f"{films[0].stem}_{direction}.png"))
        assert overlay.shape[:2] == cv2.imread(str(films[0])).shape[:2]


def test_a_file_whose_name_is_no_text_is_answered_under_one_that_is(exported, films, tmp_path):  # noqa: F811
    odd = tmp_path / os.fsdecode(b"hand\xff.png")
    shutil.copyfile(films[0], odd)
    answers = predict_files([odd], True, exported)
    save_csv(answers, tmp_path / "a.csv")
    (row,) = csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8"))
    assert row["file"] == f"{tmp_path}/hand\\xff.png"
    assert float(row["predicted_months"]) > 0


def test_pictures_of_files_that_share_a_name_do_not_overwrite_each_other(boneage, shelf, films, tmp_path):
    for patient, film in zip(("p1", "p2"), films, strict=True):
        (tmp_path / patient).mkdir()
        shutil.copyfile(film, tmp_path / patient / "image.png")
    code, *_ = boneage("predict", *tmp_path.glob("p?/image.png"), "--sex", "M", "--overlay", tmp_path / "out")
    assert code == 0
    written = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert written == ["image-2_older.png", "image-2_younger.png", "image_older.png", "image_younger.png"]


def test_one_bad_file_stops_no_other_and_shows_in_the_exit_code(boneage, shelf, films, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no image")
    code, out, _ = boneage("predict", tmp_path / "no.png", tmp_path / "absent.png", films[0], "--sex", "F", "--json")
    assert code == 2
    bad, absent, good = json.loads(out)
    assert bad["code"] == "unreadable"
    assert absent["error"] == "missing image file"
    assert good["months"] > 0


@pytest.mark.parametrize("sex", ["O", "x", ""])
def test_an_unknown_sex_is_refused_before_anything_is_read(boneage, shelf, films, sex):
    code, _, err = boneage("predict", films[0], "--sex", sex)
    assert code == 2
    assert err.startswith("error: unknown sex; expected M/F")


def test_a_picture_without_a_sex_gets_no_answer(boneage, shelf, films):
    code, out, _ = boneage("predict", films[0])
    assert code == 2
    assert "no answer: sex missing" in out


@pytest.mark.parametrize(
    ("model", "said"), [("Nonesuch", "no model 'Nonesuch'; known: Tiny/joint"), ("Tiny/other", "known: Tiny/joint")]
)
def test_an_unknown_model_is_named(boneage, shelf, films, model, said):
    code, _, err = boneage("predict", films[0], "--sex", "F", "--model", model)
    assert code == 2
    assert said in err


def test_models_are_found_by_backbone_by_name_and_by_folder(shelf, exported):  # noqa: F811
    for name in (None, "Tiny", "Tiny/joint", exported, str(exported)):
        assert locate_run(name) == exported.resolve()


def test_the_shelf_lists_errors_and_exports(shelf, boneage):
    (run,) = shipped(shelf)
    assert run.model == "Tiny/joint"
    assert run.exported
    rows = list(csv.DictReader((run.folder / "predictions_validation.csv").open()))
    errors = [abs(float(row["reference_months"]) - float(row["predicted_months"])) for row in rows]
    assert run.validation_mae == pytest.approx(sum(errors) / len(errors))
    code, out, _ = boneage("models", "list", "--outputs", shelf)
    assert code == 0
    names, values = (line.split() for line in out.splitlines())
    assert dict(zip(names, values, strict=True))["validation_mae"] == f"{run.validation_mae:.2f}"
    assert (values[0], values[-1]) == ("Tiny/joint", "yes")


def test_an_export_of_an_older_model_is_called_stale(exported, tmp_path):  # noqa: F811
    run = Path(shutil.copytree(exported, tmp_path / "Tiny" / "joint"))
    assert "stale" not in describe(tmp_path)
    (run / "model.keras").write_bytes(b"trained again")
    assert "stale" in describe(tmp_path)
    (run / "serving.json").unlink()
    assert "unfinished" in describe(tmp_path)


def test_a_run_that_is_not_exported_says_how_to(tmp_path, tiny_run, boneage, films, monkeypatch):
    monkeypatch.setenv("BONEAGE_OUTPUTS", str(tiny_run.parents[1]))
    code, _, err = boneage("predict", films[0], "--sex", "F")
    assert code == 2
    assert "no exported model among Tiny/joint; run `boneage export" in err


def test_an_empty_shelf_says_so(boneage, films, tmp_path, monkeypatch):
    monkeypatch.setenv("BONEAGE_OUTPUTS", str(tmp_path))
    assert "no finished run in" in boneage("predict", films[0], "--sex", "F")[2]
    assert "train one with `boneage train`" in boneage("models", "list", "--outputs", tmp_path)[1]


def test_a_damaged_export_says_so(boneage, shelf, films, tmp_path, exported):  # noqa: F811
    run = Path(shutil.copytree(exported, tmp_path / "Tiny" / "joint"))
    (run / "model.onnx").write_bytes(b"half of it")
    assert "model.onnx is damaged" in boneage("predict", films[0], "--sex", "F", "--model", run)[2]
    (run / "serving.json").write_text("{")
    shutil.copy(exported / "model.onnx", run / "model.onnx")
    assert "no readable serving.json" in boneage("predict", films[0], "--sex", "F", "--model", run)[2]
