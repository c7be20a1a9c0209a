"""From finished runs and radiographs to a figure of heat maps and the numbers beside it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from boneage.config import TrainConfig
from boneage.data.cache import GEOMETRY, Cache, open_or_prepare
from boneage.data.decode import decode_grey, read_bytes
from boneage.data.frames import FRAMES
from boneage.errors import BoneageError
from boneage.explain import DEFAULT_METHOD, figures
from boneage.explain.maps import enlarge
from boneage.explain.methods import METHODS
from boneage.explain.run_maps import in_radiographs, maps_of_runs
from boneage.labels import GROUP_COLUMNS, MONTHS_PER_YEAR
from boneage.paths import write_csv

YOUNGEST, OLDEST = 2, 17  # years: the span over which `choose` spreads its images
SHOWN = 512  # pixels: a file's longer side in the figure, at most


def explain(
    runs: list[Path],
    data: str | Path,
    out: Path,
    ids: list[str] | None = None,
    set_name: str = "holdout",
    target: str = "older",
    count: int = 6,
    method: str = DEFAULT_METHOD,
) -> Path:
    """The same hands of a data set through several runs.

    Parameters
    ----------
    runs
        Finished run folders: one column each.
    data
        A folder of radiographs or a cache.
    out
        The figure, a `.png` of at most 500 kB, or `.pdf` or `.svg` with words and lines as vectors; a table of the same
        name, `.csv`, is written beside it.
    ids
        Which images; None: `count` of them by the rule of `choose`, from `set_name` of the runs' splits.
    target
        "older", "younger", or an age group; see `boneage.models.probe`.
    method
        A name of `boneage.explain.methods.METHODS`.

    Returns
    -------
    Path
        `out`, with the maps on the squares that a cache holds (`boneage.explain.run_maps.in_radiographs` leads them
        back). The table has one row an image and run: `id`, `run`, `male`, `reference_months`, `predicted_months`,
        `sex_effect_months` (prediction as given minus the one with the other sex), `p_0_5` .. `p_15_20` (each by head),
        `method`, `target`, and `energy_inside`: the share of the map that lies on the radiograph and not on its padding
        (empty for a map that is zero everywhere).

    Raises
    ------
    BoneageError
        An unfinished run, a target that one of the models has not, an unknown method, an id that the data lacks.
    """
    configs = _configs(runs)
    cache = open_or_prepare(data, max(config.size for config in configs), configs[0].frame)
    rows = cache.rows(ids) if ids else choose(cache, _common(runs, set_name), count)
    hands, said, table = _of_cache(runs, configs, cache, rows, target, method)
    _write(hands, said, table, target, method, cache.phantom, out)
    return out


def side_by_side(runs: list[Path], cache: Cache, ids, target: str = "older", method: str = DEFAULT_METHOD):
    """The figure of `explain`, not written: hands of a cache by their ids, for a notebook.

    Returns
    -------
    figure, explanations
        One `boneage.explain.figures.Explanation` a run.
    """
    hands, said, _ = _of_cache(runs, _configs(runs), cache, cache.rows(ids), target, method)
    figure = figures.explain_figure(hands, said, target, cache.phantom, METHODS[method].title)
    figure.set_dpi(80)  # radiographs are the bulk of a notebook's bytes
    return figure, said


def _of_cache(runs, configs, cache: Cache, rows: pd.DataFrame, target: str, method: str):
    """Hands, explanations and the table, all on a cache's squares."""
    maps, table = maps_of_runs(runs, configs, cache, rows, target, method)
    shown = [enlarge(of_run, cache.size, cache.size) for of_run in maps]
    hands = _hands([np.asarray(cache.images[row]) for row in rows["row"]], rows)
    return hands, _explanations(configs, shown, table), table


def explain_files(
    runs: list[Path], files: list[Path], male: int, out: Path, target: str = "older", method: str = DEFAULT_METHOD
) -> list[list[np.ndarray]]:
    """Radiograph files through several runs; figure and table as `explain` writes them.

    Parameters
    ----------
    files
        Images of any kind that `boneage.data.decode` reads.
    male
        Sex of all of them: 1 or 0.

    Returns
    -------
    maps
        `maps[run][file]`, (height, width) float32, 0..1, in the frame of the file.

    Raises
    ------
    BoneageError
        A file that cannot be used, by name, and what `explain` raises.
    """
    configs = _configs(runs)
    if not files:
        raise BoneageError("no image file to explain; give at least one")
    greys = [_read(file) for file in files]
    cache = _as_cache(files, greys, male, max(config.size for config in configs), configs[0].frame)
    rows = cache.index
    maps, table = maps_of_runs(runs, configs, cache, rows, target, method)
    originals = [in_radiographs(of_run, rows, cache.size) for of_run in maps]
    pictures = [_shown(_windowed(grey, row)) for grey, row in zip(greys, rows.itertuples(), strict=True)]
    said = _explanations(configs, [[_shown(cam) for cam in of_run] for of_run in originals], table)
    _write(_hands(pictures, rows), said, table, target, method, _of_phantoms(runs), out)
    return originals


