"""A finished run becomes predictions, numbers and a model card; every number comes from the prediction files."""

import json
import re
import shutil

import keras
import numpy as np
import pandas as pd
import pytest

from boneage.data import splits
from boneage.data.cache import prepare
from boneage.data.phantom import make_dataset
from boneage.errors import BoneageError
from boneage.evaluation import metrics, model_card
from boneage.evaluation.evaluate import evaluate, read_predictions, score
from boneage.labels import GROUP_COLUMNS, age_group
from boneage.paths import write_csv


@pytest.fixture(scope="module")
def evaluated(tiny_run, phantom_cache, tmp_path_factory):
    """A copy of the tiny run, evaluated."""
    run = tmp_path_factory.mktemp("evaluated") / "Tiny" / "joint"
    made = shutil.ignore_patterns("predictions_holdout.csv", "metrics.json", "MODEL_CARD.md")
    shutil.copytree(tiny_run, run, ignore=made)
    evaluate(run, phantom_cache.folder)
    return run


@pytest.fixture
def run(evaluated, tmp_path):
    """An evaluated run that a test may change."""
    return shutil.copytree(evaluated, tmp_path / "run")


def test_predictions_are_those_of_the_saved_model_on_the_split(evaluated, phantom_cache):
    split = pd.read_csv(evaluated / "split.csv", dtype=str)
    table = read_predictions(evaluated, "holdout")
    assert list(table["id"]) == list(split["id"][split["set"] == "holdout"])
    row = phantom_cache.rows(table["id"][:1]).iloc[0]
    assert (table["reference_months"][0], table["male"][0]) == (row["months"], row["male"])
    image = phantom_cache.images[row["row"]].reshape(32, 2, 32, 2).mean((1, 3)).round()  # 64 px to 32 by area
    inputs = {"image": image[None, :, :, None].astype("float32"), "sex": np.array([[row["male"]]], "float32")}
    answer = keras.saving.load_model(evaluated / "model.keras").predict(inputs, verbose=0)
    assert table["predicted_months"][0] == pytest.approx(answer["months"].item(), abs=0.5)
    assert table[list(GROUP_COLUMNS)].iloc[0].to_numpy() == pytest.approx(answer["groups"][0], abs=0.01)
    assert not (evaluated / "predictions_rsna_test.csv").exists()  # the phantom has no such images


def test_numbers_are_recomputed_from_the_prediction_files(evaluated):
    found = json.loads((evaluated / "metrics.json").read_text())
    assert set(found) == {"validation", "holdout"}
    for name, scores in found.items():
        table = read_predictions(evaluated, name)
        error = table["predicted_months"] - table["reference_months"]
        right = table[list(GROUP_COLUMNS)].to_numpy().argmax(1) == age_group(table["reference_months"])
        assert scores["n"] == len(table)
        assert scores["summary"]["mae"]["value"] == pytest.approx(error.abs().mean(), rel=1e-5)
        assert scores["summary"]["accuracy"]["value"] == pytest.approx(100 * right.mean(), rel=1e-5)
        assert np.trace(scores["confusion"]) == right.sum()
        assert len(scores["by_group"]) == 14 * 3
        assert "accuracy_1892" not in scores  # not RSNA


def test_metrics_json_is_stable(run):
    before = (run / "metrics.json").read_bytes()
    assert before.endswith(b"}\n")
    numbers = re.findall(rb"-?\d+\.\d+", before)
    assert max(len(n.strip(b"-0.").replace(b".", b"")) for n in numbers) <= 6
    (run / "metrics.json").unlink()
    score(run)
    assert (run / "metrics.json").read_bytes() == before


def test_predictions_are_made_once_unless_forced(run, phantom_cache):
    path = run / "predictions_holdout.csv"
    table = read_predictions(run, "holdout")
    write_csv(path, table.assign(predicted_months=table["reference_months"]))
    kept = path.read_bytes()
    assert evaluate(run, phantom_cache.folder)["holdout"]["summary"]["mae"]["value"] == 0
    assert path.read_bytes() == kept
    evaluate(run, phantom_cache.folder, sets=("holdout",), force=True)
    again = read_predictions(run, "holdout")
    assert again["predicted_months"].to_numpy() == pytest.approx(table["predicted_months"].to_numpy(), abs=0.01)


def test_images_without_reference_are_predicted_and_not_scored(run, phantom_cache):
    split = pd.read_csv(run / "split.csv", dtype=str)
    moved = split["id"][split["set"] == "holdout"].head(4)
    split.loc[split["id"].isin(moved), "set"] = "rsna_test"
    write_csv(run / "split.csv", split)
    found = evaluate(run, phantom_cache.folder, force=True)
    table = read_predictions(run, "rsna_test")
    assert list(table.columns) == ["id", "male", "predicted_months", *GROUP_COLUMNS]
    assert set(table["id"]) == set(moved)
    assert "rsna_test" not in found


def test_unfinished_and_foreign_folders_are_refused(run, phantom_cache, tmp_path):
    (run / "model.keras").unlink()
    with pytest.raises(BoneageError, match=r"no model.keras in .*not finished.*--resume"):
        evaluate(run, phantom_cache.folder)
    with pytest.raises(BoneageError, match="no config file"):
        evaluate(tmp_path, phantom_cache.folder)
    with pytest.raises(BoneageError, match="unknown set tset; known: train, validation"):
        evaluate(run, phantom_cache.folder, sets=("tset",))
    with pytest.raises(BoneageError, match=r"no predictions at .*predictions_train.csv; make them with"):
        read_predictions(run, "train")


