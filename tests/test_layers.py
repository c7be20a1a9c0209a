"""The floors of the house: what may import what, and what importing costs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BACKENDS = ("keras", "tensorflow", "jax", "torch")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_a_module_imports_only_from_the_floors_below_it():
    """The contracts stand in pyproject.toml."""
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", lint], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout


def test_the_package_and_its_ground_and_data_floors_take_no_backend():
    modules = ["", ".labels", ".config", ".paths", ".errors", ".style"]
    modules += [f".data.{path.stem}" for path in (ROOT / "boneage/data").glob("[a-z]*.py")]
    imports = "; ".join(f"import boneage{name}" for name in modules)
    loaded = run(f"import sys; {imports}; print(*sys.modules)").split()
    assert "boneage.data.cache" in loaded
    assert not set(BACKENDS) & set(loaded)


def test_the_command_line_opens_without_a_backend():
    loaded = run("import sys, boneage.cli; print(*sys.modules)").split()
    assert not set(BACKENDS) & set(loaded)
