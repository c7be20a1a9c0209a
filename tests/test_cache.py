"""The prepared cache: whole or resumable, the same bytes however it came about, and all that training needs."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage.data import cache
from boneage.data.decode import decode_grey, read_bytes
from boneage.data.frame import to_square
from boneage.data.phantom import make_dataset
from boneage.errors import BoneageError

FILES = ("cache.json", "images.npy", "index.csv", "rejected.csv")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> Path:
    """24 images, the fourth of them cut in half."""
    root = make_dataset(tmp_path_factory.mktemp("data") / "hands", n=24, height=96)
    victim = sorted(root.rglob("*.png"))[3]
    victim.write_bytes(victim.read_bytes()[:500])
    return root


@pytest.fixture(scope="module")
def finished(spoilt, tmp_path_factory) -> cache.Cache:
    return cache.prepare(spoilt, 48, tmp_path_factory.mktemp("finished") / "hands-48")


# --- what a cache is


def test_a_cache_is_four_files(finished):
    assert sorted(os.listdir(finished.folder)) == sorted(FILES)
    assert finished.images.shape == (24, 48, 48)
    assert finished.images.dtype == np.uint8
    assert isinstance(finished.images, np.memmap)
    assert not finished.images.flags.writeable


def test_an_image_is_the_square_of_its_file(finished, spoilt):
    for row in finished.index.itertuples():
        path = next(spoilt.rglob(f"{row.id}.png"))
        grey = decode_grey(read_bytes(path))
        square, matrix, window = to_square(grey, 48)
        np.testing.assert_array_equal(finished.images[row.row], square)
        assert [row.m00, row.m01, row.m02, row.m10, row.m11, row.m12] == matrix.ravel().tolist()
        assert (row.low, row.high, row.height, row.width) == (*window, *grey.shape)


def test_labels_travel_along(finished, spoilt):
    table = pd.read_csv(spoilt / "boneage-training-dataset.csv", dtype={"id": str}).set_index("id")
    index = finished.index.set_index("id")
    assert len(index) == 23
    assert (index["months"] == table.loc[index.index, "boneage"]).all()
    assert (index["male"] == table.loc[index.index, "male"].astype(int)).all()


def test_a_bad_image_is_left_out_with_its_reason(finished, spoilt):
    rejected = pd.read_csv(finished.folder / "rejected.csv", dtype=str)
    victim = sorted(spoilt.rglob("*.png"))[3].stem
    assert rejected.to_dict("records") == [{"id": victim, "reason": "the image is truncated"}]
    assert victim not in set(finished.index["id"])


def test_rows_come_in_the_order_asked_for(finished):
    ids = finished.index["id"].tolist()[5:2:-1]
    assert finished.rows(ids)["id"].tolist() == ids
    with pytest.raises(BoneageError, match=r"1 images of the split are not in .*, such as nobody"):
        finished.rows([*ids, "nobody"])


# --- a second run


def test_a_second_run_decodes_nothing(finished, spoilt, monkeypatch):
    monkeypatch.setattr(cache, "decode_grey", lambda data: pytest.fail("decoded again"))
    before = contents(finished.folder)
    assert cache.prepare(spoilt, 48, finished.folder).info == finished.info
    assert contents(finished.folder) == before


def test_two_runs_give_the_same_bytes_on_any_number_of_threads(finished, spoilt, tmp_path):
    for workers in (1, 5):
        again = cache.prepare(spoilt, 48, tmp_path / str(workers), workers=workers)
        assert contents(again.folder) == contents(finished.folder)


def test_the_cache_of_other_images_or_another_size_is_not_overwritten(finished, phantom_dir, spoilt):
    for root, size in ((phantom_dir, 48), (spoilt, 64)):
        with pytest.raises(BoneageError, match="holds a cache of other images or settings; remove it"):
            cache.prepare(root, size, finished.folder)


def test_the_fingerprint_knows_labels_files_and_size(tmp_path):
    root = make_dataset(tmp_path / "d", n=4, height=96)
    find = cache.sources.find
    marks = [cache.fingerprint(find(root), 48), cache.fingerprint(find(root), 64)]
    table = root / "boneage-training-dataset.csv"
    table.write_text(table.read_text().replace("True", "False"))
    marks.append(cache.fingerprint(find(root), 48))
    image = next(root.rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"\0")
    marks.append(cache.fingerprint(find(root), 48))
    assert len(set(marks)) == 4
    assert cache.fingerprint(find(shutil.move(root, tmp_path / "moved")), 48) == marks[-1]


# --- killed


KILLED = """
import os, signal, sys, time
from boneage.data import cache
root, folder, moment = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

def after(module, name, when):
    inner = getattr(module, name)
    def wrapped(*args, **kwargs):
        result = inner(*args, **kwargs)
        if when(*args):
            die()
        return result
    setattr(module, name, wrapped)

