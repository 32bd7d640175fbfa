"""Each notebook runs from top to bottom, and its committed outputs end in a picture."""

import os
from pathlib import Path

import keras
import pytest

# The environment of the oldest Keras has no Jupyter; the notebooks are the newest's.
nbformat = pytest.importorskip("nbformat", reason="notebooks run with the newest Keras")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# The longest takes half a minute on two idle cores, and several times that on busy ones.
LONGEST_CELL_SECONDS = 300

# Other tests cover these too, and each takes a minute.
LONGEST = ("02_exploding_gradients", "03_choosing_a_threshold", "04_scaling_out", "05_spikes")

# Slow, and most of them choose their backend themselves.
pytestmark = pytest.mark.any_backend

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.endurance] * (path.stem in LONGEST), id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_runs_in_jupyter(path):
    """The notebook runs on its own choice of backend, or else on that of the tests."""
    import nbclient

    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, "KERAS_BACKEND": keras.config.backend()}
    client = nbclient.NotebookClient(notebook, timeout=LONGEST_CELL_SECONDS, kernel_name="python3")
    client.execute(env=environment)
    assert "image/png" in last_outputs(notebook)


@each
def test_committed_with_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "image/png" in last_outputs(notebook)
    assert all(cell.execution_count for cell in code_cells(notebook))
    # No errors, and no output of a library on stderr.
    kinds = {output.get("name", output.output_type) for output in all_outputs(notebook)}
    assert kinds <= {"stdout", "display_data"}


@each
def test_outputs_name_no_path_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    texts = [
        o.get("text", "") + str(o.get("data", {}).get("text/plain")) for o in all_outputs(notebook)
    ]
    assert not [
        text for text in texts if any(part in text for part in ("/home/", "/tmp/", "site-packages"))
    ]


def all_outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def last_outputs(notebook):
    return {key for output in code_cells(notebook)[-1].outputs for key in output.get("data", {})}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
