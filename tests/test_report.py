"""The report shows what the prediction files say, says so when it no longer does, and never hides a phantom."""

import hashlib
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from boneage import style
from boneage.config import Stage, TrainConfig
from boneage.data import splits
from boneage.errors import BoneageError
from boneage.evaluation.ensemble import combine
from boneage.evaluation.tone import MAPPINGS
from boneage.labels import GROUP_COLUMNS, GROUP_EDGES, age_group
from boneage.paths import write_csv
from boneage.report import figures, figures_groups, html, pictures, refinements, serving, tables, tone, worst
from boneage.report.compare import compare, digests, drawings, stale
from boneage.report.readme import render_readme, report
from boneage.report.runs import LOOKALIKE, best, evaluated, find_runs, headline


def fake_predictions(ids, spread: float, head: str, seed: int) -> pd.DataFrame:
    """Predictions that are off by a normal error of `spread` months; the same ids always get the same reference."""
    truth, noise = np.random.default_rng(1), np.random.default_rng(seed)
    male, reference = truth.integers(0, 2, len(ids)), truth.uniform(6, 226, len(ids)).round()
    predicted = np.clip(reference + noise.normal(0, spread, len(ids)), 1, 239)
    table = pd.DataFrame({"id": ids, "male": male, "reference_months": reference})
    if head != "classification":
        table["predicted_months"] = predicted
    if head != "regression":
        middles = np.convolve(GROUP_EDGES, [0.5, 0.5], "valid")
        p = np.exp(-np.abs(predicted[:, None] - middles) / 12)
        table[list(GROUP_COLUMNS)] = p / p.sum(1, keepdims=True)
    return table


def fake_run(
    outputs: Path, backbone: str, head: str, spread: float, ids=None, phantom=False, seed=0, evaluated=True
) -> Path:
    """A finished run's folder, as training and evaluation leave it, without either."""
    ids = [str(i) for i in range(300)] if ids is None else list(ids)
    folder = outputs / backbone / head
    folder.mkdir(parents=True)
    config = TrainConfig(backbone=backbone, head=head, stages=(Stage(64, 3), Stage(96, 2)))
    config.save(folder / "config.json")
    epochs = np.arange(1, 6)
    history = pd.DataFrame({"epoch": epochs, "size": [64, 64, 64, 96, 96], "seconds": [9.0, 5.0, 5.0, 8.0, 8.0]})
    if head != "classification":
        history["mae" if head == "regression" else "months_mae"] = spread * (1 + 5 / epochs**2)
        history["val_mae"] = spread * (1 + 4 / epochs**2)
    if head != "regression":
        history["accuracy" if head == "classification" else "groups_accuracy"] = 0.9 - 0.4 / epochs
        history["val_accuracy"], history["val_log_loss"] = 0.88 - 0.4 / epochs, 1 / epochs
    history["score"] = history["val_log_loss" if head == "classification" else "val_mae"]
    history.to_csv(folder / "history.csv", index=False)
    (folder / "history.pkl").write_bytes(pickle.dumps(history.to_dict("list")))
    facts = {
        "boneage": "0",
        "parameters": 1_234_567,
        "phantom": phantom,
        "data": "phantom" if phantom else "fake-hands",
        "precision": "float32",
        "backend": "tensorflow",
        "keras": "3",
        "images": {"train": 700, "validation": 100},
        "months_mean": 127.0,
        "months_sd": 41.0,
        "initial_weights": {"name": "start.weights.h5", "sha256": "ab" * 32},
        "best_epoch": 5,
        "seconds": 35.0,
        "epochs": 5,
    }
    (folder / "run.json").write_text(json.dumps(facts))
    validation = [f"v{i}" for i in range(100)]
    sets = {"validation": validation, "holdout": ids}
    for name, members in sets.items():
        if evaluated or name == "validation":
            fake_predictions(members, spread, head, seed).to_csv(folder / f"predictions_{name}.csv", index=False)
    pd.DataFrame([(i, s) for s, members in sets.items() for i in members], columns=["id", "set"]).to_csv(
        folder / "split.csv", index=False
    )
    if evaluated:
        (folder / "metrics.json").write_text("{}")
        (folder / "MODEL_CARD.md").write_text("# A card\n\n## Limits\n\n- Not for\n  patients.\n")
    (folder / "model.keras").write_bytes(b"finished")
    return folder


