"""`make fuzz`: 10,000 spoilt files through the door and the HTTP API. Each is answered or refused; nothing breaks.

The files are made of a phantom hand or, with `--data`, of radiographs: their own files and every other kind, another
radiograph for each process. The model is the best that is shipped. Processes run one after the other, so that a decoder
that crashes or hangs is counted and stops nothing; what breaks is kept in `cache/fuzz/`. Peak memory is what such a
process (model and web application) and a decoder's process beside it held at most while they worked on one file.
Results: benchmarks/fuzz.json.
"""

import contextlib
import io
import json
import math
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from fuzz_files import largest, spoilt
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tqdm import tqdm

from boneage.data.decode import EXTENSIONS
from boneage.paths import write_text
from boneage.serving import Predictor, Refused, door
from boneage.web.app import create_app
from boneage.web.settings import Settings

ROOT = Path(__file__).parents[1]
RESULT, KEPT = ROOT / "benchmarks" / "fuzz.json", ROOT / "cache" / "fuzz"
MOST_MEMORY = 1000  # MB
BATCH = 500  # inputs of one process
WORK = "work"
PATIENCE = 600  # seconds without a word after which a process hangs; cores may be shared
GOOD_FORM = {"sex": "male", "chronological_age_months": "100"}
FORMS = st.sampled_from([GOOD_FORM] * 6 + [{"sex": "female"}, {}]) | st.fixed_dictionaries(
    {},
    optional={
        "sex": st.sampled_from(["male", "female", "", "O", "male\0"]),
        "chronological_age_months": st.sampled_from(["100", "-1", "240.001", "1e999", "nan", "0x10", ""]),
    },
)


def application(predictor):
    """A client of the web application that no rate limits, with the page's token in `csrf`."""
    client = create_app(predictor, Settings(per_minute=1e9, burst=10**9)).test_client()
    client.csrf = re.search(r'data-csrf="([^"]+)"', client.get("/").text)[1]
    return client


def outcome(client, data: bytes, form: dict[str, str]) -> str:
    """What comes of a file: "answered", or the code of a refusal. The page is asked too, with the map.

    Raises
    ------
    AssertionError
        Anything else than a sound answer or a clear refusal.
    """
    if door.kind_of(data) == "unknown":  # the web turns these away before the door; the command line does not
        with contextlib.suppress(Refused):
            door.enter(data)
    response = client.post("/api/v1/predictions", data={"image": (io.BytesIO(data), "hand"), **form})
    told = response.get_json()
    shown = client.post("/inspect", data={"image": (io.BytesIO(data), "hand"), "csrf": client.csrf})
    if response.status_code == 200 and "sex" in form:
        asked = {"image": (io.BytesIO(data), "hand"), "sex": form["sex"], "csrf": client.csrf}
        shown = client.post("/assess", data=asked)
        assert shown.status_code == 200, f"page: status {shown.status_code}"
    assert shown.status_code in (200, 413, 415, 422), f"page: status {shown.status_code}"
    if response.status_code == 200:
        assert all(math.isfinite(told[name]) for name in ("low", "months", "high"))
        assert 0 <= told["low"] <= told["months"] <= told["high"]
        return "answered"
    assert response.status_code in (413, 415, 422), f"status {response.status_code}"
    assert response.mimetype == "application/problem+json"
    assert told["detail"]
    return told["code"]


