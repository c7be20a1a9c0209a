"""The prepared cache: every radiograph decoded, windowed and letterboxed once, as bytes on disk.

A cache is a folder of four files and all that training needs:

    images.npy    (rows, size, size) uint8, memory-mapped
    index.csv     id, row, months, male, subset, the affine map m00..m12 from source to square, the grey window;
                  for the frame "hand" also `hand`: False where no sure hand was found and the whole frame is shown
    rejected.csv  id, reason
    cache.json    size, settings and the fingerprint of what it was made from
"""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.data import sources
from boneage.data.decode import decode_grey, read_bytes, split_archive
from boneage.data.frame import WINDOW_PERCENTILES, WINDOW_REGION, whole_frame
from boneage.data.frames import FRAMES
from boneage.errors import BoneageError
from boneage.paths import alone, atomic, cache_root, explained, write_csv, write_text

FORMAT = 1
MAX_REJECTED = 0.05  # share of images that may be bad before something is wrong with the whole folder
UNFINISHED = "unfinished"  # folder of the work in progress, inside the cache's
GEOMETRY = ("m00", "m01", "m02", "m10", "m11", "m12", "low", "high", "height", "width")


@dataclass(frozen=True)
class Cache:
    """An opened cache; see the module for its files."""

    folder: Path
    images: np.ndarray  # (rows, size, size) uint8 memory map
    index: pd.DataFrame  # one row an accepted image, `row` says where in `images`
    info: dict  # cache.json

    @property
    def size(self) -> int:
        return self.info["size"]

    @property
    def frame(self) -> str:
        """What the squares show, a name of `boneage.data.frames.FRAMES`."""
        return self.info["frame"]

    @property
    def phantom(self) -> bool:
        return self.info["phantom"]

    def rows(self, ids) -> pd.DataFrame:
        """The index's rows for `ids`, in their order; raises BoneageError for one that is not there."""
        by_id = self.index.set_index("id", drop=False)
        missing = [i for i in ids if i not in by_id.index]
        if missing:
            raise BoneageError(f"{len(missing)} images of the split are not in {self.folder}, such as {missing[0]}")
        return by_id.loc[list(ids)].reset_index(drop=True)


def open_cache(folder: str | Path) -> Cache:
    """Raises BoneageError when the folder is no finished cache, a damaged one, or one of another format."""
    folder = Path(folder)
    try:
        info = json.loads((folder / "cache.json").read_text())
        index = pd.read_csv(folder / "index.csv", dtype={"id": str}, keep_default_na=False, na_values={"months": [""]})
        images = np.load(folder / "images.npy", mmap_mode="r")
        size, last_row = info["size"], index["row"].max()
    except FileNotFoundError as error:
        raise BoneageError(
            f"{folder} is not a finished cache; make it with `boneage data prepare DIR --size N`"
        ) from error
    except (ValueError, KeyError, OSError) as error:
        raise BoneageError(f"{folder} is a damaged cache ({error}); remove it and prepare it again") from error
    if info.get("format") != FORMAT:
        raise BoneageError(f"{folder} has cache format {info.get('format')}, expected {FORMAT}; prepare it again")
    if images.shape[1:] != (size, size) or len(images) <= last_row:
        raise BoneageError(
            f"{folder}: images.npy holds {images.shape}, cache.json says {size} px and index.csv {last_row + 1} "
            "rows; remove it and prepare it again"
        )
    return Cache(folder, images, index, info)


def default_folder(source: Path, size: int, frame: str = "whole") -> Path:
    """Where `prepare` puts the cache of a folder unless told otherwise."""
    return cache_root() / "-".join([Path(source).resolve().name, *([frame] if frame != "whole" else []), str(size)])


def open_or_prepare(data: str | Path, size: int, frame: str | None = "whole") -> Cache:
    """A cache folder as it is, or the cache of a source folder, made on first use.

    Parameters
    ----------
    frame
        A name of `boneage.data.frames.FRAMES` that the squares must show; None: any, to look at.

    Raises
    ------
    BoneageError
        When a given cache shows another frame or is smaller than `size`: its pixels cannot be made up.
    """
    if (Path(data) / "cache.json").exists():
        cache = open_cache(data)
        if cache.size < size:
            raise BoneageError(
                f"the cache {data} holds {cache.size} px, training asks for {size} px; prepare one of {size} px or more"
            )
        if frame and cache.frame != frame:
            raise BoneageError(
                f"the cache {data} shows the frame {cache.frame!r}, the model wants {frame!r}; "
                "give the folder of radiographs, from which the right one is prepared"
            )
        return cache
    return prepare(data, size, frame=frame or "whole")