def make_outputs(root: Path) -> Path:
    """Three evaluated runs of patients and one that is finished only."""
    fake_run(root, "Xception", "classification", 9, seed=3)
    fake_run(root, "EfficientNetB0", "joint", 8, seed=1)
    fake_run(root, "EfficientNetB5", "regression", 12, seed=2)
    fake_run(root, "ResNet101", "joint", 5, seed=4, evaluated=False)
    return root


@pytest.fixture
def outputs(tmp_path) -> Path:
    return make_outputs(tmp_path / "outputs")


@pytest.fixture
def runs(outputs):
    return evaluated(find_runs(outputs))


def make_readme(path: Path) -> Path:
    blocks = "\n".join(f"<!-- report:{n} -->\n<!-- /report -->\nwords" for n in ("results", "by_group", "runs"))
    path.write_text(f"# Title\n\n{blocks}\n")
    return path


@pytest.fixture(scope="module")
def first_report(tmp_path_factory) -> Path:
    """A folder with `outputs`, `images` and `README.md` as `report` leaves them; read it, do not change it."""
    root = tmp_path_factory.mktemp("report")
    report(make_outputs(root / "outputs"), root / "images", make_readme(root / "README.md"))
    return root


@pytest.fixture
def reported(first_report, tmp_path):
    """`outputs`, `images` and README of a copy of `first_report`, to be changed."""
    root = shutil.copytree(first_report, tmp_path / "copy")
    return root / "outputs", root / "images", root / "README.md"


def nudge(folder: Path) -> None:
    """Change one holdout prediction."""
    path = folder / "predictions_holdout.csv"
    table = pd.read_csv(path)
    table.loc[0, table.columns[3:]] = table.iloc[1, 3:].to_numpy()
    table.to_csv(path, index=False)


# Runs


def test_runs_come_in_registry_order_evaluated_or_not(outputs):
    labels = [(r.label, r.evaluated) for r in find_runs(outputs)]
    assert labels == [
        ("EfficientNetB0/joint", True),
        ("EfficientNetB5/regression", True),
        ("ResNet101/joint", False),
        ("Xception/classification", True),
    ]


def test_no_run_and_no_evaluated_run_are_explained(outputs, tmp_path):
    with pytest.raises(BoneageError, match=r"no finished run in .*empty.*boneage train"):
        find_runs(tmp_path / "empty")
    with pytest.raises(BoneageError, match=r"none of the 1 finished runs is evaluated.*boneage evaluate"):
        evaluated(tuple(r for r in find_runs(outputs) if not r.evaluated))


def test_the_best_run_is_chosen_on_validation_whatever_the_holdout_says(outputs):
    joint = outputs / "EfficientNetB0" / "joint"
    spoiled = pd.read_csv(joint / "predictions_holdout.csv")
    spoiled["predicted_months"] = 1.0
    spoiled.to_csv(joint / "predictions_holdout.csv", index=False)
    assert best(evaluated(find_runs(outputs))).label == "EfficientNetB0/joint"


# Tables


def test_the_comparison_says_what_the_prediction_file_says(outputs, runs):
    row = tables.comparison(runs).set_index("run").loc["EfficientNetB0/joint"]
    table = pd.read_csv(outputs / "EfficientNetB0/joint/predictions_holdout.csv")
    assert row["mae"] == pytest.approx((table["predicted_months"] - table["reference_months"]).abs().mean())
    assert row["mae_low"] < row["mae"] < row["mae_high"]
    assert row["images"] == len(table) == 300
    assert row["seconds_per_epoch"] == 8  # the median of 9, 5, 5, 8, 8
    assert (row["parameters"], row["best_epoch"], row["size"], row["initial_weights"]) == (
        1_234_567,
        5,
        96,
        "start.weights.h5",
    )


def test_heads_that_a_run_lacks_stay_empty(runs):
    table = tables.comparison(runs).set_index("run")
    assert np.isnan(table.loc["Xception/classification", "mae"])
    assert np.isnan(table.loc["EfficientNetB5/regression", "accuracy"])
    shown = tables.results(runs).set_index("Model")
    assert shown.loc["Xception/classification", "MAE, months"] == tables.NOTHING
    assert shown.loc["EfficientNetB5/regression", "Accuracy, 4 age groups, %"].endswith("(binned)")


