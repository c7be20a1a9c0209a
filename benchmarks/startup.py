"""How long a user waits before anything happens: `import boneage`, `boneage --help`, a first answer, a server.

The one benchmark with limits in seconds, since a person does the waiting; beside them, as a ratio, an interpreter that
does nothing. The model is the best that is shipped; the first of the rounds fills the disk cache and does not count.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2

from benchmarks.common import Result
from benchmarks.load import server
from boneage.data.phantom import render

ROUNDS = 5


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        hand = Path(folder) / "hand.png"
        cv2.imwrite(str(hand), render(120, 1, 0, 768).image)
        jobs = {
            "nothing": _command("-c", "pass"),
            "import": _command("-c", "import boneage"),
            "help": _command("-m", "boneage", "--help"),
            "predict": _command("-m", "boneage", "predict", hand, "--sex", "M"),
            "serve": _serve,
        }
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(ROUNDS + 1):
            for name, job in jobs.items():
                seconds[name].append(job())
    waited = {name: median(values[1:]) for name, values in seconds.items()}
    return [
        Result("`import boneage`", waited["import"], "s", 0.3, "at most"),
        Result("`import boneage` against an interpreter that does nothing", waited["import"] / waited["nothing"], "x"),
        Result("`boneage --help`", waited["help"], "s", 0.5, "at most"),
        Result("`boneage --help` against an interpreter that does nothing", waited["help"] / waited["nothing"], "x"),
        Result("`boneage predict`, one image (768 px PNG)", waited["predict"], "s", 3, "at most"),
        Result("`boneage serve`, until it listens", waited["serve"], "s", 3, "at most"),
    ]


def _command(*arguments) -> Callable[[], float]:
    def wait() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    return wait


def _serve() -> float:
    start = time.perf_counter()
    with server():
        return time.perf_counter() - start