def fingerprint(source: sources.Source, size: int, frame: str = "whole") -> str:
    """A digest of the labels, the image files (name and bytes' count) and every setting that shapes the pixels."""
    digest = hashlib.sha256(
        json.dumps([FORMAT, size, WINDOW_PERCENTILES, WINDOW_REGION, FRAMES[frame].mark()]).encode()
    )
    for row in source.table.itertuples():
        file, _ = split_archive(row.path)
        relative = os.path.relpath(row.path, source.root)
        digest.update(f"{row.id},{row.months},{row.male},{row.subset},{relative},{os.path.getsize(file)}\n".encode())
    return digest.hexdigest()


def prepare(
    root: str | Path, size: int, folder: str | Path | None = None, workers: int | None = None, frame: str = "whole"
) -> Cache:
    """Make (or finish, or reuse) the cache of the radiographs in `root`.

    Parameters
    ----------
    root
        A folder that `boneage.data.sources.find` understands.
    size
        Side of the square in pixels.
    folder
        Where to; `default_folder` unless given. A finished cache of the same fingerprint is reused, an unfinished one
        resumed, any other refused.
    workers
        Threads; all cores unless given.
    frame
        What the squares show, a name of `boneage.data.frames.FRAMES`.

    Raises
    ------
    BoneageError
        More than 5 % bad images, another cache in the way, another `prepare` at work on it, a full disk.
    """
    source = sources.find(root)
    folder = Path(folder) if folder else default_folder(root, size, frame)
    mark = fingerprint(source, size, frame)
    if (folder / "cache.json").exists():
        cache = open_cache(folder)
        if cache.info["fingerprint"] != mark:
            raise BoneageError(
                f"{folder} holds a cache of other images or settings; remove it or choose another folder with --out"
            )
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)  # left when a kill came between the last two steps
        return cache
    if len(source.table) == 0:
        first = source.problems["problem"].iloc[0]
        raise BoneageError(f"none of the {len(source.problems)} rows in {root} can be used: {first}")
    with explained(folder), alone(folder):
        work = _Work(folder, mark, len(source.table), size, frame)
        work.run(source.table["path"].to_numpy(), workers or os.cpu_count())
        return work.finish(source, mark)


