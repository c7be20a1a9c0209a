"""Every kind of radiograph file gives the same picture; every kind of broken one gives one clear line."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from unittest import mock

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image, TiffImagePlugin
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from boneage.data.decode import MAX_SIDE, decode_grey, read_bytes, split_archive
from boneage.data.frame import to_square
from boneage.data.phantom import render
from boneage.errors import BoneageError

HAND = render(120, 1, 3, height=192).image  # (192, 152) uint8
DEEP = HAND.astype(np.uint16) * 257
COLOUR = cv2.merge([HAND] * 3)
OTHER = Image.fromarray(255 - HAND)  # a second frame
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be shown a quarter turn clockwise
LOAD = TiffImagePlugin.ImageFileDirectory_v2.load


def pillow(pixels, kind: str, mode: str | None = None, **how) -> bytes:
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode, palette=Image.Palette.ADAPTIVE) if mode else image).save(file, kind, **how)
    return file.getvalue()


def opencv(pixels, extension: str) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def ycck(pixels) -> bytes:
    """A CMYK JPEG as Adobe writes it: the same bytes, marked as YCCK with inverted inks."""
    data = pillow(pixels, "JPEG", "CMYK", quality=95)
    marked = data.replace(b"Adobe\x00\x64\x00\x00\x00\x00\x00", b"Adobe\x00\x64\x00\x00\x00\x00\x02")
    assert marked != data
    return marked


def dicom(pixels=HAND, photometric="MONOCHROME2", bits=8, **tags) -> bytes:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    made = pydicom.Dataset()
    made.file_meta, made.SOPClassUID, made.SOPInstanceUID = meta, CTImageStorage, "1.2.3"
    if pixels is not None:
        made.Rows, made.Columns = (
            pixels.shape[-2:] if pixels.ndim == 2 or "NumberOfFrames" in tags else pixels.shape[:2]
        )
        made.SamplesPerPixel = 3 if photometric in ("RGB", "YBR_FULL") else 1
        made.PhotometricInterpretation, made.PixelRepresentation = photometric, 0
        made.BitsAllocated, made.BitsStored, made.HighBit = pixels.itemsize * 8, bits, bits - 1
        made.PlanarConfiguration = 0
        made.PixelData = pixels.tobytes()
        made["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for name, value in tags.items():
        setattr(made, name, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def packed(data: bytes, syntax: str, folder) -> bytes:
    """The DICOM file as X-ray units and archives send it, compressed."""
    import gdcm

    plain, compressed = folder / "plain.dcm", folder / "compressed.dcm"
    plain.write_bytes(data)
    reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(compressed))
    assert writer.Write()
    data = compressed.read_bytes()
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == syntax
    return data


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def tiff(pixels, photometric: int) -> bytes:
    """An uncompressed TIFF; photometric 0 means that 0 is white."""
    height, width = pixels.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, pixels.itemsize * 8), (259, 3, 1), (262, 3, photometric),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, pixels.nbytes)]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    count = struct.pack("<H", len(tags))
    return b"II*\0" + struct.pack("<I", 8 + pixels.nbytes) + pixels.tobytes() + count + directory + bytes(4)


# --- what comes out, exactly


@pytest.mark.parametrize(
    "data",
    [
        opencv(HAND, ".png"),
        pillow(HAND, "PNG", "RGB"),
        pillow(HAND, "PNG", "RGBA"),
        pillow(HAND, "PNG", "LA"),
        pillow(HAND, "PNG", "P"),
        pillow(HAND, "WEBP", "RGB", lossless=True),
        opencv(HAND, ".tif"),
        pillow(HAND, "TIFF", compression="tiff_lzw"),
        tiff(HAND, 1),
        tiff(255 - HAND, 0),
        pillow(HAND, "GIF"),
    ],
    ids=["png", "rgb", "rgba", "grey-alpha", "palette", "webp", "tiff", "tiff-lzw", "tiff-1", "tiff-0", "gif"],
)
def test_lossless_8_bit_files_give_their_pixels(data):
    grey = decode_grey(data)
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, HAND)


@pytest.mark.parametrize(
    "data",
    [
        opencv(DEEP, ".png"),
        opencv(DEEP, ".tif"),
        tiff(DEEP, 1),
        tiff(65535 - DEEP, 0),
        opencv(cv2.merge([DEEP] * 3), ".png"),
    ],
    ids=["png", "tiff", "tiff-1", "tiff-0", "png-rgb"],
)
def test_16_bit_files_keep_their_16_bits(data):
    grey = decode_grey(data)
    assert grey.dtype == np.uint16
    np.testing.assert_array_equal(grey, DEEP)


def test_a_1_bit_file_is_black_and_white():
    bits = np.where(HAND > 90, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(decode_grey(pillow(bits, "PNG", "1")), bits)


def test_colours_are_weighed_as_the_eye_does():
    patch = np.zeros((32, 32, 3), np.uint8)
    patch[:16], patch[16:] = (200, 100, 50), (10, 20, 30)  # 0.299 R + 0.587 G + 0.114 B
    for data in (pillow(patch, "PNG"), pillow(patch, "PNG", "P"), pillow(patch, "WEBP", lossless=True)):
        grey = decode_grey(data).astype(int)
        assert abs(grey[0, 0] - 124.2) <= 1
        assert abs(grey[-1, 0] - 18.15) <= 1
    deep = decode_grey(dicom(patch, "RGB"))
    assert deep[0, 0] == 65535
    assert deep[-1, 0] == 0


@pytest.mark.parametrize(
    "data",
    [pillow(HAND, "JPEG", quality=95), pillow(HAND, "JPEG", "RGB", quality=95),
     pillow(HAND, "JPEG", "CMYK", quality=95), pillow(HAND, "WEBP", quality=95)],
    ids=["grey", "rgb", "cmyk", "webp"],
)  # fmt: skip
def test_lossy_files_come_close(data):
    grey = decode_grey(data)
    assert grey.dtype == np.uint8
    assert np.abs(grey.astype(int) - HAND).mean() < 2.5


def test_a_ycck_jpeg_is_read_as_pillow_reads_it():
    data = ycck(HAND)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").convert("L"))
    np.testing.assert_array_equal(decode_grey(data), expected)


@pytest.mark.parametrize(
    "data",
    [pillow(HAND, "PNG", exif=TURNED), pillow(DEEP, "PNG", exif=TURNED), pillow(HAND, "PNG", "P", exif=TURNED),
     pillow(HAND, "WEBP", "RGB", lossless=True, exif=TURNED), pillow(HAND, "TIFF", tiffinfo={0x0112: 6})],
    ids=["png", "png-16", "palette", "webp", "tiff"],
)  # fmt: skip
def test_the_orientation_tag_is_obeyed_whatever_the_kind(data):
    grey = decode_grey(data)
    np.testing.assert_array_equal(grey, np.rot90(DEEP if grey.dtype == np.uint16 else HAND, -1))


@pytest.mark.parametrize(
    "pixels", [HAND.astype(np.float32) / 255 - 0.5, HAND.astype(np.int32) * 1000], ids=["float", "int32"]
)
def test_other_numbers_are_stretched_over_16_bits(pixels):
    grey = decode_grey(pillow(pixels, "TIFF"))
    expected = (HAND - HAND.min()) / np.ptp(HAND) * 65535
    assert grey.dtype == np.uint16
    np.testing.assert_allclose(grey, expected, atol=1)


# --- DICOM


def stretched(values) -> np.ndarray:
    values = values.astype(float)
    return (values - values.min()) / np.ptp(values) * 65535


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless],
    ids=["plain", "rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000"],
)  # fmt: skip
def test_12_bit_dicom(syntax, photometric, tmp_path):
    pixels = HAND.astype(np.uint16) * 16 + 7
    data = dicom(4095 - pixels if photometric == "MONOCHROME1" else pixels, photometric, bits=12)
    data = data if syntax == ExplicitVRLittleEndian else packed(data, syntax, tmp_path)
    np.testing.assert_allclose(decode_grey(data), stretched(HAND), atol=1)  # bone bright, either way


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [(JPEGBaseline8Bit, 8), (JPEGLSNearLossless, 12), (JPEG2000, 12)],
    ids=["jpeg", "jpeg-ls", "jpeg-2000"],
)
def test_lossy_dicom_comes_close(syntax, bits, tmp_path):
    pixels = HAND if bits == 8 else HAND.astype(np.uint16) * 16
    grey = decode_grey(packed(dicom(pixels, bits=bits), syntax, tmp_path)).astype(float)
    assert np.abs(grey - stretched(HAND)).mean() < 0.02 * 65535


def test_lossy_12_bit_jpeg_which_no_free_decoder_reads_is_named(tmp_path):
    data = packed(dicom(HAND.astype(np.uint16) * 16, bits=12), JPEGExtended12Bit, tmp_path)
    with pytest.raises(BoneageError, match=r"the DICOM file cannot be decoded \(.*'JPEG Extended'.*12-bit"):
        decode_grey(data)


def test_a_decoder_that_ends_its_process_does_not_end_ours(tmp_path):
    file = pydicom.dcmread(io.BytesIO(packed(dicom(HAND), JPEGLosslessSV1, tmp_path)))
    file.BitsStored, file.HighBit = 1, 0  # GDCM has no answer to that but to abort
    damaged = io.BytesIO()
    pydicom.dcmwrite(damaged, file, enforce_file_format=True)
    apart = [sys.executable, "-m", "boneage.data.dicom_apart"]
    assert subprocess.run(apart, input=damaged.getvalue(), capture_output=True, check=False).returncode < 0
    with pytest.raises(BoneageError, match=r"cannot be decoded \(its decoder gave up"):
        decode_grey(damaged.getvalue())


def test_a_decoder_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("boneage.data.decode.PATIENCE", 0.01)
    with pytest.raises(BoneageError, match=r"cannot be decoded \(not within 0.01 seconds\)"):
        decode_grey(packed(dicom(HAND), JPEG2000Lossless, tmp_path))


def test_a_picture_larger_than_its_file_says_does_not_fill_the_memory(tmp_path):
    whole = packed(dicom(HAND), JPEG2000Lossless, tmp_path)
    size = whole.index(b"\xff\x4f\xff\x51") + 8  # of the SIZ marker segment: the width, four bytes, and the height
    with pytest.raises(BoneageError, match="cannot be decoded"):
        decode_grey(whole[:size] + b"\x00\x00\xff\xf0" * 2 + whole[size + 8 :])


def test_frames_that_a_file_does_not_own_up_to_are_not_decoded():
    """One of 16 x 16 px with a bit a pixel and 20 MB of pixels would make an array of 160 MB, of 655,360 frames."""
    made = pydicom.dcmread(io.BytesIO(dicom(HAND[:16, :16])))
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit, made.PixelData = 0, bytes(20_000_000)
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    tracemalloc.start()
    try:
        with pytest.raises(BoneageError, match="found several frames"):
            decode_grey(file.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_of_compressed_frames_that_a_file_does_not_own_up_to_the_first_alone_is_decoded():
    frame = opencv(HAND, ".jpg")
    made = pydicom.dcmread(io.BytesIO(dicom(HAND)))
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([frame] * 5)
    made["PixelData"].VR = "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    apart = [sys.executable, "-m", "boneage.data.dicom_apart"]
    done = subprocess.run(apart, input=file.getvalue(), capture_output=True, check=True)
    assert np.load(io.BytesIO(done.stdout)).shape == HAND.shape


def test_a_tiff_of_very_many_pages_is_refused_without_counting_them():
    """Their directories follow one another; Pillow looks each up among all before, when it counts."""
    page = pillow(HAND, "TIFF")
    first = int.from_bytes(page[4:8], "little")
    entries = int.from_bytes(page[first : first + 2], "little")
    directory = page[first : first + 2 + 12 * entries]
    data = page + b"\0" * (len(page) % 2)
    chain, at = [], len(data)
    for _ in range(4000):
        at += len(directory) + 4
        chain.append(directory + at.to_bytes(4, "little"))
    data = bytearray(data + b"".join(chain) + directory + bytes(4))
    data[first + len(directory) : first + len(directory) + 4] = (len(page) + len(page) % 2).to_bytes(4, "little")
    spied = mock.patch("PIL.TiffImagePlugin.ImageFileDirectory_v2.load", autospec=True, side_effect=LOAD)
    with spied as load, pytest.raises(BoneageError, match="found several frames"):
        decode_grey(bytes(data))
    assert load.call_count < 5


def test_a_tiff_without_its_dimensions_is_damaged():
    data = pillow(HAND, "TIFF")
    width = data.index(b"\x00\x01\x04\x00")  # tag 256, ImageWidth, a long
    with pytest.raises(BoneageError, match="damaged"):
        decode_grey(data[:width] + b"\xff\xff" + data[width + 2 :])


@pytest.mark.parametrize(("low", "high"), [(0, 1e-44), (-3e38, 3e38)], ids=["too close", "too far apart"])
def test_grey_levels_that_cannot_be_told_apart_are_refused(low, high):
    with pytest.raises(BoneageError, match="cannot be told apart"):
        decode_grey(pillow(np.where(HAND.mean() < HAND, high, low).astype("float32"), "TIFF", "F"))


def test_the_window_of_a_dicom_file_cuts():
    data = dicom(HAND, WindowCenter=100.5, WindowWidth=101)  # linear from 50 to 150, clipped outside (PS3.3 C.11.2.1.2)
    np.testing.assert_allclose(decode_grey(data), (np.clip(HAND.astype(float), 50, 150) - 50) * 655.35, atol=2)


def test_rescaling_comes_before_the_window():
    data = dicom(HAND, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=100.5, WindowWidth=201)
    np.testing.assert_allclose(decode_grey(data), stretched(np.clip(HAND * 2.0 - 100, 0, 200)), atol=330)


def test_a_voi_lookup_table_is_applied():
    item = pydicom.Dataset()
    item.LUTDescriptor = [256, 0, 16]
    table = (np.arange(256) ** 2).astype(np.uint16)
    item.LUTData = table.tolist()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    data = dicom(HAND, VOILUTSequence=[item])
    np.testing.assert_allclose(decode_grey(data), stretched(table[HAND]), atol=1)


def test_an_rgb_dicom_file():
    np.testing.assert_allclose(decode_grey(dicom(COLOUR, "RGB")), stretched(HAND), atol=1)


def test_a_palette_dicom_file():
    ramp = (np.arange(256)[::-1] * 257).astype(np.uint16).tobytes()  # index 0 is white
    names = ("Red", "Green", "Blue")
    tables = {f"{c}PaletteColorLookupTableData": ramp for c in names}
    tables |= {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in names}
    np.testing.assert_allclose(decode_grey(dicom(255 - HAND, "PALETTE COLOR", **tables)), stretched(HAND), atol=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dicom(None), "the DICOM file holds no pixels"),
        (dicom(np.stack([HAND, HAND]), NumberOfFrames=2), "expected one image, found several frames"),
        (
            dicom(HAND).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"),
            r"the DICOM file cannot be decoded \(",
        ),
        (dicom(HAND)[:-5000], r"the DICOM file cannot be decoded \("),
        (
            dicom(np.dstack([HAND] * 3), "RGB", Columns=HAND.shape[1] // 2, PlanarConfiguration=1),
            "expected one image, found several frames",
        ),
        (dicom(HAND[:1, :1]), r"image sides must lie in 16\.\.16384 px\. Received: 1 x 1"),
    ],
    ids=["no-pixels", "two-frames", "unknown-syntax", "truncated", "twice-the-pixels", "1x1"],
)
def test_dicom_files_that_cannot_be_used(data, message):
    with pytest.raises(BoneageError, match=message) as caught:
        decode_grey(data)
    assert "\n" not in str(caught.value)


# --- one picture, whatever the file


@pytest.mark.parametrize(
    "data",
    [opencv(DEEP, ".png"), opencv(DEEP, ".tif"), dicom(HAND), dicom(HAND.astype(np.uint16) * 16, bits=12),
     dicom(4095 - HAND.astype(np.uint16) * 16, "MONOCHROME1", bits=12), pillow(HAND, "PNG", "RGBA")],
    ids=["png-16", "tiff-16", "dicom-8", "dicom-12", "dicom-inverted", "rgba"],
)  # fmt: skip
def test_the_square_does_not_depend_on_the_kind_of_file(data):
    reference, _, _ = to_square(HAND, 96)
    square, _, _ = to_square(decode_grey(data), 96)
    assert np.abs(square.astype(int) - reference).max() <= 2


# --- files that are broken, or no radiograph


PNG, JPEG, WEBP, TIFF = (pillow(HAND, kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (PNG[: len(PNG) // 2], "the image is truncated"),
        (PNG[:-8], "the image is truncated"),
        (PNG[:33] + b"\xff\xff\x20\x00" + PNG[37:], "the image is truncated"),  # a chunk of 4.3 GB
        (JPEG[: len(JPEG) // 2], "the image is truncated"),
        (WEBP[: len(WEBP) // 2], "the image is damaged"),
        (TIFF[: len(TIFF) // 2], "the image is damaged|too damaged to tell"),
        (PNG[:200] + bytes(100) + PNG[300:], "the image is damaged"),
        (b"this is a letter, not a hand" * 9, r"not an image of a known kind \(PNG, JPEG, WebP, TIFF, DICOM\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*run `git lfs pull`"),
        (opencv(HAND[:1, :1], ".png"), r"image sides must lie in 16\.\.16384 px\. Received: 1 x 1"),
        (png_header(20_000, 20_000), r"Received: 20000 x 20000"),
        (png_header(100, MAX_SIDE + 1), rf"Received: 100 x {MAX_SIDE + 1}"),
        (pillow(HAND, "GIF", save_all=True, append_images=[OTHER]), "expected one image, found several frames"),
        (pillow(HAND, "WEBP", save_all=True, append_images=[OTHER]), "expected one image, found several"),
        (pillow(HAND, "TIFF", save_all=True, append_images=[OTHER]), "expected one image, found several"),
        (pillow(np.where(HAND > 90, np.nan, HAND).astype(np.float32), "TIFF"), "pixels that are not numbers"),
    ],
    ids=["empty", "png-half", "png-end", "png-long-chunk", "jpeg-half", "webp-half", "tiff-half", "png-inside", "text",
         "lfs", "1x1", "20000", "tall", "gif", "webp-animated", "tiff-pages", "nan"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_why(data, message):
    with pytest.raises(BoneageError, match=message) as caught:
        decode_grey(data)
    assert "\n" not in str(caught.value)


def test_reading_bytes(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a b.png") == b"abc"
    with pytest.raises(BoneageError, match="missing image file"):
        read_bytes(tmp_path / "none.png")
    with pytest.raises(BoneageError, match="the file cannot be read"):
        read_bytes(tmp_path)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/data/a.zip!x/1.png", ("/data/a.zip", "x/1.png")),
        ("/data/A.ZIP!1.png", ("/data/A.ZIP", "1.png")),
        ("/wow! data/1.png", ("/wow! data/1.png", None)),
        ("/data/a.zip", ("/data/a.zip", None)),
    ],
)
def test_which_file_to_open(path, parts):
    assert split_archive(path) == parts
