"""Every notebook of the cookbook runs from top to bottom, on the small real model."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tale_core.local import PATH_VARIABLE, SMALL_MODEL, find_weights

COOKBOOK = Path(__file__).parents[2] / "cookbook"
NOTEBOOKS = sorted(COOKBOOK.glob("*.ipynb"))

# The small model rambles: short answers are all that plumbing needs.
SHORTER = {
    "01_langchain": (
        'MODEL = "local"',
        (
            "from langchain_openai import ChatOpenAI\n"
            'MODEL = ChatOpenAI(base_url="{url}", api_key="{key}", model="{model}", max_tokens=40,\n'
            "    stream_usage=True)"
        ),
    ),
    "02_llamaindex": ("max_tokens=512", "max_tokens=40"),
}


def test_the_cookbook_has_a_notebook_for_each_framework():
    assert [path.stem for path in NOTEBOOKS] == sorted(SHORTER)


@pytest.mark.model
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, small_model, monkeypatch):
    monkeypatch.setenv(PATH_VARIABLE, str(find_weights(SMALL_MODEL).path))
    before, after = SHORTER[path.stem]
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    changed = [cell for cell in notebook.cells if before in cell.source]
    assert changed
    for cell in changed:
        cell.source = cell.source.replace(
            before,
            after.format(url=small_model.base_url, key=small_model.api_key, model=small_model.model),
        )
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": COOKBOOK}}
    )
    client.execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_its_outputs_and_without_a_trace_of_the_machine(path):
    text = path.read_text(encoding="utf-8")
    cells = [cell for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "run it once with the default model"
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert "/home/" not in text
    assert "/root/" not in text
