"""The DICOM node: radiographs come in by C-STORE, answers go out to one peer; three loops meet in a `Spool` on disk.

Nothing is confirmed to a sender before it is on disk, and nothing leaves the disk before the peer has confirmed it.
The log has no names, numbers or UIDs: an image is called by the first digits of its key (`dicom_queue.key_of`).
"""

import io
import logging
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom
from pynetdicom import evt

from boneage.errors import BoneageError
from boneage.paths import alone
from boneage.serving.dicom_queue import REFUSED, Spool, key_of
from boneage.serving.dicom_report import build
from boneage.serving.dicom_settings import Settings
from boneage.serving.dicom_wire import OUT_OF_RESOURCES, Declined, Unreachable, close, deliver, listen

# C-STORE statuses, PS3.4 table B.2-1
SUCCESS, NOT_OF_ITS_CLASS, NOT_UNDERSTOOD = 0x0000, 0xA900, 0xC000
NO_ROOM = "the spool cannot be read or written; is the disk full, or the folder gone?"

log = logging.getLogger("boneage.dicom")


class Node:
    """A node at work between `listen` and `stop`; its spool must be held alone (`boneage.paths.alone`).

    Parameters
    ----------
    settings
        Addresses, filter, times.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.spool = Spool(settings.spool)
        self._stopping = threading.Event()
        self._received, self._answered = threading.Event(), threading.Event()
        self._failures, self._not_before = Counter(), {}
        self._threads, self._entity = [], None

    def listen(self) -> int:
        """Take images into the spool from now on; the port.

        Raises
        ------
        BoneageError
            When the port is taken, or the address is not this machine's.
        """
        self._entity, port = listen(self.settings, self._store)
        return port

    def start(self, predictor: Callable) -> None:
        """Answer what waits and deliver what is answered, from now on.

        Parameters
        ----------
        predictor
            A `Predictor`: called with the bytes of a DICOM file and None, which means "the sex in the file".
        """
        for name, wake, step in (
            ("answer", self._received, lambda: self._answer_all(predictor)),
            ("deliver", self._answered, self._deliver_all),
        ):
            thread = threading.Thread(target=self._loop, args=(wake, step), name=f"dicom-{name}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Finish the step at hand and end; the rest waits on disk for the next start."""
        self._stopping.set()
        self._received.set()
        self._answered.set()
        if self._entity:
            close(self._entity)
        for thread in self._threads:
            thread.join()

    def _loop(self, wake: threading.Event, step: Callable[[], float | None]) -> None:
        """Do `step` whenever woken, and again after the seconds it names."""
        while not self._stopping.is_set():
            wake.clear()
            try:
                pause = step()
            except Exception as error:  # the loop must outlive even a spool that is gone for a while
                pause = self.settings.longest_delay
                log.error("program error (%s); again in %.3g s", type(error).__name__, pause)
            wake.wait(pause)

    def _postpone(self, what: str) -> float:
        """Seconds until `what` may be tried again: twice as many with each failure in a row."""
        delay = min(self.settings.first_delay * 2 ** self._failures[what], self.settings.longest_delay)
        self._failures[what] += 1
        self._not_before[what] = time.monotonic() + delay
        return delay

    def _due_in(self, what: str) -> float:
        return max(0, self._not_before.get(what, 0) - time.monotonic())

    def _forgive(self, *what: str) -> None:
        for name in what:
            self._failures.pop(name, None)
            self._not_before.pop(name, None)

    def _store(self, event: evt.Event) -> int:
        """Take an image into the spool; the status for its sender."""
        try:
            data = event.encoded_dataset()
            header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
            uid = header.get("SOPInstanceUID")
            whole = uid == event.request.AffectedSOPInstanceUID and all(
                header.get(word) for word in ("SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
            )
            missed = self.settings.wanted.misses(header)
        except Exception as error:  # pydicom raises many kinds for what is damaged
            log.warning("refused an image that cannot be read (%s)", type(error).__name__)
            return NOT_UNDERSTOOD
        if not whole:
            log.warning("refused an image without the UIDs it must have")
            return NOT_OF_ITS_CLASS
        key = key_of(uid)
        if missed:
            log.info("%s ignored: %s", key[:8], missed)
            return SUCCESS
        try:
            new = self.spool.put(key, data)
        except (BoneageError, OSError):
            log.error("%s refused: %s", key[:8], NO_ROOM)
            return OUT_OF_RESOURCES
        log.info("%s received%s", key[:8], "" if new else " again; nothing to do")
        self._received.set()
        return SUCCESS

    def _answer_all(self, predictor: Callable) -> float | None:
        """Try each waiting image once; seconds until what failed is due again."""
        failed = False
        for key in self.spool.waiting():
            if self._stopping.is_set():
                return None
            try:
                failed |= not self._answer(key, predictor)
            except (BoneageError, OSError):
                log.error("%s waits: %s", key[:8], NO_ROOM)
                return self._postpone("answer")
        if failed:
            return self._postpone("answer")
        self._forgive("answer")
        return None

    def _answer(self, key: str, predictor: Callable) -> bool:
        """Answer or refuse an image; False after a program error."""
        data = self.spool.begin(key)
        if data is None:
            log.error("%s given up after program errors; it lies in failed/", key[:8])
            return True
        objects = None
        try:
            objects = build(pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True), predictor(data, None))
        except BoneageError as refusal:
            reason, outcome = str(refusal), f"{REFUSED} ({getattr(refusal, 'code', 'other')})"
        except Exception as error:
            return _failed(key, error)
        try:
            if objects:
                self.spool.answer(key, objects)
            else:
                self.spool.finish(key, f"{outcome}: {reason}")
        except (BoneageError, OSError):
            self.spool.put_back(key)
            raise
        except Exception as error:  # what pydicom cannot write
            return _failed(key, error)
        # The reason may quote the file: it stays in the spool, where only this user can read it.
        log.info("%s %s", key[:8], "answered" if objects else f"{outcome}; the reason is in done/{key}.txt")
        self._answered.set()
        return True

    def _deliver_all(self) -> float | None:
        """Send every answer that is due; seconds until the next one is."""
        for key in self.spool.answers():
            if self._stopping.is_set():
                return None
            if self._due_in("peer"):
                return self._due_in("peer")
            if not self._due_in(key):
                self._deliver(key)
        return min((self._due_in(key) for key in self.spool.answers()), default=None)

    def _deliver(self, key: str) -> None:
        try:
            deliver(self.spool.objects(key), self.settings, delivered=Path.unlink)
            self.spool.finish(key, "answered and delivered")
        except (Unreachable, BoneageError, OSError) as error:  # nor would any other answer get through
            why = error if isinstance(error, Unreachable) else NO_ROOM
            log.error("%s not delivered: %s; again in %.3g s", key[:8], why, self._postpone("peer"))
        except Exception as error:
            why = error if isinstance(error, Declined) else f"program error ({type(error).__name__})"
            log.error("%s not delivered: %s; again in %.3g s", key[:8], why, self._postpone(key))
        else:
            log.info("%s delivered", key[:8])
            self._forgive(key, "peer")


def serve(settings: Settings, predictor: Callable[[], Callable]) -> None:
    """Run a node until SIGTERM or SIGINT; it logs to standard error.

    Parameters
    ----------
    settings
        Addresses, filter, times.
    predictor
        Loads the model; called after the port and the spool are ours, so that a second node says so at once.

    Raises
    ------
    BoneageError
        When the port or the spool is in use, or the model cannot be loaded.
    """
    _log_only_ours()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with alone(settings.spool):
        node = Node(settings)
        try:
            port = node.listen()
            node.start(predictor())
            log.info(
                "%s listens on %s:%d and answers to %s at %s:%d; research use only, not a medical device",
                settings.title, settings.host, port, *vars(settings.peer).values(),
            )  # fmt: skip
            ended.wait()
            log.info("stopping; unfinished work waits in the spool")
        finally:
            node.stop()


def _failed(key: str, error: Exception) -> bool:
    log.error("%s not answered: program error (%s)", key[:8], type(error).__name__)
    return False


def _log_only_ours() -> None:
    """Send our log to standard error, and silence the libraries: they quote values of the data sets they handle."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    for name in ("pynetdicom", "pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    threading.excepthook = lambda died: log.error("program error in a thread (%s)", died.exc_type.__name__)
