"""Bad input at the command line: one clear line, exit code 2, no traceback, nothing lost."""

import errno
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pandas as pd
import pytest

HEADER = "id,boneage,male\n"


@pytest.fixture
def boneage(boneage):
    """`boneage(*arguments)` -> exit code, standard output, lines of the error."""

    def run(*arguments):
        code, out, err = boneage(*arguments)
        return code, out, [line for line in err.splitlines() if line.startswith("error") or "Traceback" in line]

    return run


@pytest.fixture
def root(phantom_dir, tmp_path) -> Path:
    """A folder of 60 images, to be spoilt."""
    return Path(shutil.copytree(phantom_dir, tmp_path / "hands"))


def first_image(root: Path) -> Path:
    return sorted(root.rglob("*.png"))[0]


def encrypt(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(bytes(data))


# --- the folder as a whole


def missing_folder(root):
    shutil.rmtree(root)


def empty_table(root):
    (root / "boneage-training-dataset.csv").write_text("")


def rows_missing(root):
    (root / "boneage-training-dataset.csv").write_text(HEADER)


def wrong_columns(root):
    (root / "boneage-training-dataset.csv").write_text("name,age\n1,100\n")


def no_images(root):
    for path in root.rglob("*.png"):
        path.unlink()


def encrypted_archive(root):
    with ZipFile(root / "more.zip", "w") as archive:
        archive.writestr("9999.png", b"x")
    encrypt(root / "more.zip")


def archive_in_archive(root):
    with ZipFile(root / "more.zip", "w") as archive:
        archive.writestr("inner.zip", b"x")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing_folder, "no folder at"),
        (empty_table, "boneage-training-dataset.csv is empty; expected columns id, boneage, male"),
        (rows_missing, "boneage-training-dataset.csv has no rows; expected one row an image"),
        (
            wrong_columns,
            "lacks an id or a sex column; expected id (or path), boneage, male (or sex). Received: name, age",
        ),
        (no_images, "expected files named <id> with one of .png"),
        (encrypted_archive, "more.zip is encrypted; unpack it with its password"),
        (archive_in_archive, "more.zip holds a further archive, inner.zip; unpack more.zip and remove it"),
    ],
)
@pytest.mark.parametrize("command", ["check", "prepare"])
def test_a_folder_that_cannot_be_used(boneage, root, spoil, message, command):
    spoil(root)
    code, _, lines = boneage("data", command, root, *(["--size", "48"] if command == "prepare" else []))
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]


# --- single images: listed by id, the rest goes on


def truncated(path):
    path.write_bytes(path.read_bytes()[:700])


def zero_bytes(path):
    path.write_bytes(b"")


def one_pixel(path):
    cv2.imwrite(str(path), np.zeros((1, 1), np.uint8))


def too_wide(path):
    cv2.imwrite(str(path), np.zeros((16, 20_000), np.uint8))


def black(path):
    cv2.imwrite(str(path), np.zeros((96, 76), np.uint8))


def no_pixels(path):
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, "1.2.3"
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.unlink()
    pydicom.dcmwrite(path.with_suffix(".dcm"), made, enforce_file_format=True)


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def not_there(path):
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "the image is truncated"),
        (zero_bytes, "the file is empty (0 bytes)"),
        (one_pixel, "image sides must lie in 16..16384 px. Received: 1 x 1"),
        (too_wide, "image sides must lie in 16..16384 px. Received: 20000 x 16"),
        (black, "the image is empty: its middle holds one grey level (0)"),
        (no_pixels, "the DICOM file holds no pixels"),
        (pointer, "the file is a Git LFS pointer, not the image; run `git lfs pull`"),
        (not_there, "missing image: no file named"),
    ],
)
def test_one_bad_image_is_reported_by_id_and_stops_nothing(boneage, root, tmp_path, spoil, message):
    victim = first_image(root)
    spoil(victim)
    code, out, lines = boneage("data", "check", root)
    assert (code, lines) == (1, [])
    assert f"  {victim.stem}: {message}" in out
    assert "59 usable images, 1 problems" in out
    code, out, lines = boneage("data", "prepare", root, "--size", 48, "--out", tmp_path / "c")
    assert (code, lines) == (0, [])
    assert "59 images of 48 px, 1 rejected" in out
    rejected = pd.read_csv(tmp_path / "c" / "rejected.csv", dtype=str)
    assert rejected["id"].tolist() == [victim.stem]
    assert rejected["reason"].item().startswith(message)


@pytest.mark.parametrize("age", ["-1", "NaN", "400", "", "ten"])
def test_one_bad_age_is_reported_by_id_and_stops_nothing(boneage, root, age):
    table = root / "boneage-training-dataset.csv"
    rows = table.read_text().splitlines()
    ident, _, male = rows[5].split(",")
    rows[5] = f"{ident},{age},{male}"
    table.write_text("\n".join(rows) + "\n")
    code, out, lines = boneage("data", "check", root)
    assert (code, lines) == (1, [])
    assert f"  {ident}: bone age must be a number of months above 0 and at most 240. Received: '{age}'" in out


def test_a_cmyk_jpeg_and_an_id_with_spaces_are_no_problem(boneage, root):
    from PIL import Image

    victim = first_image(root)
    Image.open(victim).convert("CMYK").save(victim.with_name("my hand 7.jpg"))
    table = root / "boneage-training-dataset.csv"
    table.write_text(table.read_text().replace(f"\n{victim.stem},", "\nmy hand 7,"))
    code, out, _ = boneage("data", "check", root)
    assert code == 0
    assert "60 usable images, 0 problems" in out


# --- where the cache goes


def test_a_cache_of_another_size_is_not_overwritten(boneage, root, tmp_path):
    assert boneage("data", "prepare", root, "--size", 32, "--out", tmp_path / "c")[0] == 0
    before = (tmp_path / "c" / "images.npy").read_bytes()
    code, _, lines = boneage("data", "prepare", root, "--size", 64, "--out", tmp_path / "c")
    assert code == 2
    assert len(lines) == 1
    assert "holds a cache of other images or settings; remove it or choose another folder with --out" in lines[0]
    assert (tmp_path / "c" / "images.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "no permission to write"),
        (OSError(errno.ENOSPC, "No space left on device"), "(No space left on device); free some space"),
    ],
)
def test_a_place_that_cannot_be_written(boneage, root, tmp_path, monkeypatch, error, message):
    def refuse(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        code, _, lines = boneage("data", "prepare", root, "--size", 32, "--out", tmp_path / "c")
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert boneage("data", "prepare", root, "--size", 32, "--out", tmp_path / "c")[0] == 0


def test_more_than_one_image_in_twenty_bad(boneage, root, tmp_path):
    for path in sorted(root.rglob("*.png"))[:4]:
        path.write_bytes(b"")
    code, _, lines = boneage("data", "prepare", root, "--size", 32, "--out", tmp_path / "c")
    assert code == 2
    assert len(lines) == 1
    assert "4 of 60 images are bad, more than 5%; see" in lines[0]
