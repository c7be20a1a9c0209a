"""Where things lie, resolved on use, and how files are written: whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boneage.errors import BoneageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def outputs_root() -> Path:
    """`$BONEAGE_OUTPUTS`, else `outputs` in the current folder."""
    return Path(os.environ.get("BONEAGE_OUTPUTS", "outputs"))


def cache_root() -> Path:
    """`$BONEAGE_CACHE`, else `cache` in the current folder."""
    return Path(os.environ.get("BONEAGE_CACHE", "cache"))


def find_data() -> Path | None:
    """The RSNA radiographs where they usually lie: `$BONEAGE_DATA`, `data` here or one folder up, on Kaggle, on Colab.

    None where there are none; callers then fall back to the phantom and say so.
    """
    named = os.environ.get("BONEAGE_DATA")
    if named:
        return Path(named)
    drive = Path("/content/drive/MyDrive")
    for place in (
        Path("data"),
        Path("../data"),
        Path("../rsna-bone-age"),
        Path("/kaggle/input"),
        drive / "rsna-bone-age",
        drive / "data",
    ):
        for table in (*place.glob("boneage-training-dataset.csv"), *place.glob("*/boneage-training-dataset.csv")):
            return table.parent
    return None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into one clear line.

    Raises
    ------
    BoneageError
        When the disk is full or the place may not be written to.
    """
    try:
        yield
    except PermissionError as error:
        raise BoneageError(f"no permission to write {path}; choose another folder or change its rights") from error
    except OSError as error:
        reason = error.strerror or error
        raise BoneageError(f"could not write {path} ({reason}); free some space or choose another folder") from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Work in `folder`, made if need be, while no other process does; no file is left and a killed process lets go.

    Raises
    ------
    BoneageError
        When another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network disks cannot lock a folder: there, as on Windows, nobody is warned
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BoneageError(
                    f"another process is at work in {folder}; wait for its end, then try again"
                ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; renamed onto `path` when the block ends well, else removed.

    Raises
    ------
    BoneageError
        When the disk is full or the place may not be written to; `path` is then as it was.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, path)
        finally:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                with suppress(OSError):  # never hide the first error behind that of tidying up
                    part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text (UTF-8) atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, table) -> None:
    """Write a DataFrame as CSV without its index, atomically, with six significant digits for floats."""
    with atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
