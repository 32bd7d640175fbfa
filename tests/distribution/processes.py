"""Child processes that run a program and print JSON, and never outlive the test."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def results_of(
    program: str, *arguments: str, processes: int = 1, timeout: float = 300, **environment: str
) -> list[Any]:
    """What each of `processes` that run `program` together prints on its last line.

    The program gets the arguments, its rank, the number of processes and a file to meet by: a
    port that is free now may be taken by the time it is used.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = (str(processes), str(Path(folder) / "meeting"))
        children = [
            _start(program, [*arguments, str(rank), *meeting], Path(folder), environment)
            for rank in range(processes)
        ]
        try:
            codes = [child.wait(timeout) for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        return [_result(Path(folder), rank, code) for rank, code in enumerate(codes)]


def _start(
    program: str, arguments: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    output = folder / f"output-{arguments[-3]}"
    with output.open("wb") as stdout, output.with_suffix(".errors").open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", program, *arguments],
            stdout=stdout,
            stderr=stderr,
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        )


def _result(folder: Path, rank: int, code: int) -> Any:
    output = folder / f"output-{rank}"
    assert code == 0, output.with_suffix(".errors").read_text()[-4000:]
    return json.loads(output.read_text().splitlines()[-1])


def strict_warnings() -> None:
    """Have warnings raise, as in the tests' own process."""
    warnings.simplefilter("error")
    message = "__array__ implementation doesn't accept a copy keyword"
    warnings.filterwarnings("ignore", message, DeprecationWarning)


def message_of(action: Any) -> str:
    """Type and message of the error that `action` raises, or what it returns."""
    try:
        return f"returned {action()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
