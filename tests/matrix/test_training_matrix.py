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
        assert errors["bare"], f"no longer unsupported: {errors}"
        outcome = {"outcome": "unsupported by Keras", "why": one_line(errors["bare"])}
    elif column in row.refused:
        assert errors["bare"] is None
        assert errors["wrapped"].startswith("ValueError: ClippedOptimizer")
        outcome = {"outcome": "n/a", "why": f"refused by keras_clip: {one_line(errors['wrapped'])}"}
    else:
        assert errors["wrapped"] is None, errors
        outcome = {"outcome": "pass"}
    record_property("outcome", outcome)
