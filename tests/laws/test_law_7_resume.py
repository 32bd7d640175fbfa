"""Law 7: save, load in a new process, continue: bit-identical to never having stopped."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]
CASES = [
    ("keras", "number"),
    ("keras", "schedule"),
    ("keras", "accumulation"),
    ("weights", "accumulation"),
]
if keras.config.backend() == "tensorflow":
    CASES.append(("checkpoint", "accumulation"))


def run(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "tests.laws.resume_program", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return next(line for line in result.stdout.splitlines() if line.startswith("digest"))


@pytest.mark.parametrize(("format_name", "kind"), CASES)
def test_resumed_in_a_new_process(format_name, kind, tmp_path):
    run(format_name, kind, tmp_path, "1")
    assert run(format_name, kind, tmp_path, "2") == run(format_name, kind, tmp_path, "1,2")
