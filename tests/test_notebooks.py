"""Each notebook runs from top to bottom, and its committed outputs end in a picture."""

import os
from pathlib import Path

import keras
import pytest

# The environment of the oldest Keras has no Jupyter; the notebooks are the newest's.
nbformat = pytest.importorskip("nbformat", reason="notebooks run with the newest Keras")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_run_in_order_and_draw(path, monkeypatch):
    """On every backend, in this process: Jupyter takes 20 s to start."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.extend(plt.get_fignums()))
    names = {}
    for cell in code_cells(nbformat.read(path, as_version=4)):
        exec(compile(cell.source, path.name, "exec"), names)
    plt.close("all")
    assert drawn


@pytest.mark.any_backend
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_in_jupyter(path):
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
        output.output_type == "error" for cell in code_cells(notebook) for output in cell.outputs
    )


def last_outputs(notebook):
    return {key for output in code_cells(notebook)[-1].outputs for key in output.get("data", {})}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