if moment == "any":
    after(cache, "decode_grey", lambda data: time.sleep(0.1))
elif moment == "room reserved":
    after(cache, "_reserve", lambda path: path.name == "geometry.npy")
elif moment == "rejected written":
    after(cache, "write_csv", lambda path, table: True)
elif moment == "index written":
    after(cache.os, "replace", lambda a, b: str(b).endswith("index.csv"))
elif moment == "images moved":
    after(cache.os, "replace", lambda a, b: str(b).endswith("images.npy"))
elif moment == "all but tidied":
    after(cache, "write_text", lambda path, text: True)
cache.prepare(root, 48, folder)
"""


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", KILLED, *map(str, arguments)], stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "moment", ["room reserved", "rejected written", "index written", "images moved", "all but tidied"]
)
def test_killed_at_any_step_it_resumes_to_the_same_bytes(moment, spoilt, finished, tmp_path):
    folder = tmp_path / "hands-48"
    assert start(spoilt, folder, moment).wait() == -signal.SIGKILL
    assert (folder / "unfinished").exists()
    cache.prepare(spoilt, 48, folder)
    assert contents(folder) == contents(finished.folder)


def test_killed_half_way_it_goes_on_where_it_was(spoilt, finished, tmp_path, monkeypatch):
    folder = tmp_path / "hands-48"
    process, state = start(spoilt, folder, "any"), folder / "unfinished" / "state.npy"
    while process.poll() is None and not ((folder / "unfinished" / "mark").exists() and np.load(state).sum() >= 5):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = (np.load(state) == 1).sum()
    assert 1 <= done < 23
    assert not (folder / "cache.json").exists()
    decoded = []
    monkeypatch.setattr(cache, "decode_grey", lambda data: decoded.append(1) or decode_grey(data))
    cache.prepare(spoilt, 48, folder)
    assert len(decoded) <= 24 - done
    assert contents(folder) == contents(finished.folder)


def test_two_at_a_time_do_not_get_into_each_others_way(spoilt, finished, tmp_path):
    folder = tmp_path / "hands-48"
    process = start(spoilt, folder, "any")
    while process.poll() is None and not (folder / "unfinished" / "mark").exists():
        time.sleep(0.02)
    with pytest.raises(BoneageError, match=r"another process is at work in .*hands-48; wait for its end"):
        cache.prepare(spoilt, 48, folder)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    cache.prepare(spoilt, 48, folder)  # a killed one holds nothing
    assert contents(folder) == contents(finished.folder)


def unfinished(spoilt, folder, monkeypatch) -> Path:
    """Work that an error stopped with every image stored."""
    with monkeypatch.context() as patch:
        patch.setattr(cache._Work, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cache.prepare(spoilt, 48, folder)
    return folder / "unfinished"


@pytest.mark.parametrize("name", ["mark", "images.npy", "geometry.npy", "state.npy"])
@pytest.mark.parametrize("damage", ["gone", "cut", "junk"])
def test_a_damaged_beginning_is_begun_anew(name, damage, spoilt, finished, tmp_path, monkeypatch):
    folder = tmp_path / "hands-48"
    victim = unfinished(spoilt, folder, monkeypatch) / name
    if damage == "gone":
        victim.unlink()
    else:
        data = victim.read_bytes()
        victim.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\xff\0junk" * 50)
    cache.prepare(spoilt, 48, folder)
    assert contents(folder) == contents(finished.folder)


def test_the_beginning_of_another_cache_is_thrown_away(spoilt, finished, phantom_dir, tmp_path, monkeypatch):
    folder = tmp_path / "hands-48"
    unfinished(phantom_dir, folder, monkeypatch)
    cache.prepare(spoilt, 48, folder)
    assert contents(folder) == contents(finished.folder)


# --- bad images, few and many


def test_more_than_one_in_twenty_bad_images_stop_it_and_mending_them_is_enough(tmp_path):
    root = make_dataset(tmp_path / "hands", n=30, height=96)
    victims = sorted(root.rglob("*.png"))[:2]
    whole = [v.read_bytes() for v in victims]
    for victim, data in zip(victims, whole, strict=True):
        victim.write_bytes(bytes(len(data)))  # of the same size, so that the fingerprint stays
    with pytest.raises(BoneageError, match=r"2 of 30 images are bad, more than 5%; see .*rejected\.csv, mend them"):
        cache.prepare(root, 48, tmp_path / "c")
    assert len(pd.read_csv(tmp_path / "c" / "rejected.csv")) == 2
    for victim, data in zip(victims, whole, strict=True):
        victim.write_bytes(data)
    assert len(cache.prepare(root, 48, tmp_path / "c").index) == 30


def test_bad_rows_and_bad_images_are_listed_together(tmp_path):
    root = make_dataset(tmp_path / "hands", n=40, height=96)
    table = root / "boneage-training-dataset.csv"
    table.write_text(table.read_text() + "absent,100,True\n")
    victim = sorted(root.rglob("*.png"))[7]
    victim.write_bytes(b"")
    made = cache.prepare(root, 48, tmp_path / "c")
    rejected = pd.read_csv(made.folder / "rejected.csv").astype(str).set_index("id")["reason"]
    assert list(rejected.index) == ["absent", victim.stem]
    assert "missing image" in rejected["absent"]
    assert "0 bytes" in rejected[victim.stem]
    assert (made.info["images"], made.info["rejected"]) == (39, 2)


def test_ids_survive_as_they_are(tmp_path):
    root = tmp_path / "d"
    root.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (40, 30), np.uint8)
    ids = ["my hand 7", "007", "NA", "1e3"]
    for ident in ids:
        cv2.imwrite(str(root / f"{ident}.png"), picture)
    (root / "t.csv").write_text("id,boneage,male\n" + "".join(f"{i},100,1\n" for i in ids))
    assert cache.prepare(root, 32, tmp_path / "c").index["id"].tolist() == ids


def test_a_test_set_without_ages(tmp_path):
    root = make_dataset(tmp_path / "d", n=4, height=96, with_test=5)
    (root / "boneage-training-dataset.csv").unlink()
    made = cache.prepare(root, 48, tmp_path / "c")
    assert len(made.index) == 5
    assert made.index["months"].isna().all()
    assert set(made.index["subset"]) == {"test"}


# --- opening


def test_a_cache_is_portable(tmp_path):
    root = make_dataset(tmp_path / "hands", n=4, height=96)
    made = cache.prepare(root, 48, tmp_path / "a" / "c")
    images = np.array(made.images)
    shutil.move(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(root)
    moved = cache.open_cache(tmp_path / "b" / "c")
    np.testing.assert_array_equal(moved.images, images)
    assert (moved.size, moved.phantom) == (48, True)
    assert str(tmp_path) not in (tmp_path / "b" / "c" / "cache.json").read_text()


def test_a_folder_is_prepared_on_first_use_and_a_cache_taken_as_it_is(finished, spoilt):
    made = cache.open_or_prepare(spoilt, 32)
    assert made.folder == cache.cache_root() / "hands-32"
    assert cache.open_or_prepare(finished.folder, 40).folder == finished.folder


def test_a_cache_that_is_too_small(finished):
    with pytest.raises(BoneageError, match=r"holds 48 px, training asks for 64 px; prepare one of 64 px or more"):
        cache.open_or_prepare(finished.folder, 64)


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["cache.json", "index.csv", "images.npy"])
@pytest.mark.parametrize(
    ("damage", "message"), [("gone", "is not a finished cache; make it"), ("cut", "is a damaged cache")]
)
def test_a_damaged_cache(copy, name, damage, message):
    victim = copy / name
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:40] if name != "index.csv" else b"")
    with pytest.raises(BoneageError, match=message):
        cache.open_cache(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"format": 0}, "has cache format 0, expected 1; prepare it again"), ({"size": 64}, r"cache\.json says 64 px")],
)
def test_a_cache_that_contradicts_itself(copy, changes, message):
    info = json.loads((copy / "cache.json").read_text())
    (copy / "cache.json").write_text(json.dumps(info | changes))
    with pytest.raises(BoneageError, match=message):
        cache.open_cache(copy)


# --- no room, no right to write


def test_no_room_is_seen_before_the_work_begins(spoilt, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(BoneageError, match=r"hands needs 0 MB, the disk has 0 MB free"):
        cache.prepare(spoilt, 48, tmp_path / "hands")
    assert list((tmp_path / "hands").rglob("*.npy")) == []


def test_a_disk_that_fills_up_meanwhile(spoilt, finished, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((os, "posix_fallocate"), (pd.DataFrame, "to_csv")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(BoneageError, match=r"could not write .*\(No space left on device\); free some space"):
                cache.prepare(spoilt, 48, tmp_path / "hands")
    cache.prepare(spoilt, 48, tmp_path / "hands")
    assert contents(tmp_path / "hands") == contents(finished.folder)


def test_no_right_to_write(spoilt, finished, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(BoneageError, match=r"no permission to write .*; choose another folder"):
            cache.prepare(spoilt, 48, tmp_path / "hands")
    unfinished(spoilt, tmp_path / "hands", monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(cache._Work, "_open", refuse)
        with pytest.raises(BoneageError, match=r"no permission to write .*; choose another folder"):
            cache.prepare(spoilt, 48, tmp_path / "hands")
    cache.prepare(spoilt, 48, tmp_path / "hands")
    assert contents(tmp_path / "hands") == contents(finished.folder)


def test_a_file_where_the_folder_should_be(spoilt, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BoneageError, match="could not write"):
        cache.prepare(spoilt, 48, tmp_path / "file" / "hands")
