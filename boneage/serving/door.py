"""The door: limits before decoding, what the file says of itself, and radiographs with dark bones turned about."""

import contextlib
import io
import re
from datetime import date, datetime

import cv2
import numpy as np

from boneage.data.decode import decode_grey
from boneage.errors import BoneageError
from boneage.labels import MONTHS_PER_YEAR
from boneage.serving.answer import ImageFacts, Refused
from boneage.texts import say

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 16_000_000  # the largest flat detectors have 15 million; decoding takes up to 40 bytes a pixel
OTHER_BODY_PARTS = (
    "ABDOMEN", "ANKLE", "BREAST", "CALCANEUS", "CHEST", "CLAVICLE", "ELBOW", "FEMUR", "FOOT", "HEAD", "HEART", "HIP",
    "HUMERUS", "JAW", "KNEE", "LEG", "MANDIBLE", "NECK", "PELVIS", "RIB", "SCAPULA", "SHOULDER", "SKULL", "SPINE",
    "STERNUM", "THORAX", "TIBIA", "TOE",
)  # fmt: skip
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a transfer syntax that unpacks a few kB to GB before a size can be read
_MARKS = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"II": "TIFF", b"MM": "TIFF", b"RIFF": "WEBP"}


def enter(data: bytes) -> tuple[np.ndarray, ImageFacts]:
    """Decode what came in.

    Returns
    -------
    grey : (H, W) uint8 or uint16
        As `boneage.data.decode.decode_grey` gives it.
    facts
        Size, kind and DICOM tags; not yet looked at as a picture.

    Raises
    ------
    Refused
        "too_large", "body_part" (a DICOM file of some other part) or "unreadable", before and after decoding.
    """
    if len(data) > MAX_BYTES:
        megabytes, most = (f"{size / 1e6:.0f}" for size in (len(data), MAX_BYTES))
        raise Refused("too_large", say("refusals.too_many_bytes", megabytes=megabytes, most=most))
    kind = kind_of(data)
    try:
        size, dicom = _header(data, kind)
        if size and size[0] * size[1] > MAX_PIXELS:
            most = f"{MAX_PIXELS / 1e6:.0f}"
            raise Refused("too_large", say("refusals.too_many_pixels", width=size[0], height=size[1], most=most))
        part = (dicom and dicom["body_part"]) or ""
        if any(other in part.upper() for other in OTHER_BODY_PARTS):
            raise Refused("body_part", say("refusals.body_part", part=repr(part)))
        grey = decode_grey(data)
    except Refused:
        raise
    except BoneageError as error:
        raise Refused("unreadable", str(error)) from error
    height, width = grey.shape
    return grey, ImageFacts(width, height, kind, dicom=dicom)


def kind_of(data: bytes) -> str:
    """The kind of file by its first bytes; "unknown" for others than we read."""
    if data[128:132] == b"DICM":
        return "DICOM"
    return next((kind for mark, kind in _MARKS.items() if data.startswith(mark)), "unknown")


def _header(data: bytes, kind: str) -> tuple[tuple[int, int] | None, dict | None]:
    """Width and height that the file announces, where it does so readably, and its DICOM tags."""
    if kind != "DICOM":
        from PIL import Image

        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as header:  # decode_grey says what is wrong
            return header.size, None
        return None, None
    if DEFLATED in data:
        raise Refused("unreadable", say("refusals.deflated"))
    import pydicom

    try:
        dicom = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        size = (int(dicom.get("Columns") or 0), int(dicom.get("Rows") or 0))
        return size, _tags(dicom)
    except Exception as error:  # whatever a damaged header makes pydicom raise
        raise Refused("unreadable", say("refusals.dicom_header", why=type(error).__name__)) from error


def _tags(dicom) -> dict:
    def text(keyword: str) -> str | None:
        return str(dicom.get(keyword) or "").strip() or None

    taken, born = (_day(text(name)) for name in ("StudyDate", "PatientBirthDate"))
    months = _months(text("PatientAge"))
    if born and taken:
        months = (taken - born).days / 365.25 * MONTHS_PER_YEAR
    return {
        "sex": (text("PatientSex") or "").upper() or None, "birth_date": text("PatientBirthDate"),
        "age_months": None if months is None else round(months, 1), "study_date": text("StudyDate"),
        "laterality": text("ImageLaterality") or text("Laterality"), "body_part": text("BodyPartExamined"),
        "modality": text("Modality"),
    }  # fmt: skip


def _day(text: str | None) -> date | None:
    with contextlib.suppress(ValueError):
        return datetime.strptime(text or "", "%Y%m%d").date()
    return None


def _months(age: str | None) -> float | None:
    """DICOM's age string (PS3.5, value representation AS): "008Y", "101M", "030W", "010D"."""
    found = re.fullmatch(r"(\d{3})([DWMY])", age or "")
    per_unit = {"D": 12 / 365.25, "W": 84 / 365.25, "M": 1, "Y": MONTHS_PER_YEAR}
    return int(found[1]) * per_unit[found[2]] if found else None


def bones_look_dark(grey: np.ndarray) -> bool:
    """Whether a radiograph seems to have a white background, from two signs at 96 px.

    A hand is brighter in the middle than near the rim of the picture, and bright where there is texture: skin and bone
    have it, air has none. A hand lost in a grey surround deceives this now and then; so the predictor looks at both
    polarities where it says yes, and lets the gate decide.
    """
    scale = 96 / max(grey.shape)
    if min(grey.shape) * scale < 16:
        return False
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype("float32")
    height, width = small.shape
    low, high = np.percentile(small, (1, 99)).astype("float32")
    if high <= low:
        return False
    small = np.clip((small - low) / (high - low), 0, 1)
    y, x = np.abs(np.linspace(-0.5, 0.5, height))[:, None], np.abs(np.linspace(-0.5, 0.5, width))
    rim = (np.maximum(y, x) > 0.36) & (np.maximum(y, x) < 0.46)
    contrast = small[(y < 0.22) & (x < 0.2)].mean() - small[rim].mean()
    mean = cv2.blur(small, (5, 5))
    texture = np.sqrt(np.maximum(cv2.blur(small**2, (5, 5)) - mean**2, 0))
    inner = np.maximum(y, x) < 0.4
    spread = mean[inner].std() * texture[inner].std()
    together = np.cov(mean[inner], texture[inner], bias=True)[0, 1] / spread if spread > 0 else 0.0
    return bool(contrast + 0.3 * together < 0)


def inverted(grey: np.ndarray) -> np.ndarray:
    """Black for white, in the same dtype."""
    return np.iinfo(grey.dtype).max - grey


def turned(grey: np.ndarray, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture after quarter turns counter-clockwise, and the (3, 3) map from its pixels to the turned one's."""
    matrix = np.eye(3)
    for turn in range(turns):
        width = grey.shape[(turn + 1) % 2]
        matrix = np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]]) @ matrix
    return np.ascontiguousarray(np.rot90(grey, turns)), matrix