def test_data_other_than_the_runs_is_refused(run, phantom_cache, tmp_path):
    def copy_of_cache(name: str, **changes):
        folder = shutil.copytree(phantom_cache.folder, tmp_path / name)
        info = json.loads((folder / "cache.json").read_text())
        (folder / "cache.json").write_text(json.dumps(info | changes))
        return folder

    with pytest.raises(BoneageError, match=r"trained on phantom drawings, .* holds radiographs of patients"):
        evaluate(run, copy_of_cache("patients", phantom=False))
    fewer = copy_of_cache("fewer")
    pd.read_csv(fewer / "index.csv")[5:].to_csv(fewer / "index.csv", index=False)
    with pytest.raises(BoneageError, match="5 of the 60 images of the run's split are not in"):
        evaluate(run, fewer)
    other = prepare(make_dataset(tmp_path / "other", n=60, seed=9, height=96), 64)
    with pytest.raises(BoneageError, match=r"mean bone age of .* the same ids in"):
        evaluate(run, other.folder)
    small = prepare(tmp_path / "other", 24)
    with pytest.raises(BoneageError, match="24 px"):
        evaluate(run, small.folder)


def test_predictions_of_other_images_are_refused(run):
    write_csv(run / "predictions_holdout.csv", read_predictions(run, "holdout")[1:])
    with pytest.raises(BoneageError, match=r"does not hold the holdout images of split.csv"):
        score(run)


def test_rsna_holdout_also_gets_the_accuracy_of_earlier_work(run):
    """The split of RSNA and made-up predictions: right on the earlier ids, wrong elsewhere."""
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"phantom": False}))
    (run / "predictions_validation.csv").unlink()
    split = splits.committed_rsna()
    write_csv(run / "split.csv", split)
    ids = split["id"][split["set"] == "holdout"]
    months = np.where(ids.isin(splits.earlier_accuracy_ids()), 100.0, 10.0)
    table = pd.DataFrame({"id": ids, "male": 1, "reference_months": 100.0, "predicted_months": months})
    write_csv(run / "predictions_holdout.csv", table)
    found = score(run)["holdout"]
    assert found["binned_accuracy_1892"] == {"value": 100, "low": 100, "high": 100, "n": 1892}
    assert found["summary"]["binned_accuracy"]["value"] == pytest.approx(100 * 1892 / 2523, rel=1e-5)
    assert "accuracy_1892" not in found  # these predictions have no classification head
    card = (run / "MODEL_CARD.md").read_text()
    assert "On the 1,892 holdout images" in card
    assert "PHANTOM" not in card
    assert "RSNA Pediatric Bone Age Challenge 2017" in card


def test_model_card_says_what_the_files_say(evaluated):
    card = (evaluated / "MODEL_CARD.md").read_text()
    assert card == model_card.render(evaluated)
    assert "**PHANTOM: synthetic drawings, not patients.**" in card
    assert "**Research use only, not a medical device.**" in card
    assert "RSNA" not in card
    found = json.loads((evaluated / "metrics.json").read_text())
    for name, metric in metrics.METRICS.items():
        cells = [found[s]["summary"][name] for s in ("validation", "holdout")]
        d = metric.digits
        wanted = " | ".join(f"{c['value']:.{d}f} [{c['low']:.{d}f}, {c['high']:.{d}f}]" for c in cells)
        assert f"| {metric.label} | {wanted} |" in card
    for row in found["holdout"]["by_group"]:
        assert f"| {row['sex'].replace('all', 'both')} | {row['age_group']} | {row['n']} |" in card


def test_tables_of_the_model_card_are_whole(evaluated):
    """Every table is set off by blank lines and each of its rows has as many cells as its head."""
    blocks = (evaluated / "MODEL_CARD.md").read_text().split("\n\n")
    tables = [b.strip().splitlines() for b in blocks if b.strip().startswith("|")]
    assert len(tables) == 6
    for lines in tables:
        assert set(lines[1]) <= set("|-:")
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert not any("|" in b for b in blocks if not b.strip().startswith("|"))


def test_the_cards_code_loads_the_model(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    snippet = re.search(r"```python\n(.*?)```", (evaluated / "MODEL_CARD.md").read_text(), re.DOTALL).group(1)
    names = {"image": np.zeros((2, 32, 32, 1), "float32"), "sex": np.ones((2, 1), "float32")}
    exec(snippet, names)
    assert {k: v.shape for k, v in names["answer"].items()} == {"months": (2, 1), "groups": (2, 4)}


def test_a_card_needs_metrics(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("metrics.json"))
    with pytest.raises(BoneageError, match=r"no metrics.json in .*`boneage evaluate` makes it"):
        model_card.render(tmp_path / "run")


@pytest.mark.parametrize(
    ("head", "dropped", "there", "absent"),
    [
        ("regression", list(GROUP_COLUMNS), "Accuracy of binned months", "classification head"),
        ("classification", ["predicted_months"], "Accuracy of the classification head", "MAE"),
    ],
)
def test_the_card_of_one_head_leaves_out_the_other(run, head, dropped, there, absent):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"head": head}))
    for name in ("validation", "holdout"):
        write_csv(run / f"predictions_{name}.csv", read_predictions(run, name).drop(columns=dropped))
    assert ("confusion" in score(run)["holdout"]) == (head == "classification")
    card = (run / "MODEL_CARD.md").read_text()
    assert there in card
    assert absent not in card