@click.command()
@click.option("--inputs", default=10_000, show_default=True)
@click.option("--seed", "first", default=0, show_default=True, help="Of the first process; the next has the next.")
@click.option("--model", metavar="RUN", help="Backbone or run folder.  [default: the best exported]")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Radiographs to spoil.")
def main(inputs: int, first: int, model: str | None, data: Path | None) -> None:
    """Spoil files, ask for answers, count what comes; exit code 1 when anything breaks."""
    radiographs = sorted(p for p in data.rglob("*") if p.suffix.lower() in EXTENSIONS) if data else []
    if data and not radiographs:
        raise click.BadParameter(f"no {', '.join(EXTENSIONS)} file in {data}", param_hint="--data")
    random.Random(first).shuffle(radiographs)
    KEPT.mkdir(parents=True, exist_ok=True)
    large = {}
    for name, data in tqdm(largest(door.MAX_PIXELS).items(), desc="largest", unit="file"):
        (KEPT / "large").write_bytes(data)
        large[name] = next(_process(KEPT / "large", model))
    counts, peaks, number = Counter(), [], 0
    with tqdm(total=inputs, unit="file") as bar:
        while counts.total() < inputs:
            radiograph = radiographs[number % len(radiographs)] if radiographs else None
            count = min(BATCH, inputs - counts.total())
            for said, peak in _process(first + number, model, count, radiograph):
                counts[said] += 1
                peaks.append(peak)
                bar.update()
            number += 1
    highest = max(peaks)
    broken = sum(n for said, n in counts.items() if said.startswith("broken"))
    broken += sum(said.startswith("broken") for said, _ in large.values())
    document = {
        "inputs": counts.total(), "radiographs": min(number, len(radiographs)), "seed": first, "broken": broken,
        "outcomes": dict(counts.most_common()),
        "peak_megabytes": round(highest), "peak_against_first": round(highest / peaks[0], 2),
        "largest": {name: {"outcome": said, "peak_megabytes": round(peak)} for name, (said, peak) in large.items()},
    }  # fmt: skip
    write_text(RESULT, json.dumps(document, indent=1) + "\n")
    click.echo(RESULT.read_text())
    sys.exit(bool(broken))


def _process(
    source: Path | int, model: str | None, count: int = 1, radiograph: Path | None = None
) -> Iterator[tuple[str, float]]:
    """Outcome and peak memory (MB) of each input of a process; a crash or a hang is the outcome of the last.

    The source is a file, or the seed of `count` spoilt ones, made of a radiograph or (None) of a phantom hand.
    """
    command = [sys.executable, __file__, WORK, str(source), str(count), model or "", str(radiograph or "")]
    last = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(PATIENCE, process.kill)
        watch.start()
        for line in process.stdout:
            watch.cancel()
            said, _, peak = line.rstrip("\n").rpartition("\t")
            last = float(peak)
            yield said, last
            watch = threading.Timer(PATIENCE, process.kill)
            watch.start()
        watch.cancel()
    if process.returncode:
        _keep("died")
        yield f"broken: exit code {process.returncode}", last


def _keep(why: str) -> None:
    """Put the input at work aside, to look at."""
    (KEPT / "now").replace(KEPT / f"{why}-{len(list(KEPT.iterdir()))}")


def work(source: str, count: int, model: str | None, radiograph: Path | None) -> None:
    """What a process of `_process` does: an input, a line."""
    client = application(Predictor(model))

    def one(data: bytes, form: dict[str, str]) -> None:
        (KEPT / "now").write_bytes(data)
        _forget_peak()
        with _decoders() as held:
            try:
                said = outcome(client, data, form)
            except Exception as error:
                said = f"broken: {type(error).__name__} {error}".splitlines()[0]
        peak = _most_memory("self") + max(held, default=0)
        if peak > MOST_MEMORY:
            said = f"broken: {peak:.0f} MB"
        if said.startswith("broken"):
            _keep("broken")
        print(f"{said}\t{peak:.1f}", flush=True)

    if source.isdigit():
        drawn = given(spoilt(radiograph), FORMS)(one)
        limits = settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(int(source))(limits(drawn))()
    else:
        one(Path(source).read_bytes(), GOOD_FORM)


def _forget_peak() -> None:
    """Begin anew to note the most memory held (Linux, proc(5): clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _most_memory(process: str) -> float:
    """The most memory that a process has held since then, or its start, MB."""
    (line,) = (row for row in Path(f"/proc/{process}/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


@contextlib.contextmanager
def _decoders() -> Iterator[list[float]]:
    """What decoders' processes, looked at every few milliseconds, have held at most, MB."""
    held, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            for children in Path("/proc/self/task").glob("*/children"):
                with contextlib.suppress(OSError, ValueError):  # it has just ended
                    for child in children.read_text().split():
                        if b"dicom_apart" in Path(f"/proc/{child}/cmdline").read_bytes():
                            held.append(_most_memory(child))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield held
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    if sys.argv[1:2] == [WORK]:
        source, number, run, film = sys.argv[2:]
        work(source, int(number), run or None, Path(film) if film else None)
    else:
        main()
