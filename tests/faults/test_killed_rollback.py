"""kill -9 in the middle of a rollback, resumed from a backup: the same bits at the end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.endurance


def run(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_rollback_program", str(folder), *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_ends_as_if_it_had_not_been_killed(tmp_path):
    whole = run(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "rollbacks 3" in whole.stdout
    killed = run(tmp_path / "killed", "die")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    # The first epoch is in the backup.
    assert "rollbacks 2" in resumed.stdout
    digests = [r.stdout.split("digest ")[1].split()[0] for r in (whole, resumed)]
    assert digests[0] == digests[1]
