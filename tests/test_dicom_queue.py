"""The spool: whatever moment the process dies at, an image is answered once, and what was confirmed is kept."""

import os
import shutil
import stat
from pathlib import Path

import pydicom
import pytest
from dicom_hands import FakeAnswer, hand_dicom

from boneage.errors import BoneageError
from boneage.serving import dicom_queue
from boneage.serving.dicom_queue import MAX_TRIES, REFUSED, Spool, key_of

KEY = key_of("1.2.3")


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is tidied after it."""


def report(number: int = 7) -> pydicom.Dataset:
    dicom = pydicom.Dataset()
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dicom.SOPClassUID, dicom.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.33", f"2.25.{number}"
    return dicom


def work(spool: Spool, delivered: list[str], answered: list[str]) -> None:
    """What the node does with all that lies in a spool."""
    for key in spool.waiting():
        if spool.begin(key) is not None:
            spool.answer(key, [report(7), report(8)])
            answered.append(key)
    for key in spool.answers():
        for file in spool.objects(key):
            delivered.append(pydicom.dcmread(file).SOPInstanceUID)
            file.unlink()
        spool.finish(key, "answered and delivered")


def test_an_image_goes_from_waiting_to_answers_to_done(tmp_path):
    spool = Spool(tmp_path / "spool")
    assert spool.put(KEY, b"image")
    assert spool.waiting() == [KEY]
    assert spool.begin(KEY) == b"image"
    spool.answer(KEY, [report()])
    assert (spool.waiting(), spool.answers(), len(spool.objects(KEY))) == ([], [KEY], 1)
    spool.finish(KEY, "answered and delivered")
    assert (spool.waiting(), spool.answers()) == ([], [])
    assert (tmp_path / "spool" / "done" / f"{KEY}.txt").read_text().endswith(" answered and delivered\n")
    assert not list((tmp_path / "spool").rglob("*.dcm"))  # nothing of the patient stays


@pytest.mark.parametrize("stage", ["waiting", "answered", "done"])
def test_a_known_image_is_not_taken_again(tmp_path, stage):
    spool = Spool(tmp_path)
    spool.put(KEY, b"image")
    if stage != "waiting":
        spool.begin(KEY)
        spool.answer(KEY, [report()])
    if stage == "done":
        spool.finish(KEY, "delivered")
    assert not spool.put(KEY, b"image")
    assert not Spool(tmp_path).put(KEY, b"image")


def test_what_was_refused_may_come_again(tmp_path):
    spool = Spool(tmp_path)
    spool.put(KEY, b"without a sex")
    spool.begin(KEY)
    spool.finish(KEY, f"{REFUSED} (sex_missing): sex missing")
    assert spool.put(KEY, b"with one")
    assert Spool(tmp_path).begin(KEY) == b"with one"
    assert list((tmp_path / "done").iterdir()) == []


def test_names_in_the_spool_do_not_tell_the_uid_and_others_may_not_look(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.put(key_of("1.2.826.0.1"), b"image")
    assert all("1.2.826" not in str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in tmp_path.rglob("*") if path.is_dir())


def test_a_folder_that_was_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    Spool(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o700}


def test_an_image_that_fails_every_time_is_set_aside_and_may_be_sent_again(tmp_path):
    spool = Spool(tmp_path)
    spool.put(KEY, b"image")
    for _ in range(MAX_TRIES):
        assert Spool(tmp_path).begin(KEY) == b"image"  # each time in a process that did not survive it
    assert spool.begin(KEY) is None
    assert (spool.waiting(), (tmp_path / "failed" / f"{KEY}.dcm").read_bytes()) == ([], b"image")
    assert spool.put(KEY, b"image")
    assert spool.waiting() == [KEY]
    assert not list((tmp_path / "failed").iterdir())


def test_what_was_put_back_does_not_count_as_tried(tmp_path):
    spool = Spool(tmp_path)
    spool.put(KEY, b"image")
    for _ in range(3 * MAX_TRIES):
        assert spool.begin(KEY) == b"image"
        spool.put_back(KEY)


def test_the_least_tried_comes_first_then_the_oldest(tmp_path):
    spool = Spool(tmp_path)
    for age, key in ((30, "a"), (20, "b"), (10, "c")):
        spool.put(key, b"")
        os.utime(next((tmp_path / "waiting").glob(f"{key}.*")), (1e9 - age, 1e9 - age))
    spool.begin("a")
    assert spool.waiting() == ["b", "c", "a"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    spool = Spool(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dicom_queue, "_flush", full)
        with pytest.raises(BoneageError, match="No space left"):
            spool.put(KEY, b"image")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert spool.put(KEY, b"image")


def count_of_steps(monkeypatch, kill_at: int | None = None) -> list:
    """Make every change that the spool makes on disk a step, and die just before step number `kill_at`."""
    steps = []

    def killing(function):
        def step(*args, **kwargs):
            if len(steps) == kill_at:
                raise Killed
            steps.append(function.__name__)
            return function(*args, **kwargs)

        return step

    monkeypatch.setattr(os, "replace", killing(os.replace))
    monkeypatch.setattr(Path, "unlink", killing(Path.unlink))
    monkeypatch.setattr(Path, "write_bytes", killing(Path.write_bytes))
    monkeypatch.setattr(Path, "mkdir", killing(Path.mkdir))
    monkeypatch.setattr(pydicom.Dataset, "save_as", killing(pydicom.Dataset.save_as))
    monkeypatch.setattr(shutil, "rmtree", killing(shutil.rmtree))
    return steps


def test_a_kill_before_any_step_loses_nothing_and_answers_nothing_twice(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        steps = count_of_steps(patch)
        spool = Spool(tmp_path / "whole")
        spool.put(KEY, b"image")
        work(spool, [], [])
    assert len(steps) > 15
    for moment in range(len(steps)):
        folder, delivered, answered, confirmed = tmp_path / str(moment), [], [], []

        def life(folder=folder, delivered=delivered, answered=answered, confirmed=confirmed):
            spool = Spool(folder)
            confirmed.append(spool.put(KEY, b"image"))
            work(spool, delivered, answered)

        with monkeypatch.context() as patch:
            count_of_steps(patch, kill_at=moment)
            with pytest.raises(Killed):
                life()
        spool = Spool(folder)
        if not confirmed:
            spool.put(KEY, b"image")  # a sender that got no answer sends again
        work(spool, delivered, answered)
        assert set(delivered) == {"2.25.7", "2.25.8"}, moment
        assert len(delivered) in (2, 3), moment  # the one on its way at the kill goes out again, the same object
        assert len(answered) <= 1, moment
        assert not list(folder.rglob("*.dcm")), moment
        assert not spool.put(KEY, b"image"), moment


def test_answers_read_back_as_they_were_made(tmp_path):
    from boneage.serving.dicom_report import build

    source = pydicom.dcmread(pydicom.filebase.DicomBytesIO(hand_dicom()), stop_before_pixels=True)
    spool = Spool(tmp_path)
    spool.put(KEY, b"image")
    made = build(source, FakeAnswer())
    spool.answer(KEY, made)
    read = [pydicom.dcmread(file) for file in spool.objects(KEY)]
    assert [item.SOPInstanceUID for item in read] == [item.SOPInstanceUID for item in made]
    assert read[1].PixelData == made[1].PixelData
