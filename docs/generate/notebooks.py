"""The notebooks of the docs, run again and written with what they print:

    python -m docs.generate.notebooks

Only stdout stays, so that a notebook holds no path, warning or time of the machine that it was run on.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbclient
import nbformat

REPOSITORY = Path(__file__).parents[2]
CELL_S = 600


def main() -> None:
    """Runs all, each below a root of its own."""
    for file in sorted((REPOSITORY / "docs").rglob("*.ipynb")):
        with tempfile.TemporaryDirectory() as root:
            os.environ["CTLLM_ROOT"] = root
            run_notebook(file)


def run_notebook(file: Path) -> None:
    """Writes a notebook with new outputs. Raises what its cells raise."""
    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(REPOSITORY)}}
    nbclient.NotebookClient(notebook, timeout=CELL_S, resources=resources).execute()
    for number, cell in enumerate((each for each in notebook.cells if each.cell_type == "code"), 1):
        cell.outputs = [output for output in cell.outputs if output.get("name") == "stdout"]
        cell.execution_count = number
        cell.metadata = {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, file)
    print(file.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
