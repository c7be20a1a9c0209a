"""How long a user waits before anything happens: `import boneage` and `boneage --help`.

The one benchmark with limits in seconds, since a person does the waiting; beside them, as a ratio, an interpreter that
does nothing.
"""

import subprocess
import sys
import time
from statistics import median

from benchmarks.common import Result

ROUNDS = 5


def run() -> list[Result]:
    commands = {"nothing": ["-c", "pass"], "import": ["-c", "import boneage"], "help": ["-m", "boneage", "--help"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):
        for name, arguments in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    waited = {name: median(values[1:]) for name, values in seconds.items()}  # the first round fills the disk cache
    return [
        Result("`import boneage`", waited["import"], "s", 0.3, "at most"),
        Result("`import boneage` against an interpreter that does nothing", waited["import"] / waited["nothing"], "x"),
        Result("`boneage --help`", waited["help"], "s", 0.5, "at most"),
        Result("`boneage --help` against an interpreter that does nothing", waited["help"] / waited["nothing"], "x"),
    ]
