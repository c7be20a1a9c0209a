"""Find radiographs and their labels in a folder, whichever of the public layouts it has."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd

from boneage.data.decode import ARCHIVE_MARK, EXTENSIONS
from boneage.errors import BoneageError
from boneage.labels import parse_months, parse_sex

# Column names of the Kaggle copy, of RSNA's own three archives and of a plain table, lower case.
ID_COLUMNS = ("id", "image id", "case id")
PATH_COLUMN = "path"
TEST_ID, TEST_MONTHS = "case id", "ground truth bone age (months)"  # as only the official test tables say
MONTHS_COLUMNS = ("boneage", "bone age (months)", TEST_MONTHS, "reference_months")
SEX_COLUMNS = ("male", "sex", "gender")
TABLES = (".csv", ".xlsx")
TABLE_DEPTH = 3  # parts of a table's path below the root: itself and at most two folders
PHANTOM_MARK = "PHANTOM.json"


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
        No such folder, no usable table, no image at all, an archive that is encrypted, damaged or holds archives.
    """
    root = Path(root)
    if not root.is_dir():
        raise BoneageError(
            f"no folder at {root}; see docs/data.md for where the radiographs come from and how to lay them out"
        )
    files = [p for p in sorted(root.rglob("*")) if not p.name.startswith((".", "~$"))]  # what systems and Excel leave
    images = _index_images(files, root)
    if not images:
        raise BoneageError(
            f"no image in {root} or below; expected files named <id> with one of {', '.join(EXTENSIONS)}"
        )
    rows, problems = {}, []
    for path, table in _tables(files, root):
        _read_rows(path, table, root, images, rows, problems)
    if not rows and not problems:
        raise BoneageError(
            f"no usable table in {root}; expected a CSV with columns id (or path), boneage and male (or sex), such as "
            "boneage-training-dataset.csv, not inside an archive"
        )
    return Source(
        root,
        pd.DataFrame(list(rows.values()), columns=["id", "path", "months", "male", "subset"]),
        pd.DataFrame(problems, columns=["id", "problem"]),
        (root / PHANTOM_MARK).exists(),
    )


def _index_images(files: list[Path], root: Path) -> dict[str, list[str]]:
    """Image id (file stem) -> the files that bear it."""
    found: dict[str, list[str]] = {}
    for path in files:
        suffix = path.suffix.lower()
        if suffix in EXTENSIONS:
            found.setdefault(path.stem, []).append(str(path))
        elif suffix == ".zip" and path.is_file():
            try:
                with ZipFile(path) as archive:
                    members = archive.infolist()
            except (BadZipFile, OSError) as error:
                raise BoneageError(f"{path} is not a readable zip archive ({error}); download it again") from error
            if any(m.flag_bits & 1 for m in members):
                raise BoneageError(f"{path} is encrypted; unpack it with its password into {root} first")
            for member in members:
                name = Path(member.filename)
                if name.name.startswith("."):
                    continue
                if name.suffix.lower() == ".zip":
                    raise BoneageError(f"{path} holds a further archive, {name.name}; unpack {path.name} and remove it")
                if name.suffix.lower() in EXTENSIONS:
                    found.setdefault(name.stem, []).append(f"{path}{ARCHIVE_MARK}{member.filename}")
    return found


def _tables(files: list[Path], root: Path) -> Iterator[tuple[Path, pd.DataFrame]]:
    for path in files:
        if path.suffix.lower() not in TABLES or len(path.relative_to(root).parts) > TABLE_DEPTH:
            continue
        read = pd.read_csv if path.suffix.lower() == ".csv" else pd.read_excel
        try:
            table = read(path, dtype=str, keep_default_na=False)  # an id may be "NA"
        except pd.errors.EmptyDataError as error:
            raise BoneageError(f"{path} is empty; expected columns id, boneage, male") from error
        except (ValueError, OSError, BadZipFile) as error:
            raise BoneageError(f"{path} is not a readable table ({error})") from error
        table.columns = [str(c).strip().lower() for c in table.columns]
        yield path, table


def _column(table: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    return next((c for c in table.columns if c in names), None)


def _subset(path: Path, root: Path, ident: str, months: str | None) -> str:
    """By what only a test table has, else by the name nearest to the table that tells."""
    if months in (None, TEST_MONTHS) or ident == TEST_ID:
        return "test"
    for name in reversed(path.relative_to(root).parts):
        for subset, word in (("test", "test"), ("validation", "valid"), ("train", "train")):
            if re.search(rf"(?<![A-Za-z]){word}|{word.capitalize()}|{word.upper()}", name):  # not "latest"
                return subset
    return "train"


def _read_rows(path: Path, table: pd.DataFrame, root: Path, images: dict, rows: dict, problems: list) -> None:
    """Add the table's rows to `rows` (by id) and what is wrong with others to `problems`."""
    ident, months, sex = (_column(table, names) for names in (ID_COLUMNS, MONTHS_COLUMNS, SEX_COLUMNS))
    where = _column(table, (PATH_COLUMN,))
    ident = ident or where
    if ident is None or sex is None:
        if months is not None or "dataset" in path.name:
            raise BoneageError(
                f"{path} lacks an id or a sex column; expected id (or path), boneage, male (or sex). "
                f"Received: {', '.join(table.columns)}"
            )
        return  # a table about something else
    if len(table) == 0:
        raise BoneageError(f"{path} has no rows; expected one row an image")
    subset = _subset(path, root, ident, months)
    seen = set()
    for record in table.to_dict("records"):
        cell = Path(str(record[ident]).strip())
        label = cell.stem if cell.suffix.lower() in EXTENSIONS else cell.name
        try:
            if not label:
                raise BoneageError("empty id")
            row = {"id": label, "male": parse_sex(record[sex]), "subset": subset}
            row["months"] = np.nan if months is None else parse_months(record[months])
            row["path"] = _find_file(root / record[where].strip()) if where else _find_image(label, images)
            if label in seen or not _completes(rows.get(label), row):
                raise BoneageError("duplicate id")
            rows.setdefault(label, row).update(row if months else {})
        except BoneageError as error:
            problems.append({"id": label, "problem": str(error)})
        seen.add(label)


def _completes(earlier: dict | None, row: dict) -> bool:
    """Whether a row is new, or the same test image in a second table (Kaggle's lacks the age, RSNA's has it)."""
    if earlier is None:
        return True
    same = all(earlier[k] == row[k] for k in ("male", "path")) and earlier["subset"] == row["subset"] == "test"
    return same and np.isnan([earlier["months"], row["months"]]).any()


def _find_file(path: Path) -> str:
    if not path.is_file():
        raise BoneageError(f"missing image: no file at {path}")
    return str(path)


def _find_image(label: str, images: dict) -> str:
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
