"""Evaluate a finished run: predict its sets once, then recompute every number from the prediction files."""

import json
import math
from functools import partial
from pathlib import Path

import pandas as pd

from boneage.config import TrainConfig
from boneage.data import splits
from boneage.data.cache import Cache, open_or_prepare
from boneage.errors import BoneageError
from boneage.evaluation import metrics, model_card, speed, tone, tta
from boneage.evaluation.run_files import is_rsna, predictions_path, read_json, read_predictions, read_split
from boneage.labels import GROUP_COLUMNS
from boneage.paths import write_csv, write_text

EVALUATED = ("validation", "holdout", "rsna_test")
UNSCORED = "rsna_test"  # images whose reference is not ours to have


def evaluate(
    run: Path,
    data: Path | str,
    sets: tuple[str, ...] = EVALUATED,
    force: bool = False,
    with_tone: bool = False,
    with_tta: bool = False,
    with_speed: bool = False,
) -> dict:
    """Predict the images of a run's split and score them.

    Writes `predictions_<set>.csv` for every set of `sets` that has images and no such file yet, then `metrics.json` and
    `MODEL_CARD.md`.

    Parameters
    ----------
    data
        The images that the run was trained on: their folder (prepared on first use) or a cache of it.
    force
        Predict again where there are predictions.
    with_tone
        Also predict validation images under other grey-level curves, `predictions_tone.csv`; see
        `boneage.evaluation.tone`.
    with_tta
        Also predict each set with test-time augmentation, into the run's folder `tta`; see `boneage.evaluation.tta`.
    with_speed
        Also time single answers, `speed.json`.

    Returns
    -------
    dict
        What `metrics.json` holds; see `score`.

    Raises
    ------
    BoneageError
        No finished run, an unknown set, data other than the run's.
    """
    run = Path(run)
    unknown = sorted(set(sets) - set(splits.SETS))
    if unknown:
        raise BoneageError(f"unknown set {', '.join(unknown)}; known: {', '.join(splits.SETS)}")
    config, split = TrainConfig.load(run / "config.json"), read_split(run)
    if not (run / "model.keras").is_file():
        raise BoneageError(
            f"no model.keras in {run}: the run is not finished; continue it with `boneage train --resume`"
        )
    cache = cache_of(run, data, config.size, config.frame, split)
    present = [s for s in sets if (split["set"] == s).any()]

    def to_do(folder: Path, names: list[str], asked: bool = True) -> list[str]:
        return [s for s in names if asked and (force or not predictions_path(folder, s).exists())]

    wanted, viewed = to_do(run, present), to_do(run / tta.FOLDER, present, with_tta)
    toned = to_do(run, [tone.NAME], with_tone and config.head != "classification")
    if wanted or viewed or toned or with_speed:
        from boneage.models.compiled import predictor  # Keras takes seconds to import: only where a model is run
        from boneage.models.predict import predict
        from boneage.models.weights import load_model

        model = load_model(run / "model.keras")
        compiled = predictor(model)
        answer = partial(predict, model, size=config.size, run=compiled)
        for name in wanted:
            _save(run, name, answer(cache, _ids(split, name)))
        for name in viewed:
            view_of = partial(answer, cache, _ids(split, name), progress=False)
            _save(run / tta.FOLDER, name, tta.predict(lambda view, of=view_of: of(view=view)))
        if toned:
            quiet = partial(answer, progress=False)
            write_csv(predictions_path(run, tone.NAME), tone.predict(quiet, cache, _ids(split, "validation")))
        if with_speed:
            write_text(run / speed.FILE, json.dumps(speed.measure(compiled, config.size), indent=1) + "\n")
    return score(run)


