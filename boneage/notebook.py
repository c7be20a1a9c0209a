"""What every notebook opens with: which radiographs, which runs, and the sentence that says so."""

import inspect
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from boneage import __version__, config, style, sweeps
from boneage.config import TrainConfig, parse_stages
from boneage.data.cache import Cache, default_folder, open_cache, open_or_prepare, prepare
from boneage.data.sources import PHANTOM_MARK
from boneage.errors import BoneageError
from boneage.paths import cache_root, find_data, outputs_root
from boneage.report import tables
from boneage.report.runs import Run, Runs, best, find_runs

PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "pandas", "opencv-python-headless", "matplotlib")
# Stages of a training by kind of images and budget; None: those of the campaign that ships for them.
STAGES = {
    ("phantom", "quick"): None,
    ("phantom", "full"): "64x12,96x18",
    ("real", "quick"): "96x1,128x1",
    ("real", "full"): None,
}


@dataclass(frozen=True)
class Place:
    """Where a notebook's radiographs and runs lie."""

    data: Path
    outputs: Path
    phantom: bool

    @property
    def statement(self) -> str:
        """The first line of every notebook's output, in Markdown."""
        if self.phantom:
            return (
                "**Run on the phantom**: synthetic drawings of hands, not patients. "
                "Whatever is measured below says nothing about patients."
            )
        return "**Run on real radiographs**: hands of children, without names. Research use only; not a medical device."

    @property
    def images(self) -> str:
        """What the images are, for a sentence."""
        return "phantom hands" if self.phantom else "radiographs"

    @property
    def details(self) -> str:
        """Where and with what, without a word about this machine's folders."""
        packages = ", ".join(f"{name} {v}" for name in PACKAGES if (v := _version(name)))
        return (
            f"Radiographs: `{self.data.name}` · runs: `{self.outputs.name}` · "
            f"Python {platform.python_version()}, boneage {__version__}, {packages}"
        )

    def cache(self, size: int, frame: str = "whole") -> Cache:
        """The prepared radiographs: the smallest cache of at least `size` px that there is, else a new one."""
        if (self.data / "cache.json").exists():
            return open_or_prepare(self.data, size, frame)
        made = cache_root().glob(f"{default_folder(self.data, 0, frame).name[:-1]}*/cache.json")
        sizes = [int(end) for p in made if (end := p.parent.name.rpartition("-")[2]).isdigit()]
        size = min((s for s in sizes if s >= size and default_folder(self.data, s, frame).exists()), default=size)
        return prepare(self.data, size, frame=frame)


def place(data: str = "", outputs: str = "", trained: Iterable[str] = ()) -> Place:
    """Decide what a notebook works on, and go to the root of the clone, so that folders mean what they mean elsewhere.

    Parameters
    ----------
    data
        Folder of radiographs; empty: `boneage.paths.find_data`, else the phantom, drawn on first use.
    outputs
        Folder of runs; empty: `boneage.paths.outputs_root`, of phantom runs `phantom` in it.
    trained
        Backbones without whose finished runs radiographs that were only found, not named, are left alone: the phantom
        then, on which they can be trained in minutes.
    """
    named, runs = (Path(p).resolve() if p else None for p in (data, outputs))
    here = Path.cwd()
    os.chdir(next((p for p in (here, *here.parents) if (p / "boneage" / "__init__.py").exists()), here))
    found = named or find_data()
    runs_of = {p.parents[1].name for p in (runs or outputs_root()).glob("*/*/model.keras")}
    if found and not named and not _is_phantom(found) and not set(trained) <= runs_of:
        found = None
    found = found or sweeps.load("phantom").data(None)
    if not found.is_dir():
        raise BoneageError(f"no folder at {found}; leave DATA empty to run on the phantom")
    phantom = _is_phantom(found)
    return Place(found, runs or (outputs_root() / "phantom" if phantom else outputs_root()), phantom)


def _is_phantom(data: Path) -> bool:
    """Of a folder of radiographs or a cache."""
    return open_cache(data).phantom if (data / "cache.json").exists() else (data / PHANTOM_MARK).exists()


