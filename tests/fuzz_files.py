"""Sound files of every kind that is read, of a phantom hand or a radiograph, and Hypothesis' way of spoiling them."""

import io
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pydicom
from hypothesis import reject
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from serving_run import dicom, encoded

from boneage.data.decode import decode_grey
from boneage.data.phantom import render

HEIGHT = 192
MARKS = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\0",
    b"MM\0*",
    b"RIFF\0\0\0\0WEBPVP8 ",
    bytes(128) + b"DICM",
)
NUMBERS = [
    number.to_bytes(size, order)
    for size in (1, 2, 4)
    for order in ("little", "big")
    for number in (0, 1, 2 ** (4 * size), 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
]
DECIMALS = ("0", "-1", "1e-300", "1e300", "nan", "x", "", ["40", "80"], ["1", "2", "3"])
BESIDE = ("-1", "+1")  # of what the file says
TAGS = {
    "Rows": (0, 1, 16, *BESIDE, 4096, 65535), "Columns": (0, 1, 16, *BESIDE, 4096, 65535),
    "NumberOfFrames": ("0", "1", "2", "-1", "99999", "x"), "SamplesPerPixel": (0, 1, 2, 3, 4),
    "BitsAllocated": (0, 1, 7, 8, 12, 16, 32, 64), "BitsStored": (0, 1, 8, 12, 16, 64), "HighBit": (0, 7, 15, 255),
    "PixelRepresentation": (0, 1, 2), "PlanarConfiguration": (0, 1, 2),
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL_422", "PALETTE COLOR", "", "HSV"),
    "WindowCenter": DECIMALS, "WindowWidth": DECIMALS, "RescaleSlope": DECIMALS, "RescaleIntercept": DECIMALS,
    "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", "SIGMOID", "x"), "PixelAspectRatio": ("1\\2", "0\\0"),
    "PatientSex": ("M", "F", "O", "", "MF", "\xe9", None), "PatientAge": ("010Y", "045Y", "999D", "", "x" * 30),
    "PatientBirthDate": ("20150230", "99991231", "0", "x" * 30), "StudyDate": ("20200101", "00010101", "x"),
    "BodyPartExamined": ("HAND", "CHEST", "\u624b", "x" * 300),
    "SpecificCharacterSet": ("ISO_IR 192", "ISO 2022 IR 87", "x"), "PixelData": (b"", b"\0", None),
}  # fmt: skip


@cache
def files(radiograph: Path | None = None) -> dict[str, bytes]:
    """A film of each kind of file, grey or not, 8 or 16 bit, compressed or not; of a radiograph also its own file."""
    given = {} if radiograph is None else {"as it came": radiograph.read_bytes()}
    grey = _eight_bit(decode_grey(given["as it came"])) if given else render(100, 1, seed=3, height=HEIGHT).image
    picture, deep = Image.fromarray(grey), grey.astype(np.uint16) * 16
    plain = dicom(grey, PatientSex="M", PatientAge="009Y", StudyDate="20200301", BodyPartExamined="HAND")
    twelve = _changed(
        plain, PhotometricInterpretation="MONOCHROME1", BitsAllocated=16, BitsStored=12, HighBit=11,
        PixelData=(4095 - deep).tobytes(), WindowCenter="2048", WindowWidth="4096", RescaleSlope="1",
        RescaleIntercept="0",
    )  # fmt: skip
    rgb = _changed(plain, PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0,
                   PixelData=np.repeat(grey, 3).tobytes())  # fmt: skip
    return given | {
        "PNG": encoded(grey), "PNG, 16 bit": encoded(deep), "PNG, palette": _saved(picture.convert("P"), "PNG"),
        "PNG, RGBA": _saved(picture.convert("RGBA"), "PNG"),
        "JPEG": encoded(grey, ".jpg"), "JPEG, CMYK": _saved(picture.convert("CMYK"), "JPEG"),
        "JPEG, progressive": _saved(picture, "JPEG", progressive=True),
        "WebP": _saved(picture.convert("RGB"), "WEBP"),
        "WebP, lossless": _saved(picture.convert("RGB"), "WEBP", lossless=True),
        "TIFF": _saved(picture, "TIFF"), "TIFF, LZW": _saved(picture, "TIFF", compression="tiff_lzw"),
        "TIFF, 16 bit": encoded(deep, ".tiff"), "TIFF, JPEG": _saved(picture, "TIFF", compression="jpeg"),
        "TIFF, float": _saved(Image.fromarray(grey.astype("float32")), "TIFF"),
        "DICOM": plain, "DICOM, 12 bit": twelve, "DICOM, RGB": rgb,
        "DICOM, implicit": dicom(grey, syntax=ImplicitVRLittleEndian, PatientSex="F"),
        "DICOM, RLE": _compressed(plain, RLELossless), "DICOM, JPEG-LS": _compressed(plain, pydicom.uid.JPEGLSLossless),
        "DICOM, JPEG": _wrapped(plain, JPEGBaseline8Bit, encoded(grey, ".jpg")),
        "DICOM, JPEG 2000": _wrapped(plain, JPEG2000Lossless, _saved(picture, "JPEG2000", no_jp2=True)),
        "DICOM, JPEG lossless": _lossless(twelve),
    }  # fmt: skip


