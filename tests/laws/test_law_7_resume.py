"""Law 7: save, load in a new process, continue: bit-identical to a run without a stop."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.laws import resume_program

ROOT = Path(__file__).parents[2]
# Each trains and compiles for seconds: `make test` has each kind of file, and all clippers' state.
CASES = [
    ("keras", "accumulation"),
    ("keras", "family"),
    *(
        pytest.param(case, marks=pytest.mark.endurance)
        for case in [("keras", "number"), ("keras", "schedule"), ("keras", "skipping")]
    ),
    ("weights", "accumulation"),
]
if keras.config.backend() == "tensorflow":
    CASES.append(("checkpoint", "accumulation"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of the cases that this process saves."""
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def never_stopped(folder, request):
    """Return the digests of the requested cases: they save halfway and go on."""
    here = [item for item in request.session.items if item.fspath == request.node.fspath]
    cases = [item.callspec.params["case"] for item in here]
    return {"-".join(case): resume_program.never_stopped(case, folder) for case in cases}


@pytest.fixture(scope="module")
def resumed(folder, never_stopped):
    """Return the digests of a new process that resumed from the saved files."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.laws.resume_program", str(folder)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [line for line in result.stdout.splitlines() if line.startswith("digest ")]
    return dict(line.removeprefix("digest ").split(maxsplit=1) for line in lines)


@pytest.mark.exhaustive  # `test_law_7_files` loads files of the oldest Keras
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_resumed_in_a_new_process(case, resumed, never_stopped):
    assert resumed["-".join(case)] == never_stopped["-".join(case)]