def train(place: Place, backbones: Iterable[str], budget: str = "quick", stages: str = "") -> Runs:
    """The joint runs of `backbones`, those that are not finished trained first, each in a process of its own.

    Parameters
    ----------
    budget
        "quick" (minutes) or "full".
    stages
        Image sizes and epochs in place of the budget's, such as "64x4".
    """
    kind = "phantom" if place.phantom else "real"
    if (kind, budget) not in STAGES:
        raise BoneageError(f'BUDGET is "quick" or "full". Received: {budget!r}')
    configs = [c for c in sweeps.load(kind).configs if c.backbone in set(backbones)]
    if stages := stages or STAGES[kind, budget]:
        configs = [replace(c, stages=parse_stages(stages)) for c in configs]
    plan = sweeps.Campaign(tuple(configs), None)
    if any(said != "finished" for _, said in sweeps.state(plan, place.outputs)):
        size = max(s.size for c in configs for s in c.stages)
        frames = {c.frame for c in configs}
        data = place.cache(size, *frames).folder if len(frames) == 1 else place.data
        sweeps.run(plan, data, place.outputs)
    folders = [place.outputs / c.backbone / c.run_name for c in configs]
    return tuple(r for r in find_runs(place.outputs) if r.folder in folders)


def finished(place: Place) -> Runs:
    """Of every backbone the joint run that is best on validation, on the place's kind of images; () where none is."""
    if not any(place.outputs.glob("*/*/model.keras")):
        return ()
    runs: dict[str, list[Run]] = {}
    for run in find_runs(place.outputs):
        if run.trained and run.evaluated and run.phantom == place.phantom and run.has_months and run.has_groups:
            runs.setdefault(run.backbone, []).append(run)
    return tuple(best(tuple(of_one)) for of_one in runs.values())


def say(*sentences: str) -> None:
    """Show Markdown: a sentence computed from the figure that it stands under cannot contradict it."""
    from IPython.display import Markdown, display  # only where there is a notebook

    display(Markdown(re.sub(r"(?<=\d)%", " %", " ".join(sentences))))  # percent as everywhere else in the house


def points(*sentences: str) -> None:
    """Show a list of sentences."""
    say("\n".join(f"- {sentence}" for sentence in sentences))


def settings(of: TrainConfig) -> pd.DataFrame:
    """A run's settings, each with the comment that stands beside it in `boneage/config.py`."""
    comments = dict(re.findall(r"^    (\w+): .+?  # (.+)$", inspect.getsource(config), re.MULTILINE))
    values = of.to_dict()
    values |= {f"augmentation.{k}": v for k, v in values.pop("augmentation").items()}
    values["initial_weights"] = Path(values["initial_weights"]).name  # a path is nobody else's business
    rows = [(name, str(v), comments.get(name.split(".")[-1], "")) for name, v in values.items()]
    return pd.DataFrame(rows, columns=["setting", "value", "what it is"])


def paired(runs: Runs) -> str:
    """Differences of the runs, image by image, in Markdown, or why there are none."""
    table = tables.shown_differences(runs)
    if table.empty:
        return "No other run was reported on the same images, so there is nothing to subtract yet."
    note = "An interval that holds zero means that these images cannot tell the two apart."
    return f"{tables.to_markdown(table)}\n\n{tables.PAIRED_NOTE} {note}"


def gallery(pictures: dict[str, np.ndarray], columns: int, phantom: bool, **imshow):
    """A figure of titled pictures, (H, W) or (H, W, 3); `imshow` goes to matplotlib."""
    rows = -(-len(pictures) // columns)
    side = 9 / columns
    figure, axes = style.new_figure(9, rows * (side + 0.15) + 0.25 * phantom, nrows=rows, ncols=columns, squeeze=False)
    figure.set_dpi(80)  # radiographs are the bulk of a notebook's bytes
    figure.get_layout_engine().set(rect=(0, 0.25 * phantom / figure.get_figheight(), 1, 1))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        ax.imshow(picture, **({"cmap": "gray", "vmin": 0, "vmax": 255} | imshow))
        ax.set_title(title, fontsize=10)
    if phantom:
        style.mark_phantom(figure)
    return figure


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
