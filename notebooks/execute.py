"""Execute the notebooks in place, so that running them again on the same results changes next to nothing.

    python notebooks/execute.py [NAME ...] [--data DIR] [--outputs DIR]

Parameters stay as they are in the notebooks: the folders reach them through the environment, so that no path of this
machine gets into an output.
"""

import argparse
import base64
import io
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
MAX_BYTES = 1_000_000  # of a notebook
PROGRESS = "progress"  # tag of cells that are watched while they run: what they print is not kept
IMAGE = "image/png"
PALETTE_FROM = 40_000  # bytes of a PNG from which 256 colours are worth it


def execute(path: Path, cwd: Path) -> None:
    """Run one notebook and write it back; left as it was when a cell fails or the result is too large."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(cwd)}}).execute()
    tidy(notebook)
    text = nbformat.writes(notebook) + "\n"
    if len(text) > MAX_BYTES:
        raise SystemExit(f"{path.name} takes {len(text):,} bytes, more than {MAX_BYTES:,}: show fewer pictures in it")
    path.write_text(text, encoding="utf-8")


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs from run to run (times, progress, versions of the kernel) and shrink the pictures."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and PROGRESS in tags)]
            for output in cell.outputs:
                output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
                if IMAGE in output.get("data", {}):
                    output.data = {IMAGE: shrink(output.data[IMAGE])}


def shrink(png: str) -> str:
    """A base64 PNG without its metadata and, when large, in 256 colours."""
    data = base64.b64decode(png)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if len(data) >= PALETTE_FROM:
        image = image.quantize(256, dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    image.save(smaller, "PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 03_GradCAM; all of them unless given")
    parser.add_argument("--data", type=Path, help="folder of radiographs; else those found nearby, or the phantom")
    parser.add_argument("--outputs", type=Path, help="folder of runs; else outputs/, for phantom runs outputs/phantom/")
    arguments = parser.parse_args()
    for variable, folder in (("BONEAGE_DATA", arguments.data), ("BONEAGE_OUTPUTS", arguments.outputs)):
        if folder:
            os.environ[variable] = str(folder.resolve())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    paths = [HERE / f"{Path(n).stem}.ipynb" for n in arguments.names] or sorted(HERE.glob("[0-9]*.ipynb"))
    for path in paths:
        print(f"{path.name} ...", flush=True)
        execute(path, HERE)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
