"""One radiograph file, of any of the usual kinds, to one grey array."""

import io
import logging
import re
import subprocess
import sys
import warnings
import zlib
from functools import lru_cache
from pathlib import Path
from threading import Lock
from zipfile import BadZipFile, ZipFile

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boneage.errors import BoneageError
from boneage.texts import say

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # an installation that only answers: OpenCV gives the same pixels, one at a time fast enough
    decode_image_png_u8 = None

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".dcm")
MIN_SIDE, MAX_SIDE = 16, 16_384  # pixels
ARCHIVE_MARK = "!"  # "archive.zip!folder/1377.png" names a file inside an archive
DEFLATED = "1.2.840.10008.1.2.1.99"  # transfer syntax: the data set as a whole is compressed, the pixels are not
PATIENCE = 60  # seconds for a decoder in a process of its own
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and OpenCV weigh R, G, B

Image.MAX_IMAGE_PIXELS = None  # our own limit below speaks more clearly
# What is wrong with a file is told by its id, once; the libraries' own remarks would tear the progress bar.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.|pydicom\.")
logging.getLogger("pydicom").disabled = True  # it quotes what the tags say, which may be a name

_archives_lock = Lock()


def split_archive(path: str | Path) -> tuple[str, str | None]:
    """The file to open, and the member's name where it is an archive: `"a.zip!1.png"` -> `("a.zip", "1.png")`."""
    found = re.fullmatch(rf"(.*?\.zip){ARCHIVE_MARK}(.*)", str(path), re.IGNORECASE | re.DOTALL)
    return found.groups() if found else (str(path), None)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, or of a member of a zip archive named `archive.zip!member`; safe to call from threads.

    Raises
    ------
    BoneageError
        Missing, unreadable, encrypted or damaged.
    """
    file, member = split_archive(path)
    try:
        if member is None:
            return Path(file).read_bytes()
        archive = _archive(file, Path(file).stat().st_mtime_ns)
        with _archives_lock:  # opening and closing a member change the archive's own count of users
            opened = archive.open(member)
        try:
            return opened.read()
        finally:
            with _archives_lock:
                opened.close()
    except FileNotFoundError as error:
        raise BoneageError(say("image.missing")) from error
    except NotImplementedError as error:
        raise BoneageError(say("image.archive_compression", why=error)) from error
    except RuntimeError as error:  # what zipfile raises for a password
        raise BoneageError(say("image.archive_encrypted")) from error
    except (OSError, EOFError, BadZipFile, KeyError, zlib.error) as error:
        raise BoneageError(say("image.unreadable", why=error)) from error


@lru_cache(maxsize=8)
def _archive(file: str, changed: int) -> ZipFile:
    """An opened archive, kept: reading the list of 12,611 members anew for each would cost more than decoding."""
    return ZipFile(file)


def decode_grey(data: bytes) -> np.ndarray:
    """Grey pixels, bone bright as acquired, upright as the file's own orientation tag (EXIF) says.

    Parameters
    ----------
    data
        The bytes of a PNG, JPEG, WebP, TIFF or DICOM file: 8 or 16 bit or float; grey, RGB(A), palette or CMYK.

    Returns
    -------
    array, shape (height, width), uint8 or uint16
        DICOM pixels have modality and VOI transforms applied, MONOCHROME1 turned bright-bone, and span 0..65535.

    Raises
    ------
    BoneageError
        Empty, truncated, animated, too small, too large, or not an image.
    """
    if not data:
        raise BoneageError(say("image.zero_bytes"))
    if data[:42].startswith(b"version https://git-lfs"):
        raise BoneageError(say("image.git_lfs"))
    if data[128:132] == b"DICM":
        return _decode_dicom(data)
    if _truncated(data):
        raise BoneageError(say("image.truncated"))
    try:
        with Image.open(io.BytesIO(data)) as header:
            mode, (width, height) = header.mode, header.size
            _check_size(height, width)
            if getattr(header, "is_animated", False):  # to count the frames of a TIFF may take minutes
                raise BoneageError(say("image.frames"))
            if mode in ("P", "PA", "CMYK", "LA", "La", "1", "YCbCr", "LAB"):  # what OpenCV gets wrong or refuses
                return np.asarray(ImageOps.exif_transpose(header).convert("RGB").convert("L"))
            white_is_zero = mode.startswith("I;16") and header.format == "TIFF" and header.tag_v2.get(262) == 0
            plain = header.format == "PNG" and mode == "L" and not header.info.keys() & {"transparency", "exif"}
        grey = _decode_plain_png(data, height, width) if plain and decode_image_png_u8 else None
        if grey is None:
            grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    except UnidentifiedImageError as error:
        raise BoneageError(say("image.unknown", kinds="PNG, JPEG, WebP, TIFF, DICOM")) from error
    except BoneageError:
        raise
    except Exception as error:  # Pillow and OpenCV raise many kinds for a damaged file
        raise BoneageError(say("image.damaged_why", why=_one_line(error))) from error
    if grey is None:
        raise BoneageError(say("image.damaged"))
    grey = grey if grey.dtype in (np.uint8, np.uint16) else _to_uint16(grey)
    return 65535 - grey if white_is_zero else grey  # which both libraries heed in 8-bit files only


def _decode_plain_png(data: bytes, height: int, width: int) -> np.ndarray | None:
    """An 8-bit grey PNG, the usual radiograph: OpenCV's pixels in two fifths of its time. None: let OpenCV judge."""
    try:
        return decode_image_png_u8(data, (height, width), "mono")[..., 0]
    except Exception:  # whatever a decoder in Rust raises for a damaged file
        return None


