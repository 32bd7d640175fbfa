"""Each notebook runs from top to bottom, and its committed outputs end in a picture."""

import os
from pathlib import Path

import keras
import pytest

# The environment of the oldest Keras has no Jupyter; the notebooks are the newest's.
nbformat = pytest.importorskip("nbformat", reason="notebooks run with the newest Keras")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path):
    import nbclient

    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, "KERAS_BACKEND": keras.config.backend()}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)
    assert "image/png" in last_outputs(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_with_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert "image/png" in last_outputs(notebook)
    assert not any(
        output.output_type == "error"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def last_outputs(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {key for output in code[-1].outputs for key in output.get("data", {})}