def score(run: Path) -> dict:
    """Recompute `metrics.json`, `MODEL_CARD.md` and, where tone was measured, `tone.csv` of a run from its prediction
    files; needs neither model nor images.

    Returns
    -------
    dict
        By set: `n`, `summary` (metric -> value, low, high, n; see `metrics.summarise`), `by_group` (rows of
        `metrics.by_group`), with a classification head `confusion` (rows are the reference's groups), and for the
        RSNA holdout `accuracy_1892` and, or, `binned_accuracy_1892`, on the part of it on which earlier work reports
        accuracy. None stands for what is undefined.

    Raises
    ------
    BoneageError
        A prediction file of other images than the run's split has, or none to score.
    """
    run = Path(run)
    split, scores = read_split(run), {}
    for name in splits.SETS:
        if name == UNSCORED or not predictions_path(run, name).exists():
            continue
        table = read_predictions(run, name)
        if sorted(table["id"]) != sorted(split["id"][split["set"] == name]):
            raise BoneageError(
                f"{predictions_path(run, name)} does not hold the {name} images of split.csv; "
                "evaluate again with --force"
            )
        scores[name] = _score(table, rsna=name == "holdout" and is_rsna(run))
    if not scores:
        raise BoneageError(f"no predictions to score in {run}; run `boneage evaluate {run}` with the run's data first")
    if predictions_path(run, tone.NAME).exists():
        write_csv(run / tone.TABLE, tone.table(run))
    scores = _plain(scores)
    write_text(run / "metrics.json", json.dumps(scores, indent=1, sort_keys=True, allow_nan=False) + "\n")
    write_text(run / "MODEL_CARD.md", model_card.render(run))
    return scores


def _ids(split: pd.DataFrame, name: str) -> pd.Series:
    return split["id"][split["set"] == name]


def _save(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write `predictions_<name>.csv`, without the references that are not ours to have."""
    if name == UNSCORED:
        table = table.drop(columns="reference_months", errors="ignore")
    write_csv(predictions_path(folder, name), table)


def cache_of(run: Path, data: Path | str, size: int, frame: str, split: pd.DataFrame) -> Cache:
    """The cache of `data`, if it is what the run was trained on."""
    facts = read_json(run, "run.json")
    cache = open_or_prepare(data, size, frame)
    kinds = {True: "phantom drawings", False: "radiographs of patients"}
    if cache.phantom != facts["phantom"]:
        raise BoneageError(
            f"{run} was trained on {kinds[facts['phantom']]}, {cache.folder} holds {kinds[cache.phantom]}; "
            f"give the data that the run was trained on ({facts['data']})"
        )
    missing = sorted(set(split["id"]) - set(cache.index["id"]))
    if missing:
        raise BoneageError(
            f"{len(missing)} of the {len(split)} images of the run's split are not in {cache.folder}, such as "
            f"{missing[0]}; give the data that the run was trained on ({facts['data']})"
        )
    # Another data set may number its images alike.
    mean = cache.rows(split["id"][split["set"] == "train"])["months"].mean()
    if not math.isclose(mean, facts["months_mean"], abs_tol=1e-3):
        raise BoneageError(
            f"the training images of {run} have a mean bone age of {facts['months_mean']:.2f} months, the same ids in "
            f"{cache.folder} {mean:.2f}; give the data that the run was trained on ({facts['data']})"
        )
    return cache


def _score(table: pd.DataFrame, rsna: bool) -> dict:
    summary = metrics.summarise(table).set_index("metric")
    found = {
        "n": len(table),
        "summary": summary.to_dict("index"),
        "by_group": metrics.by_group(table).to_dict("records"),
    }
    if GROUP_COLUMNS[0] in table:
        found["confusion"] = metrics.confusion(table).to_numpy().tolist()
    earlier = table[table["id"].isin(splits.earlier_accuracy_ids())]
    if rsna and len(earlier) == len(splits.earlier_accuracy_ids()):
        for name in ("accuracy", "binned_accuracy"):
            if name in summary.index:
                value, low, high = metrics.bootstrap(earlier, name)
                found[f"{name}_1892"] = {"value": value, "low": low, "high": high, "n": len(earlier)}
    return found


def _plain(value):
    """JSON's own types, floats to six significant digits, NaN as None: equal numbers give equal bytes."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
