"""Making the cache against merely decoding its images with OpenCV, both on all cores.

Decoding is the part that nobody can leave out. A preparation as fast as that has its checks, resizing, window and
bookkeeping for nothing.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import Result, compare, radiographs, rate
from boneage.data.cache import prepare

IMAGES, SIZE, ROUNDS = 40, 256, 5


def decode(path: Path) -> None:
    cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        data, files = radiographs(Path(folder), IMAGES)
        fresh = (Path(folder) / f"cache-{i}" for i in count())

        def decode_all() -> int:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return len(list(pool.map(decode, files)))

        def prepare_all() -> int:
            return len(prepare(data, SIZE, next(fresh)).index)

        decode_all()
        prepared = compare(decode_all, prepare_all, ROUNDS)
    return [
        Result("Preparing, times as fast as OpenCV decodes", prepared.wall, "x", 1, "at least"),
        Result("the same in CPU-seconds", prepared.cpu, "x", 1, "at least"),
        Result("Preparing, all cores", rate(prepared.second), "images/s"),
        Result("OpenCV decoding, all cores", rate(prepared.first), "images/s"),
    ]