@st.composite
def spoilt(draw, radiograph: Path | None = None) -> bytes:
    """Bytes of no kind, or a file of `files` with some DICOM tags and some bytes changed."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(MARKS)) + draw(st.binary(max_size=600))
    sound = files(radiograph)
    data = sound[draw(st.sampled_from(sorted(sound)))]
    if data[128:132] == b"DICM" and draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(sorted(TAGS)), min_size=1, max_size=3, unique=True))
        changes = {name: draw(st.sampled_from(TAGS[name])) for name in names}
        try:
            data = _changed(data, **changes)
        except Exception:  # what pydicom itself refuses to write
            reject()
    for _ in range(draw(st.integers(0, 5))):
        data = _edited(draw, data)
    return _with_checksums(data) if data[:4] == b"\x89PNG" and draw(st.booleans()) else data


def _eight_bit(grey: np.ndarray) -> np.ndarray:
    return grey if grey.dtype == np.uint8 else (grey >> 8).astype(np.uint8)


def _edited(draw, data: bytes) -> bytes:
    """One change of some bytes, half of the time among the first, where the headers are."""
    at = draw(st.integers(0, 700) | st.integers(0, 1 << 24)) % (len(data) + 1)
    kind = draw(st.sampled_from(("put", "put", "put", "insert", "remove", "repeat", "end")))
    new = draw(st.sampled_from(NUMBERS) | st.binary(min_size=1, max_size=8))
    some = draw(st.integers(1, 400))
    return {
        "put": data[:at] + new + data[at + len(new) :], "insert": data[:at] + new + data[at:],
        "remove": data[:at] + data[at + some :], "repeat": data[: at + some] + data[at:], "end": data[:at],
    }[kind]  # fmt: skip


def _with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold: else a decoder looks no further than these."""
    out, at = [png[:8]], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        chunk = png[at + 4 : at + 8 + length]
        out += [png[at : at + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        at += 12 + length
    return b"".join(out)


def _changed(data: bytes, **values) -> bytes:
    """A DICOM file with other tags (None: without), however wrong they are."""
    with pydicom.config.disable_value_validation():
        file = pydicom.dcmread(io.BytesIO(data))
        for keyword, value in values.items():
            if value is not None:
                setattr(file, keyword, file[keyword].value + int(value) if value in BESIDE else value)
            elif keyword in file:
                delattr(file, keyword)
        return _bytes(file)


def _bytes(file: pydicom.Dataset) -> bytes:
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _compressed(data: bytes, syntax: str) -> bytes:
    file = pydicom.dcmread(io.BytesIO(data))
    file.compress(syntax)
    return _bytes(file)


def _wrapped(data: bytes, syntax: str, frame: bytes) -> bytes:
    file = pydicom.dcmread(io.BytesIO(data))
    file.file_meta.TransferSyntaxUID = syntax
    file.PixelData = encapsulate([frame])
    return _bytes(file)


def _lossless(data: bytes) -> bytes:
    """As most archives keep radiographs; only GDCM writes it."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "film.dcm")
        Path(path).write_bytes(data)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(path)
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        read = reader.Read()
        change.SetInput(reader.GetImage())
        changed = change.Change()
        writer.SetFileName(path)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert all((read, changed, writer.Write()))
        return Path(path).read_bytes()


def _saved(picture: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def largest(pixels: int) -> dict[str, bytes]:
    """Valid files of as many pixels as are read, of the kinds that take most memory."""
    width = int(pixels**0.5) // 4 * 4
    grey = cv2.resize(render(100, 1, seed=3, height=HEIGHT).image, (width, pixels // width))
    plain = dicom(grey, PatientSex="M")
    deep = np.repeat(grey.astype(np.uint16)[..., None] * 16, 4, axis=2)
    jpeg = encoded(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), ".jpg")
    return {
        "PNG, 16 bit, RGBA": encoded(deep),
        "TIFF, CMYK": _saved(Image.fromarray(grey).convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "DICOM, 16 bit": _changed(
            plain, BitsAllocated=16, BitsStored=16, HighBit=15, PixelData=deep[..., 0].tobytes(), WindowCenter="2000",
            WindowWidth="4000", RescaleSlope="2", RescaleIntercept="1",
        ),
        "DICOM, RGB": _wrapped(
            _changed(plain, PhotometricInterpretation="YBR_FULL_422", SamplesPerPixel=3, PlanarConfiguration=0),
            JPEGBaseline8Bit, jpeg,
        ),
    }  # fmt: skip
