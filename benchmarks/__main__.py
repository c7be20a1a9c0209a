"""`python -m benchmarks` measures everything and renders benchmarks/README.md; `... NAME` measures one and prints.

`python -m benchmarks --save NAME` puts that one's rows into the results beside those of the others.
"""

import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.common import Result
from boneage.paths import write_text

HERE = Path(__file__).parent
NAMES = (
    "startup",
    "input_pipeline",
    "prepare",
    "epoch",
    "fused",
    "memory",
    "determinism",
    "gradcam",
    "predictor",
    "load",
)
LIBRARIES = ("keras", "tensorflow", "numpy", "pandas", "scipy", "opencv-python-headless", "pillow")
BEGIN, END = "<!-- results: rendered by python -m benchmarks -->", "<!-- end of results -->"


def main(arguments: list[str]) -> None:
    wanted = [argument for argument in arguments if argument != "--save"]
    unknown = set(wanted) - set(NAMES)
    if unknown:
        sys.exit(f"error: no benchmark {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    document = {
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "results": [],
    }
    for name in wanted or NAMES:
        print(f"{name}: measuring ...", flush=True)
        load = round(os.getloadavg()[0], 2)
        for result in importlib.import_module(f"benchmarks.{name}").run():
            print(f"  {result.name}: {_number(result.value)} {result.unit}{_verdict(result.ok)}", flush=True)
            document["results"].append(
                {"benchmark": name, **vars(result), "value": _rounded(result.value), "ok": result.ok, "load": load}
            )
    if not wanted or "--save" in arguments:
        others = json.loads((HERE / "results.json").read_text(encoding="utf-8"))["results"] if wanted else []
        document["results"] += [row for row in others if row["benchmark"] not in wanted]
        document["results"].sort(key=lambda row: NAMES.index(row["benchmark"]))
        write_text(HERE / "results.json", json.dumps(document, indent=1) + "\n")
        readme = (HERE / "README.md").read_text(encoding="utf-8")
        before, _, rest = readme.partition(BEGIN)
        write_text(HERE / "README.md", f"{before}{BEGIN}\n{table(document)}\n{END}{rest.partition(END)[2]}")


def table(document: dict) -> str:
    """The Markdown of a results.json: one row a number."""
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    lines = [
        f"{document['cores']} cores ({document['machine']}); {versions}. Load is that of the minute before.\n",
        "| Benchmark | What | Measured | Target | Met | Load |",
        "|---|---|--:|--:|:-:|--:|",
    ]
    for row in document["results"]:
        result = Result(*(row[key] for key in ("name", "value", "unit", "target", "direction")))
        target = "" if result.target is None else f"{result.direction} {result.target:g} {result.unit}"
        met = {None: "", True: "yes", False: "**no**"}[result.ok]
        cells = (row["benchmark"], result.name, f"{_number(result.value)} {result.unit}", target, met)
        lines.append(f"| {' | '.join(cells)} | {row['load']:.2f} |")
    return "\n".join(lines)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{_rounded(value):.3g}"


def _verdict(ok: bool | None) -> str:
    return {None: "", True: "  (target met)", False: "  (TARGET MISSED)"}[ok]


if __name__ == "__main__":
    main(sys.argv[1:])
