"""The model card of a run, rendered from its files; the words stand in `model_card.md`."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from boneage.config import Augmentation, TrainConfig
from boneage.data import splits
from boneage.data.frame import WINDOW_PERCENTILES
from boneage.evaluation import tone
from boneage.evaluation.metrics import EVERYONE, GROUP_METRICS, METRICS
from boneage.evaluation.run_files import is_rsna, predictions_path, read_json, read_split
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

_WINDOW = (
    f"its grey window taken between the {WINDOW_PERCENTILES[0]:g} and {WINDOW_PERCENTILES[1]:g} percentiles of the "
    "middle (`boneage.data.frame.to_square`)"
)
FRAME_WORDS = {
    "whole": f"the whole radiograph, aspect kept, centred in a black square, {_WINDOW}",
    "hand": "the hand, found and turned upright by `boneage.data.hand`, in a square with some margin (the whole "
    f"radiograph where it is not found), {_WINDOW}",
    "squash": "the whole radiograph pressed into a square, grey levels as they are (`boneage.data.squash`)",
}


def render(run: Path) -> str:
    """MODEL_CARD.md of a run or an ensemble as text, from its files.

    Raises
    ------
    BoneageError
        One of those files is missing.
    """
    run = Path(run)
    facts = read_json(run, "run.json")
    words = {"facts": facts, "phantom": facts["phantom"], "phantom_note": PHANTOM_NOTE, **_results(run)}
    if "members" in facts:
        fitted = facts["weights"] != "mean" or facts["correction"]["kind"] != "none"
        return _filled("ensemble_card.md", name=run.name, fitted=fitted, chosen="Its make-up was chosen", **words)
    config = TrainConfig.load(run / "config.json")
    counts = read_split(run)["set"].value_counts()
    return _filled(
        "model_card.md",
        config=config,
        augmentation=_augmentation(config.augmentation),
        optimiser=_optimiser(config),
        frame=FRAME_WORDS[config.frame],
        rsna=is_rsna(run),
        holdout_seed=splits.HOLDOUT_SEED,
        answers=ANSWERS[config.head],
        months=config.head != "classification",
        groups=config.head != "regression",
        stages=", ".join(f"{s.epochs} epochs at {s.size} px" for s in config.stages),
        loss=_loss(config),
        sets=[(name, counts[name], PURPOSES[name]) for name in splits.SETS if name in counts],
        duration=_duration(facts["seconds"]),
        chosen="The epoch was chosen",
        tone=list(tone.table(run).itertuples()) if predictions_path(run, tone.NAME).exists() else [],
        max_worse=tone.MAX_WORSE,
        max_bias=tone.MAX_BIAS,
        **words,
    )


def _filled(template: str, **words) -> str:
    environment = Environment(
        loader=PackageLoader("boneage.evaluation", ""), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(**words)


def _results(run: Path) -> dict:
    """What `card_results.md` shows, from `metrics.json`."""
    found = read_json(run, "metrics.json")
    scores = {name: found[name] for name in splits.SETS if name in found}
    reported = next(name for name in ("holdout", "validation", "train") if name in scores)
    shown = [m for m in METRICS if m in scores[reported]["summary"]]
    earlier = {m: scores[reported][f"{m}_1892"] for m in METRICS if f"{m}_1892" in scores[reported]}
    return {
        "scores": scores,
        "reported": reported,
        "headline": [(METRICS[m].label, [_with_interval(m, s["summary"][m]) for s in scores.values()]) for m in shown],
        "earlier": [f"{METRICS[m].label} {_with_interval(m, cell)}" for m, cell in earlier.items()],
        "earlier_images": next(iter(earlier.values()), {"n": 0})["n"],
        "group_names": GROUPS,
        "confusion": scores[reported].get("confusion"),
        "group_labels": [METRICS[m].label for m in GROUP_METRICS if m in shown],
        "by_group": _by_group(scores[reported]["by_group"]),
    }


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
    months = {
        "huber": f"Huber on months, linear from {config.huber_months:g} months on",
        "mse": "mean squared error of the age in standard deviations",
    }[config.loss]
    return {
        "regression": months,
        "classification": "cross-entropy of the age groups",
        "joint": f"{months}; cross-entropy of the age groups, weight {config.classification_weight:g}",
    }[config.head]


def _optimiser(config: TrainConfig) -> str:
    c = config
    course = {
        "cosine": f"linear rise over {c.ramp_steps} steps, then a cosine",
        "plateau": "halved where validation stands still",
    }[c.schedule]
    parts = ["AdamW" if c.weight_decay else "Adam", f"learning rate {c.learning_rate:g} ({course})"]
    parts += [f"weight decay {c.weight_decay:g}"] if c.weight_decay else []
    parts += [f"gradient norm at most {c.clip_norm:g}"] if c.clip_norm else []
    return ", ".join(parts)


def _augmentation(a: Augmentation) -> str:
    """What varies, in words; what does not is left out."""
    said = {
        f"rotation ±{a.rotation:g}°": a.rotation,
        f"scale ±{100 * a.scale:g} %": a.scale,
        f"shift ±{100 * a.shift:g} %": a.shift,
        f"mirror {100 * a.flip:g} %": a.flip,
        f"brightness ±{100 * a.brightness:g} %": a.brightness,
        f"contrast ±{100 * a.contrast:g} %": a.contrast,
        f"gamma 1/{a.gamma:g} to {a.gamma:g}": a.gamma != 1,
        f"equalised {100 * a.equalise:g} %": a.equalise,
        f"a random tone curve in place of gamma {100 * a.curve:g} %": a.curve,
        f"local contrast {100 * a.local_contrast:g} %": a.local_contrast,
        f"black raised by up to {100 * a.background:g} %": a.background,
        f"few grey levels {100 * a.quantise:g} %": a.quantise,
        f"a blanked rectangle at the border {100 * a.erase:g} %": a.erase,
    }
    return ", ".join(words for words, amount in said.items() if amount) or "none"


def _duration(seconds: float) -> str:
    """`6720` -> `"1 h 52 min"`, under two minutes in seconds."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