def test_differences_are_paired_and_against_the_selected_run(outputs, runs):
    table = tables.differences(runs)
    assert set(table["less"]) == {"EfficientNetB0/joint"}
    row = table[(table["run"] == "EfficientNetB5/regression") & (table["metric"] == "mae")].iloc[0]
    files = [
        pd.read_csv(outputs / f"{n}/predictions_holdout.csv")
        for n in ("EfficientNetB5/regression", "EfficientNetB0/joint")
    ]
    worse, better = ((f["predicted_months"] - f["reference_months"]).abs().mean() for f in files)
    assert row["value"] == pytest.approx(worse - better)
    assert row["value"] > 0


def test_runs_on_other_images_are_not_compared_pair_by_pair(outputs):
    fake_run(outputs, "EfficientNetB5", "joint", 9, ids=[f"other{i}" for i in range(50)])
    assert "EfficientNetB5/joint" not in set(tables.differences(evaluated(find_runs(outputs)))["run"])


def test_published_numbers_stand_beside_runs_on_the_rsna_holdout_only(outputs, runs, tmp_path):
    assert not tables.results(runs)["Model"].str.contains("published").any()
    split = splits.committed_rsna()
    ids = split["id"][split["set"] == "holdout"]
    fake_run(tmp_path / "rsna", "Xception", "joint", 7, ids=ids)
    fake_run(tmp_path / "less", "Xception", "joint", 7, ids=ids[1:])
    shown = tables.results(find_runs(tmp_path / "rsna"))
    assert shown["Model"].tolist()[-2:] == ["**Xception/joint**", "*Xception, published*"]
    assert shown.set_index("Model").loc["*Xception, published*", "MAE, months"] == "6.82"
    table = pd.read_csv(tmp_path / "rsna/Xception/joint/predictions_holdout.csv", dtype={"id": str})
    part = table[table["id"].isin(splits.earlier_accuracy_ids())]
    mine = 100 * (part[list(GROUP_COLUMNS)].to_numpy().argmax(1) == age_group(part["reference_months"])).mean()
    assert shown["Accuracy on 1,892 of them, %"].iloc[-2].startswith(f"{mine:.1f} [")
    assert len(tables.results(find_runs(tmp_path / "less"))) == 1


def test_by_group_covers_each_image_once(runs):
    table = tables.by_group(runs[0])
    count = lambda cell: int(cell.rsplit("n = ")[1].replace(",", ""))  # noqa: E731
    assert sum(count(c) for c in table["female"][:4]) + sum(count(c) for c in table["male"][:4]) == 300
    assert count(table["all"].iloc[-1]) == 300
    assert table["all"].iloc[-1].startswith(f"{runs[0].summary.value['mae']:.2f} [")


def test_markdown_has_one_line_a_row_and_escapes_bars():
    text = tables.to_markdown(pd.DataFrame({"a": ["x|y", "z"], "b": [1, 2]}))
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | 1 |", "| z | 2 |"]


# Figures


def test_figures_have_units_on_their_axes(runs):
    months, groups = runs[:2], (runs[0], runs[2])
    drawn = [figures.learning_curves(runs)]
    for draw in (figures.predicted_against_reference, figures.bland_altman, figures.error_by_age_and_sex):
        drawn.append(draw(months))
    drawn += [figures_groups.confusion_matrices(groups), figures_groups.reliability(groups)]
    for figure in drawn:
        assert isinstance(figure, Figure)
        for ax in figure.axes:
            if ax.get_visible():
                assert re.search("months|years|%|epoch", ax.get_xlabel())
                assert re.search("months|years|%", ax.get_ylabel())


def test_learning_curves_star_the_epoch_that_was_kept(outputs):
    """Not that of the lowest score: epochs at a smaller image size do not compete."""
    path = outputs / "EfficientNetB0/joint/history.csv"
    history = pd.read_csv(path)
    history.loc[1, ["score", "val_mae"]] = 1.5
    history.loc[2, ["score", "val_mae"]] = 3.5
    history.to_csv(path, index=False)
    facts = json.loads((path.parent / "run.json").read_text())
    (path.parent / "run.json").write_text(json.dumps(facts | {"best_epoch": 3}))
    ax = figures.learning_curves(find_runs(outputs)[:1]).axes[0]
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (3, 3.5)
    assert {t.get_text() for t in ax.texts} >= {"64 px", "96 px", "3.5"}


