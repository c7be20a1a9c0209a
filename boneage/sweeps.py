"""Many runs, one after another: a campaign skips what is finished and resumes what was killed."""

import math
import multiprocessing
import os
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Thread

import pandas as pd

from boneage.config import TrainConfig
from boneage.errors import BoneageError
from boneage.paths import cache_root

SHIPPED = Path(str(files("boneage"))) / "campaigns"
EXTRAS = {"tone": "predictions_tone.csv", "tta": "tta/predictions_validation.csv", "speed": "speed.json"}  # their files


@dataclass(frozen=True)
class Campaign:
    """A list of configs, and the phantom they are for where it is one.

    Attributes
    ----------
    configs
        In the order in which they run.
    phantom
        Keyword arguments of `boneage.data.phantom.make_dataset` (`n`, `seed`, `height`); None for real data.
    evaluation
        What is measured beside the predictions, of `EXTRAS`.
    ensembles
        Of the runs, made at the end: keyword arguments of `boneage.evaluation.ensemble.combine`, `members` as
        `Backbone/name` or `Backbone/name/tta`.
    """

    configs: tuple[TrainConfig, ...]
    phantom: dict | None
    evaluation: tuple[str, ...] = ()
    ensembles: tuple[dict, ...] = ()

    def data(self, given: str | None) -> Path:
        """The folder to train on: the one given, else the phantom, drawn on first use.

        Raises
        ------
        BoneageError
            Neither given nor a phantom.
        """
        if given:
            return Path(given)
        if self.phantom is None:
            raise BoneageError(
                "this campaign is for real radiographs; say where they are with --data DIR (see docs/data.md)"
            )
        from boneage.data.phantom import make_dataset

        return make_dataset(cache_root() / "phantom", **self.phantom)


def load(name: str) -> Campaign:
    """A campaign from a TOML file, or by the name of one in `boneage/campaigns`.

    The file has a table `[defaults]` of TrainConfig keys and one `[[run]]` table a run. It may begin with a list
    `evaluate` of `EXTRAS` and have `[[ensemble]]` tables: `name`, `members`, `fitted_weights`, `correction`.
    """
    path = Path(name)
    if not path.suffix:
        path = SHIPPED / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        shipped = ", ".join(sorted(f.stem for f in SHIPPED.glob("*.toml")))
        raise BoneageError(f"no campaign file at {path}; shipped ones are {shipped}") from error
    except tomllib.TOMLDecodeError as error:
        raise BoneageError(f"{path} is not valid TOML: {error}") from error
    unknown = sorted(set(values) - {"phantom", "defaults", "run", "evaluate", "ensemble"})
    if unknown or not values.get("run"):
        raise BoneageError(
            f"{path} needs [[run]] tables and may have evaluate, [defaults], [phantom] and [[ensemble]]. "
            f"Received also: {', '.join(unknown) or 'nothing'}"
        )
    if odd := sorted(set(values.get("evaluate", ())) - set(EXTRAS)):
        raise BoneageError(f"{path}: evaluate lists of {', '.join(EXTRAS)}. Received: {', '.join(odd)}")
    for made in values.get("ensemble", ()):
        if not {"name", "members"} <= set(made) <= {"name", "members", "fitted_weights", "correction"}:
            raise BoneageError(
                f"{path}: [[ensemble]] takes name and members, and may have fitted_weights and correction. "
                f"Received: {', '.join(made)}"
            )
    configs = tuple(TrainConfig.from_dict(values.get("defaults", {}) | run) for run in values["run"])
    places = [(c.backbone, c.run_name) for c in configs]
    if len(set(places)) < len(places):
        raise BoneageError(f"{path}: two runs would share a folder; give one of them a name")
    phantom = values.get("phantom")
    if phantom:
        phantom = {"n": phantom["images"], "seed": phantom["seed"], "height": phantom["height"]}
    return Campaign(configs, phantom, tuple(values.get("evaluate", ())), tuple(values.get("ensemble", ())))


def shown(campaign: Campaign, outputs: Path) -> list[Path]:
    """The runs whose heat maps one figure can compare: of each backbone the first that tells months, in one frame.

    The frame is the one that most of the runs see.
    """
    configs = [c for c in campaign.configs if c.head != "classification"]
    frame = max((c.frame for c in configs), key=[c.frame for c in configs].count, default=None)
    first = {c.backbone: c for c in reversed(configs) if c.frame == frame}
    return [outputs / c.backbone / c.run_name for c in configs if first.get(c.backbone) is c]


