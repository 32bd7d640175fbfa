"""Every strategy and precision in every way to train: `make matrix`."""

import keras
import pytest

from tests.matrix.conftest import one_line
from tests.matrix.rows import COLUMNS, ROWS

OF_THIS_BACKEND = [row for row in ROWS if row.backend == keras.config.backend()]


@pytest.mark.matrix
@pytest.mark.parametrize("row", OF_THIS_BACKEND, ids=lambda row: row.label)
@pytest.mark.parametrize("column", COLUMNS)
def test_cell(row, column, evidence_of, record_property):
    record_property("cell", (row.label, column))
    if row.not_tried:
        record_property("outcome", {"outcome": "n/a", "why": row.not_tried})
        pytest.skip(row.not_tried)
    errors = evidence_of(row, column)
    if column in row.unsupported:
        assert errors["bare"], "the bare optimizer does it: no longer unsupported"
        outcome = {"outcome": "unsupported by Keras", "why": one_line(errors["bare"])}
    else:
        assert errors["wrapped"] is None, errors
        outcome = {"outcome": "pass"}
    record_property("outcome", outcome)
