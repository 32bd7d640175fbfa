"""The results of cells, made once for all rows that share processes, and their record."""

import re
from pathlib import Path
from typing import Any

import keras
import pytest

from benchmarks import training_matrix
from benchmarks.environment import versions
from tests.matrix.launch import Wanted, evidence

# Enough to find an error.
LONGEST = 160


def pytest_addoption(parser):
    parser.addoption("--write-matrix", type=Path, help="JSON file that outcomes are merged into")


def pytest_configure(config):
    path = config.getoption("write_matrix", None)
    if path is not None:
        config.pluginmanager.register(Recorder(path))


class Recorder:
    """Writes the result of each cell, also a failure."""

    def __init__(self, path):
        self.path = path
        self.cells: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report):
        properties = dict(report.user_properties)
        if "cell" not in properties or report.when != "call":
            return
        label, column = properties["cell"]
        outcome = properties.get("outcome", {"outcome": "FAILED"})
        self.cells.setdefault(label, {})[column] = outcome

    def pytest_sessionfinish(self):
        backend = keras.config.backend()
        training_matrix.record(self.path, backend, versions(), self.cells)


@pytest.fixture(scope="session")
def evidence_of(request):
    """Runs a row's processes for all chosen cells when the first cell asks."""
    found: dict[Any, Any] = {}

    def of_cell(row, column):
        if (row, column) not in found:
            found.update(found_for(chosen_with(row, request.session.items)))
        return found[row, column]

    return of_cell


def found_for(wanted: Wanted) -> dict[Any, Any]:
    try:
        return evidence(wanted)
    except Exception as error:
        # Run all their cells at once: each would start the processes again.
        nothing = {"wrapped": f"{type(error).__name__}: {error}", "bare": None}
        return {(row, column): nothing for row, columns in wanted.items() for column in columns}


def chosen_with(row, items) -> Wanted:
    wanted: Wanted = {}
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        other = parameters.get("row")
        if other and other.launch == row.launch and not other.not_tried:
            wanted.setdefault(other, []).append(parameters["column"])
    return wanted


def one_line(error: str) -> str:
    """Return the text of an error, without colors, values and Keras's note on its place."""
    text = re.sub(r"\x1b\[\d+m", "", error)
    text = re.sub(r"Exception encountered when calling \S+\s+", "", text)
    text = " ".join(re.sub(r"\{.*\}", "{...}", text, flags=re.DOTALL).split())
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."
