"""Find radiographs and their labels in a folder, whichever of the public layouts it has."""

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd

from boneage.data.decode import ARCHIVE_MARK, EXTENSIONS
from boneage.errors import BoneageError
from boneage.labels import parse_months, parse_sex

# Column names of the Kaggle copy, of RSNA's own three archives and of a plain table, lower case.
ID_COLUMNS = ("id", "image id", "case id", "path")
MONTHS_COLUMNS = ("boneage", "bone age (months)", "ground truth bone age (months)", "reference_months")
SEX_COLUMNS = ("male", "sex", "gender")
PHANTOM_MARK = "PHANTOM.json"
TABLE_DEPTH = 3  # folders below the root in which a table may lie


@dataclass(frozen=True)
class Source:
    """What was found in a folder.

    Attributes
    ----------
    root
        The folder.
    table
        One row an image, in file order: `id` (str), `path` (str, may name a zip member), `months` (float, NaN in a
        test table without ages), `male` (0 or 1), `subset` ("train", "validation" or "test").
    problems
        One row a problem: `id`, `problem`. Rows of `table` have none.
    phantom
        Whether the folder is marked as synthetic.
    """

    root: Path
    table: pd.DataFrame
    problems: pd.DataFrame
    phantom: bool


def find(root: str | Path) -> Source:
    """Look into `root` for tables and images.

    Raises
    ------
    BoneageError
        No such folder, no usable table, no image at all, an encrypted archive.
    """
    root = Path(root)
    if not root.is_dir():
        raise BoneageError(f"no folder at {root}; see docs/data.md for where the radiographs come from and how to lay them out")
    images = _index_images(root)
    if not images:
        raise BoneageError(f"no image in {root} or below; expected files named <id> with one of {', '.join(EXTENSIONS)}")
    rows, problems = [], []
    for path, table in _tables(root):
        _read_rows(path, table, root, images, rows, problems)
    if not rows and not problems:
        raise BoneageError(
            f"no usable table in {root}; expected a CSV with columns id (or path), boneage and male (or sex), such as "
            "boneage-training-dataset.csv"
        )
    return Source(
        root,
        pd.DataFrame(rows, columns=["id", "path", "months", "male", "subset"]),
        pd.DataFrame(problems, columns=["id", "problem"]),
        (root / PHANTOM_MARK).exists(),
    )


def _index_images(root: Path) -> dict[str, list[str]]:
    """Image id (file stem) -> the files that bear it."""
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        suffix = path.suffix.lower()
        if suffix in EXTENSIONS:
            found.setdefault(path.stem, []).append(str(path))
        elif suffix == ".zip":
            try:
                with ZipFile(path) as archive:
                    members = archive.infolist()
            except (BadZipFile, OSError) as error:
                raise BoneageError(f"{path} is not a readable zip archive ({error}); download it again") from error
            if any(m.flag_bits & 1 for m in members):
                raise BoneageError(f"{path} is encrypted; unpack it with its password into {root} first")
            for member in members:
                name = Path(member.filename)
                if name.suffix.lower() in EXTENSIONS and not name.name.startswith("._"):
                    found.setdefault(name.stem, []).append(f"{path}{ARCHIVE_MARK}{member.filename}")
    return found


def _tables(root: Path):
    paths = [p for p in sorted(root.rglob("*")) if p.suffix.lower() in (".csv", ".xlsx")]
    for path in paths:
        if len(path.relative_to(root).parts) > TABLE_DEPTH:
            continue
        try:
            table = pd.read_csv(path, dtype=str) if path.suffix.lower() == ".csv" else pd.read_excel(path, dtype=str)
        except pd.errors.EmptyDataError as error:
            raise BoneageError(f"{path} is empty; expected columns id, boneage, male") from error
        except (ValueError, OSError) as error:
            raise BoneageError(f"{path} is not a readable table ({error})") from error
        table.columns = [str(c).strip().lower() for c in table.columns]
        yield path, table


def _column(table: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((c for c in table.columns if c in names), None)


def _read_rows(path: Path, table: pd.DataFrame, root: Path, images: dict, rows: list, problems: list) -> None:
    ident, months, sex = (_column(table, names) for names in (ID_COLUMNS, MONTHS_COLUMNS, SEX_COLUMNS))
    if ident is None or sex is None:
        if months is not None or "dataset" in path.name:
            raise BoneageError(
                f"{path} lacks an id or a sex column; expected id (or path), boneage, male (or sex). "
                f"Received: {', '.join(table.columns)}"
            )
        return  # a table about something else
    if len(table) == 0:
        raise BoneageError(f"{path} has no rows; expected one row an image")
    name = path.name.lower()
    subset = "test" if "test" in name or months is None else "validation" if "valid" in name else "train"
    seen = {r["id"] for r in rows}
    for record in table.to_dict("records"):
        key = "" if pd.isna(record[ident]) else str(record[ident]).strip()
        label = Path(key).stem if ident == "path" else key.removesuffix(".png")
        try:
            if not label:
                raise BoneageError("empty id")
            if label in seen:
                raise BoneageError("duplicate id")
            seen.add(label)
            row = {"id": label, "male": parse_sex(record[sex]), "subset": subset}
            row["months"] = np.nan if months is None else parse_months(record[months])
            row["path"] = _find_image(root, key, label, images)
            rows.append(row)
        except BoneageError as error:
            problems.append({"id": label, "problem": str(error)})


def _find_image(root: Path, key: str, label: str, images: dict) -> str:
    if (root / key).is_file():
        return str(root / key)
    files = images.get(label, [])
    if not files:
        raise BoneageError(f"missing image: no file named {label} with one of {', '.join(EXTENSIONS)}")
    if len(files) > 1:
        raise BoneageError(f"{len(files)} images bear this id: {', '.join(files[:3])}")
    return files[0]


def phantom_note(root: Path) -> dict:
    """What `PHANTOM.json` says, {} where there is none."""
    mark = Path(root) / PHANTOM_MARK
    return json.loads(mark.read_text()) if mark.exists() else {}