def test_figures_of_a_phantom_say_so(tmp_path, runs):
    fake_run(tmp_path / "p", "EfficientNetB0", "joint", 8, phantom=True)
    said = lambda figure: style.PHANTOM_NOTE in [t.get_text() for t in figure.findobj(Text)]  # noqa: E731
    assert said(figures.bland_altman(find_runs(tmp_path / "p")))
    assert not said(figures.bland_altman(runs[:1]))


def test_sample_images_are_chosen_by_age_and_sex_alone():
    ages = [28, 30, 31, 90, 150, 210] * 2
    table = pd.DataFrame({"id": [str(i) for i in range(12)], "male": [0] * 6 + [1] * 6, "reference_months": ages})
    assert pictures.fixed_samples(table)["id"].tolist() == ["1", "3", "4", "5", "7", "9", "10", "11"]


def test_pictures_show_the_runs_own_images_or_refuse(tmp_path, phantom_cache):
    index = phantom_cache.index
    folder = fake_run(tmp_path / "o", "EfficientNetB0", "joint", 8, ids=index["id"], phantom=True)
    with pytest.raises(BoneageError, match="another age or sex"):
        pictures.worst_cases(find_runs(tmp_path / "o"), phantom_cache)
    table = pd.read_csv(folder / "predictions_holdout.csv", dtype={"id": str})
    table["male"], table["reference_months"] = index["male"].to_numpy(), index["months"].to_numpy()
    table.to_csv(folder / "predictions_holdout.csv", index=False)
    run = find_runs(tmp_path / "o")
    error = (table["predicted_months"] - table["reference_months"]).abs()
    texts = [t.get_text() for t in pictures.worst_cases(run, phantom_cache).axes[0].texts]
    assert f"image {table['id'][error.idxmax()]}" in [t.partition("\n")[0] for t in texts]
    assert sum(bool(ax.images) for ax in pictures.sample_grid(run, phantom_cache).axes) == 8


# The whole report


def test_a_fresh_report_is_clean_and_one_changed_file_names_what_is_stale(reported):
    outputs, images, readme = reported
    assert report(*reported, check=True) == []

    nudge(outputs / "EfficientNetB5" / "regression")
    before = {p: p.read_bytes() for p in [readme, *images.iterdir(), *outputs.glob("*.*")]}
    # Neither the selected run's groups nor the classifiers' figures.
    tables_of_all = [str(outputs / n) for n in ("comparison.csv", "comparison.md", "differences.csv")]
    its_figures = ("predicted_against_reference.png", "bland_altman.png", "error_by_age_and_sex.png")
    assert report(*reported, check=True) == [
        *tables_of_all,
        *(str(images / n) for n in its_figures),
        "README.md: results",
    ]
    assert before == {p: p.read_bytes() for p in before}

    (images / "learning_curves.png").unlink()
    assert str(images / "learning_curves.png") in report(*reported, check=True)


def test_the_manifest_lists_what_each_figure_was_drawn_from(first_report):
    images = first_report / "images"
    manifest = json.loads((images / "manifest.json").read_text())
    path = "Xception/classification/predictions_holdout.csv"
    assert set(manifest["reliability.png"]) == {path, "EfficientNetB0/joint/predictions_holdout.csv"}
    mark = hashlib.sha256((first_report / "outputs" / path).read_bytes()).hexdigest()
    assert manifest["reliability.png"][path] == mark
    assert set(manifest) | {"manifest.json"} == {p.name for p in images.iterdir()}
    assert all(p.stat().st_size <= 400_000 for p in images.iterdir())


def test_a_figure_of_radiographs_is_kept_without_data_and_called_stale_when_it_is(reported, monkeypatch):
    outputs, images, _ = reported
    monkeypatch.setattr(style, "save", lambda figure, path, palette: path.write_bytes(b"drawn now"))
    drawing = next(d for d in drawings(evaluated(find_runs(outputs))) if d.name == "worst_cases.png")
    manifest = json.loads((images / "manifest.json").read_text()) | {drawing.name: digests(drawing, outputs)}
    (images / "manifest.json").write_text(json.dumps(manifest))
    (images / drawing.name).write_bytes(b"drawn earlier")
    assert stale(outputs, images) == []
    nudge(outputs / "EfficientNetB0" / "joint")
    compare(outputs, images)
    assert (images / drawing.name).read_bytes() == b"drawn earlier"
    assert stale(outputs, images) == [str(images / drawing.name)]


