"""`python -m boneage.data.gdcm_apart`: a DICOM file on standard input, its pixels (`.npy`) on standard output, by GDCM.

GDCM alone reads some of what archives hold, JPEG-lossless foremost. Of a damaged file it may end the whole process; so
it gets one of its own.
"""

import io
import sys

import numpy as np
import pydicom


def main() -> None:
    dicom = pydicom.dcmread(io.BytesIO(sys.stdin.buffer.read()))
    dicom.pixel_array_options(decoding_plugin="gdcm")
    np.save(sys.stdout.buffer, dicom.pixel_array, allow_pickle=False)


if __name__ == "__main__":
    main()
