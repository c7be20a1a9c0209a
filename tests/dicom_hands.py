"""What the DICOM tests share: a phantom hand as a DICOM file, a predictor without a model, a peer and a sender."""

import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, SecondaryCaptureImageStorage

from boneage.data.decode import decode_grey
from boneage.data.phantom import render
from boneage.errors import BoneageError
from boneage.serving.dicom_wire import close

ROOT = "1.2.826.0.1.3680043.8.498"
SOP_UID, SERIES_UID, STUDY_UID = f"{ROOT}.11", f"{ROOT}.12", f"{ROOT}.13"
IDENTIFIERS = ("Zyxw", "Quirin", "PID-7731", "20110203", "ACC-5512", "Vuts", "S77", ROOT)  # none may reach a log


def hand_dicom(uid: str = SOP_UID, syntax: str = ExplicitVRLittleEndian, **attributes) -> bytes:
    """A phantom hand of 100 months as a Computed Radiography file; `attributes` add, replace or (None) remove."""
    film = render(100, 1, seed=3, height=192).image
    dicom = pydicom.Dataset()
    dicom.file_meta = FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values = {
        "SpecificCharacterSet": "ISO_IR 192", "SOPClassUID": ComputedRadiographyImageStorage, "SOPInstanceUID": uid,
        "StudyInstanceUID": STUDY_UID, "SeriesInstanceUID": SERIES_UID, "StudyDescription": "Bone age study",
        "PatientName": "Zyxw^Quirin", "PatientID": "PID-7731", "PatientBirthDate": "20110203", "PatientSex": "M",
        "StudyDate": "20200301", "StudyTime": "101500", "StudyID": "S77", "AccessionNumber": "ACC-5512",
        "ReferringPhysicianName": "Vuts^Prisca", "Modality": "CR", "SeriesNumber": 1, "InstanceNumber": 1,
        "BodyPartExamined": "HAND", "ViewPosition": "PA", "Laterality": "L", "Manufacturer": "Phantom",
        "PatientOrientation": ["R", "F"], "ImageType": ["ORIGINAL", "PRIMARY"], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "Rows": film.shape[0], "Columns": film.shape[1],
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": film.tobytes(),
        **attributes,
    }  # fmt: skip
    for keyword, value in values.items():
        if value is not None:
            setattr(dicom, keyword, value)
    if syntax != ExplicitVRLittleEndian:
        dicom.compress(syntax)
    stream = io.BytesIO()
    dicom.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class FakeRefusal(BoneageError):
    code = "sex_missing"


@dataclass(frozen=True)
class FakeWarning:
    code: str
    text: str