def test_a_report_rendered_twice_gives_the_same_bytes(reported, first_report):
    assert report(*reported) == []
    written = [p.relative_to(first_report) for p in first_report.rglob("*") if p.is_file()]
    assert {"README.md", "outputs/report.html", "images/bland_altman.png"} <= {str(p) for p in written}
    for path in written:
        assert (reported[2].parent / path).read_bytes() == (first_report / path).read_bytes(), path


def test_readme_keeps_its_own_words_and_refuses_unknown_blocks(outputs, tmp_path):
    readme = make_readme(tmp_path / "README.md")
    assert render_readme(readme, outputs) == ["README.md: results", "README.md: by_group", "README.md: runs"]
    text = readme.read_text()
    assert text.startswith("# Title\n")
    assert text.count("\nwords\n") == 3
    assert "start.weights.h5 (sha256 abababababab)" in text
    readme.write_text("<!-- report:results -->\nold\n<!-- /report -->\n<!-- report:nothing -->\n<!-- /report -->\n")
    with pytest.raises(BoneageError, match="block report:nothing; known blocks: results, by_group, runs"):
        render_readme(readme, outputs)
    assert "\nold\n" in readme.read_text()


def test_the_page_is_self_contained_and_complete(reported):
    outputs, images, _ = reported
    shutil.copy(images / "reliability.png", images / "gradcam_test.png")
    text = html.render(outputs, images, outputs / "report.html").read_text()
    for place in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", text):
        assert place.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"@import|url\(|<script|<link", text)
    anchors, ids = set(re.findall(r'href="#([^"]+)"', text)), set(re.findall(r'id="([^"]+)"', text))
    assert {"results", "differences", "bland_altman", "gradcam", "EfficientNetB0-joint", "again"} <= anchors <= ids
    assert text.count("Research use only, not a medical device") == 2
    assert "<li>Not for patients.</li>" in text  # the model card's limit
    assert "&#34;batch_size&#34;: 32" in text  # the settings
    assert "not evaluated, hence not shown: ResNet101/joint" in text
    assert style.PHANTOM_NOTE not in text


def test_the_page_shows_no_stale_figure(reported):
    outputs, images, _ = reported
    nudge(outputs / "Xception" / "classification")
    text = html.render(outputs, images, outputs / "report.html").read_text()
    assert 'id="bland_altman"' in text
    assert 'id="reliability"' not in text


def test_one_run_of_a_phantom_makes_the_whole_page_shout_it(outputs, tmp_path):
    fake_run(outputs, "EfficientNetB5", "joint", 9, phantom=True)
    text = html.render(outputs, tmp_path / "images", tmp_path / "report.html").read_text()
    assert f'<div class="alarm" role="alert">{style.PHANTOM_NOTE}' in text
    assert "EfficientNetB5/joint (PHANTOM)" in text
    assert "EfficientNetB0/joint (PHANTOM)" not in text


def test_a_kill_while_writing_leaves_the_old_page_whole(outputs, tmp_path, monkeypatch):
    page = html.render(outputs, tmp_path / "images", tmp_path / "report.html")
    old = page.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        html.render(outputs, tmp_path / "images", page)
    assert page.read_bytes() == old
    assert [p.name for p in tmp_path.glob("*report*")] == ["report.html"]


# What is done after training


@pytest.fixture
def with_ensemble(outputs):
    """The runs, views of one and an ensemble of two."""
    joint, other = outputs / "EfficientNetB0/joint", fake_run(outputs, "ResNet50", "joint", 8, seed=7)
    for name, ids in (("validation", [f"v{i}" for i in range(100)]), ("holdout", [str(i) for i in range(300)])):
        (joint / "tta").mkdir(exist_ok=True)
        fake_predictions(ids, 4, "joint", 11).to_csv(joint / f"tta/predictions_{name}.csv", index=False)
    combine("mean", [joint, other], outputs)
    return evaluated(find_runs(outputs))