def choose(cache: Cache, ids, count: int) -> pd.DataFrame:
    """Rows of the images nearest to `count` ages spread evenly over 2 to 17 years, girls and boys by turns.

    The rule looks at reference age and sex only, never at a prediction: nobody can pick the pretty ones. Of equally
    near ones it takes the first in the index; where there are fewer images than `count`, all of them.
    """
    index = cache.index[cache.index["id"].isin(set(ids)) & cache.index["months"].notna()]
    if index.empty:
        raise BoneageError("no image with a reference age to choose from; name images by id, or another set")
    taken = []
    for turn, years in enumerate(np.linspace(YOUNGEST, OLDEST, min(count, len(index)))):
        left = index.drop(index=taken)
        of_sex = left[left["male"] == turn % 2]
        pool = of_sex if len(of_sex) else left
        taken.append((pool["months"] - years * MONTHS_PER_YEAR).abs().idxmin())
    return index.loc[taken].reset_index(drop=True)


def _configs(runs: list[Path]) -> list[TrainConfig]:
    if not runs:
        raise BoneageError("no run to explain; give at least one run folder, such as outputs/EfficientNetB0/joint")
    configs = [TrainConfig.load(Path(run) / "config.json") for run in runs]
    frames = {config.frame for config in configs}
    if len(frames) > 1:
        raise BoneageError(f"these runs see different frames ({', '.join(sorted(frames))}); explain one kind at a time")
    return configs


def _common(runs: list[Path], set_name: str) -> set[str]:
    """Ids that lie in the set in the split of every run: nothing that one of them was trained on."""
    splits = [pd.read_csv(Path(run) / "split.csv", dtype=str, keep_default_na=False) for run in runs]
    return set.intersection(*[set(split["id"][split["set"] == set_name]) for split in splits])


def _of_phantoms(runs: list[Path]) -> bool:
    """Whether one of the runs has learnt from synthetic drawings: its figure must say so on any radiograph."""
    return any(json.loads((Path(run) / "run.json").read_text())["phantom"] for run in runs)


def _hands(pictures: list[np.ndarray], rows: pd.DataFrame) -> list[figures.Hand]:
    return [
        figures.Hand(row.id, picture, row.male, None if np.isnan(row.months) else row.months)
        for picture, row in zip(pictures, rows.itertuples(), strict=True)
    ]


def _explanations(configs: list[TrainConfig], maps, table: pd.DataFrame) -> list[figures.Explanation]:
    """What each run says, by its rows of the table; runs of one backbone go by the runs' names."""
    backbones = [config.backbone for config in configs]
    said = []
    for k, (config, of_run) in enumerate(zip(configs, maps, strict=True)):
        part = table.iloc[k * len(of_run) : (k + 1) * len(of_run)].dropna(axis="columns", how="all")
        months, groups, sex = ("predicted_months", list(GROUP_COLUMNS), "sex_effect_months")
        name = config.backbone if backbones.count(config.backbone) == 1 else config.run_name
        said.append(
            figures.Explanation(
                name,
                config.backbone,
                list(of_run),
                part[months].to_numpy() if months in part else None,
                part[groups].to_numpy() if groups[0] in part else None,
                part[sex].to_numpy() if sex in part else None,
            )
        )
    return said


def _write(hands, said, table: pd.DataFrame, target: str, method: str, phantom: bool, out: Path) -> None:
    figures.save(figures.explain_figure(hands, said, target, phantom, METHODS[method].title), out)
    write_csv(Path(out).with_suffix(".csv"), table)


def _read(file: Path) -> np.ndarray:
    try:
        return decode_grey(read_bytes(file))
    except BoneageError as error:
        raise BoneageError(f"{file}: {error}") from error


def _as_cache(files, greys, male: int, size: int, frame: str) -> Cache:
    """Files as a cache in memory, so that they reach the models on the same way as a data set does."""
    squares, index = [], []
    for row, (file, grey) in enumerate(zip(files, greys, strict=True)):
        try:
            square, matrix, window = FRAMES[frame].to_square(grey, size)
        except BoneageError as error:
            raise BoneageError(f"{file}: {error}") from error
        squares.append(square)
        geometry = dict(zip(GEOMETRY, [*matrix.ravel(), *window, *grey.shape], strict=True))
        index.append({"id": Path(file).name, "row": row, "months": np.nan, "male": male} | geometry)
    return Cache(Path(), np.stack(squares), pd.DataFrame(index), {"size": size, "phantom": False, "frame": frame})


def _windowed(grey: np.ndarray, row) -> np.ndarray:
    return (np.clip((grey.astype("float32") - row.low) / (row.high - row.low), 0, 1) * 255).round().astype(np.uint8)


def _shown(picture: np.ndarray) -> np.ndarray:
    scale = min(1.0, SHOWN / max(picture.shape))
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
