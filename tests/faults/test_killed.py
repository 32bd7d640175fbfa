"""kill -9 at a random step, resume, as often as you like: the same bits at the end.

Two kills; `make endurance` asks for twenty.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.killed_program import STEPS

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KERAS_CLIP_KILLS", "2"))

pytestmark = pytest.mark.endurance


def start(folder):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.killed_program", str(folder)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )


def lines_of(process):
    for line in process.stdout:
        word, _, rest = line.strip().partition(" ")
        if word in ("began", "step", "digest"):
            yield word, rest


def run_until_killed(folder, steps):
    """Kill it some steps after its start; return its digest if it ends first."""
    process = start(folder)
    try:
        found = list(_until(process, steps))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return found[0] if found else None


def _until(process, steps):
    began = None
    for word, rest in lines_of(process):
        if word == "digest":
            yield rest
        elif word == "began":
            began = int(rest)
        elif steps is not None and int(rest) - began >= steps:
            return


def test_killed_runs_end_as_the_one_that_was_not(tmp_path):
    whole = run_until_killed(tmp_path / "whole", None)
    assert whole is not None
    chosen, kills = random.Random(5), 0
    # Short enough that kills come before the end; some miss a checkpoint.
    longest = max(3, 2 * STEPS // max(KILLS, 4))
    while (final := run_until_killed(tmp_path / "killed", chosen.randint(1, longest))) is None:
        kills += 1
        if kills == KILLS:
            final = run_until_killed(tmp_path / "killed", None)
            break
    assert kills == KILLS
    assert final == whole
