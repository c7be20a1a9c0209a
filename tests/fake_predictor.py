"""A predictor that answers at once and the same each time, so that the tests of the web need no model."""

import io

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset

from boneage.serving.answer import Answer, ImageFacts, Refused, words
from boneage.serving.door import enter

MONTHS = {True: 100.4, False: 94.0}  # by sex
SIDES = (11.0, 12.0)  # of its interval, months


class FakePredictor:
    """Comes in by the real door, then answers the same for whatever it is shown.

    Parameters
    ----------
    error
        Raised instead of an answer.
    warnings
        That every answer carries.
    """

    def __init__(self, error=None, warnings=()):
        self.error, self.warnings = error, warnings
        self.asked = []  # (male, maps) of every call

    def inspect(self, data) -> ImageFacts:
        return enter(data)[1]

    def __call__(self, data, male, *, maps=True) -> Answer:
        self.asked.append((male, maps))
        if self.error:
            raise self.error
        grey, facts = enter(data)
        grey = grey if grey.dtype == np.uint8 else (grey >> 8).astype(np.uint8)
        if male is None and (not facts.dicom or facts.dicom["sex"] not in ("M", "F")):
            raise Refused("sex_missing", "sex missing: say whether the patient is male or female")
        male = facts.dicom["sex"] == "M" if male is None else male
        months, hand = MONTHS[male], {"found": True, "confidence": 0.97, "angle": -4.0}
        return Answer(
            months, words(months), months - SIDES[0], months + SIDES[1],
            {"0-5": 0.01, "5-10": 0.86, "10-15": 0.12, "15-20": 0.01}, 6.4, male, "Fake/joint", self.warnings,
            ImageFacts(facts.width, facts.height, facts.kind, (12.0, 214.0), False, hand, facts.dicom),
            _spot(grey, 0.45, 0.62), _spot(grey, 0.55, 0.35), grey,
        )  # fmt: skip


def _spot(grey, x, y):
    """A warm spot at a place given in shares of width and height."""
    height, width = grey.shape
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.exp(-((across - x) ** 2 + (down - y) ** 2) / 0.03).astype(np.float32)


def png(height=400, width=300) -> bytes:
    """A grey PNG of some texture."""
    rng = np.random.default_rng(0)
    return cv2.imencode(".png", cv2.GaussianBlur(rng.integers(0, 255, (height, width), np.uint8), (9, 9), 0))[
        1
    ].tobytes()


def dicom(height=400, width=300, **tags) -> bytes:
    """A DICOM file of some texture with the tags that are given, such as `PatientSex="M"`."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = height, width, 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = np.random.default_rng(0).integers(0, 4096, (height, width), np.uint16).tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()
