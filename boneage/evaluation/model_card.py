"""The model card of a run, rendered from its files; the words stand in `model_card.md`."""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from boneage.config import TrainConfig
from boneage.data import splits
from boneage.data.frame import WINDOW_PERCENTILES
from boneage.evaluation.metrics import EVERYONE, GROUP_METRICS, METRICS
from boneage.evaluation.run_files import is_rsna, read_json, read_split
from boneage.labels import GROUPS
from boneage.style import PHANTOM_NOTE

PURPOSES = {
    "train": "fitting the weights",
    "validation": "choosing the epoch, stopping early",
    "holdout": "reporting, nothing else",
    "rsna_test": "predictions only: images without a reference age",
}
ANSWERS = {
    "joint": f"bone age in months and the probabilities of {len(GROUPS)} age groups",
    "regression": "bone age in months",
    "classification": f"the probabilities of {len(GROUPS)} age groups",
}


def render(run: Path) -> str:
    """MODEL_CARD.md of a run as text, from `config.json`, `run.json`, `split.csv` and `metrics.json`.

    Raises
    ------
    BoneageError
        One of those files is missing.
    """
    config, facts = TrainConfig.load(Path(run) / "config.json"), read_json(run, "run.json")
    counts = read_split(run)["set"].value_counts()
    found = read_json(run, "metrics.json")
    scores = {name: found[name] for name in splits.SETS if name in found}
    reported = next(name for name in ("holdout", "validation", "train") if name in scores)
    shown = [m for m in METRICS if m in scores[reported]["summary"]]
    earlier = {m: scores[reported][f"{m}_1892"] for m in METRICS if f"{m}_1892" in scores[reported]}
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(
        files("boneage.evaluation").joinpath("model_card.md").read_text(encoding="utf-8")
    )
    return template.render(
        config=config,
        augmentation=config.augmentation,
        facts=facts,
        phantom=facts["phantom"],
        phantom_note=PHANTOM_NOTE,
        rsna=is_rsna(run),
        holdout_seed=splits.HOLDOUT_SEED,
        answers=ANSWERS[config.head],
        months=config.head != "classification",
        groups=config.head != "regression",
        stages=", ".join(f"{s.epochs} epochs at {s.size} px" for s in config.stages),
        loss=_loss(config),
        window=WINDOW_PERCENTILES,
        group_names=GROUPS,
        sets=[(name, counts[name], PURPOSES[name]) for name in splits.SETS if name in counts],
        duration=_duration(facts["seconds"]),
        scores=scores,
        reported=reported,
        headline=[(METRICS[m].label, [_with_interval(m, s["summary"][m]) for s in scores.values()]) for m in shown],
        earlier=[f"{METRICS[m].label} {_with_interval(m, cell)}" for m, cell in earlier.items()],
        earlier_images=next(iter(earlier.values()), {"n": 0})["n"],
        confusion=scores[reported].get("confusion"),
        group_labels=[METRICS[m].label for m in GROUP_METRICS if m in shown],
        by_group=_by_group(scores[reported]["by_group"]),
    )


def _with_interval(metric: str, cell: dict) -> str:
    """`{"value": 8.21, "low": 7.99, "high": 8.44}` -> `"8.21 [7.99, 8.44]"`."""
    digits = METRICS[metric].digits
    if cell["value"] is None:
        return "–"
    text = f"{cell['value']:.{digits}f}"
    return text if cell["low"] is None else f"{text} [{cell['low']:.{digits}f}, {cell['high']:.{digits}f}]"


def _by_group(rows: list[dict]) -> list[tuple[str, str, int, list[str]]]:
    """One row a sex and age group: its names, images and metrics."""
    groups: dict[tuple, list[str]] = {}
    for row in rows:
        groups.setdefault((row["sex"], row["age_group"], row["n"]), []).append(_with_interval(row["metric"], row))
    return [(s.replace(EVERYONE, "both"), g, n, cells) for (s, g, n), cells in groups.items()]


def _loss(config: TrainConfig) -> str:
    huber = f"Huber on months, linear from {config.huber_months:g} months on"
    return {
        "regression": huber,
        "classification": "cross-entropy of the age groups",
        "joint": f"{huber}; cross-entropy of the age groups, weight {config.classification_weight:g}",
    }[config.head]


def _duration(seconds: float) -> str:
    """`6720` -> `"1 h 52 min"`, under two minutes in seconds."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
