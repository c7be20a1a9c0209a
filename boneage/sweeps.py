"""Many runs, one after another: a campaign skips what is finished and resumes what was killed."""

import multiprocessing
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from boneage.config import TrainConfig
from boneage.errors import BoneageError
from boneage.paths import cache_root


@dataclass(frozen=True)
class Campaign:
    """A list of configs, and the phantom they are for where it is one.

    Attributes
    ----------
    configs
        In the order in which they run.
    phantom
        Keyword arguments of `boneage.data.phantom.make_dataset` (`n`, `seed`, `height`); None for real data.
    """

    configs: tuple[TrainConfig, ...]
    phantom: dict | None

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
    """A campaign from a TOML file, or by the name of one that ships with the package (`phantom`, `real`).

    The file has a table `[defaults]` of TrainConfig keys and one `[[run]]` table a run.
    """
    path = Path(name)
    if not path.suffix:
        path = Path(str(files("boneage"))) / "campaigns" / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BoneageError(f"no campaign file at {path}; shipped ones are `phantom` and `real`") from error
    except tomllib.TOMLDecodeError as error:
        raise BoneageError(f"{path} is not valid TOML: {error}") from error
    unknown = sorted(set(values) - {"phantom", "defaults", "run"})
    if unknown or not values.get("run"):
        raise BoneageError(
            f"{path} needs [[run]] tables and may have [defaults] and [phantom]. "
            f"Received also: {', '.join(unknown) or 'nothing'}"
        )
    configs = tuple(TrainConfig.from_dict(values.get("defaults", {}) | run) for run in values["run"])
    places = [(c.backbone, c.run_name) for c in configs]
    if len(set(places)) < len(places):
        raise BoneageError(f"{path}: two runs would share a folder; give one of them a name")
    phantom = values.get("phantom")
    if phantom:
        phantom = {"n": phantom["images"], "seed": phantom["seed"], "height": phantom["height"]}
    return Campaign(configs, phantom)


def state(campaign: Campaign, outputs: Path) -> list[tuple[TrainConfig, str]]:
    """How every run of a campaign stands: "finished", "epoch 3/12" or "to do"."""
    from boneage.training.run_folder import RunFolder

    rows = []
    for config in campaign.configs:
        folder = RunFolder(outputs / config.backbone / config.run_name)
        saved = None if folder.finished else folder.checkpoint.load()
        if folder.finished:
            said = "finished" if (folder.path / "metrics.json").exists() else "to evaluate"
        else:
            said = f"epoch {saved['progress']['epoch']}/{config.epochs}" if saved else "to do"
        rows.append((config, said))
    return rows


def run(campaign: Campaign, data: Path, outputs: Path) -> list[Path]:
    """Train and evaluate what is not finished, each run in a process of its own, so that memory is given back.

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
        process = spawn.Process(target=_train_and_evaluate, args=(config, data, outputs))
        process.start()
        process.join()
        if process.exitcode:
            raise BoneageError(
                f"{config.backbone} {config.run_name} stopped (exit code {process.exitcode}); "
                "mend the cause and give the same command again"
            )
    return [outputs / c.backbone / c.run_name for c in campaign.configs]


def _train_and_evaluate(config: TrainConfig, data: Path, outputs: Path) -> None:
    from boneage.evaluation.evaluate import evaluate
    from boneage.training.run_folder import RunFolder
    from boneage.training.train import train

    try:
        folder = RunFolder(outputs / config.backbone / config.run_name)
        if not folder.finished:
            train(config, data, outputs, resume=folder.checkpoint.load() is not None)
        evaluate(folder.path, data)
    except BoneageError as error:
        print(f"error: {error}", flush=True)
        raise SystemExit(2) from None
