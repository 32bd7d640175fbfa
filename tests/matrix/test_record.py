"""The documentation shows the recorded matrix, and the record has every cell."""

from itertools import product
from pathlib import Path

import pytest

from benchmarks import training_matrix
from benchmarks.markdown import find
from tests.matrix.rows import COLUMNS, ROWS

PAGE = Path(__file__).parents[2] / "docs" / "distributed-training.md"
pytestmark = pytest.mark.any_backend


@pytest.fixture
def results():
    return training_matrix.load()


def test_every_cell_has_the_outcome_that_the_tests_demand(results):
    found = {
        (label, column): cell["outcome"]
        for label, cells in training_matrix.all_rows(results).items()
        for column, cell in cells.items()
    }
    cells = product(ROWS, COLUMNS)
    assert found == {(row.label, column): demanded(row, column) for row, column in cells}


def demanded(row, column):
    if row.not_tried or column in row.refused:
        return "n/a"
    return "unsupported by Keras" if column in row.unsupported else "pass"


def test_what_is_not_a_pass_has_a_reason(results):
    for cells in training_matrix.all_rows(results).values():
        for cell in cells.values():
            assert bool(cell.get("why")) == (cell["outcome"] != "pass")


def test_the_page_shows_the_record(results):
    table = find(PAGE, "matrix")
    assert table == training_matrix.table(results)
    assert all(cell.strip() for line in table[2:] for cell in line.split("|")[1:-1])
    assert find(PAGE, "matrix notes") == training_matrix.notes(results)