def _truncated(data: bytes) -> bool:
    """OpenCV fills what a cut PNG or JPEG lacks with grey; both formats end in a mark that tells.

    A PNG is a row of chunks: where one claims to be longer than the file, decoders would ask for that much memory.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        at, kind = 8, b""
        while kind != b"IEND" and at + 12 <= len(data):
            kind = data[at + 4 : at + 8]
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        return kind != b"IEND" or at > len(data)
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" not in data[-4096:]
    return False


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise BoneageError(say("image.sides", least=MIN_SIDE, most=MAX_SIDE, width=width, height=height))


def _to_uint16(values: np.ndarray) -> np.ndarray:
    """Stretch any numbers over 0..65535."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise BoneageError(say("image.not_numbers"))
    if high <= low:
        return np.zeros(values.shape, np.uint16)
    most = float(np.finfo(values.dtype if values.dtype.kind == "f" else np.float64).max)
    if high - low > most or 65535 / (high - low) > most:
        raise BoneageError(say("image.grey_levels", low=f"{low:g}", high=f"{high:g}"))
    stretched = values - low
    stretched *= 65535 / (high - low)
    return np.round(stretched, out=stretched).astype(np.uint16)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _decode_dicom(data: bytes) -> np.ndarray:
    import pydicom  # only where a DICOM file turns up: keeps the start of everything else fast
    from pydicom.pixels import apply_color_lut

    try:
        dicom = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dicom:
            raise BoneageError(say("image.dicom_no_pixels"))
        _check_size(int(dicom.Rows), int(dicom.Columns))
        if int(dicom.get("NumberOfFrames") or 1) > 1 or _holds_more(dicom):
            raise BoneageError(say("image.frames"))
        kind, pixels = dicom.PhotometricInterpretation, _dicom_pixels(dicom, data)
        if pixels.shape not in ((dicom.Rows, dicom.Columns), (dicom.Rows, dicom.Columns, 3)):
            raise BoneageError(say("image.dicom_shape", found=" x ".join(map(str, pixels.shape))))
        if kind == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dicom)
        grey = _windowed(pixels, dicom) if pixels.ndim == 2 else _to_uint16(_luminance(pixels))
    except BoneageError:
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds; each means the same to us
        raise BoneageError(say("image.dicom", why=f"{type(error).__name__}: {_one_line(error)}")) from error
    return 65535 - grey if kind == "MONOCHROME1" else grey


def _holds_more(dicom) -> bool:
    """Whether there are uncompressed pixels for a second frame, which pydicom would decode, and all that follow."""
    if dicom.file_meta.TransferSyntaxUID.is_compressed and dicom.file_meta.TransferSyntaxUID != DEFLATED:
        return False
    bits = dicom.Rows * dicom.Columns * dicom.SamplesPerPixel * dicom.BitsAllocated
    return 8 * len(dicom.PixelData) >= 2 * bits


def _dicom_pixels(dicom, data: bytes) -> np.ndarray:
    """Pixels of a DICOM data set, `data` its bytes; compressed ones by a process of their own (half a second more)."""
    syntax = dicom.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax == DEFLATED:
        return dicom.pixel_array
    apart = [sys.executable, "-m", "boneage.data.dicom_apart"]
    try:
        done = subprocess.run(apart, input=data, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:  # whose words tell where Python lies
        raise BoneageError(say("image.dicom_slow", seconds=PATIENCE)) from error
    if done.returncode:
        why = done.stdout.decode(errors="replace").strip() if done.returncode == 1 else ""
        raise BoneageError(say("image.dicom", why=why) if why else say("image.dicom_decoder"))
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)


def _luminance(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32 of (H, W, 3), a row at a time: of a large picture each copy counts."""
    grey = np.empty(pixels.shape[:2], np.float32)
    for row, colours in zip(grey, pixels, strict=True):
        row[:] = colours @ LUMINANCE
    return grey


def _windowed(pixels: np.ndarray, dicom) -> np.ndarray:
    """Grey pixels through the modality and VOI transforms, over 0..65535.

    Each grey level goes through once, not each pixel: pydicom takes several float64 copies of what it is given.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    def stretched(values: np.ndarray) -> np.ndarray:
        return _to_uint16(np.asarray(apply_voi_lut(apply_modality_lut(values, dicom), dicom), np.float64))

    if pixels.dtype.kind not in "iu" or pixels.itemsize > 2:
        return stretched(pixels)
    lowest, table = int(np.iinfo(pixels.dtype).min), np.zeros(2 ** (8 * pixels.itemsize), np.uint16)
    seen = np.zeros(len(table), bool)
    for row in pixels:
        seen[row.astype(np.int32) - lowest] = True
    (levels,) = np.nonzero(seen)
    table[levels] = stretched((levels + lowest).astype(pixels.dtype))
    return np.stack([table[row.astype(np.int32) - lowest] for row in pixels])
