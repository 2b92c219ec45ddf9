"""The notebooks run from top to bottom, and what is committed of them is a whole, clean run with its pictures."""

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
PICTURES = {"1_vae": 7, "2_gan": 8, "3_diffusion": 7, "4_compare": 5}  # the fewest that the text speaks of
PATHS = re.compile(r"(?<![\w.:/])(?:/[\w.-]+){2,}|[A-Za-z]:\\")  # absolute ones
MOST_BYTES = 600_000

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def texts(output: NotebookNode) -> list[str]:
    """Return what an output shows as text; pictures are left out."""
    data: dict[str, Any] = output.get("data", {})
    shown = [value for kind, value in data.items() if kind.startswith("text/")]
    return [*shown, output.get("text", ""), *output.get("traceback", [])]


def test_there_is_a_notebook_for_each_family_and_one_that_compares_them() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


@each_notebook
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_GENERATIVE_FAST", "1")
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))  # no user's kernels and settings
    notebook = read(path)
    sources = [cell.source for cell in code_cells(notebook)]
    folder = tmp_path / "run"
    folder.mkdir()
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, record_timing=False
    )
    client.execute()
    assert [cell.source for cell in code_cells(notebook)] == sources
    assert number_of_pictures(notebook) >= PICTURES[path.stem]
    warned = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not [text for text in warned if re.search("(?i)warning|error", text)], warned


def number_of_pictures(notebook: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


@each_notebook
def test_what_is_committed_is_a_whole_run_in_order(path: Path) -> None:
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert number_of_pictures(read(path)) >= PICTURES[path.stem]


@each_notebook
def test_committed_outputs_have_no_error_no_warning_and_no_path_of_a_machine(path: Path) -> None:
    notebook = read(path)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    shown = [text for output in outputs(notebook) for text in texts(output)]
    assert not [text for text in shown if re.search("Warning|Traceback", text)]
    assert not [found for text in shown for found in PATHS.findall(re.sub(r"<[^>]*>", "", text))]
    assert os.path.expanduser("~") not in "".join(shown)


@each_notebook
def test_a_notebook_is_small_and_says_nothing_of_who_ran_it(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert not [cell for cell in notebook.cells if cell.metadata]


@each_notebook
def test_a_notebook_has_equations_exercises_and_references(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert text.count("$$") >= 2
    assert text.count("$$") % 2 == 0
    assert len(re.findall(r"(?<!\$)\$(?!\$)", text)) % 2 == 0
    assert "## Exercises" in text
    assert text.index("## Exercises") < text.index("## References")
    assert not re.search(r"\bTEXT$|TODO", text, re.MULTILINE)
