"""The notebooks keep their contract as committed, and run from top to bottom on a tiny phantom."""

import ast
import re
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = (
    "00_Data",
    "01_EfficientNetB0",
    "02_EfficientNetB5_ResNet101_Xception",
    "03_GradCAM",
    "04_Model_Testing",
)
MAX_CODE_LINES, MAX_FUNCTION_LINES, MAX_BYTES = 120, 10, 1_000_000
ABSOLUTE_PATH = re.compile(r"""(?<![\w.<:/])/(?:home|work|tmp|root|usr|opt|mnt|kaggle|content|Users)/|\b[A-Z]:\\\\""")


@pytest.fixture(params=NAMES)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4)


def code_cells(notebook) -> list[nbformat.NotebookNode]:
    return [c for c in notebook.cells if c.cell_type == "code"]


def tagged(notebook, tag: str) -> list[nbformat.NotebookNode]:
    return [c for c in code_cells(notebook) if tag in c.metadata.get("tags", [])]


def parsed(cell) -> ast.Module:
    """A cell's syntax tree, without IPython's own commands."""
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!"))))


def nodes(notebook, *kinds):
    return [node for cell in code_cells(notebook) for node in ast.walk(parsed(cell)) if isinstance(node, kinds)]


def outputs(notebook) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def texts(notebook) -> list[str]:
    """All that a reader can read in the outputs."""
    found = [o.text for o in outputs(notebook) if o.output_type == "stream"]
    return found + [v for o in outputs(notebook) for k, v in o.get("data", {}).items() if k.startswith("text/")]


def test_these_are_all_the_notebooks():
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == sorted(NAMES)


def test_it_opens_with_a_title_and_a_question(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# 0\d · \w", first.source)
    assert re.search(r"\*\*Question\.\*\* [^*]+\?", first.source)


def test_its_parameters_come_first_and_are_plain_values(notebook):
    [cell] = tagged(notebook, "parameters")
    assert cell is code_cells(notebook)[0]
    assignments = parsed(cell).body
    assert all(isinstance(a, ast.Assign) for a in assignments)
    values = {a.targets[0].id: ast.literal_eval(a.value) for a in assignments}
    assert values["DATA"] == ""


def test_all_imports_stand_in_one_cell(notebook):
    having = [
        c for c in code_cells(notebook) if any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(parsed(c)))
    ]
    assert having == [code_cells(notebook)[1]]


def test_all_find_the_package_in_the_same_way():
    """A cell that several notebooks share must not drift apart."""
    openings = set()
    for name in NAMES:
        source = code_cells(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4))[1].source
        openings.add(source.partition("sys.path.insert")[0])
    assert len(openings) == 1


def test_its_first_output_says_which_images_it_was_run_on(notebook):
    first = outputs(notebook)[0].data["text/markdown"]
    assert re.match(r"\*\*Run on (the phantom|real radiographs)\*\*", first)


def test_it_shows_versions_and_the_data_by_name(notebook):
    details = outputs(notebook)[1].data["text/markdown"]
    assert re.search(r"Radiographs: `[^/`]+` · runs: `[^/`]+` · Python \d+\.\d+\.\d+, boneage \d", details)


def test_it_is_thin(notebook):
    lines = sum(bool(line.strip()) for cell in code_cells(notebook) for line in cell.source.splitlines())
    assert lines <= MAX_CODE_LINES
    assert not nodes(notebook, ast.ClassDef)
    functions = nodes(notebook, ast.FunctionDef, ast.AsyncFunctionDef)
    assert all(f.end_lineno - f.lineno + 1 <= MAX_FUNCTION_LINES for f in functions)


def test_every_figure_has_a_sentence_under_it(notebook):
    for cell in code_cells(notebook):
        kinds = [next((k for k in ("image/png", "text/markdown") if k in o.get("data", {})), "") for o in cell.outputs]
        following = [after for kind, after in pairwise([*kinds, ""]) if kind == "image/png"]
        assert set(following) <= {"text/markdown"}, cell.source


def test_no_folder_of_a_machine_is_named(notebook):
    for text in [cell.source for cell in notebook.cells] + texts(notebook):
        assert not ABSOLUTE_PATH.search(text), text


def test_no_error_and_no_progress_is_left_in_its_outputs(notebook):
    assert {o.output_type for o in outputs(notebook)} <= {"display_data", "execute_result", "stream"}
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]
    assert not [t for t in texts(notebook) if re.search(r"Traceback|Warning|\d+%\||it/s|epoch \d+/\d+ at", t)]


def test_it_was_executed_from_top_to_bottom(notebook):
    counts = [c.execution_count for c in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_it_ends_with_takeaways(notebook):
    headings = [
        line
        for c in notebook.cells
        if c.cell_type == "markdown"
        for line in c.source.splitlines()
        if line.startswith("#")
    ]
    assert headings[-1] == "## Takeaways"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= MAX_BYTES


@pytest.fixture(scope="module")
def tools():
    """The module `notebooks/execute.py`."""
    sys.path.insert(0, str(FOLDER))
    import execute

    yield execute
    sys.path.remove(str(FOLDER))


def test_a_second_execution_of_unchanged_results_changes_nothing(tools, tmp_path):
    path = tmp_path / "small.ipynb"
    cell = nbformat.v4.new_code_cell("print('seen'); import os; print(1, os.getpid() * 0)", id="a")
    watched = nbformat.v4.new_code_cell("import os; print(os.getpid())", id="b", metadata={"tags": ["progress"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, watched]), path)
    tools.execute(path, tmp_path)
    first = path.read_bytes()
    tools.execute(path, tmp_path)
    assert path.read_bytes() == first
    done = nbformat.read(path, as_version=4)
    assert [o.text for o in done.cells[0].outputs] == ["seen\n1 0\n"]
    assert done.cells[1].outputs == []
    assert done.cells[1].execution_count == 2


def test_a_notebook_that_grows_too_large_is_refused_and_left_alone(tools, tmp_path):
    path = tmp_path / "large.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('x' * 1_000_001)", id="a")]), path)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=r"large\.ipynb takes 1,00\d,\d+ bytes"):
        tools.execute(path, tmp_path)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_all_run_in_order_on_a_tiny_phantom(tools, phantom_dir, tmp_path, monkeypatch):
    """With the real four backbones: 01 and 02 train them, 03 and 04 find what they left."""
    import papermill

    monkeypatch.setenv("BONEAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    given = {"DATA": str(phantom_dir), "OUTPUTS": str(tmp_path / "outputs"), "STAGES": "32x1"}
    for name in NAMES:
        known = papermill.inspect_notebook(FOLDER / f"{name}.ipynb")
        done = papermill.execute_notebook(
            FOLDER / f"{name}.ipynb", tmp_path / f"{name}.ipynb", {k: v for k, v in given.items() if k in known},
            cwd=FOLDER, kernel_name="python3", progress_bar=False,
        )  # fmt: skip
        tools.tidy(done)
        said = [o.data["text/markdown"] for o in outputs(done) if "text/markdown" in o.get("data", {})]
        assert said[0].startswith("**Run on the phantom**")
        assert not [o for o in outputs(done) if o.output_type in ("stream", "error")], name
    runs = sorted(p.parents[1].name for p in (tmp_path / "outputs").glob("*/*/metrics.json"))
    assert runs == ["EfficientNetB0", "EfficientNetB5", "ResNet101", "Xception"]
    assert all(run in done.cells[5].outputs[0].data["text/markdown"] for run in runs)
