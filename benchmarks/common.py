"""What every benchmark needs: a result, a fair comparison of two jobs, and something to work on."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from boneage.data.cache import FORMAT, GEOMETRY
from boneage.data.phantom import make_dataset


@dataclass(frozen=True)
class Result:
    """One measured number.

    Attributes
    ----------
    target
        What it should be; None for a number that is only told.
    direction
        "at least" or "at most" the target.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    direction: str = ""

    @property
    def ok(self) -> bool | None:
        if self.target is None:
            return None
        return bool(self.value >= self.target if self.direction == "at least" else self.value <= self.target)


@dataclass(frozen=True)
class Comparison:
    """Seconds an item that two jobs took, round by round."""

    first: np.ndarray  # (rounds, 2): wall and CPU seconds
    second: np.ndarray

    @property
    def wall(self) -> float:
        """Cost of the first job relative to the second: the median of the rounds' ratios."""
        return float(np.median(self.first[:, 0] / self.second[:, 0]))

    @property
    def cpu(self) -> float:
        """The same in CPU-seconds, which hold where other programs share the cores."""
        return float(np.median(self.first[:, 1] / self.second[:, 1]))


def compare(first: Callable[[], int], second: Callable[[], int], rounds: int) -> Comparison:
    """Run two jobs in turn, A B, B A, A B ..., so that a drift of the machine hits both alike.

    Each job returns how many items (images, steps) it did. Warm-up is the caller's.
    """
    taken: dict[Callable, list] = {first: [], second: []}
    for i in range(rounds):
        for job in (first, second) if i % 2 == 0 else (second, first):
            wall, cpu = time.perf_counter(), time.process_time()
            items = job()
            taken[job].append(((time.perf_counter() - wall) / items, (time.process_time() - cpu) / items))
    return Comparison(np.array(taken[first]), np.array(taken[second]))


def rate(seconds: np.ndarray) -> float:
    """Items a second of wall time, the median round."""
    return float(1 / np.median(seconds[:, 0]))


def radiographs(folder: Path, n: int = 40, copies: int = 4, height: int = 2000) -> tuple[Path, list[Path]]:
    """A data set of phantom PNGs as large as radiographs are (2000 x 1583), and its files.

    Each drawing is there `copies` times (hard links): drawing one takes longer than all that is measured on it, and a
    preparation has fixed costs that a handful of images would overstate.
    """
    drawn = make_dataset(folder / "drawn", n, height=height)
    table = pd.read_csv(drawn / "boneage-training-dataset.csv", dtype={"id": str})
    sources = {path.stem: path for path in drawn.rglob("*.png")}
    data = folder / "data"
    data.mkdir()
    rows = []
    for copy in range(copies):
        for row in table.to_dict("records"):
            name = f"{row['id']}-{copy}"
            os.link(sources[row["id"]], data / f"{name}.png")
            rows.append(row | {"id": name})
    pd.DataFrame(rows).to_csv(data / "ages.csv", index=False)
    return data, sorted(data.glob("*.png"))


def noise_cache(folder: Path, n: int, size: int) -> Path:
    """A finished cache of `n` squares of noise with random labels: time and memory do not look at the picture."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    block = rng.integers(0, 256, (256, size, size), np.uint8)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (n, size, size))
    for start in range(0, n, len(block)):
        images[start : start + len(block)] = block[: n - start]
    images.flush()
    index = pd.DataFrame({"id": [f"n{i}" for i in range(n)], "row": np.arange(n)})
    index["months"], index["male"], index["subset"] = rng.integers(12, 217, n), rng.integers(0, 2, n), "train"
    index[list(GEOMETRY)] = 0.0
    index.to_csv(folder / "index.csv", index=False)
    info = {"format": FORMAT, "size": size, "source": "noise", "phantom": True, "fingerprint": "noise"}
    (folder / "cache.json").write_text(json.dumps(info))
    return folder