def test_an_ensemble_stands_last_in_every_table_and_in_no_learning_curve(with_ensemble):
    assert with_ensemble[-1].label == "Ensemble/mean"
    assert best(with_ensemble).label == "Ensemble/mean"  # errors that have nothing to do with each other
    assert tables.results(with_ensemble)["Model"].iloc[-1] == "**Ensemble/mean**"
    row = tables.comparison(with_ensemble).set_index("run").loc["Ensemble/mean"]
    assert (row["head"], row["parameters"]) == ("joint", 2 * 1_234_567)
    assert np.isnan(row["epochs"])
    assert "Ensemble/mean" not in set(tables.provenance(with_ensemble)["Run"])
    assert all("Ensemble" not in str(p) for p in drawings(with_ensemble)[0].inputs)


def test_gains_are_paired_differences_on_the_holdout(with_ensemble, outputs):
    table = refinements.gains(with_ensemble).set_index(["run", "step"])
    mae = lambda t: (t["predicted_months"] - t["reference_months"]).abs().mean()  # noqa: E731
    plain, viewed, made = (
        mae(pd.read_csv(outputs / f"{n}/predictions_holdout.csv"))
        for n in ("EfficientNetB0/joint", "EfficientNetB0/joint/tta", "Ensemble/mean")
    )
    views = table.loc[("EfficientNetB0/joint", "6 views")]
    assert views["value"] == pytest.approx(viewed - plain)
    assert views["low"] < views["value"] < views["high"] < 0
    members = table.loc[("Ensemble/mean", "mean of the members, less the best of them")]
    assert members["value"] == pytest.approx(made - plain, abs=0.5)
    assert members["high"] < 0
    linear = table.loc[("EfficientNetB0/joint", "linear correction")]
    assert abs(linear["value"]) < 0.5  # there is nothing to correct


def test_a_page_with_an_ensemble_says_what_it_is_made_of(with_ensemble, outputs, tmp_path):
    text = html.render(outputs, tmp_path / "images", tmp_path / "report.html").read_text()
    assert "0.50 EfficientNetB0/joint, 0.50 ResNet50/joint" in text
    assert 'id="Ensemble-mean"' in text
    assert "Settings of Ensemble" not in text


def test_the_headline_is_the_best_of_each_backbone_and_the_lookalike(outputs):
    fake_run(outputs, "EfficientNetB5", "joint", 3, seed=8)
    for backbone in ("EfficientNetB0", "Xception"):
        folder = fake_run(outputs, backbone, "regression", 20, seed=9)
        config = json.loads((folder / "config.json").read_text()) | {"name": LOOKALIKE}
        (folder / "config.json").write_text(json.dumps(config))
        folder.rename(folder.with_name(LOOKALIKE))
    labels = [r.label for r in headline(evaluated(find_runs(outputs)))]
    assert labels == [
        "EfficientNetB0/joint", "EfficientNetB0/lookalike", "EfficientNetB5/joint", "Xception/classification",
        "Xception/lookalike",
    ]  # fmt: skip


def test_costs_are_told_where_they_are_known(outputs):
    shown = tables.results(evaluated(find_runs(outputs))).set_index("Model")
    assert shown.loc["Xception/classification", ["Image side, px", "Parameters, millions", "An epoch, s"]].tolist() == [
        "96", "1.2", "8",
    ]  # fmt: skip
    assert "An answer, ms" not in shown
    (outputs / "EfficientNetB0/joint/speed.json").write_text('{"milliseconds": 41.7}')
    shown = tables.results(evaluated(find_runs(outputs))).set_index("Model")
    assert shown["An answer, ms"].tolist() == ["42", tables.NOTHING, tables.NOTHING]


def test_the_tone_table_marks_what_does_not_pass(outputs, tmp_path):
    known = fake_predictions([f"v{i}" for i in range(50)], 5, "regression", 1)
    months = known.pop("predicted_months")
    known.assign(**{"as it is": months, "gamma 2": months + 30, "gamma 0.5": months}).to_csv(
        outputs / "EfficientNetB0/joint/predictions_tone.csv", index=False
    )
    runs = evaluated(find_runs(outputs))
    shown = tone.shown(runs)
    assert shown["Run"].tolist() == ["EfficientNetB0/joint"]
    mae, bias = re.fullmatch(r"\*\*(.+) \(\+(.+)\)\*\*", shown["gamma 2"][0]).groups()
    assert float(bias) == pytest.approx((months + 30 - known["reference_months"]).mean(), abs=0.06)
    assert float(mae) >= float(bias)
    assert shown["as it is"][0] == shown["gamma 0.5"][0]


