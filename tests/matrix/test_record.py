"""The README shows the matrix that was recorded, and the record has every cell."""

from pathlib import Path

import pytest

from benchmarks import training_matrix
from benchmarks.markdown import find
from tests.matrix.rows import COLUMNS, ROWS

ROOT = Path(__file__).parents[2]
RESULTS = training_matrix.load()
pytestmark = pytest.mark.any_backend


def test_every_cell_has_the_outcome_that_the_tests_demand():
    found = {
        (label, column): cell["outcome"]
        for label, cells in training_matrix.all_rows(RESULTS).items()
        for column, cell in cells.items()
    }
    assert found == {
        (row.label, column): demanded(row, column) for row in ROWS for column in COLUMNS
    }


def demanded(row, column):
    if row.not_tried:
        return "n/a"
    return "unsupported by Keras" if column in row.unsupported else "pass"


def test_what_is_not_a_pass_has_a_reason():
    for cells in training_matrix.all_rows(RESULTS).values():
        for cell in cells.values():
            assert bool(cell.get("why")) == (cell["outcome"] != "pass")


def test_readmes_show_the_record():
    table = find(ROOT / "README.md", "matrix")
    assert table == training_matrix.table(RESULTS)
    assert all(cell.strip() for line in table[2:] for cell in line.split("|")[1:-1])
    notes = find(ROOT / "benchmarks" / "README.md", "matrix notes")
    assert notes == training_matrix.notes(RESULTS)
