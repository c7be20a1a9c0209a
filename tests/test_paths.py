"""Files are written whole or not at all, and what stands in the way is said in one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from boneage import paths
from boneage.errors import BoneageError


def half_written(path: Path):
    path.parent.mkdir(exist_ok=True)
    path.write_text("half")
    raise ZeroDivisionError


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    target = tmp_path / "new folder" / "table.csv"
    with paths.atomic(target) as part:
        assert part.parent == target.parent  # a rename across file systems would not be atomic
        assert part.suffix == ".csv"  # writers look at it
        part.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["table.csv"]


def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), paths.atomic(target) as part:
        half_written(part)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_kill_leaves_the_old_file(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    script = (
        "import os, signal, sys; from boneage.paths import atomic\n"
        "with atomic(sys.argv[1]) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, target], check=False).returncode == -9
    assert target.read_text() == "old"


def test_a_folder_can_be_written_too(tmp_path):
    with paths.atomic(tmp_path / "run") as part:
        part.mkdir()
        (part / "a").write_text("1")
    assert (tmp_path / "run" / "a").read_text() == "1"
    with pytest.raises(ZeroDivisionError), paths.atomic(tmp_path / "other") as part:
        half_written(part / "a")
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("below", ["report.html", "folder/report.html"])
def test_a_file_where_a_folder_is_needed(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(BoneageError, match=r"could not write .*report\.html"):
        paths.write_text(tmp_path / "file" / below, "x")


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BoneageError, match=r"no permission to write .*a\.txt; choose another folder"):
        paths.write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == []


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BoneageError, match=r"could not write .*a\.txt \(No space left on device\); free some space"):
        paths.write_text(tmp_path / "a.txt", "x")


def test_tables_are_written_without_index_with_six_digits(tmp_path):
    paths.write_csv(tmp_path / "t.csv", pd.DataFrame({"id": ["a b"], "months": [1 / 3]}))
    assert (tmp_path / "t.csv").read_bytes() == b"id,months\na b,0.333333\n"


def test_places_come_from_the_environment_when_used(monkeypatch):
    monkeypatch.setenv("BONEAGE_OUTPUTS", "/some/where")
    assert paths.outputs_root() == Path("/some/where")
    monkeypatch.delenv("BONEAGE_OUTPUTS")
    monkeypatch.delenv("BONEAGE_CACHE")
    assert (paths.outputs_root(), paths.cache_root()) == (Path("outputs"), Path("cache"))
