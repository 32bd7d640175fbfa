"""`diagnose`: twelve faults are named, and twenty healthy runs are not.

`record_runs.py` trained the runs. `sentences.txt` has the text about each, for a reader to judge.
To accept changed sentences: `python -m tests.diagnosis.test_diagnose`.
"""

from pathlib import Path

import numpy as np
import pytest

from keras_clip import diagnose

pytestmark = pytest.mark.any_backend

FOLDER = Path(__file__).parent
SENTENCES = FOLDER / "sentences.txt"
NAMED = {
    "learning rate too high": "growing norms",
    "one NaN batch": "nonfinite applied",
    "NaN from one step on": "overflow loop",
    "one batch in thirty overflows": "frequent overflows",
    "a bad batch each epoch": "spikes",
    "a threshold that is far too high": "idle threshold",
    "a threshold that is far too low": "limiter",
    "a step limit that is far too low": "always limited",
    "all units dead": "dead variables",
    "skip_above too low": "frequent skips",
    "AutoClip learns from an explosion": "threshold follows the norms",
    "learning rate of almost nothing": "steps too small",
}


class Recorded:
    """A run from the file, with the attributes of a monitor."""

    def __init__(self, columns):
        self.record = {name: column for name, column in columns.items() if "/" not in name}
        self.variable_norms = {
            name.split("/", 1)[1]: column for name, column in columns.items() if "/" in name
        }


def _runs():
    runs = {}
    with np.load(FOLDER / "runs.npz") as file:
        for key in file:
            group, name, column = key.split("/", 2)
            runs.setdefault((group, name), {})[column] = file[key]
    return {key: Recorded(columns) for key, columns in runs.items()}


RUNS = _runs()
HEALTHY = [name for group, name in RUNS if group == "healthy"]


def _sentences():
    return "".join(f"{group}, {name}:\n{diagnose(run)}\n\n" for (group, name), run in RUNS.items())


def test_twenty_healthy_runs():
    assert len(HEALTHY) == 20


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_run_has_no_findings(name):
    assert diagnose(RUNS["healthy", name]).findings == ()


@pytest.mark.parametrize("name", NAMED)
def test_fault_is_named_first(name):
    assert diagnose(RUNS["faulty", name]).findings[0].name == NAMED[name]


def test_sentences_are_those_a_reader_judged():
    assert _sentences() == SENTENCES.read_text()


if __name__ == "__main__":
    SENTENCES.write_text(_sentences())
