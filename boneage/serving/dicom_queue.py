"""The node's work on disk: each radiograph is in exactly one place, moved by renames, so that a kill loses nothing.

    waiting/KEY.N.dcm    received, not answered yet; N answers were begun
    answers/KEY/*.dcm    answered, not all of it delivered yet
    done/KEY.txt         finished: when, and how it ended
    failed/KEY.dcm       a program error happened thrice, or the process died of it; send the image again to try again

A key is a digest of the SOP Instance UID. A later place is always written before the earlier one is cleared, and
`Spool` tidies what a kill left between the two.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydicom import Dataset

from boneage.paths import atomic, explained, write_text

MAX_TRIES = 3
REFUSED = "refused"  # how a case ends that may be opened again
PRIVATE_FOLDER = 0o700  # radiographs lie there: nobody else on this machine may look


def key_of(sop_instance_uid: str) -> str:
    """32 hexadecimal digits that stand for an image in file names and in the log."""
    return hashlib.sha256(str(sop_instance_uid).encode()).hexdigest()[:32]


class Spool:
    """A folder of waiting, answered and finished work; for one process at a time (hold `boneage.paths.alone`).

    Parameters
    ----------
    folder
        Made where it is missing, for this user only.

    Raises
    ------
    BoneageError
        When it cannot be written to.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._moving = threading.Lock()  # a folder read while a file is renamed may show neither name
        with explained(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)  # one that is there already may have other tenants
            for place in ("waiting", "answers", "done", "failed"):
                (self.folder / place).mkdir(exist_ok=True)
                (self.folder / place).chmod(PRIVATE_FOLDER)
            self._tidy()

    def put(self, key: str, data: bytes) -> bool:
        """Keep a received file, safe on disk when this returns; False when it was already here or is answered.

        One that was refused is taken again: what was missing in it may have been mended.

        Raises
        ------
        BoneageError
            When the disk is full.
        """
        with self._moving:
            if self._waiting(key) or (self.folder / "answers" / key).exists() or self._answered(key):
                return False
            self._clear(self._done(key))
            _write(self.folder / "waiting" / f"{key}.0.dcm", data)
            (self.folder / "failed" / f"{key}.dcm").unlink(missing_ok=True)
            return True

    def waiting(self) -> list[str]:
        """Keys to answer: the least tried first, then the oldest."""
        files = [(_count(file), file.stat().st_mtime, file.name) for file in self._files("waiting")]
        return [name.split(".")[0] for *_, name in sorted(files)]

    def begin(self, key: str) -> bytes | None:
        """The received file; notes on disk that an answer was begun. None: begun too often, now in `failed`."""
        with self._moving:
            file, tries = self._tries(key)
            if tries >= MAX_TRIES:
                os.replace(file, self.folder / "failed" / f"{key}.dcm")
                return None
            begun = file.with_name(f"{key}.{tries + 1}.dcm")
            os.replace(file, begun)
        return begun.read_bytes()

    def put_back(self, key: str) -> None:
        """The answer that was begun came to nothing through no fault of the image's: it does not count."""
        with self._moving:
            file, tries = self._tries(key)
            os.replace(file, file.with_name(f"{key}.{tries - 1}.dcm"))

    def answer(self, key: str, objects: Iterable[Dataset]) -> None:
        """Keep the answer; the radiograph itself is no longer needed and is removed.

        Raises
        ------
        BoneageError
            When the disk is full; the radiograph then waits on.
        """
        with atomic(self.folder / "answers" / key) as part:
            part.mkdir(mode=PRIVATE_FOLDER)
            for number, item in enumerate(objects):
                item.save_as(part / f"{number}.dcm", enforce_file_format=True)
                _flush(part / f"{number}.dcm")
        _flush(self.folder / "answers")
        self._clear(self._waiting(key))

    def answers(self) -> list[str]:
        """Keys that have something to deliver, the oldest first."""
        folders = (entry for entry in (self.folder / "answers").iterdir() if not entry.name.startswith("."))
        return [folder.name for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime)]

    def objects(self, key: str) -> list[Path]:
        """The files of an answer that are still to be delivered; remove each when it is."""
        return sorted((self.folder / "answers" / key).glob("*.dcm"))

    def finish(self, key: str, how: str) -> None:
        """Close the case: an image with this key will not be answered again, unless `how` begins with `REFUSED`."""
        write_text(self._done(key), f"{datetime.now().isoformat(timespec='seconds')} {how}\n")
        _flush(self._done(key))
        _flush(self.folder / "done")
        self._clear(self._waiting(key))
        shutil.rmtree(self.folder / "answers" / key, ignore_errors=True)

    def _tidy(self) -> None:
        for part in list(self.folder.glob("*/.*.part*")):
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()
        for file in self._files("waiting"):
            key = file.name.split(".")[0]
            if (self.folder / "answers" / key).exists() or self._done(key).exists():
                file.unlink()
        for key in self.answers():
            if self._done(key).exists():
                shutil.rmtree(self.folder / "answers" / key)

    def _files(self, place: str) -> list[Path]:
        return [file for file in (self.folder / place).glob("*.dcm") if not file.name.startswith(".")]

    def _waiting(self, key: str) -> Path | None:
        return next((self.folder / "waiting").glob(f"{key}.*.dcm"), None)

    def _tries(self, key: str) -> tuple[Path, int]:
        file = self._waiting(key)
        return file, _count(file)

    def _answered(self, key: str) -> bool:
        done = self._done(key)
        return done.exists() and not done.read_text(encoding="utf-8").partition(" ")[2].startswith(REFUSED)

    def _done(self, key: str) -> Path:
        return self.folder / "done" / f"{key}.txt"

    @staticmethod
    def _clear(file: Path | None) -> None:
        if file:
            file.unlink(missing_ok=True)


def _count(file: Path) -> int:
    return int(file.name.split(".")[1])


def _write(file: Path, data: bytes) -> None:
    with atomic(file) as part:
        part.write_bytes(data)
        _flush(part)
    _flush(file.parent)


def _flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk: a power cut may follow our confirmation."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