def test_the_tone_figure_has_a_panel_of_costs_and_one_of_biases(outputs):
    known = fake_predictions([f"v{i}" for i in range(50)], 5, "regression", 1)
    months = known.pop("predicted_months")
    shifts = {m: months + i for i, m in enumerate(MAPPINGS)}
    known.assign(**shifts).to_csv(outputs / "EfficientNetB0/joint/predictions_tone.csv", index=False)
    runs = evaluated(find_runs(outputs))
    (drawing,) = [d for d in drawings(runs) if d.name == "tone_robustness.png"]
    assert drawing.inputs == (outputs / "EfficientNetB0/joint/predictions_tone.csv",)
    cost, bias = drawing.draw().axes
    assert [t.get_text() for t in cost.get_yticklabels()] == list(MAPPINGS)[1:]
    assert all("months" in ax.get_xlabel() for ax in (cost, bias))
    plain = (months - known["reference_months"]).mean()
    dots = next(line for line in bias.lines if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_xdata(), plain + np.arange(1, len(MAPPINGS)))


def test_reasons_are_rules_over_what_is_known(phantom_cache, tmp_path):
    index = phantom_cache.index
    table = pd.DataFrame({"id": index["id"], "male": index["male"], "reference_months": index["months"]})
    runs = []
    for backbone in ("EfficientNetB0", "Xception"):
        folder = fake_run(tmp_path / "o", backbone, "regression", 8, ids=index["id"], phantom=True)
        errors = np.where(index.index < 20, 50, 1)
        table.assign(predicted_months=table["reference_months"] + errors).to_csv(
            folder / "predictions_holdout.csv", index=False
        )
        write_csv(folder / "split.csv", pd.DataFrame({"id": index["id"], "set": "train"}))
    (tmp_path / "o/HandFinder").mkdir()
    write_csv(
        tmp_path / "o/HandFinder/predictions.csv",
        pd.DataFrame({"id": index["id"][:2], "size": [0.3, 0.8], "angle": [0, 60.0], "confidence": [0.99, 0.5]}),
    )
    runs = find_runs(tmp_path / "o")
    why = worst.reasons(runs, phantom_cache)
    assert list(why) == list(worst.worst(runs[0])["id"]) == list(index["id"][:20])
    assert why[index["id"][0]].startswith("hand fills 30 % of the frame; ")
    assert why[index["id"][1]] == "hand hard to find (confidence 0.50); hand turned by 60°"
    assert "rare: " in why[index["id"][5]]  # 60 training images in all
    assert "err alike" not in why[index["id"][0]]  # two reasons are enough


def serve(folder: Path, source: str) -> None:
    """What `boneage export` leaves beside a run, of the Keras model with that SHA-256."""
    row = {"format": "onnx", "months_apart": 0.0123, "correlation": 0.99991, "images": 100, "megabytes": 9.6}
    write_csv(folder / "exports.csv", pd.DataFrame([row | {"source": source}]))
    parts = [("all", "all", 2000, 0.9), ("sex", "female", 900, 0.891), ("age group", "0-5", 160, 0.9375)]
    rows = [(*part, 33.4) for part in parts]
    write_csv(folder / "interval_coverage.csv", pd.DataFrame(rows, columns=["by", "value", "n", "covered", "width"]))
    write_csv(folder / "door_rates.csv", pd.DataFrame({"pictures": ["hands", "noise"], "n": 40, "refused": [0.025, 1]}))


def test_what_stands_behind_an_answer_is_told_in_three_tables(outputs, runs):
    folder = outputs / "EfficientNetB0" / "joint"
    serve(folder, hashlib.sha256(b"finished").hexdigest())
    text = serving.text(runs)
    assert "| EfficientNetB0/joint | ONNX | 9.6 | 100 | 0.0123 | 0.999910 |" in text
    assert "| EfficientNetB0/joint | 90.0 % (2,000) | 89.1 % (900) | 93.8 % (160) | 33.4 |" in text
    assert "| hands | 40 | 2.5 |\n| noise | 40 | 100.0 |" in text


def test_the_agreement_of_another_model_is_not_told(outputs, runs):
    serve(outputs / "EfficientNetB0" / "joint", "0" * 64)
    assert serving.exports(runs).empty


def test_without_an_export_there_is_a_line(runs):
    assert serving.text(runs) == "No run has been exported yet."
