"""The notebook of the docs runs from its first cell to its last, and prints what it shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "docs/tutorials/pages_to_answer.ipynb"
CELL_S = 600
#: What a cell prints that is the same wherever it runs: counts, the rule of a page, sizes.
STEADY = ("pages kept", "is more than", "->", "rows:", "parameters", "steps,", "64 [", "<-")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_the_notebook_goes_from_pages_to_an_answer_and_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_ray: None
) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("CTLLM_ROOT", str(tmp_path / "out"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    shown = printed_lines(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_S, kernel_name="python3", resources={"metadata": {"path": str(REPOSITORY)}}
    )
    client.execute()
    printed = printed_lines(notebook)
    steady = [line for line in shown if any(mark in line for mark in STEADY)]
    assert len(steady) >= len(STEADY)
    for line in steady:
        assert line in printed
    assert any(line.startswith("春天") for line in printed)


def printed_lines(notebook: Any) -> list[str]:
    """What the cells printed to stdout."""
    texts = [
        output["text"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.get("name") == "stdout"
    ]
    return "".join(texts).splitlines()


def test_the_notebook_holds_no_path_of_the_machine_it_was_run_on() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"output_type": "stream"' in text  # it shows what it prints
    for private in ("/tmp/", "/work/", "/home/", "/root/"):
        assert private not in text