@dataclass(frozen=True)
class FakeAnswer:
    """The part of `boneage.serving.predictor.Answer` that leaves as DICOM."""

    months: float = 100.26
    text: str = "8 years 4 months"
    low: float = 88.04
    high: float = 112.5
    groups: dict = field(default_factory=lambda: {"0-5": 0.01, "5-10": 0.9, "10-15": 0.08, "15-20": 0.01})
    male: bool = True
    model: str = "Fake/joint"
    warnings: tuple = ()
    older: np.ndarray = field(default_factory=lambda: np.ones((192, 152), np.float32))
    younger: np.ndarray = field(default_factory=lambda: np.ones((192, 152), np.float32))
    radiograph: np.ndarray = field(default_factory=lambda: render(100, 1, seed=3, height=192).image)

    def overlay(self, direction: str = "older", opacity: float = 0.45) -> np.ndarray:
        """The radiograph with a red (older) or blue (younger) spot."""
        picture = np.repeat(self.radiograph[..., None], 3, axis=2)
        height, width = self.radiograph.shape
        colour = (220, 60, 30) if direction == "older" else (30, 90, 220)
        spot = cv2.circle(np.zeros_like(picture), (width // 2, height // 3), height // 8, colour, -1)
        return cv2.addWeighted(picture, 1, spot, opacity, 0)


class FakePredictor:
    """Answers every image that can be decoded alike; refuses sex 'O', as the true one does."""

    def __init__(self):
        self.asked = 0

    def __call__(self, data: bytes, male: bool | None, *, maps: bool = True) -> FakeAnswer:
        self.asked += 1
        decode_grey(data)
        sex = pydicom.dcmread(io.BytesIO(data)).get("PatientSex")
        if sex not in ("M", "F"):
            raise FakeRefusal(f"sex missing: found {sex!r}, expected M or F")
        return FakeAnswer(male=sex == "M")


class Receiver:
    """A DICOM peer in this process: keeps what it is sent, and answers with the next of `statuses` (then success)."""

    def __init__(self, port: int = 0, statuses: tuple[int, ...] = ()):
        self.objects: list[pydicom.Dataset] = []
        self.statuses = list(statuses)
        self.entity = AE("ARCHIVE")
        for kind in (ComprehensiveSRStorage, SecondaryCaptureImageStorage):
            self.entity.add_supported_context(kind, ImplicitVRLittleEndian)
        server = self.entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._take)]
        )
        self.port = server.server_address[1]

    def _take(self, event: evt.Event) -> int:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            self.objects.append(event.dataset)
        return status

    def uids(self) -> list[str]:
        return [item.SOPInstanceUID for item in self.objects]

    def stop(self) -> None:
        close(self.entity)


class FreezingProxy:
    """Passes connections on to a port, and stops reading for good after so many bytes, without hanging up."""

    def __init__(self, target: int, after: int):
        self.target, self.after, self.frozen = target, after, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)  # else the system reads on for us
        self.port = self._server.getsockname()[1]
        self._open = [self._server]

    def __enter__(self) -> "FreezingProxy":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed at the end of the test
            while True:
                near = self._server.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.target))
                self._open += [near, far]
                threading.Thread(target=self._back, args=(far, near), daemon=True).start()
                threading.Thread(target=self._forth, args=(near, far), daemon=True).start()

    def _forth(self, near: socket.socket, far: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while passed < self.after:
                far.sendall(data := near.recv(min(4096, self.after - passed)))
                if not data:
                    return far.close()
                passed += len(data)
            self.frozen.set()

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(4096):
                near.sendall(data)


def send(port: int, data: bytes, called: str = "BONEAGE", calling: str = "MODALITY") -> int | None:
    """C-STORE one file as a modality would; the status, or None when not let in or hung up on."""
    dicom = pydicom.dcmread(io.BytesIO(data))
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.add_requested_context(dicom.SOPClassUID, dicom.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    try:
        return association.send_c_store(dicom).get("Status") if association.is_established else None
    finally:
        if association.is_established:
            association.release()


def eventually(condition: Callable[[], object], seconds: float = 90) -> object:
    """Wait until something is true; what it is. Fails after a generous time."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PROCESS = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dicom_hands import FakePredictor
from boneage.serving.dicom_node import serve
from boneage.serving.dicom_settings import Peer, Settings

asked = json.loads(sys.argv[1])
class Slow(FakePredictor):
    def __call__(self, data, male, **_):
        time.sleep(asked["seconds"])
        return super().__call__(data, male)
serve(Settings(Peer("ARCHIVE", "127.0.0.1", asked["peer"]), Path(asked["spool"]), port=asked["port"],
               first_delay=0.05, longest_delay=0.2), Slow)
"""


def node_process(spool: Path, peer: int, port: int, seconds: float = 0) -> subprocess.Popen:
    """A node in a process of its own, with a predictor that takes some seconds; returns when it listens."""
    asked = json.dumps({"spool": str(spool), "peer": peer, "port": port, "seconds": seconds})
    command = [sys.executable, "-c", PROCESS, asked, str(Path(__file__).parent)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    eventually(lambda: child.poll() is not None or listens(port), 180)
    return child


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
