"""Ensembles, corrections and test-time augmentation: hand-computed means, and nothing fitted but on validation."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boneage.errors import BoneageError
from boneage.evaluation import ensemble, tta
from boneage.evaluation.ensemble import combine, least_absolute
from boneage.evaluation.evaluate import evaluate
from boneage.labels import GROUP_COLUMNS
from boneage.paths import write_csv

SETS = {"validation": 40, "holdout": 60, "rsna_test": 5}


def reference(n: int) -> np.ndarray:
    return np.random.default_rng(n).uniform(10, 220, n)


def fake_run(root: Path, name: str, answer, groups: bool = True, phantom: bool = True, ids: str = "") -> Path:
    """An evaluated run whose months are `answer(reference, rng)`."""
    folder = root / "Tiny" / name
    rng = np.random.default_rng(len(name))
    split = []
    for s, n in SETS.items():
        months = reference(n)
        table = pd.DataFrame({"id": [f"{s}{ids}{i}" for i in range(n)], "male": 0, "reference_months": months})
        if answer:
            table["predicted_months"] = answer(months, rng)
        if groups:
            table[list(GROUP_COLUMNS)] = rng.dirichlet(np.ones(4), n)
        write_csv(
            folder / f"predictions_{s}.csv", table.drop(columns="reference_months") if s == "rsna_test" else table
        )
        split += [(i, s) for i in table["id"]]
    write_csv(folder / "split.csv", pd.DataFrame(split, columns=["id", "set"]))
    (folder / "model.keras").write_bytes(name.encode())
    facts = {"phantom": phantom, "data": "hands", "images": {"train": 9}, "parameters": 10}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"predictions_{name}.csv", dtype={"id": str})


def noisy(scale: float, shift: float = 0.0):
    return lambda months, rng: months + shift + rng.normal(0, scale, len(months))


@pytest.fixture
def pair(tmp_path):
    return [fake_run(tmp_path, "one", noisy(10)), fake_run(tmp_path, "three", noisy(10))]


def test_an_ensemble_is_the_mean_of_its_members_in_months_and_probabilities(pair, tmp_path):
    folder = combine("both", pair, tmp_path)
    assert folder == tmp_path / "Ensemble" / "both"
    for name in SETS:
        made, *members = (read(f, name) for f in (folder, *pair))
        for column in ("predicted_months", *GROUP_COLUMNS):
            np.testing.assert_allclose(made[column], (members[0][column] + members[1][column]) / 2, rtol=1e-4)
        assert list(made["id"]) == list(members[0]["id"])
    assert "reference_months" not in read(folder, "rsna_test")
    assert not (folder / "model.keras").exists()


def test_an_ensemble_made_anew_keeps_nothing_of_the_earlier_one(pair, tmp_path):
    folder = combine("both", pair, tmp_path)
    (pair[1] / "predictions_holdout.csv").unlink()
    combine("both", pair, tmp_path)
    assert not (folder / "predictions_holdout.csv").exists()
    assert "holdout" not in json.loads((folder / "metrics.json").read_text())


def test_a_correction_without_months_is_refused(tmp_path):
    with pytest.raises(BoneageError, match="needs a regression head"):
        combine("x", [fake_run(tmp_path, "g", None, groups=True)], tmp_path, correction="linear")


def test_it_lists_its_members_by_digest(pair, tmp_path):
    members = json.loads((combine("both", pair, tmp_path) / "run.json").read_text())["members"]
    assert [m["run"] for m in members] == ["Tiny/one", "Tiny/three"]
    assert members[0]["sha256"]["model.keras"] == hashlib.sha256(b"one").hexdigest()
    holdout = (pair[0] / "predictions_holdout.csv").read_bytes()
    assert members[0]["sha256"]["predictions_holdout.csv"] == hashlib.sha256(holdout).hexdigest()


def test_its_numbers_and_its_card_come_from_its_predictions(pair, tmp_path):
    folder = combine("both", pair, tmp_path)
    table = read(folder, "holdout")
    mae = (table["predicted_months"] - table["reference_months"]).abs().mean()
    assert json.loads((folder / "metrics.json").read_text())["holdout"]["summary"]["mae"]["value"] == pytest.approx(
        mae, rel=1e-4
    )
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| Tiny/one | 1 | 0.500 | `" in card
    assert f"{mae:.2f} [" in card
    assert "PHANTOM" in card


def test_rows_are_matched_by_id_and_not_by_place(pair, tmp_path):
    straight = read(combine("straight", pair, tmp_path), "holdout")
    write_csv(pair[1] / "predictions_holdout.csv", read(pair[1], "holdout")[::-1])
    pd.testing.assert_frame_equal(read(combine("turned", pair, tmp_path), "holdout"), straight)


def test_one_head_each_gives_both(tmp_path):
    members = [fake_run(tmp_path, "m", noisy(5), groups=False), fake_run(tmp_path, "g", None, groups=True)]
    made = read(combine("heads", members, tmp_path), "holdout")
    np.testing.assert_array_equal(made["predicted_months"], read(members[0], "holdout")["predicted_months"])
    np.testing.assert_array_equal(made[GROUP_COLUMNS[0]], read(members[1], "holdout")[GROUP_COLUMNS[0]])


def test_weights_of_least_absolute_error_on_a_case_worked_by_hand():
    truth = np.array([10.0, 20, 30, 40])
    np.testing.assert_allclose(least_absolute(np.c_[truth - 6, truth + 2], truth), [0.25, 0.75])
    np.testing.assert_allclose(least_absolute(np.c_[truth + 6, truth + 2], truth), [0, 1], atol=1e-9)


def test_a_linear_correction_undoes_shrinkage(tmp_path):
    run = fake_run(tmp_path, "shrunk", lambda months, rng: 127 + 0.5 * (months - 127))
    made = read(combine("straightened", [run], tmp_path, correction="linear"), "holdout")
    np.testing.assert_allclose(made["predicted_months"], made["reference_months"], rtol=1e-4)


def test_an_isotonic_correction_undoes_any_rising_curve(tmp_path):
    run = fake_run(tmp_path, "curved", lambda months, rng: 240 * (months / 240) ** 2)
    made = read(combine("straightened", [run], tmp_path, correction="isotonic"), "holdout")
    inner = made["reference_months"].between(30, 200)
    assert (made["predicted_months"] - made["reference_months"])[inner].abs().max() < 12  # 40 images to learn it from


@pytest.mark.parametrize("how", [{"fitted_weights": True}, {"correction": "linear"}, {"correction": "isotonic"}])
def test_the_holdout_has_no_say_in_what_is_fitted(pair, tmp_path, how):
    first = json.loads((combine("first", pair, tmp_path, **how) / "run.json").read_text())
    for run in pair:
        table = read(run, "holdout")
        write_csv(run / "predictions_holdout.csv", table.assign(predicted_months=240 - table["predicted_months"]))
    second = json.loads((combine("second", pair, tmp_path, **how) / "run.json").read_text())
    assert [m["weight"] for m in first["members"]] == [m["weight"] for m in second["members"]]
    assert first["correction"] == second["correction"]


def test_validation_answers_of_a_fit_are_cross_fitted(tmp_path):
    """An isotonic fit through noise looks perfect on the images that it was fitted on."""
    run = fake_run(tmp_path, "noise", lambda months, rng: rng.uniform(50, 150, len(months)))
    folder = combine("hopeless", [run], tmp_path, correction="isotonic")
    table = read(folder, "validation")
    mae = (table["predicted_months"] - table["reference_months"]).abs().mean()
    everything = [ensemble.Member(run).predictions("validation")]
    weights, curve = ensemble.fit_on(everything, False, "isotonic")
    seen = ensemble.average(everything, weights, curve)
    assert mae > (seen["predicted_months"] - seen["reference_months"]).abs().mean() + 3
    assert "cross-fitted" in (folder / "MODEL_CARD.md").read_text()


def test_members_of_other_images_or_data_or_without_predictions_are_refused(pair, tmp_path):
    with pytest.raises(BoneageError, match="must have the same validation images"):
        combine("x", [pair[0], fake_run(tmp_path, "other", noisy(1), ids="o")], tmp_path)
    with pytest.raises(BoneageError, match="must be runs on the same data"):
        combine("x", [pair[0], fake_run(tmp_path, "patients", noisy(1), phantom=False)], tmp_path)
    with pytest.raises(BoneageError, match="every member needs a regression head"):
        combine("x", [pair[0], fake_run(tmp_path, "groups", None)], tmp_path, fitted_weights=True)
    (pair[1] / "predictions_validation.csv").unlink()
    with pytest.raises(BoneageError, match="needs predictions of validation"):
        combine("x", pair, tmp_path)


# Test-time augmentation


def test_views_keep_the_middle_and_come_in_mirrored_pairs():
    made = tta.views()
    np.testing.assert_array_equal(made[0], np.eye(3))
    for view in made:
        np.testing.assert_allclose(view @ (0.5, 0.5, 1), (0.5, 0.5, 1))
        assert 0.9 < abs(np.linalg.det(view)) < 1.11
    signs = [np.sign(np.linalg.det(v)) for v in made]
    assert signs == [1, -1] * 3


def test_the_answer_is_the_mean_over_the_views():
    answers = iter([[100.0, 10], [110, 20], [90, 30], [100, 40], [120, 50], [80, 0]])
    known = pd.DataFrame({"id": ["a", "b"], "male": [0, 1], "reference_months": [99.0, 25]})
    made = tta.predict(lambda view: known.assign(predicted_months=next(answers)))
    assert made["predicted_months"].tolist() == [100, 25]
    assert made["reference_months"].tolist() == [99, 25]


def test_a_run_is_predicted_with_views_and_timed_and_can_be_a_member(tiny_run, phantom_cache, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "Tiny" / "joint")
    evaluate(run, phantom_cache.folder, with_tta=True, with_speed=True)
    plain, viewed = read(run, "holdout"), read(run / "tta", "holdout")
    assert list(plain.columns) == list(viewed.columns)
    moved = (plain["predicted_months"] - viewed["predicted_months"]).abs()
    assert 0 < moved.mean() < 40
    assert json.loads((run / "speed.json").read_text())["milliseconds"] > 0
    member = json.loads((combine("alone", [run / "tta"], tmp_path) / "run.json").read_text())["members"][0]
    assert (member["run"], member["views"]) == ("Tiny/joint", 6)
