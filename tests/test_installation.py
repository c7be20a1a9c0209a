"""What the extras of pyproject.toml bring: the versions that are tested, enough to answer, no more than is promised."""

import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from serving_run import encoded, exported  # noqa: F401

from boneage.data.phantom import render

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PROMISED = 400 * 2**20  # bytes that `serve` may take, as docs/serving.md says

ANSWER = """
import sys, io
blocked, run, film = sys.argv.pop(1).split(), sys.argv[1], sys.argv[2]
sys.modules.update(dict.fromkeys(blocked))  # importing any of them fails
sys.argv = ["boneage", "predict", film, "--sex", "F", "--model", run, "--csv", film + ".csv", "--overlay", film + ".d"]
from boneage.cli import main
main()
from boneage.serving import Predictor
from boneage.web.app import create_app
import boneage.web.serve
client = create_app(Predictor(run)).test_client()
form = {"image": (io.BytesIO(open(film, "rb").read()), "hand.png"), "sex": "female"}
print("web:", client.post("/api/v1/predictions", data=form).status_code, client.get("/").status_code)
"""
COMMAND = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))
from boneage.cli import main
main()
"""


def brought(*extras: str) -> set[str]:
    """Names of the distributions that the package and these extras of it bring, those that they need in turn too."""
    found, pending = set(), [*PROJECT["dependencies"], *(pin for extra in extras for pin in EXTRAS[extra])]
    while pending:
        requirement = Requirement(pending.pop())
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            pending += distribution(name).requires or ()
    return found


def others(*extras: str) -> str:
    """The modules of all installed distributions that these extras do not bring."""
    kept = brought(*extras) | {"boneage"}
    return " ".join(m for m, by in packages_distributions().items() if not kept & {canonicalize_name(n) for n in by})


def python(code: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_extra_takes_the_pinned_versions_and_together_they_take_all():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("#")[0].strip() for line in lines} - {""}
    asked = {*PROJECT["dependencies"], *(pin for pins in EXTRAS.values() for pin in pins)}
    assert asked == {
        pin for pin in pinned if not pin.startswith("jupyter==")
    }  # of the notebooks, which no extra brings


def test_what_answers_is_as_small_as_promised():
    size = sum(path.stat().st_size for path in (ROOT / "boneage").rglob("*") if path.is_file())
    size += sum(file.locate().stat().st_size for name in brought("serve") for file in distribution(name).files)
    assert size < PROMISED
    assert f"under {PROMISED >> 20} MB" in (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_extra_serve_is_enough_for_predict_and_the_web(exported, tmp_path):  # noqa: F811
    (tmp_path / "hand.png").write_bytes(encoded(render(100, 0, seed=5, height=192).image))
    missing = others("serve")
    assert {"keras", "tensorflow", "pandas", "scipy", "sklearn", "matplotlib", "kornia_rs"} <= set(missing.split())
    done = python(ANSWER, missing, exported, tmp_path / "hand.png")
    assert "90 % interval" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "web: 200 200"


def test_the_extra_dicom_is_enough_for_the_node():
    code = COMMAND.partition("from boneage.cli")[0] + "import boneage.serving.dicom_node, boneage.serving.dicom_report"
    assert python(code, others("dicom")).stderr == ""


@pytest.mark.parametrize(
    ("command", "lacks", "extra"),
    [(("train", "--data", "x"), "keras", "train"), (("dicom-node", "--peer", "A@127.0.0.1:1"), "pynetdicom", "dicom"),
     (("predict", "x.png"), "onnxruntime", "serve")],
)  # fmt: skip
def test_a_command_that_lacks_a_package_names_the_extra_that_brings_it(command, lacks, extra):
    done = python(COMMAND, lacks, *command)
    assert done.returncode == 2
    assert done.stderr == f"error: {lacks} is missing; install with: pip install 'boneage[{extra}]'\n"