class _Work:
    """An unfinished cache: survives a kill at any moment, since an image counts once its state is written after it.

    The arrays are written through memory maps: what a killed process had stored is in the system's hands already.
    """

    def __init__(self, folder: Path, mark: str, n: int, size: int, frame: str):
        self.folder, self.part, self.size, self.frame = folder, folder / UNFINISHED, size, frame
        self.shapes = {
            "images": ((n, size, size), np.uint8),
            "geometry": ((n, len(GEOMETRY)), np.float64),
            "state": ((n,), np.uint8),  # 0 to do, 1 stored, 2 rejected
        }
        self.reasons: dict[int, str] = {}
        if not self._reopens(mark):
            self._start(mark)
        self.images, self.geometry, self.state = (self._open(name, "r+") for name in self.shapes)
        self.state[self.state == 2] = 0  # a bad image may have been mended, or its disk been away

    def _open(self, name: str, mode: str) -> np.ndarray:
        return np.load(self.part / f"{name}.npy", mmap_mode=mode)

    def _reopens(self, mark: str) -> bool:
        """Whether an earlier run left work on the same images."""
        marked = self.part / "mark"
        if not marked.exists() or marked.read_bytes() != mark.encode():
            return False
        if not (self.part / "images.npy").exists() and (self.folder / "images.npy").exists():
            os.replace(self.folder / "images.npy", self.part / "images.npy")  # killed while finishing
        try:
            # Read-only: a writable map would lengthen a file that is cut short, with zeros, and say nothing.
            found = {name: (a.shape, a.dtype) for name in self.shapes for a in [self._open(name, "r")]}
        except (FileNotFoundError, ValueError, EOFError):  # damaged
            return False
        return found == self.shapes

    def _start(self, mark: str) -> None:
        shutil.rmtree(self.part, ignore_errors=True)
        with atomic(self.part / "mark") as marked:  # last: without it the arrays do not count
            need = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self.shapes.values())
            free = shutil.disk_usage(self.part).free
            if free < 1.05 * need:
                raise BoneageError(f"{self.folder} needs {need / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free")
            for name, (shape, dtype) in self.shapes.items():
                np.lib.format.open_memmap(self.part / f"{name}.npy", "w+", dtype, shape).flush()
                _reserve(self.part / f"{name}.npy")
            marked.write_text(mark)

    def run(self, paths: np.ndarray, workers: int) -> None:
        todo = np.flatnonzero(self.state == 0)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # we already run one image a core
        try:
            with ThreadPoolExecutor(workers) as pool:
                jobs = pool.map(lambda i: self._store(i, paths[i]), todo)
                done = len(paths) - len(todo)
                list(tqdm(jobs, total=len(paths), initial=done, desc=f"preparing {self.size} px", unit="img"))
        finally:
            cv2.setNumThreads(threads)

    def _store(self, i: int, path: str) -> None:
        try:
            grey = decode_grey(read_bytes(path))
            self.images[i], matrix, window = FRAMES[self.frame].to_square(grey, self.size)
            self.geometry[i] = [*matrix.ravel(), *window, *grey.shape]
            self.state[i] = 1
        except BoneageError as error:
            self.reasons[i] = str(error)
            self.state[i] = 2

    def finish(self, source: sources.Source, mark: str) -> Cache:
        table = source.table
        bad = sorted(self.reasons)
        rejected = pd.DataFrame({"id": table["id"].iloc[bad], "reason": [self.reasons[i] for i in bad]}, dtype=object)
        rejected = pd.concat([source.problems.rename(columns={"problem": "reason"}), rejected], ignore_index=True)
        total = len(table) + len(source.problems)
        write_csv(self.folder / "rejected.csv", rejected)
        if len(rejected) > MAX_REJECTED * total:
            raise BoneageError(
                f"{len(rejected)} of {total} images are bad, more than {MAX_REJECTED:.0%}; "
                f"see {self.folder / 'rejected.csv'}, mend them and prepare again"
            )
        geometry = pd.DataFrame(np.asarray(self.geometry), columns=list(GEOMETRY))
        rows = pd.Series(np.arange(len(table)), name="row")
        index = pd.concat([table[["id"]], rows, table[["months", "male", "subset"]], geometry], axis=1)
        if FRAMES[self.frame].finds_hand:
            index["hand"] = [not _shows_whole(row, self.size) for row in np.asarray(self.geometry)]
        with atomic(self.folder / "index.csv") as part:
            index[self.state == 1].to_csv(part, index=False, lineterminator="\n")  # every digit of the maps
        self.images.flush()
        os.replace(self.part / "images.npy", self.folder / "images.npy")
        info = {
            "format": FORMAT, "size": self.size, "fingerprint": mark, "source": source.root.resolve().name,
            "images": int((self.state == 1).sum()), "rejected": len(rejected), "phantom": source.phantom,
            "frame": self.frame, "window_percentiles": WINDOW_PERCENTILES, "window_region": WINDOW_REGION,
        }  # fmt: skip
        if FRAMES[self.frame].finds_hand:
            info["whole_frames"] = int((~index.loc[self.state == 1, "hand"]).sum())
        write_text(self.folder / "cache.json", json.dumps(info, indent=2) + "\n")
        shutil.rmtree(self.part, ignore_errors=True)  # another `prepare` that finds the cache finished tidies too
        return open_cache(self.folder)


def _shows_whole(geometry: np.ndarray, size: int) -> bool:
    """Whether a square of this geometry is the letterboxed whole frame."""
    image = np.broadcast_to(np.uint8(0), geometry[-2:].astype(int))
    return np.allclose(geometry[:6].reshape(2, 3), whole_frame(image, size))


def _reserve(path: Path) -> None:
    """Take the whole file's room on the disk now: a memory map that meets a full disk later dies without a word."""
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
