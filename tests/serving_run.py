"""What the serving tests share: the tiny run exported and calibrated once, and files made from arrays."""

import io
import shutil
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

_made: list[Path] = []


@pytest.fixture(scope="session")
def exported(tiny_run, phantom_cache, tmp_path_factory) -> Path:
    """A copy of the finished tiny run, `<outputs>/Tiny/joint`, evaluated, exported and calibrated; read it only."""
    if not _made:  # the fixture is imported into several modules, each of which would make it anew
        from boneage.evaluation.evaluate import evaluate
        from boneage.serving import foreign
        from boneage.serving.calibrate import calibrate
        from boneage.serving.export import export

        run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("shelf") / "Tiny" / "joint"))
        evaluate(run, phantom_cache.folder)
        export(run, phantom_cache.folder)
        with patch.object(foreign, "COUNT", 2):  # enough to go through; rates are measured on real runs
            calibrate(run, phantom_cache.folder)
        _made.append(run)
    return _made[0]


def encoded(grey: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, grey)[1].tobytes()


def dicom(grey: np.ndarray | None, frames: int = 1, syntax: str = ExplicitVRLittleEndian, **tags) -> bytes:
    """A Computed Radiography file; without pixels where `grey` is None."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3"
    if grey is not None:
        data.Rows, data.Columns = grey.shape
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit = 7
        data.PixelData = grey.tobytes() * frames + b"\0" * (grey.size * frames % 2)
        if frames > 1:
            data.NumberOfFrames = frames
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()
