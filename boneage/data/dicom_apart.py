"""`python -m boneage.data.dicom_apart`: a DICOM file on standard input, its pixels (`.npy`) on standard output.

For compressed pixels. Of a damaged file GDCM may end the whole process; so decoders get one of their own, and a limit
to its memory. What is wrong with a file is told on standard output, exit code 1.
"""

import io
import sys

import numpy as np
import pydicom

MOST_MEMORY = 600_000_000  # bytes


def main() -> None:
    _limit_memory()
    try:
        dicom = pydicom.dcmread(io.BytesIO(sys.stdin.buffer.read()))
        dicom.pixel_array_options(index=0)  # not the others that a file may hold without saying so
        pixels = dicom.pixel_array
    except Exception as error:  # pydicom and its decoders raise many kinds
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise SystemExit(1) from error
    np.save(sys.stdout.buffer, pixels, allow_pickle=False)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has none of it
        return
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


if __name__ == "__main__":
    main()