def state(campaign: Campaign, outputs: Path) -> list[tuple[TrainConfig, str]]:
    """How every run of a campaign stands: "finished", "to evaluate", "epoch 3/12" or "to do"."""
    from boneage.training.run_folder import RunFolder

    rows = []
    for config in campaign.configs:
        folder = RunFolder(outputs / config.backbone / config.run_name)
        saved = None if folder.finished else folder.checkpoint.load()
        if folder.finished:
            wanted = [EXTRAS[e] for e in campaign.evaluation if e != "tone" or config.head != "classification"]
            there = all((folder.path / f).exists() for f in ("metrics.json", *wanted))
            said = "finished" if there else "to evaluate"
        else:
            said = f"epoch {saved['progress']['epoch']}/{config.epochs}" if saved else "to do"
        rows.append((config, said))
    return rows


def seconds_left(config: TrainConfig, outputs: Path) -> float:
    """Time that the rest of a run's training will take, by its own epochs so far, else by those of its backbone's runs.

    The cost of an epoch is taken to grow with the pixels; NaN where no run of this backbone has a history yet.
    """
    own = outputs / config.backbone / config.run_name / "history.csv"
    known = [own] if own.exists() else sorted(outputs.glob(f"{config.backbone}/*/history.csv"))
    histories = [pd.read_csv(path) for path in known]
    rates = pd.concat([h["seconds"] / h["size"] ** 2 for h in histories] or [pd.Series(dtype=float)])
    done = len(histories[0]) if own.exists() else 0
    return float(rates.median()) * sum(config.stage_of(e).size ** 2 for e in range(done, config.epochs))


def describe(campaign: Campaign, outputs: Path) -> str:
    """The state of every run and the time left, as a table for a terminal."""
    from boneage.training.live import clock

    lines, times = [], []
    for config, said in state(campaign, outputs):
        times.append(0.0 if said in ("finished", "to evaluate") else seconds_left(config, outputs))
        left = "time not known yet" if math.isnan(times[-1]) else f"about {clock(times[-1])} left"
        lines.append(f"  {config.backbone:16} {config.run_name:20} {said:14} {left if times[-1] else ''}".rstrip())
    known = [t for t in times if not math.isnan(t)]
    if sum(known):
        lines.append(f"  {'about' if known == times else 'more than'} {clock(sum(known))} of training left in all")
    return "\n".join(lines)


def run(campaign: Campaign, data: Path, outputs: Path) -> list[Path]:
    """Train and evaluate what is not finished, each run in a process of its own, so that memory is given back; then
    make the ensembles.

    Returns
    -------
    list of the run folders

    Raises
    ------
    BoneageError
        When a run fails; what was finished stays, and the same command goes on from there.
    """
    spawn = multiprocessing.get_context("spawn")
    for i, (config, said) in enumerate(state(campaign, outputs)):
        if said == "finished":
            continue
        print(f"[{i + 1}/{len(campaign.configs)}] {config.backbone} {config.run_name}: {said}", flush=True)
        process = spawn.Process(target=_train_and_evaluate, args=(config, data, outputs, campaign.evaluation))
        process.start()
        process.join()
        if process.exitcode:
            raise BoneageError(
                f"{config.backbone} {config.run_name} stopped (exit code {process.exitcode}); "
                "mend the cause and give the same command again"
            )
    for made in campaign.ensembles:
        from boneage.evaluation.ensemble import combine

        combine(**made | {"members": [outputs / m for m in made["members"]]}, outputs=outputs)
    return [outputs / c.backbone / c.run_name for c in campaign.configs]


def _train_and_evaluate(config: TrainConfig, data: Path, outputs: Path, extras: tuple[str, ...]) -> None:
    from boneage.evaluation.evaluate import evaluate
    from boneage.training.run_folder import RunFolder
    from boneage.training.train import train

    Thread(target=_end_with_parent, daemon=True).start()
    try:
        folder = RunFolder(outputs / config.backbone / config.run_name)
        if not folder.finished:
            train(config, data, outputs, resume=folder.checkpoint.load() is not None)
        evaluate(folder.path, data, **{f"with_{extra}": True for extra in extras})
    except BoneageError as error:
        print(f"error: {error}", flush=True)
        raise SystemExit(2) from None


def _end_with_parent() -> None:
    """A killed campaign must not leave a training behind, which the next one would resume beside it."""
    multiprocessing.parent_process().join()
    os._exit(1)
