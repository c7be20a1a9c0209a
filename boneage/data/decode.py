"""One radiograph file, of any of the usual kinds, to one grey array."""

import io
import warnings
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from boneage.errors import BoneageError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".dcm")
MIN_SIDE, MAX_SIDE = 16, 16_384  # pixels
ARCHIVE_MARK = "!"  # "archive.zip!folder/1377.png" names a file inside an archive
Image.MAX_IMAGE_PIXELS = None  # our own limit below speaks more clearly


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, or of a member of a zip archive named `archive.zip!member`."""
    archive, mark, member = str(path).partition(".zip" + ARCHIVE_MARK)
    try:
        if not mark:
            return Path(path).read_bytes()
        with ZipFile(archive + ".zip") as opened:
            return opened.read(member)
    except FileNotFoundError as error:
        raise BoneageError("missing image file") from error
    except RuntimeError as error:  # what zipfile raises for a password
        raise BoneageError("the archive is encrypted; unpack it with its password first") from error
    except (OSError, BadZipFile, KeyError) as error:
        raise BoneageError(f"the file cannot be read ({error})") from error


def decode_grey(data: bytes) -> np.ndarray:
    """Grey pixels, bone bright as acquired.

    Parameters
    ----------
    data
        The bytes of a PNG, JPEG, WebP, TIFF or DICOM file: 8 or 16 bit; grey, RGB(A), palette or CMYK.

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
        raise BoneageError("the file is empty (0 bytes)")
    if data[:42].startswith(b"version https://git-lfs"):
        raise BoneageError("the file is a Git LFS pointer, not the image; run `git lfs pull`")
    if data[128:132] == b"DICM":
        return _decode_dicom(data)
    try:
        with Image.open(io.BytesIO(data)) as header:
            mode, (width, height), frames = header.mode, header.size, getattr(header, "n_frames", 1)
            _check_size(height, width)
            if frames > 1:
                raise BoneageError(f"expected one image, found {frames} frames")
            if mode in ("P", "PA", "CMYK", "LA", "La", "1", "YCbCr", "LAB"):  # what OpenCV gets wrong or refuses
                return np.asarray(header.convert("RGB").convert("L"))
    except UnidentifiedImageError as error:
        raise BoneageError("not an image of a known kind (PNG, JPEG, WebP, TIFF, DICOM)") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, BoneageError):
            raise
        raise BoneageError(f"the image is damaged ({error})") from error
    deep = mode.startswith(("I", "F"))
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if deep else cv2.IMREAD_GRAYSCALE)
    if grey is None or _truncated(data):
        raise BoneageError("the image is damaged or truncated")
    if grey.ndim == 3:
        grey = cv2.cvtColor(grey[..., :3], cv2.COLOR_BGR2GRAY)
    return grey if grey.dtype in (np.uint8, np.uint16) else _to_uint16(grey)


def _truncated(data: bytes) -> bool:
    """OpenCV fills what a cut PNG or JPEG lacks with grey; both formats end in a mark that tells."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in data[-64:]
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" not in data[-4096:]
    return False


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise BoneageError(f"image sides must lie in {MIN_SIDE}..{MAX_SIDE} px. Received: {width} x {height}")


def _to_uint16(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.zeros(values.shape, np.uint16) if high <= low else ((values - low) * (65535 / (high - low))).round().astype(np.uint16)


def _decode_dicom(data: bytes) -> np.ndarray:
    import pydicom  # only where a DICOM file turns up: keeps the start of everything else fast
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dicom = pydicom.dcmread(io.BytesIO(data))
            if "PixelData" not in dicom:
                raise BoneageError("the DICOM file holds no pixels")
            _check_size(int(dicom.Rows), int(dicom.Columns))
            if int(dicom.get("NumberOfFrames") or 1) > 1:
                raise BoneageError(f"expected one image, found a DICOM file of {dicom.NumberOfFrames} frames")
            pixels = dicom.pixel_array
            if pixels.ndim == 3:
                pixels = pixels[..., :3].mean(-1)
            else:
                pixels = apply_voi_lut(apply_modality_lut(pixels, dicom), dicom)
    except BoneageError:
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds; each means the same to us
        raise BoneageError(f"the DICOM file cannot be decoded ({type(error).__name__}: {error})") from error
    grey = _to_uint16(np.asarray(pixels, np.float64))
    return 65535 - grey if dicom.get("PhotometricInterpretation") == "MONOCHROME1" else grey
